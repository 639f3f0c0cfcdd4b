"""The baselines' processes: the product's, but for what is compared."""

from __future__ import annotations

import httpx

from tasks.names import MAINTENANCE_QUEUE
from tests.benchmarks.processes import Product


class Batching(Product):
    """The product's gateway, workers that let messages gather."""

    celery_app = "tests.benchmarks.baselines.batching"


class Chain(Product):
    """A gateway that starts chains, workers that run them."""

    gateway_module = "tests.benchmarks.baselines.chain_gateway"
    celery_app = "tests.benchmarks.baselines.chain"

    def wait_healthy(self) -> None:
        """Nobody serves the pipeline's queues here, so the product would never call itself healthy."""

        def is_served() -> bool:
            checks = httpx.get(f"{self.web_url}/healthz").json()["checks"]
            names = ["redis", "mongodb", f"queue {MAINTENANCE_QUEUE}"]
            return all(checks.get(name, {}).get("status") == "ok" for name in names)

        self._wait("the chain's worker", is_served)


STACKS: dict[str, type[Product]] = {"product": Product, "batching": Batching, "chain": Chain}
