"""One connection to Redis without the driver's layers around each command.

With little to do, a message costs its round trips: two of the draining thread, one of the gateway. Most of what such a round
trip costs is in the client: looking for a free connection, options and callbacks by command, retries, a time limit for each
read and write. Here several commands are packed into one write and their replies are read as they come
(docs/performance.md has the figures).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from imserver.storage.clients import SOCKET_TIMEOUT_SECONDS, new_async_connection, new_redis, on_close

Command = Sequence[Any]


class LeanRedis:
    """Replies are bytes, numbers and lists of these, as RESP2 has them. Used by one thread at a time.

    Args:
        repeats: send again when the connection turns out to be broken, as after a restart of Redis. Only for commands that
            may run twice.
    """

    def __init__(self, *, repeats: bool) -> None:
        with new_redis() as client:
            self._connection = client.connection_pool.make_connection()
        self._repeats = repeats
        self._lock = threading.Lock()

    def call(self, command: Command) -> Any:
        """The reply to one command. Raises redis.RedisError."""
        (reply,) = self.round_trip([command])
        if isinstance(reply, Exception):
            raise reply
        return reply

    def round_trip(self, commands: list[Command]) -> list[Any]:
        """The replies in order; the error of a command stands in its place. Raises redis.RedisError when Redis is away."""
        if not commands:
            return []
        with self._lock:
            try:
                return self._round_trip(commands)
            except RedisConnectionError:
                if not self._repeats:
                    raise
                return self._round_trip(commands)

    def _round_trip(self, commands: list[Command]) -> list[Any]:
        connection = self._connection
        connection.send_packed_command(connection.pack_commands(commands))
        replies: list[Any] = []
        for _ in commands:
            try:
                replies.append(connection.read_response())
            except ResponseError as error:
                replies.append(error)
        return replies

    def close(self) -> None:
        self._connection.disconnect()


class AsyncLeanRedis:
    """The same for the tasks of an event loop: their round trips follow one another. Repeats as LeanRedis does."""

    def __init__(self) -> None:
        self._connection = new_async_connection()
        self._lock = asyncio.Lock()

    async def round_trip(self, commands: list[Command]) -> list[Any]:
        """The replies in order; the error of a command stands in its place. Raises redis.RedisError when Redis is away."""
        async with self._lock:
            try:
                return await self._round_trip(commands)
            except RedisConnectionError:
                return await self._round_trip(commands)

    async def _round_trip(self, commands: list[Command]) -> list[Any]:
        connection = self._connection
        replies: list[Any] = []
        try:
            async with asyncio.timeout(SOCKET_TIMEOUT_SECONDS):
                await connection.send_packed_command(connection.pack_commands(commands))
                for _ in commands:
                    try:
                        replies.append(await connection.read_response())
                    except ResponseError as error:
                        replies.append(error)
        except TimeoutError as error:
            # What is still to come would be taken for the answer to the next command.
            await connection.disconnect(nowait=True)
            raise RedisTimeoutError("no answer from Redis") from error
        return replies

    async def close(self) -> None:
        await self._connection.disconnect()


_async_lean: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncLeanRedis] = WeakKeyDictionary()


def get_async_lean_redis() -> AsyncLeanRedis:
    """The running event loop's; closed with its other clients."""
    loop = asyncio.get_running_loop()
    lean = _async_lean.get(loop)
    if lean is None:
        lean = _async_lean[loop] = AsyncLeanRedis()

        async def close() -> None:
            del _async_lean[loop]
            await lean.close()

        on_close(close)
    return lean


def error_in(replies: list[Any]) -> redis.RedisError | None:
    """The first error among replies."""
    return next((reply for reply in replies if isinstance(reply, redis.RedisError)), None)
