"""What the product says of itself: its counters, and the memory of its gateway."""

from __future__ import annotations

from collections import defaultdict

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.benchmarks.processes import Product
from tests.benchmarks.report import ENCODED, ENCODED_SHARE, NODE_EVENTS, WAKEUPS

SCRAPE_SECONDS = 20

CONNECTIONS = "im_online_connections"


def read_counters(web_url: str) -> dict[str, float]:
    """Counters by name, summed over their labels, and by ``name{label values}``."""
    answer = httpx.get(f"{web_url}/metrics", timeout=SCRAPE_SECONDS)
    answer.raise_for_status()
    found: dict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found[sample.name] += sample.value
            if sample.labels:
                found[f"{sample.name}{{{','.join(sample.labels.values())}}}"] += sample.value
    return found


def figures_of(before: dict[str, float], after: dict[str, float], sent: int) -> dict[str, float]:
    """What a message cost in counted things, from before the first to after the last one."""

    def rise(name: str) -> float:
        return after.get(name, 0.0) - before.get(name, 0.0)

    encoded = rise("im_gateway_frames_encoded_total")
    pushed = rise("im_gateway_frames_sent_total{push}")
    return {
        NODE_EVENTS: round(rise("im_push_node_events_total") / max(sent, 1), 4),
        ENCODED: round(encoded / max(sent, 1), 4),
        ENCODED_SHARE: round(encoded / pushed, 4) if pushed else 0.0,
        WAKEUPS: round(rise("im_wakeups_total") / max(sent, 1), 4),
    }


class GatewayFootprint:
    """Memory of the first gateway, against what it had when this was made."""

    def __init__(self, product: Product) -> None:
        self._process = psutil.Process(product.pids["gateway0"])
        self._before = self._process.memory_info().rss

    def kib_per(self, connections: int) -> float:
        return (self._process.memory_info().rss - self._before) / 1024 / max(connections, 1)
