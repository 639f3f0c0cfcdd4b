"""What every message asks about its sender and its receiver, kept in the process: no round trip a message.

Facts of a user: is there such a user, of what level, what does it receive, whom has it blocked. Loaded from MongoDB at the
first sight. Whoever changes one calls ``forget`` after MongoDB was written; that is published, and every process drops what
it has, about a millisecond later. A process that is not subscribed (yet, or because the connection broke) keeps nothing.

Facts are looked at again after FRESH_SECONDS anyway, behind the sender's back: for rows that somebody changed in MongoDB by
hand, and so that a user who is known can go on while MongoDB is away.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import redis
import redis.asyncio
from cachetools import LRUCache

from imserver.storage import keys
from imserver.storage.clients import get_async_mongo, get_async_redis
from imserver.storage.friends import Friends

logger = logging.getLogger(__name__)

#: Collections of storage/users.py and storage/conversations.py.
USERS = "user"
CONVERSATIONS = "conversation"

FRESH_SECONDS = 30
MOST_USERS = 100_000
#: A subscription that is silent for this long is asked for a sign of life.
PING_SECONDS = 5
RETRY_SECONDS = 0.5

SEPARATOR = "\n"


@dataclass(slots=True)
class UserFacts:
    """``receive_options``: recvMsgOpt by conversation id, where it is not 0. ``friends``: who was asked about so far."""

    level: int
    receive_option: int
    blocked: frozenset[str]
    receive_options: dict[str, int]
    loaded_at: float
    friends: dict[str, bool] = field(default_factory=dict)


async def forget(client: redis.asyncio.Redis, user_ids: Iterable[str]) -> None:
    """Facts of these users changed; to be called after MongoDB was written."""
    await client.publish(keys.user_facts_channel(), SEPARATOR.join(user_ids))


def forget_now(client: redis.Redis, user_ids: Iterable[str]) -> None:
    """``forget`` for the admin."""
    client.publish(keys.user_facts_channel(), SEPARATOR.join(user_ids))


class UserFactsCache:
    """The facts that one event loop keeps."""

    def __init__(self) -> None:
        self._known: LRUCache[str, UserFacts] = LRUCache(MOST_USERS)
        self._loads: dict[str, asyncio.Task[UserFacts | None]] = {}
        self._is_live = False
        self._listener = asyncio.get_running_loop().create_task(self._listen())

    async def get(self, user_id: str) -> UserFacts | None:
        """None: no such user. That is not kept: somebody may register under the name.

        Raises:
            pymongo.errors.PyMongoError: the user is not known here, and MongoDB is away.
        """
        facts = self._known.get(user_id)
        if facts is None:
            return await asyncio.shield(self._load(user_id))
        if facts.loaded_at + FRESH_SECONDS < time.monotonic():
            # What is old serves this message still; the next ones have what is loaded meanwhile.
            facts.loaded_at = time.monotonic()
            self._load(user_id)
        return facts

    async def is_friend(self, owner: str, facts: UserFacts, user_id: str) -> bool:
        """Is the user in the friend list of the owner, whose facts these are?"""
        known = facts.friends.get(user_id)
        if known is None:
            known = facts.friends[user_id] = await Friends(get_async_mongo()).is_friend(owner, user_id)
        return known

    def drop(self, user_ids: Iterable[str]) -> None:
        for user_id in user_ids:
            self._known.pop(user_id, None)
            # What is being loaded may be from before the change: whoever waits for it has it, but it is not kept.
            self._loads.pop(user_id, None)

    def _load(self, user_id: str) -> asyncio.Task[UserFacts | None]:
        """One load a user at a time, whoever asks."""
        task = self._loads.get(user_id)
        if task is None:
            task = self._loads[user_id] = asyncio.get_running_loop().create_task(_read(user_id))
            task.add_done_callback(lambda done: self._keep(user_id, done))
        return task

    def _keep(self, user_id: str, done: asyncio.Task[UserFacts | None]) -> None:
        is_current = self._loads.get(user_id) is done
        if is_current:
            del self._loads[user_id]
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            logger.warning("facts of a user not loaded", extra={"action": "user_facts", "error": repr(error)[:300]})
        elif is_current and self._is_live:
            facts = done.result()
            if facts is None:
                self._known.pop(user_id, None)
            else:
                self._known[user_id] = facts

    def _start_anew(self, *, is_live: bool) -> None:
        self._is_live = is_live
        self._known.clear()
        self._loads.clear()

    async def _listen(self) -> None:
        while True:
            try:
                await self._follow()
            except (redis.RedisError, OSError) as error:
                logger.warning(
                    "changes of users not followed", extra={"action": "user_facts", "error": repr(error)[:300]}
                )
            self._start_anew(is_live=False)
            await asyncio.sleep(RETRY_SECONDS)

    async def _follow(self) -> None:
        """Handle what is published, until the connection breaks."""
        async with get_async_redis().pubsub() as subscription:
            await subscription.subscribe(keys.user_facts_channel())
            is_silent = False
            while True:
                message: dict[str, Any] | None = await subscription.get_message(timeout=PING_SECONDS)
                if message is None:
                    if is_silent:
                        raise redis.ConnectionError("the subscription gives no sign of life")
                    is_silent = True
                    await subscription.ping()
                    continue
                is_silent = False
                if message["type"] == "subscribe":
                    # Also after the driver connected again by itself: what was published meanwhile is lost.
                    self._start_anew(is_live=True)
                elif message["type"] == "message":
                    self.drop(message["data"].decode().split(SEPARATOR))


async def _read(user_id: str) -> UserFacts | None:
    database = get_async_mongo()
    user, blocked, options = await asyncio.gather(
        database[USERS].find_one({"user_id": user_id}, {"_id": 0, "app_manger_level": 1, "global_recv_msg_opt": 1}),
        Friends(database).blocked_ids([user_id]),
        _receive_options(user_id),
    )
    if user is None:
        return None
    return UserFacts(
        level=int(user.get("app_manger_level") or 0),
        receive_option=int(user.get("global_recv_msg_opt") or 0),
        blocked=blocked.get(user_id, frozenset()),
        receive_options=options,
        loaded_at=time.monotonic(),
    )


async def _receive_options(user_id: str) -> dict[str, int]:
    cursor = get_async_mongo()[CONVERSATIONS].find(
        {"owner_user_id": user_id, "recv_msg_opt": {"$gt": 0}}, {"_id": 0, "conversation_id": 1, "recv_msg_opt": 1}
    )
    return {document["conversation_id"]: int(document["recv_msg_opt"]) async for document in cursor}


_caches: WeakKeyDictionary[asyncio.AbstractEventLoop, UserFactsCache] = WeakKeyDictionary()


def get_user_facts() -> UserFactsCache:
    """The running event loop's facts."""
    loop = asyncio.get_running_loop()
    cache = _caches.get(loop)
    if cache is None:
        cache = _caches[loop] = UserFactsCache()
    return cache
