"""``python -m tests.benchmarks.baselines.chain_gateway``: the product's gateway, but a send starts a chain of tasks.

Sockets, checks, answers and pushes are the product's; only the door into the pipeline is another one.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from gateway.asgi import application
from gateway.node import get_node
from imserver.actions import outgoing
from imserver.actions.append import Appender
from imserver.conf import get_config
from imserver.serve import serve
from imserver.storage.logs import Append
from tests.benchmarks.baselines.chain import publish


class ChainStarter(Appender):
    """Publishing blocks, so it has a thread; only one, so that the messages of a sender keep their order at least here."""

    def __init__(self) -> None:
        super().__init__()
        self._publisher = ThreadPoolExecutor(1, "chain")

    def submit(self, item: Append) -> asyncio.Future[bytes]:
        return asyncio.ensure_future(self._start(item))

    async def _start(self, item: Append) -> bytes:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._publisher, publish, item.msg, item.operation_id)
        return item.answer


@cache
def get_starter() -> ChainStarter:
    return ChainStarter()


if __name__ == "__main__":
    # The module that sends looks its appender up by this name.
    vars(outgoing)["get_appender"] = get_starter
    serve(application, get_config().gateway_port, on_start=get_node().start, on_stop=get_node().drain)
