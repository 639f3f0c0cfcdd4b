"""One connection to Redis without the driver's layers around each command.

The draining threads make three round trips a message when there is little to do, and most of what such a round trip costs
is in the client: looking for a free connection, options and callbacks by command, retries. Here several commands are packed
into one write and their replies are read as they come, at about a third of that (docs/performance.md).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from imserver.storage.clients import new_redis

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


def error_in(replies: list[Any]) -> redis.RedisError | None:
    """The first error among replies."""
    return next((reply for reply in replies if isinstance(reply, redis.RedisError)), None)
