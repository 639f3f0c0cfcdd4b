"""Where conversations end, told to clients that do not ask: one that came back, and all of a node that may have missed pushes.

OpenIM's Go core (browser, phone) syncs when it connects, but not when its last sync began less than 5 s ago. What was said
while such a client was away it finds by the gap in the next push, and of a conversation in which nothing more is said it
never finds the end. So it is pushed the newest message of each conversation that had one meanwhile. Who has that message
ignores it: its seq is not new. OpenIM's Python and JavaScript SDKs show what is pushed, however often, and are left alone.

The sockets of a node stay open while it hears nothing, or is thought dead, so its clients notice nothing. Afterwards they are
told in the same way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import redis
from pymongo.errors import PyMongoError

from gateway.codecs.base import Response
from gateway.connections import FRAMES_PER_TURN, Connection, ConnectionTable
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
#: … and a push leaves some time after its seq was given out.
PUSH_SLACK_MS = 10_000
#: Between two looks for users of a node that missed something, of which there may be ten thousand: at most 400 a second.
PAUSE_SECONDS = 0.02
#: After a store did not answer.
RETRY_SECONDS = 1.0


class Tails:
    """Of this node's connections."""

    def __init__(self, connections: ConnectionTable) -> None:
        self._connections = connections
        self._tasks: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(LOOKS_AT_ONCE)
        #: Users who are still to be told what was said since then, in ms.
        self._missed: dict[str, int] = {}
        #: Tasks that tell them.
        self._tellers = 0

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
            self._start(self._expect(connection, since_ms, operation_id))

    def make_up(self, since_ms: int) -> None:
        """Pushes since then may have been missed: tell every user, a few at a time."""
        for connection in self._connections.all():
            self._missed.setdefault(connection.user_id, since_ms)
        while self._tellers < min(LOOKS_AT_ONCE, len(self._missed)):
            self._tellers += 1
            self._start(self._make_up())

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _expect(self, connection: Connection, since_ms: int, operation_id: str) -> None:
        await asyncio.sleep(WAIT_SECONDS)
        if connection.has_synced or not _is_told(connection):
            return
        try:
            async with self._places:
                payloads = await pull.get_tails(connection.user_id, since_ms - CLOCK_SLACK_MS)
        except (redis.RedisError, PyMongoError) as error:
            _warn(connection, operation_id, error)
            return
        await self._push(connection, payloads, operation_id, lambda: not connection.has_synced)

    async def _make_up(self) -> None:
        try:
            while self._missed:
                user_id = next(iter(self._missed))
                since_ms = self._missed.pop(user_id)
                try:
                    async with self._places:
                        await self._tell_user(user_id, since_ms)
                except (redis.RedisError, PyMongoError, RuntimeError) as error:
                    # Nobody else will tell, so it is tried until it is done. RuntimeError is a transport that was closed.
                    self._missed[user_id] = min(since_ms, self._missed.get(user_id, since_ms))
                    logger.warning("newest messages not told", extra={"action": "make_up", "error": repr(error)[:300]})
                    await asyncio.sleep(RETRY_SECONDS)
                except Exception as error:
                    logger.error(
                        "newest messages not told", extra={"action": "make_up", "user_id": user_id}, exc_info=error
                    )
                await asyncio.sleep(PAUSE_SECONDS)
        finally:
            self._tellers -= 1

    async def _tell_user(self, user_id: str, since_ms: int) -> None:
        connections = [item for item in self._connections.of_users([user_id]) if _is_told(item)]
        if connections:
            # Who came later has synced.
            since_ms = max(since_ms, min(item.since_ms for item in connections))
            payloads = await pull.get_tails(user_id, since_ms - PUSH_SLACK_MS)
            for connection in connections if payloads else ():
                # On its own: who reads slowly holds up nobody else.
                self._start(self._push(connection, payloads))

    async def _push(
        self,
        connection: Connection,
        payloads: list[bytes],
        operation_id: str = "",
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        for at in range(0, len(payloads), FRAMES_PER_TURN):
            await connection.relief()
            if not is_wanted() or not _is_told(connection):
                return
            for payload in payloads[at : at + FRAMES_PER_TURN]:
                response = Response(ReqIdentifier.PUSH_MSG, operation_id=operation_id, data=payload)
                connection.push("", connection.encode(response))
            await asyncio.sleep(0)
        if payloads:
            logger.info(
                "newest messages told", extra={**_about(connection, operation_id), "conversations": len(payloads)}
            )


def _is_told(connection: Connection) -> bool:
    return (
        not connection.shows_repeats
        and not connection.is_leaving
        and is_written_to(connection.platform_id, is_background=connection.is_background)
    )


def _about(connection: Connection, operation_id: str) -> dict[str, object]:
    return {"action": "tails", "operation_id": operation_id, "user_id": connection.user_id}


def _warn(connection: Connection, operation_id: str, error: Exception) -> None:
    """A hint, like every push: what it was to bring comes with the client's next sync."""
    logger.warning("newest messages not told", extra={**_about(connection, operation_id), "error": repr(error)[:300]})
