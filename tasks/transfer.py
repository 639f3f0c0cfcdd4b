"""Transfer: number a batch of one shard, cache it and hand it on. Steps in the order of docs/message-path.md.

All of a batch's effects are one script (commit.lua), so a batch that is killed anywhere leaves nothing behind.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
from google.protobuf.message import DecodeError

from imserver import metrics
from imserver.clock import now_ms
from imserver.conf import get_config
from imserver.constants import ContentType, SessionType
from imserver.errors import ArgsError
from imserver.protocol.conversations import (
    chat_conversation_id,
    conversation_key,
    conversation_key_of,
    is_notification_conversation,
    notification_twin,
)
from imserver.protocol.gen.log_pb2 import LogBatch
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.protocol.options import is_notification, is_stored, split_send_msg
from imserver.storage import conversations, keys, read_seq
from imserver.storage.clients import get_mongo, get_redis
from imserver.storage.logs import DeadLetter, Entry, Lease, LeaseLost, next_entry_id
from imserver.storage.scripts import get_script
from imserver.storage.seq import SeqAllocator
from tasks.drain import Stage
from tasks.wakeup import wake

logger = logging.getLogger(__name__)

#: A range that was refilled can only be used up by the drainer itself, so two rounds are one more than needed.
COMMIT_ATTEMPTS = 5


@dataclass(slots=True)
class MsgList:
    """Messages of one conversation and one kind, in order."""

    conversation_id: str
    is_stored: bool
    msgs: list[MsgData] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    operation_ids: list[str] = field(default_factory=list)

    def add(self, msg: MsgData, raw: bytes, operation_id: str) -> None:
        self.msgs.append(msg)
        self.raw.append(raw)
        self.operation_ids.append(operation_id)

    def last_index_by_sender(self) -> dict[str, int]:
        return {msg.sendID: index for index, msg in enumerate(self.msgs, start=1)}


@dataclass(frozen=True, slots=True)
class ReadReceipt:
    user_id: str
    conversation_id: str
    seq: int


@dataclass(slots=True)
class Batch:
    """What one batch of a shard comes to."""

    lists: list[MsgList]
    receipts: list[ReadReceipt]
    dead: list[DeadLetter]
    trigger_id: str


class _KeyLists:
    """The four kinds of one conversation key."""

    def __init__(self) -> None:
        self.lists: dict[tuple[bool, bool], MsgList] = {}

    def add(self, msg: MsgData, raw: bytes, operation_id: str) -> None:
        notification, stored = is_notification(msg), is_stored(msg)
        conversation_id = chat_conversation_id(msg)
        if notification:
            conversation_id = notification_twin(conversation_id)
        kind = self.lists.setdefault((notification, stored), MsgList(conversation_id, stored))
        kind.add(msg, raw, operation_id)

    def in_order(self) -> Iterator[MsgList]:
        """Chat before notification, so that a system line stands before the event that refers to it; transient first."""
        for kind in ((False, False), (False, True), (True, False), (True, True)):
            if kind in self.lists:
                yield self.lists[kind]


def sort_batch(entries: list[Entry], trigger_id: str) -> Batch:
    """Steps 1 to 3: parse, read receipts, four kinds for each conversation key."""
    by_key: dict[str, _KeyLists] = {}
    receipts: dict[tuple[str, str], int] = {}
    dead: list[DeadLetter] = []
    for _entry_id, fields in entries:
        try:
            raw, operation_id = fields[b"m"], fields[b"o"].decode(errors="replace")
            msg = MsgData.FromString(raw)
            key = conversation_key_of(msg)
        except (KeyError, DecodeError, ArgsError) as error:
            dead.append(DeadLetter(f"not a message: {error!r}"[:200], fields))
            continue
        if msg.contentType == ContentType.HAS_READ_RECEIPT:
            for receipt in _receipts_of(msg):
                at = (receipt.user_id, receipt.conversation_id)
                receipts[at] = max(receipt.seq, receipts.get(at, 0))
        lists = by_key.setdefault(key, _KeyLists())
        if is_notification(msg):
            copy = split_send_msg(msg)
            if copy is not None:
                lists.add(copy, copy.SerializeToString(), operation_id)
                raw = msg.SerializeToString()
        lists.add(msg, raw, operation_id)
    return Batch(
        lists=[item for lists in by_key.values() for item in lists.in_order()],
        receipts=[ReadReceipt(user, conversation, seq) for (user, conversation), seq in receipts.items()],
        dead=dead,
        trigger_id=trigger_id,
    )


def _receipts_of(msg: MsgData) -> list[ReadReceipt]:
    """The read seq that a 2200 message tells; only the sender's own, and only of the conversation it was sent in."""
    try:
        tips = orjson.loads(orjson.loads(msg.content)["detail"])
        user_id, conversation_id = tips["markAsReadUserID"], tips["conversationID"]
        seq = max([int(tips.get("hasReadSeq") or 0), *(int(item) for item in tips.get("seqs") or ())])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        logger.warning("read receipt without usable content", extra={"action": "transfer", "send_id": msg.sendID})
        return []
    if seq <= 0 or user_id != msg.sendID or conversation_key(str(conversation_id)) != conversation_key_of(msg):
        return []
    return [ReadReceipt(user_id, conversation_id, seq)]


