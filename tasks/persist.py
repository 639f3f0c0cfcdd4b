"""Persist: toMongo log -> MongoDB blocks and conversation records. Idempotent by (conversation, seq)."""

from __future__ import annotations

import logging

from google.protobuf.message import DecodeError

from imserver import metrics
from imserver.conf import get_config
from imserver.constants import SessionType
from imserver.protocol.conversations import is_notification_conversation
from imserver.protocol.documents import to_document
from imserver.protocol.gen.log_pb2 import LogBatch
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.storage import conversations
from imserver.storage.clients import get_mongo, get_redis
from imserver.storage.conversations import NewConversation
from imserver.storage.logs import DeadLetter, Entry, Lease
from imserver.storage.msg_blocks import MsgBlockWriter, StoredMsgs
from tasks.drain import Stage
from tasks.transfer import owners_of

logger = logging.getLogger(__name__)


class Persist(Stage):
    name = "persist"

    def __init__(self) -> None:
        self._redis = get_redis()
        self._database = get_mongo()
        self._blocks = MsgBlockWriter(self._database)
        self.gather_ms = get_config().persist_gather_ms

    def process(self, lease: Lease, entries: list[Entry]) -> None:
        batches: list[StoredMsgs] = []
        new: list[NewConversation] = []
        dead: list[DeadLetter] = []
        for _entry_id, fields in entries:
            try:
                conversation_id, first_seq = fields[b"c"].decode(), int(fields[b"s"])
                msgs = [MsgData.FromString(raw) for raw in LogBatch.FromString(fields[b"b"]).msgs]
            except (KeyError, ValueError, DecodeError) as error:
                dead.append(DeadLetter(f"not a batch: {error!r}"[:200], fields))
                continue
            documents = [to_document(msg, first_seq + index) for index, msg in enumerate(msgs)]
            batches.append(StoredMsgs(conversation_id, first_seq, documents))
            if first_seq == 1 and not is_notification_conversation(conversation_id):
                new += new_conversations(conversation_id, msgs[0])
        count = sum(len(batch.msgs) for batch in batches)
        try:
            self._blocks.write(batches)
            conversations.create_records(self._database, new)
        except Exception:
            metrics.PERSISTED.labels("failed").inc(count)
            raise
        conversations.remember_ids(self._redis, {(item.owner_user_id, item.conversation_id) for item in new})
        lease.trim(self._redis, entries[-1][0], dead)
        metrics.PERSISTED.labels("ok").inc(count)
        if dead:
            metrics.DEAD_LETTERS.labels(self.name).inc(len(dead))


def new_conversations(conversation_id: str, first: MsgData) -> list[NewConversation]:
    """The records that a conversation's first message creates, one for each owner."""
    return [
        NewConversation(
            owner_user_id=owner,
            conversation_id=conversation_id,
            conversation_type=first.sessionType,
            user_id="" if first.sessionType == SessionType.GROUP else _peer_of(owner, first),
            group_id=first.groupID,
        )
        for owner in owners_of(first)
    ]


def _peer_of(owner: str, msg: MsgData) -> str:
    return msg.recvID if msg.sendID == owner else msg.sendID
