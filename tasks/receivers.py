"""Who a message concerns: owners of a new conversation, receivers of a push."""

from __future__ import annotations

import redis
from pymongo.database import Database

from imserver.constants import Option, SessionType
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.protocol.options import is_on
from imserver.storage import groups
from imserver.storage.clients import Document


class Receivers:
    """Looks groups up; raises PyMongoError when a group is not cached and MongoDB is away."""

    def __init__(self, client: redis.Redis, database: Database[Document]) -> None:
        self._redis = client
        self._database = database

    def owners(self, first: MsgData) -> list[str]:
        """Who gets a conversation record when this is a conversation's first message."""
        if first.sessionType == SessionType.GROUP:
            return groups.member_ids(self._redis, self._database, first.groupID)
        if first.sessionType == SessionType.NOTIFICATION:
            return [first.recvID]
        return list({first.sendID, first.recvID})

    def of(self, msg: MsgData) -> list[str]:
        """Who is to get a message online: the receiver, the sender's connections where senderSync is on, the members."""
        if msg.sessionType == SessionType.GROUP:
            leavers = msg.contentType in groups.LEAVER_NOTIFICATIONS
            return groups.member_ids(self._redis, self._database, msg.groupID, include_leavers=leavers)
        if msg.sendID != msg.recvID and is_on(msg, Option.SENDER_SYNC):
            return [msg.recvID, msg.sendID]
        return [msg.recvID]
