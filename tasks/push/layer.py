"""An event loop for tasks, which run on threads: one loop thread a process, for the channel layer's receiving side."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import wait as wait_for
from typing import Any, TypeVar

from cachetools import cached

T = TypeVar("T")

#: What takes longer is an outage.
TIMEOUT_SECONDS = 10

_background: set[asyncio.Task[None]] = set()


@cached({}, condition=threading.Condition(), info=True)
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="channel-layer", daemon=True).start()
    return loop


def stop() -> None:
    """End the loop thread, if there is one: what it waits for is about to go."""
    if _loop.cache_info().currsize:
        loop = _loop()
        _loop.cache_clear()
        loop.call_soon_threadsafe(loop.stop)


def run(coroutine: Coroutine[Any, Any, T], timeout_seconds: float = TIMEOUT_SECONDS) -> T:
    """Run a coroutine on the loop thread and wait for it. Raises what it raises, TimeoutError when it takes too long."""
    future = asyncio.run_coroutine_threadsafe(coroutine, _loop())
    try:
        return future.result(timeout_seconds)
    except BaseException:
        future.cancel()
        raise


def run_keeping(coroutine: Coroutine[Any, Any, T], keep: Callable[[], None], every_seconds: float) -> T:
    """The same, however long it takes; ``keep`` is called meanwhile, and what it raises ends the coroutine."""
    future = asyncio.run_coroutine_threadsafe(coroutine, _loop())
    try:
        while not wait_for([future], every_seconds).done:
            keep()
        return future.result()
    except BaseException:
        future.cancel()
        raise


def start(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Leave a coroutine running; called on the loop thread."""
    task = asyncio.get_running_loop().create_task(coroutine)
    _background.add(task)
    task.add_done_callback(_background.discard)
    return task
