"""The channel layer for tasks: it lives on an event loop, tasks on threads, so each process has one loop thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from functools import cache
from typing import Any, TypeVar

from channels.layers import get_channel_layer

T = TypeVar("T")

#: A publish is one Redis call; what takes longer is an outage.
SEND_TIMEOUT_SECONDS = 10


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="channel-layer", daemon=True).start()
    return loop


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the loop thread and wait for it. Raises what it raises, TimeoutError when it takes too long."""
    return asyncio.run_coroutine_threadsafe(coroutine, _loop()).result(SEND_TIMEOUT_SECONDS)


def send_to_nodes(events: dict[str, dict[str, Any]]) -> None:
    """One channel-layer message to each node."""
    run(_send_all(events))


async def _send_all(events: dict[str, dict[str, Any]]) -> None:
    layer = get_channel_layer()
    for node, event in events.items():
        await layer.send(node, event)
