"""Transfer: number a batch of one shard, cache it and hand it on. Steps in the order of docs/message-path.md.

All of a batch's effects are one script (commit.lua), so a batch that is killed anywhere leaves nothing behind.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import redis
from google.protobuf.message import DecodeError
from pymongo.errors import PyMongoError

from imserver import metrics
from imserver.clock import now_ms
from imserver.conf import get_config
from imserver.constants import ContentType, SessionType
from imserver.errors import ArgsError
from imserver.protocol.conversations import (
    conversation_id_of,
    conversation_key,
    conversation_key_of,
    is_notification_conversation,
)
from imserver.protocol.gen.log_pb2 import LogBatch
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.protocol.options import is_notification, is_stored, split_send_msg
from imserver.storage import conversations, keys, read_seq, webhooks
from imserver.storage.clients import get_mongo, get_redis
from imserver.storage.logs import DeadLetter, Entry, Lease, LeaseLost, next_entry_id
from imserver.storage.read_seq import ReadSeqWriter
from imserver.storage.scripts import get_script
from imserver.storage.seq import SeqAllocator, SeqUnavailable
from tasks.drain import Stage
from tasks.receivers import Receivers
from tasks.wakeup import wake

logger = logging.getLogger(__name__)

#: A range that was refilled can only be used up by the drainer itself, so two rounds are one more than needed.
COMMIT_ATTEMPTS = 5


#: What a number of MongoDB can hold.
MOST_SEQ = 2**63 - 1
#: MongoDB was away: how long it is not asked again, so that a batch does not wait for its time-out each time.
MONGO_RETRY_SECONDS = 3.0
#: Seqs that are to be left after a refill ahead.
REFILL_AHEAD = 20


class MustWait(Exception):
    """Conversations (by key) that cannot get seqs now."""

    def __init__(self, conversation_keys: set[str]) -> None:
        super().__init__(f"{len(conversation_keys)} conversations wait for MongoDB")
        self.keys = conversation_keys


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
        self.lists: dict[tuple[bool, bool], dict[str, MsgList]] = {}

    def add(self, msg: MsgData, raw: bytes, operation_id: str) -> None:
        notification, stored = is_notification(msg), is_stored(msg)
        conversation_id = conversation_id_of(msg)
        # A key names one conversation, but for ids that hold underscores: a group may be called a_b.
        of_kind = self.lists.setdefault((notification, stored), {})
        of_kind.setdefault(conversation_id, MsgList(conversation_id, stored)).add(msg, raw, operation_id)

    def in_order(self) -> Iterator[MsgList]:
        """Chat before notification, so that a system line stands before the event that refers to it; transient first."""
        for kind in ((False, False), (False, True), (True, False), (True, True)):
            yield from self.lists.get(kind, {}).values()


def sort_batch(entries: list[Entry], trigger_id: str) -> Batch:
    """Steps 1 to 3: parse, read receipts, four kinds for each conversation key."""
    by_key: dict[str, _KeyLists] = {}
    receipts: dict[tuple[str, str], int] = {}
    dead: list[DeadLetter] = []
    for _entry_id, fields in entries:
        if not fields.get(b"m"):
            continue
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


def session_name(msg: MsgData) -> str:
    """For the metrics."""
    return "group" if msg.sessionType == SessionType.GROUP else "single"


def _key_of(entry: Entry) -> str:
    return entry[1].get(b"k", b"").decode(errors="replace")


def _receipts_of(msg: MsgData) -> list[ReadReceipt]:
    """The read seq that a 2200 message tells; only the sender's own, and only of the conversation it was sent in."""
    try:
        tips = orjson.loads(orjson.loads(msg.content)["detail"])
        user_id, conversation_id = tips["markAsReadUserID"], tips["conversationID"]
        seqs = [tips.get("hasReadSeq") or 0, *(tips.get("seqs") or ())]
        if not all(isinstance(item, int) for item in seqs):
            raise TypeError("seqs are whole numbers")
        seq = min(max(seqs), MOST_SEQ)
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
        self._database = get_mongo()
        self._seqs = SeqAllocator(self._redis, self._database)
        self._receivers = Receivers(self._redis, self._database)
        self._read_seqs = ReadSeqWriter(self._redis, self._database)
        self._config = get_config()
        self._mongo_away_until = 0.0

    def process(self, lease: Lease, entries: list[Entry]) -> None:
        while True:
            handled = [entry for entry in entries if _key_of(entry) not in lease.waiting] if lease.waiting else entries
            if not handled:
                return
            batch = sort_batch(handled, secrets.token_hex(8))
            try:
                answer = self._commit(lease, batch, handled, leaves_some=bool(lease.waiting))
            except (LeaseLost, redis.RedisError):
                raise
            except MustWait as error:
                # These conversations stay in the log, in order; the others of the shard go on.
                lease.waiting |= error.keys
                logger.warning(
                    "conversations wait for MongoDB",
                    extra={"action": "transfer", "shard": lease.shard, "count": len(error.keys)},
                )
                continue
            except Exception:
                for item in batch.lists:
                    metrics.PROCESSED.labels(session_name(item.msgs[0]), "failed").inc(len(item.msgs))
                raise
            self._after_commit(lease, batch, answer)
            return

    def _after_commit(self, lease: Lease, batch: Batch, answer: list[int] | None) -> None:
        if answer is None:
            # The answer of a commit that did happen got lost; what it would have said is not known, so wake all.
            wake("persist", lease.shard)
            wake("push", lease.shard)
            wake("webhook", lease.shard)
            return
        wake_persist, wake_push, wake_webhook, *rest = answer
        flagged = [int(number) for number in rest[len(batch.lists) :]]
        new, low = [-number for number in flagged if number < 0], [number for number in flagged if number > 0]
        self._remember_new_conversations([batch.lists[number - 1] for number in new])
        if wake_persist:
            wake("persist", lease.shard)
        if wake_push:
            wake("push", lease.shard)
        if wake_webhook:
            wake("webhook", lease.shard)
        for number in low:
            self._refill_ahead(batch.lists[number - 1])
        self._count(batch)
        logger.debug(
            "batch transferred",
            extra={
                "action": "transfer",
                "trigger_id": batch.trigger_id,
                "shard": lease.shard,
                "operation_ids": [operation_id for item in batch.lists for operation_id in item.operation_ids],
            },
        )

    def _commit(self, lease: Lease, batch: Batch, entries: list[Entry], *, leaves_some: bool) -> list[int] | None:
        """Step 4. Raises LeaseLost; MustWait when ranges cannot be refilled because MongoDB is away."""
        self._seed_read_seqs(batch.receipts)
        overdraft = 0
        for _attempt in range(COMMIT_ATTEMPTS):
            script_keys, args = self._script_arguments(
                lease, batch, entries, overdraft=overdraft, leaves_some=leaves_some
            )
            status, *rest = get_script("commit").run(self._redis, script_keys, args)
            if status == 1:
                return list(rest)
            if status == -1:
                raise LeaseLost(lease.key)
            if status == -2:
                return None
            short = [batch.lists[number - 1] for number in rest]
            if not self._refill(short):
                if overdraft or not self._config.seq_overdraft:
                    raise MustWait({conversation_key(item.conversation_id) for item in short})
                overdraft = self._config.seq_overdraft
        raise RuntimeError(f"seq ranges of shard {lease.shard} were used up as fast as they were refilled")

    def _seed_read_seqs(self, receipts: list[ReadReceipt]) -> None:
        for receipt in receipts:
            if time.monotonic() < self._mongo_away_until:
                return
            try:
                self._read_seqs.seed(receipt.conversation_id, receipt.user_id)
            except PyMongoError as error:
                # The receipt then moves what Redis has; MongoDB keeps the greater one.
                self._note_mongo_away("read seq not looked up", error)

    def _refill(self, short: list[MsgList]) -> bool:
        """Reserve ranges in MongoDB; False when it is away (and is not asked again for a moment)."""
        if time.monotonic() < self._mongo_away_until:
            return False
        try:
            for item in short:
                self._seqs.ensure_range(item.conversation_id, len(item.msgs))
        except SeqUnavailable:
            # Somebody else is at it, or died at it: its lock expires.
            return False
        except PyMongoError as error:
            metrics.SEQ_REFILLS_FAILED.inc()
            self._note_mongo_away("seq range not refilled", error)
            return False
        return True

    def _refill_ahead(self, item: MsgList) -> None:
        """A range that runs low is refilled before a batch has to wait for it."""
        if time.monotonic() < self._mongo_away_until:
            return
        try:
            self._seqs.ensure_range(item.conversation_id, len(item.msgs) + REFILL_AHEAD)
        except SeqUnavailable:
            return
        except PyMongoError as error:
            metrics.SEQ_REFILLS_FAILED.inc()
            self._note_mongo_away("seq range not refilled ahead", error)

    def _note_mongo_away(self, what: str, error: PyMongoError) -> None:
        self._mongo_away_until = time.monotonic() + MONGO_RETRY_SECONDS
        logger.warning(what, extra={"action": "transfer", "error": repr(error)[:300]})

    def _script_arguments(
        self, lease: Lease, batch: Batch, entries: list[Entry], *, overdraft: int = 0, leaves_some: bool = False
    ) -> tuple[list[Any], list[Any]]:
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
            keys.log(keys.TO_WEBHOOK, shard),
            keys.lease("webhook", shard),
            keys.wake("webhook", shard),
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
            overdraft,
            self._config.seq_key_ttl_days * 86_400,
            "1" if webhooks.AFTER_SEND in webhooks.enabled_after_kinds(self._database) else "0",
        ]
        removed = [entry_id for entry_id, _ in entries] if leaves_some else []
        args += (len(removed), *removed)
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
                keys.malloc_seq(shard, receipt.conversation_id),
            )
        for letter in batch.dead:
            args += (letter.reason, *(letter.fields.get(name, b"") for name in (b"k", b"m", b"o")))
        return script_keys, args

    def _remember_new_conversations(self, new: list[MsgList]) -> None:
        """Step 5, the quick half: a login lists the conversation from now on. Persist writes the records."""
        ids = set()
        for item in new:
            if not is_notification_conversation(item.conversation_id):
                ids |= {(user_id, item.conversation_id) for user_id in self._owners_of(item.msgs[0])}
        conversations.remember_ids(self._redis, ids)

    def _owners_of(self, msg: MsgData) -> list[str]:
        try:
            return self._receivers.owners(msg)
        except PyMongoError as error:
            # Persist finds them when MongoDB is back, and lists the conversation then.
            logger.warning(
                "members unknown", extra={"action": "transfer", "group_id": msg.groupID, "error": repr(error)[:300]}
            )
            return []

    def _count(self, batch: Batch) -> None:
        for item in batch.lists:
            metrics.PROCESSED.labels(session_name(item.msgs[0]), "ok").inc(len(item.msgs))
            kind = "notification" if is_notification_conversation(item.conversation_id) else "chat"
            metrics.TRANSFERRED.labels(f"{'stored' if item.is_stored else 'transient'} {kind}").inc(len(item.msgs))
        if batch.dead:
            metrics.DEAD_LETTERS.labels(self.name).inc(len(batch.dead))
            logger.warning(
                "entries set aside",
                extra={"action": "transfer", "trigger_id": batch.trigger_id, "count": len(batch.dead)},
            )
