"""Who a message concerns: owners of a new conversation, receivers of a push."""

from __future__ import annotations

import time

import pymongo
import redis
from pymongo.database import Database
from pymongo.errors import PyMongoError

from imserver.constants import Option, SessionType
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.protocol.options import is_on
from imserver.storage import groups
from imserver.storage.clients import Document

LOOK_UP_SECONDS = 1.0
#: MongoDB was away less than this ago: it is not asked.
AWAY_SECONDS = 1.0


class Receivers:
    """Looks groups up; raises PyMongoError when a group is not cached and MongoDB is away (at once for a moment then)."""

    def __init__(self, client: redis.Redis, database: Database[Document]) -> None:
        self._redis = client
        self._database = database
        self._away_until = 0.0

    def owners(self, first: MsgData) -> list[str]:
        """Who gets a conversation record when this is a conversation's first message."""
        if first.sessionType == SessionType.GROUP:
            return self._members(first.groupID)
        if first.sessionType == SessionType.NOTIFICATION:
            return [first.recvID]
        return list({first.sendID, first.recvID})

    def of(self, msg: MsgData) -> list[str]:
        """Who is to get a message online: the receiver, the sender's connections where senderSync is on, the members."""
        if msg.sessionType == SessionType.GROUP:
            return self._members(msg.groupID, include_leavers=msg.contentType in groups.LEAVER_NOTIFICATIONS)
        if msg.sendID != msg.recvID and is_on(msg, Option.SENDER_SYNC):
            return [msg.recvID, msg.sendID]
        return [msg.recvID]

    def _members(self, group_id: str, *, include_leavers: bool = False) -> list[str]:
        # While MongoDB is away, what Redis or the process knows must do: a batch of many groups cannot wait for each.
        database = self._database if time.monotonic() >= self._away_until else None
        try:
            with pymongo.timeout(LOOK_UP_SECONDS):
                return groups.member_ids(self._redis, database, group_id, include_leavers=include_leavers)
        except PyMongoError:
            self._away_until = time.monotonic() + AWAY_SECONDS
            raise
