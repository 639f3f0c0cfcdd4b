"""2005: whose online status this node's connections want to know, and telling them.

A subscription lives with its connection. The node follows each user once, however many connections ask; changes that
come together leave as one frame a connection, encoded once for those who want to know the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable

import redis

from gateway.codecs.base import Response
from gateway.connections import FRAMES_PER_TURN, Connection
from imserver import metrics
from imserver.actions import presence
from imserver.constants import ReqIdentifier
from imserver.protocol.gen.sdkws_pb2 import SubUserOnlineStatusTips
from imserver.storage.status_feed import StatusFeed

logger = logging.getLogger(__name__)

#: Changes gather for this long: a node that dies takes thousands of users along, and a connection's queue is short.
GATHER_SECONDS = 0.02
#: After a failure to read how everybody is.
RETRY_SECONDS = 1.0

Platforms = dict[str, list[int]]


def encode_tips(platforms: Platforms) -> bytes:
    """SubUserOnlineStatusTips: an answer, or what a push carries."""
    tips = SubUserOnlineStatusTips()
    for user_id, platform_ids in platforms.items():
        tips.subscribers.add(userID=user_id, onlinePlatformIDs=platform_ids)
    return tips.SerializeToString()


class StatusSubscriptions:
    def __init__(self) -> None:
        self._watchers: dict[str, dict[str, Connection]] = defaultdict(dict)
        self._watched: dict[str, set[str]] = {}
        #: What is known of each user who is watched. A list is never changed, so that "is" tells whether news came.
        self._known: Platforms = {}
        self._changed: set[str] = set()
        self._unwatched: set[str] = set()
        #: Who is watched again nevertheless is to be followed.
        self._unfollowed: set[str] = set()
        self._feed: StatusFeed | None = None
        self._telling: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        #: News were missed that what is being read may not hold.
        self._is_stale = False

    async def change(self, connection: Connection, wanted: list[str], unwanted: list[str]) -> Platforms:
        """Subscribe and unsubscribe; returns how everybody in ``wanted`` is. An id in both is subscribed.

        Who is one too many for a connection is told of, but not followed: OpenIM's Go core waits until it was told of
        everybody, and goes on waiting when it is refused.

        Raises:
            ArgsError: too many users.  redis.RedisError: they cannot be followed now. Then nothing was changed.
        """
        wanted = presence.check_asked(wanted, presence.MOST_USERS_ASKED_BY_SOCKET)
        mine = self._watched.get(connection.id, set())
        gone = mine.intersection(unwanted).difference(wanted)
        room = presence.MOST_SUBSCRIBED - len(mine) + len(gone)
        new = [user_id for user_id in wanted if user_id not in mine][:room]
        followed = mine.union(new)
        self._add(connection, new)
        platforms: Platforms = {}
        try:
            for at in range(0, len(wanted), presence.MOST_USERS_ASKED):
                part = wanted[at : at + presence.MOST_USERS_ASKED]
                platforms |= await self._read([user_id for user_id in part if user_id in followed])
                platforms |= await presence.get_online_platforms(
                    [user_id for user_id in part if user_id not in followed]
                )
        except BaseException:
            self._remove(connection, new)
            raise
        self._remove(connection, gone)
        return platforms

    def drop(self, connection: Connection) -> None:
        """The connection is gone."""
        self._remove(connection, set(self._watched.get(connection.id, ())))

    async def tidy(self) -> None:
        """Unfollow whom nobody watches any more. Called with the heartbeat: connections come and go in crowds."""
        gone = {user_id for user_id in self._unwatched if user_id not in self._watchers}
        self._unwatched.clear()
        for user_id in gone:
            self._known.pop(user_id, None)
        if self._feed is None:
            return
        try:
            if gone:
                await self._feed.unfollow(gone)
        finally:
            # Somebody may have come while that was on its way. If it failed, that is left to the next heartbeat.
            self._unfollowed |= gone
        self._unfollowed = {user_id for user_id in self._unfollowed if user_id in self._watchers}
        if self._unfollowed:
            await self._feed.follow(self._unfollowed)
            self._unfollowed.clear()
            self._read_soon()

    async def close(self) -> None:
        tasks = [task for task in (self._telling, self._reading) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._feed is not None:
            await self._feed.close()

    # -- who watches whom

    def _add(self, connection: Connection, user_ids: Iterable[str]) -> None:
        for user_id in user_ids:
            self._watchers[user_id][connection.id] = connection
            self._watched.setdefault(connection.id, set()).add(user_id)

    def _remove(self, connection: Connection, user_ids: Iterable[str]) -> None:
        mine = self._watched.get(connection.id, set())
        for user_id in user_ids:
            mine.discard(user_id)
            watchers = self._watchers.get(user_id)
            if watchers is not None:
                watchers.pop(connection.id, None)
                if not watchers:
                    del self._watchers[user_id]
                    self._unwatched.add(user_id)
        if not mine:
            self._watched.pop(connection.id, None)

    # -- what is known

    async def _read(self, user_ids: list[str]) -> Platforms:
        """How users are, now that their changes are followed."""
        if not user_ids:
            return {}
        if self._feed is None:
            self._feed = StatusFeed(self._learn, self._read_soon)
        await self._feed.follow(user_ids)
        before = {user_id: self._known.get(user_id) for user_id in user_ids}
        found = await presence.get_online_platforms(user_ids)
        for user_id, platforms in found.items():
            if self._known.get(user_id) is before[user_id]:
                self._learn(user_id, platforms)
            # Else news came while we read. What was read may be older, and if it is newer, its news are on the way.
        return {user_id: self._known.get(user_id, found[user_id]) for user_id in user_ids}

    def _learn(self, user_id: str, platforms: list[int]) -> None:
        if user_id not in self._watchers:
            return
        before = self._known.get(user_id)
        self._known[user_id] = platforms
        if before is not None and before != platforms:
            self._changed.add(user_id)
            if self._telling is None:
                self._telling = asyncio.get_running_loop().create_task(self._tell())

    def _read_soon(self) -> None:
        """News may have been missed: read how everybody is who is watched."""
        if not self._known:
            return
        self._is_stale = True
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().create_task(self._read_all())

    async def _read_all(self) -> None:
        while self._is_stale:
            self._is_stale = False
            await self._read_those([user_id for user_id in self._known if user_id in self._watchers])

    async def _read_those(self, left: list[str]) -> None:
        while left:
            try:
                await self._read(left[: presence.MOST_USERS_ASKED])
            except redis.RedisError as error:
                logger.warning("status of users not read", extra={"action": "status", "error": repr(error)})
                await asyncio.sleep(RETRY_SECONDS)
            else:
                left = left[presence.MOST_USERS_ASKED :]

    # -- telling

    async def _tell(self) -> None:
        try:
            while self._changed:
                await asyncio.sleep(GATHER_SECONDS)
                changed, self._changed = self._changed, set()
                await self._tell_watchers(changed)
        finally:
            self._telling = None

    async def _tell_watchers(self, changed: set[str]) -> None:
        news: dict[str, list[str]] = defaultdict(list)
        connections: dict[str, Connection] = {}
        for user_id in changed:
            for connection in self._watchers.get(user_id, {}).values():
                news[connection.id].append(user_id)
                connections[connection.id] = connection
        frames: dict[tuple[tuple[str, bool], tuple[str, ...]], bytes] = {}
        for number, (connection_id, user_ids) in enumerate(news.items(), start=1):
            connection, about = connections[connection_id], tuple(user_ids)
            frame = frames.get((connection.encoding, about))
            if frame is None:
                # As they are now: of a user who changes meanwhile, the newer state leaves twice and the older never last.
                data = encode_tips({user_id: self._known[user_id] for user_id in about if user_id in self._known})
                frame = connection.encode(Response(ReqIdentifier.SUB_USER_ONLINE_STATUS, data=data))
                frames[connection.encoding, about] = frame
                metrics.FRAMES_ENCODED.inc()
            if connection_id in self._watched:
                connection.push("", frame)
            if number % FRAMES_PER_TURN == 0:
                await asyncio.sleep(0)
