"""Where conversations end, told to a client that came back and does not ask.

OpenIM's Go core (browser, phone) syncs when it connects, but not when its last sync began less than 5 s ago. What was said
while such a client was away it finds by the gap in the next push, and of a conversation in which nothing more is said it
never finds the end. So it is pushed the newest message of each conversation that had one meanwhile. Who has that message
ignores it: its seq is not new. The Python SDK also asks 1001, but shows what is pushed, and is left alone.
"""

from __future__ import annotations

import asyncio
import logging

import redis
from pymongo.errors import PyMongoError

from gateway.codecs.base import Response
from gateway.connections import FRAMES_PER_TURN, Connection
from imserver.actions import pull
from imserver.clock import now_ms
from imserver.constants import ReqIdentifier
from imserver.storage.clients import get_async_redis
from imserver.storage.recent_syncs import RecentSyncs
from imserver.storage.route_finder import is_written_to

logger = logging.getLogger(__name__)

#: A client that syncs has asked by then. One that asks later hears of its newest messages twice, which does no harm.
WAIT_SECONDS = 2.0
#: Users of a node that fell and of the next one look at the same time.
LOOKS_AT_ONCE = 8
#: Seqs are dated by the workers' clocks, syncs by the gateways'.
CLOCK_SLACK_MS = 2000


class Tails:
    """Of this node's connections."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(LOOKS_AT_ONCE)

    async def note_sync(self, connection: Connection) -> None:
        """The client asks where its conversations end; called before they are looked up."""
        connection.has_synced = True
        try:
            await RecentSyncs(get_async_redis()).note(connection.user_id, connection.token, now_ms())
        except redis.RedisError as error:
            _warn(connection, "", error)

    async def expect_sync(self, connection: Connection, operation_id: str) -> None:
        """A connection was registered: if its client may think that it synced just now, tell it later what it missed."""
        try:
            since_ms = await RecentSyncs(get_async_redis()).find(connection.user_id, connection.token)
        except redis.RedisError as error:
            _warn(connection, operation_id, error)
            return
        if since_ms:
            task = asyncio.get_running_loop().create_task(self._tell(connection, since_ms, operation_id))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _tell(self, connection: Connection, since_ms: int, operation_id: str) -> None:
        await asyncio.sleep(WAIT_SECONDS)
        if not _waits(connection):
            return
        try:
            async with self._places:
                payloads = await pull.get_tails(connection.user_id, since_ms - CLOCK_SLACK_MS)
        except (redis.RedisError, PyMongoError) as error:
            _warn(connection, operation_id, error)
            return
        for at in range(0, len(payloads), FRAMES_PER_TURN):
            await connection.relief()
            if not _waits(connection):
                return
            for payload in payloads[at : at + FRAMES_PER_TURN]:
                response = Response(ReqIdentifier.PUSH_MSG, operation_id=operation_id, data=payload)
                connection.push("", connection.encode(response))
            await asyncio.sleep(0)
        if payloads:
            logger.info(
                "newest messages told", extra={**_about(connection, operation_id), "conversations": len(payloads)}
            )


def _waits(connection: Connection) -> bool:
    return (
        not connection.has_synced
        and not connection.is_leaving
        and is_written_to(connection.platform_id, is_background=connection.is_background)
    )


def _about(connection: Connection, operation_id: str) -> dict[str, object]:
    return {"action": "tails", "operation_id": operation_id, "user_id": connection.user_id}


def _warn(connection: Connection, operation_id: str, error: Exception) -> None:
    """A hint, like every push: what it was to bring comes with the client's next sync."""
    logger.warning("newest messages not told", extra={**_about(connection, operation_id), "error": repr(error)[:300]})