class Transfer(Stage):
    name = "transfer"

    def __init__(self) -> None:
        self._redis = get_redis()
        self._seqs = SeqAllocator(self._redis, get_mongo())
        self._config = get_config()

    def process(self, lease: Lease, entries: list[Entry]) -> None:
        batch = sort_batch(entries, secrets.token_hex(8))
        answer = self._commit(lease, batch, entries)
        if answer is None:
            # The answer of a commit that did happen got lost; what it would have said is not known, so wake both.
            wake("persist", lease.shard)
            wake("push", lease.shard)
            return
        wake_persist, wake_push, *first_seqs = answer
        self._remember_new_conversations(batch, first_seqs)
        if wake_persist:
            wake("persist", lease.shard)
        if wake_push:
            wake("push", lease.shard)
        self._count(batch)
        logger.debug(
            "batch transferred",
            extra={
                "action": "transfer",
                "trigger_id": batch.trigger_id,
                "shard": lease.shard,
                "entries": len(entries),
                "operation_ids": [operation_id for item in batch.lists for operation_id in item.operation_ids],
            },
        )

    def _commit(self, lease: Lease, batch: Batch, entries: list[Entry]) -> list[int] | None:
        """Step 4. Raises LeaseLost; PyMongoError when a range must be reserved and MongoDB is away."""
        script_keys, args = self._script_arguments(lease, batch, entries)
        for _attempt in range(COMMIT_ATTEMPTS):
            status, *rest = get_script("commit").run(self._redis, script_keys, args)
            if status == 1:
                return list(rest)
            if status == -1:
                raise LeaseLost(lease.key)
            if status == -2:
                return None
            for number in rest:
                item = batch.lists[number - 1]
                self._seqs.ensure_range(item.conversation_id, len(item.msgs))
        raise RuntimeError(f"seq ranges of shard {lease.shard} were used up as fast as they were refilled")

    def _script_arguments(self, lease: Lease, batch: Batch, entries: list[Entry]) -> tuple[list[Any], list[Any]]:
        shard = lease.shard
        script_keys: list[Any] = [
            lease.key,
            lease.log,
            keys.log(keys.TO_MONGO, shard),
            keys.log(keys.TO_PUSH, shard),
            keys.log(keys.DEAD, shard),
            keys.lease("persist", shard),
            keys.wake("persist", shard),
            keys.lease("push", shard),
            keys.wake("push", shard),
            keys.read_dirty(shard),
        ]
        args: list[Any] = [
            lease.token,
            entries[0][0],
            next_entry_id(entries[-1][0]),
            now_ms(),
            self._config.cache_ttl_seconds,
            keys.WAKE_TTL_MS,
            len(batch.lists),
            len(batch.receipts),
            len(batch.dead),
        ]
        for item in batch.lists:
            conversation_id = item.conversation_id
            script_keys += (
                keys.malloc_seq(shard, conversation_id),
                keys.msg_cache_prefix(shard, conversation_id),
            )
            blob = LogBatch(msgs=item.raw, operation_ids=item.operation_ids, trigger_id=batch.trigger_id)
            args += (conversation_id, blob.SerializeToString())
            if not item.is_stored:
                args += (0, 0)
                continue
            senders = item.last_index_by_sender()
            args += (len(senders), len(item.raw))
            for user_id, index in senders.items():
                args += (keys.read_seq(shard, conversation_id, user_id), user_id, index)
            args += item.raw
        for receipt in batch.receipts:
            args += (
                keys.read_seq(shard, receipt.conversation_id, receipt.user_id),
                read_seq.dirty_field(receipt.conversation_id, receipt.user_id),
                receipt.seq,
            )
        for letter in batch.dead:
            args += (letter.reason, *(letter.fields.get(name, b"") for name in (b"k", b"m", b"o")))
        return script_keys, args

    def _remember_new_conversations(self, batch: Batch, first_seqs: list[int]) -> None:
        """Step 5, the quick half: a login lists the conversation from now on. Persist writes the records."""
        ids = set()
        for item, first_seq in zip(batch.lists, first_seqs, strict=True):
            if first_seq == 1 and not is_notification_conversation(item.conversation_id):
                ids |= {(user_id, item.conversation_id) for user_id in owners_of(item.msgs[0])}
        conversations.remember_ids(self._redis, ids)

    def _count(self, batch: Batch) -> None:
        for item in batch.lists:
            kind = "notification" if is_notification_conversation(item.conversation_id) else "chat"
            metrics.TRANSFERRED.labels(f"{'stored' if item.is_stored else 'transient'} {kind}").inc(len(item.msgs))
        if batch.dead:
            metrics.DEAD_LETTERS.labels(self.name).inc(len(batch.dead))
            logger.warning(
                "entries set aside",
                extra={"action": "transfer", "trigger_id": batch.trigger_id, "count": len(batch.dead)},
            )


def owners_of(msg: MsgData) -> list[str]:
    """Who gets a conversation record when this is a conversation's first message."""
    if msg.sessionType == SessionType.GROUP:
        return []
    return [msg.recvID] if msg.sessionType == SessionType.NOTIFICATION else list({msg.sendID, msg.recvID})
