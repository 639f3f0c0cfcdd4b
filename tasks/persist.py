"""Persist: toMongo log -> MongoDB blocks and conversation records. Idempotent by (conversation, seq)."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import redis
from bson.errors import InvalidDocument, InvalidStringData
from google.protobuf.message import DecodeError

from imserver import metrics
from imserver.conf import get_config
from imserver.constants import SessionType
from imserver.protocol.conversations import is_notification_conversation
from imserver.protocol.documents import to_document
from imserver.protocol.gen.log_pb2 import LogBatch
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.storage import conversations, webhooks
from imserver.storage.clients import get_mongo, get_redis
from imserver.storage.conversations import NewConversation
from imserver.storage.logs import DeadLetter, Entry, Lease, LeaseLost, ScriptCall
from imserver.storage.msg_blocks import MsgBlockWriter, StoredMsgs, WriteFailed
from imserver.storage.scripts import get_script
from tasks.drain import Stage, trace_of
from tasks.receivers import Receivers
from tasks.wakeup import wake

logger = logging.getLogger(__name__)

#: Of all shards in one write, and of a shard at least: an entry may hold hundreds, and a write of all that an outage left would
#: outlast the leases.
MOST_MSGS, LEAST_MSGS_OF_SHARD = 10_000, 500
#: What the driver says of a document that MongoDB can never hold.
BSON_REFUSALS = (InvalidDocument, InvalidStringData, OverflowError)


@dataclass(slots=True)
class Work:
    """What the first entries of a batch come to. ``saved``: fields of those that the after-save webhook is told of."""

    last_entry_id: bytes
    batches: list[StoredMsgs] = field(default_factory=list)
    new: list[NewConversation] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    saved: list[dict[bytes, bytes]] = field(default_factory=list)

    @property
    def count(self) -> int:
        return sum(len(batch.msgs) for batch in self.batches)


class Persist(Stage):
    name = "persist"
    shares_round_trips = True

    def __init__(self) -> None:
        self._redis = get_redis()
        self._database = get_mongo()
        self._blocks = MsgBlockWriter(self._database)
        self._receivers = Receivers(self._redis, self._database)
        self.gather_ms = get_config().persist_gather_ms

    def process(self, lease: Lease, entries: list[Entry]) -> None:
        work = self._parse(entries, MOST_MSGS)
        try:
            self._blocks.write(work.batches)
            conversations.create_records(self._database, work.new)
        except BSON_REFUSALS:
            self._set_aside(lease, entries)
            return
        except WriteFailed as error:
            if error.is_permanent:
                self._set_aside(lease, entries)
                return
            metrics.PERSISTED.labels("failed").inc(work.count)
            raise
        except Exception:
            metrics.PERSISTED.labels("failed").inc(work.count)
            raise
        conversations.remember_ids(self._redis, {(item.owner_user_id, item.conversation_id) for item in work.new})
        answer = get_script("trim").run(self._redis, *self._trim_call(lease, work))
        self._conclude(lease, work, answer)

    def process_many(self, batches: list[tuple[Lease, list[Entry]]]) -> list[Exception | None]:
        """One write and one round trip for all shards; what goes wrong is tried again by the runner, shard by shard."""
        most = max(MOST_MSGS // len(batches), LEAST_MSGS_OF_SHARD)
        works = [self._parse(entries, most) for _lease, entries in batches]
        self._blocks.write([batch for work in works for batch in work.batches])
        new = [item for work in works for item in work.new]
        conversations.create_records(self._database, new)
        conversations.remember_ids(self._redis, {(item.owner_user_id, item.conversation_id) for item in new})
        calls = [self._trim_call(lease, work) for (lease, _), work in zip(batches, works, strict=True)]
        outcomes: list[Exception | None] = []
        for (lease, _), work, answer in zip(
            batches, works, get_script("trim").run_many(self._redis, calls), strict=True
        ):
            try:
                self._conclude(lease, work, answer)
            except (LeaseLost, redis.ResponseError) as error:
                outcomes.append(error)
            else:
                outcomes.append(None)
        return outcomes

    def _trim_call(self, lease: Lease, work: Work) -> ScriptCall:
        is_hooked = webhooks.AFTER_SAVE in webhooks.enabled_after_kinds(self._database)
        hand_on = [{**fields, b"h": b"after_save"} for fields in work.saved] if is_hooked else []
        return lease.trim_call(work.last_entry_id, work.dead, next_stage="webhook", hand_on=hand_on)

    def _conclude(self, lease: Lease, work: Work, answer: Any) -> None:
        if lease.is_wake_due(answer):
            wake("webhook", lease.shard)
        metrics.PERSISTED.labels("ok").inc(work.count)
        if work.dead:
            metrics.DEAD_LETTERS.labels(self.name).inc(len(work.dead))

    def _parse(self, entries: list[Entry], most_msgs: int) -> Work:
        """Of as many entries, from the first, as it takes to have so many messages."""
        work, count = Work(entries[0][0]), 0
        for entry_id, fields in entries:
            if count >= most_msgs:
                break
            work.last_entry_id = entry_id
            try:
                conversation_id, first_seq = fields[b"c"].decode(), int(fields[b"s"])
                msgs = [MsgData.FromString(raw) for raw in LogBatch.FromString(fields[b"b"]).msgs]
            except (KeyError, ValueError, DecodeError) as error:
                work.dead.append(DeadLetter(f"not a batch: {error!r}"[:200], fields))
                continue
            documents = [to_document(msg, first_seq + index) for index, msg in enumerate(msgs)]
            work.batches.append(StoredMsgs(conversation_id, first_seq, documents))
            count += len(documents)
            if is_notification_conversation(conversation_id):
                continue
            work.saved.append(fields)
            if fields.get(b"n") == b"1":
                work.new += new_conversations(conversation_id, msgs[0], self._receivers.owners(msgs[0]))
        return work

    def _set_aside(self, lease: Lease, entries: list[Entry]) -> None:
        """A message among these can never be written (the checks of sending are to keep it out): all others are."""
        if len(entries) > 1:
            for entry in entries:
                self.process(lease, [entry])
            return
        ((entry_id, fields),) = entries
        work = self._parse(entries, MOST_MSGS)
        (batch,) = work.batches
        sent = LogBatch.FromString(fields[b"b"])
        dead: list[DeadLetter] = []
        for index, document in enumerate(batch.msgs):
            seq = batch.first_seq + index
            try:
                self._blocks.write([StoredMsgs(batch.conversation_id, seq, [document])])
            except (*BSON_REFUSALS, WriteFailed) as error:
                if isinstance(error, WriteFailed) and not error.is_permanent:
                    raise
                alone = LogBatch(msgs=[sent.msgs[index]], operation_ids=[sent.operation_ids[index]])
                fields_alone = {b"c": fields[b"c"], b"s": str(seq).encode(), b"b": alone.SerializeToString()}
                dead.append(DeadLetter(f"not storable in MongoDB: {type(error).__name__}", fields_alone))
        conversations.create_records(self._database, work.new)
        lease.trim(self._redis, entry_id, dead)
        metrics.PERSISTED.labels("ok").inc(len(batch.msgs) - len(dead))
        metrics.PERSISTED.labels("failed").inc(len(dead))
        metrics.DEAD_LETTERS.labels(self.name).inc(len(dead))
        logger.error(
            "messages not storable, set aside",
            extra={"action": "persist", "shard": lease.shard, "count": len(dead), **trace_of(entries)},
        )


def new_conversations(conversation_id: str, first: MsgData, owners: list[str]) -> list[NewConversation]:
    """The records that a conversation's first message creates, one for each owner."""
    return [
        NewConversation(
            owner_user_id=owner,
            conversation_id=conversation_id,
            conversation_type=first.sessionType,
            user_id="" if first.sessionType == SessionType.GROUP else _peer_of(owner, first),
            group_id=first.groupID,
        )
        for owner in owners
    ]


def _peer_of(owner: str, msg: MsgData) -> str:
    return msg.recvID if msg.sendID == owner else msg.sendID
