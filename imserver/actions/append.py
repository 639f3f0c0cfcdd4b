"""The door into the pipeline. Appends of one event-loop turn (and those that come while a call is out) share one call."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from typing import Any
from weakref import WeakKeyDictionary

from imserver import metrics
from imserver.conf import get_config
from imserver.errors import ServerBusy, StorageUnavailable
from imserver.protocol.conversations import shard_of_key
from imserver.storage import logs
from imserver.storage.lean_redis import get_async_lean_redis
from imserver.storage.logs import Append
from tasks.wakeup import wake_soon

logger = logging.getLogger(__name__)

#: Most messages in one call, so that a script stays short.
MOST_PER_CALL = 500


class Appender:
    """Collects appends of one event loop."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Append, asyncio.Future[bytes]]] = []
        self._flusher: asyncio.Task[None] | None = None

    def submit(self, item: Append) -> asyncio.Future[bytes]:
        """The answer, once the message is in its log: the given one, or the first one when it was there already.

        The future raises ServerBusy when the log is full, StorageUnavailable when Redis is not reachable.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bytes] = loop.create_future()
        shard = shard_of_key(item.key, get_config().shards)
        self._waiting.append((shard, item, future))
        if self._flusher is None:
            self._flusher = loop.create_task(self._flush())
        return future

    async def _flush(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MOST_PER_CALL], self._waiting[MOST_PER_CALL:]
                await self._append(batch)
        finally:
            self._flusher = None

    async def _append(self, batch: list[tuple[int, Append, asyncio.Future[bytes]]]) -> None:
        by_shard: dict[int, list[tuple[Append, asyncio.Future[bytes]]]] = defaultdict(list)
        for shard, item, future in batch:
            by_shard[shard].append((item, future))
        try:
            results: dict[int, Any] = await logs.append(
                get_async_lean_redis(), {shard: [item for item, _ in items] for shard, items in by_shard.items()}
            )
        except Exception as error:  # noqa: BLE001  (whatever it was, every waiting sender must hear of it)
            results = dict.fromkeys(by_shard, error)
        for shard, items in by_shard.items():
            self._settle(shard, items, results[shard])

    def _settle(self, shard: int, items: list[tuple[Append, asyncio.Future[bytes]]], result: Any) -> None:
        if isinstance(result, Exception):
            logger.error("append failed", extra={"action": "append", "shard": shard}, exc_info=result)
            for _, future in items:
                _fail(future, StorageUnavailable("the message log is not reachable; send again"))
            return
        due, *outcomes = result
        if due:
            wake_soon("transfer", shard)
        for (item, future), outcome in zip(items, outcomes, strict=True):
            if outcome == 0:
                metrics.BUSY.inc()
                _fail(future, ServerBusy("too many messages wait; send again later"))
            elif future.cancelled():
                continue
            elif outcome == 1:
                metrics.APPENDED.labels(item.entrance).inc()
                future.set_result(item.answer)
            else:
                metrics.DUPLICATES.inc()
                future.set_result(outcome)


def _fail(future: asyncio.Future[bytes], error: Exception) -> None:
    if not future.cancelled():
        future.set_exception(error)


_appenders: WeakKeyDictionary[asyncio.AbstractEventLoop, Appender] = WeakKeyDictionary()


def get_appender() -> Appender:
    """The running event loop's appender."""
    loop = asyncio.get_running_loop()
    appender = _appenders.get(loop)
    if appender is None:
        appender = _appenders[loop] = Appender()
    return appender
