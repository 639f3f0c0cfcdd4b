"""The only place that opens Redis and MongoDB clients.

Sync clients serve the tasks (one a process, thread-safe), async clients the gateway and web (one an event loop).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakKeyDictionary

import redis
import redis.asyncio
from pymongo import AsyncMongoClient, MongoClient
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.database import Database
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from imserver.conf import get_config
from imserver.runtime import one_a_process

Document = dict[str, Any]


def as_text(reply: bytes | str) -> str:
    """A Redis reply as text. Replies are bytes here; the driver's types say either."""
    return reply.decode() if isinstance(reply, bytes) else reply


#: A stuck server must not hold a thread for ever; longer than any blocking read of ours.
SOCKET_TIMEOUT_SECONDS = 10
CONNECT_TIMEOUT_SECONDS = 3
MONGO_TIMEOUT_MS = 2000
#: What was written is trimmed from the logs, so it must be on disk; a stand-alone mongod says yes before that by itself.
DURABLE: dict[str, Any] = {"w": "majority", "journal": True}
_MONGO_OPTIONS: dict[str, Any] = {
    "serverSelectionTimeoutMS": MONGO_TIMEOUT_MS,
    "connectTimeoutMS": MONGO_TIMEOUT_MS,
    "socketTimeoutMS": 30_000,
    "appname": "imserver",
    **DURABLE,
}
#: Of an event loop to Redis.
MOST_CONNECTIONS = 100


def _redis_options() -> dict[str, Any]:
    return {
        "socket_timeout": SOCKET_TIMEOUT_SECONDS,
        "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
        **({} if get_config().redis_url.startswith("unix:") else {"socket_keepalive": True}),
        "health_check_interval": 0,
        # RESP2: the shapes of stream replies that the rest of the code reads.
        "protocol": 2,
    }


def new_redis(*, url: str = "") -> redis.Redis:
    """A sync client of its own. The caller closes it.

    Args:
        url: of another server than that of the data.
    """
    return redis.Redis.from_url(
        url or get_config().redis_url, retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), 2), **_redis_options()
    )


@one_a_process
def get_redis() -> redis.Redis:
    """The process's sync client."""
    return new_redis()


@one_a_process
def get_mongo_client() -> MongoClient[Document]:
    return MongoClient(
        get_config().mongo_url,
        **_MONGO_OPTIONS,
    )


def get_mongo() -> Database[Document]:
    """The process's sync database."""
    return get_mongo_client()[get_config().mongo_database]


_async_redis: WeakKeyDictionary[asyncio.AbstractEventLoop, redis.asyncio.Redis] = WeakKeyDictionary()
_closers: WeakKeyDictionary[asyncio.AbstractEventLoop, list[Callable[[], Awaitable[None]]]] = WeakKeyDictionary()
_async_mongo: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncMongoClient[Document]] = WeakKeyDictionary()


def get_async_redis() -> redis.asyncio.Redis:
    """The running event loop's client."""
    loop = asyncio.get_running_loop()
    client = _async_redis.get(loop)
    if client is None:
        # Many clients that come back at once wait for a connection; the pool's own kind would refuse them.
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            get_config().redis_url,
            max_connections=MOST_CONNECTIONS,
            timeout=SOCKET_TIMEOUT_SECONDS,
            retry=redis.asyncio.retry.Retry(ExponentialBackoff(cap=0.5, base=0.05), 2),
            **_redis_options(),
        )
        client = _async_redis[loop] = redis.asyncio.Redis.from_pool(pool)
    return client


def new_async_connection() -> redis.asyncio.Connection:
    """A connection of its own, without time limits: who uses it sets them around each use, which is cheaper."""
    options = {**_redis_options(), "socket_timeout": None}
    pool = redis.asyncio.ConnectionPool.from_url(get_config().redis_url, **options)
    connection: redis.asyncio.Connection = pool.make_connection()  # type: ignore[no-untyped-call]
    return connection


def on_close(close: Callable[[], Awaitable[None]]) -> None:
    """Have something of the running loop closed with its clients."""
    _closers.setdefault(asyncio.get_running_loop(), []).append(close)


def get_async_mongo() -> AsyncDatabase[Document]:
    """The running event loop's database."""
    loop = asyncio.get_running_loop()
    client = _async_mongo.get(loop)
    if client is None:
        client = _async_mongo[loop] = AsyncMongoClient(
            get_config().mongo_url,
            **_MONGO_OPTIONS,
        )
    return client[get_config().mongo_database]


async def close_async_clients() -> None:
    """Close the running loop's clients; the next use opens new ones."""
    loop = asyncio.get_running_loop()
    for close in _closers.pop(loop, []):
        await close()
    redis_client = _async_redis.pop(loop, None)
    if redis_client is not None:
        await redis_client.aclose()
    mongo_client = _async_mongo.pop(loop, None)
    if mongo_client is not None:
        await mongo_client.close()
