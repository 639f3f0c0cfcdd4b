"""Transfer: number a batch of one shard, cache it and hand it on. Steps in the order of docs/message-path.md.

All of a batch's effects are one script (commit.lua), so a batch that is killed anywhere leaves nothing behind.
"""

from __future__ import annotations

import logging
import math
import secrets
import threading
import time
from dataclasses import dataclass
from typing import Any

import pymongo
from pymongo.errors import PyMongoError

from imserver import metrics
from imserver.clock import now_ms
from imserver.conf import get_config
from imserver.constants import SessionType
from imserver.protocol.conversations import (
    conversation_key,
    is_notification_conversation,
)
from imserver.protocol.gen.log_pb2 import LogBatch
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.storage import conversations, keys, logs, read_seq, webhooks
from imserver.storage.clients import get_mongo, get_redis
from imserver.storage.lean_redis import Command, LeanRedis
from imserver.storage.logs import Entry, Lease, LeaseLost, next_entry_id
from imserver.storage.read_seq import ReadSeqWriter
from imserver.storage.route_finder import Whereabouts
from imserver.storage.scripts import get_script
from imserver.storage.seq import SeqAllocator, SeqUnavailable
from tasks.drain import AWAY, Stage
from tasks.push.hooks import PushHooks
from tasks.push.messages import Push
from tasks.push.online import OnlinePusher, needs_stage
from tasks.receivers import Receivers
from tasks.sorting import Batch, MsgList, ReadReceipt, sort_batch
from tasks.wakeup import wake

logger = logging.getLogger(__name__)

#: A range that was refilled can only be used up by the drainer itself, so two rounds are one more than needed.
COMMIT_ATTEMPTS = 5


#: MongoDB was away: how long it is not asked again, so that a batch does not wait for its time-out each time.
MONGO_RETRY_SECONDS = 3.0
#: A refill that takes longer is not waited for; seqs beyond the range are used meanwhile.
REFILL_SECONDS = 0.02
#: Seqs that are to be left after a refill ahead.
REFILL_AHEAD = 20


class MustWait(Exception):
    """Conversations (by key) that cannot get seqs now."""

    def __init__(self, conversation_keys: set[str]) -> None:
        super().__init__(f"{len(conversation_keys)} conversations wait for MongoDB")
        self.keys = conversation_keys


#: Rounds of commits before a batch goes the long way: the first may find that ranges must be refilled.
QUICK_ROUNDS = 2

#: The commit script's first word.
COMMITTED, REFILL_FIRST, LEASE_LOST, COMMITTED_BEFORE = 1, 0, -1, -2
#: What it says of the push.
WAKE_PUSH, PUSHES_ITSELF = 1, 2


@dataclass(frozen=True, slots=True)
class CommitAnswer:
    """What the commit script says when it did it. ``new`` and ``low``: numbers (1…) of lists."""

    persist: bool
    push: int
    webhook: bool
    last_push_id: bytes
    first_seqs: list[int]
    new: list[int]
    low: list[int]

    @classmethod
    def parse(cls, answer: list[Any], lists: int) -> CommitAnswer:
        _status, persist, push, webhook, last_push_id, *rest = answer
        flagged = rest[lists:]
        return cls(
            persist=bool(persist),
            push=push,
            webhook=bool(webhook),
            last_push_id=last_push_id,
            first_seqs=rest[:lists],
            new=[-number for number in flagged if number < 0],
            low=[number for number in flagged if number > 0],
        )


def session_name(msg: MsgData) -> str:
    """For the metrics."""
    return "group" if msg.sessionType == SessionType.GROUP else "single"


def _key_of(entry: Entry) -> str:
    return entry[1].get(b"k", b"").decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch whose commit can be sent; ``receivers`` of each list's messages."""

    number: int
    lease: Lease
    entries: list[Entry]
    batch: Batch
    receivers: list[list[list[str]]]


class Transfer(Stage):
    name = "transfer"
    shares_round_trips = True

    def __init__(self, *, pushes: bool = False) -> None:
        """
        Args:
            pushes: push by itself where nothing but handing over to the nodes is to be done (online.needs_stage). The
                push log then only holds what a crash leaves behind.
        """
        self._redis = get_redis()
        self._database = get_mongo()
        self._seqs = SeqAllocator(self._redis, self._database)
        self._receivers = Receivers(self._redis, self._database)
        self._read_seqs = ReadSeqWriter(self._redis, self._database)
        self._config = get_config()
        self._mongo_away_until = 0.0
        self._refilling: threading.Thread | None = None
        # A commit that ran before its answer got lost says so when it is sent again.
        self._lean = LeanRedis(repeats=True)
        self._deferred: list[Command] = []
        self._pusher = OnlinePusher(self._redis, self._receivers) if pushes else None
        self._push_hooks = PushHooks(self._redis, self._database)

    def process(self, lease: Lease, entries: list[Entry]) -> None:
        while True:
            handled = [entry for entry in entries if _key_of(entry) not in lease.waiting] if lease.waiting else entries
            if not handled:
                return
            batch = sort_batch(handled, secrets.token_hex(8))
            try:
                answer = self._commit(lease, batch, handled, leaves_some=bool(lease.waiting))
            except (LeaseLost, *AWAY):
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
            if answer is not None:
                self._remember_new_conversations([batch.lists[number - 1] for number in answer.new])
            self._after_commit(lease, batch, answer)
            if answer is not None:
                self._refill_ahead([batch.lists[number - 1] for number in answer.low])
            return

    def process_many(self, batches: list[tuple[Lease, list[Entry]]]) -> list[Exception | None]:
        """The usual case in two round trips for all shards: commit and ask where the receivers are; push and trim.

        A range that is used up costs one more round. What needs more than that (MongoDB is away, conversations wait) goes
        the long way of ``process``; the push stage then pushes it.
        """
        if self._pusher is None or needs_stage(self._push_hooks):
            return super().process_many(batches)
        known: dict[tuple[str, bool], list[str]] = {}
        pending = [
            self._prepare(self._pusher, number, lease, entries, known)
            for number, (lease, entries) in enumerate(batches)
            if not lease.waiting
        ]
        outcomes: dict[int, Exception | None] = {}
        for _round in range(QUICK_ROUNDS):
            if pending:
                quick, pending = self._commit_and_push(self._pusher, pending)
                outcomes |= quick
        return [
            outcomes[number] if number in outcomes else self.outcome_of(lease, entries)
            for number, (lease, entries) in enumerate(batches)
        ]

    def _commit_and_push(
        self, pusher: OnlinePusher, prepared: list[Prepared]
    ) -> tuple[dict[int, Exception | None], list[Prepared]]:
        """Returns by number what is done, or failed, and what may be tried again because its ranges were refilled."""
        answers, whereabouts = self._commit_all(pusher, prepared)
        done: list[tuple[Prepared, CommitAnswer]] = []
        short: list[tuple[Prepared, list[MsgList]]] = []
        outcomes: dict[int, Exception | None] = {}
        for work, answer in zip(prepared, answers, strict=True):
            if isinstance(answer, Exception):
                outcomes[work.number] = answer
            elif answer[0] == COMMITTED:
                done.append((work, CommitAnswer.parse(answer, len(work.batch.lists))))
                outcomes[work.number] = None
            elif answer[0] == REFILL_FIRST:
                short.append((work, [work.batch.lists[at - 1] for at in answer[1:]]))
        if done:
            # Before the push: who hears of a message may act on its conversation at once.
            self._remember_new_conversations(
                [work.batch.lists[number - 1] for work, committed in done for number in committed.new]
            )
            self._push(pusher, done, whereabouts)
        low = []
        for work, committed in done:
            self._after_commit(work.lease, work.batch, committed)
            low += [work.batch.lists[number - 1] for number in committed.low]
        if short or low:
            # MongoDB may take its time; nobody's push is to wait for that.
            logs.run_deferred(self._lean, self.take_deferred())
        self._refill_soon(low)
        return outcomes, [work for work, lists in short if self._refill(lists)]

    def _prepare(
        self,
        pusher: OnlinePusher,
        number: int,
        lease: Lease,
        entries: list[Entry],
        known: dict[tuple[str, bool], list[str]],
    ) -> Prepared:
        batch = sort_batch(entries, secrets.token_hex(8))
        self._seed_read_seqs(batch.receipts)
        receivers = [[pusher.receivers_of(msg, known) for msg in item.msgs] for item in batch.lists]
        return Prepared(number, lease, entries, batch, receivers)

    def _commit_all(self, pusher: OnlinePusher, prepared: list[Prepared]) -> tuple[list[list[Any]], Whereabouts]:
        users = list({user for work in prepared for item in work.receivers for users in item for user in users})
        commit = get_script("commit")
        overdraft = self._config.seq_overdraft if time.monotonic() < self._mongo_away_until else 0
        commands: list[Command] = [
            commit.command(
                *self._script_arguments(work.lease, work.batch, work.entries, overdraft=overdraft, pushes=True)
            )
            for work in prepared
        ]
        commands += pusher.finder.questions(users)
        answers = self._lean.round_trip(commands)
        if commit.is_missing(answers):
            commit.load(self._redis)
            answers = self._lean.round_trip(commands)
        found = [[] if isinstance(answer, Exception) else answer for answer in answers[len(prepared) :]]
        return answers[: len(prepared)], pusher.finder.read(users, found)

    def take_deferred(self) -> list[Command]:
        deferred, self._deferred = self._deferred, []
        return deferred

    def _push(self, pusher: OnlinePusher, done: list[tuple[Prepared, CommitAnswer]], whereabouts: Whereabouts) -> None:
        """Push what was committed under our push lease, together with the runner's next read."""
        pushes: list[Push] = []
        trims: list[Command] = []
        for work, answer in done:
            if answer.push != PUSHES_ITSELF:
                continue
            for item, first_seq, receivers in zip(work.batch.lists, answer.first_seqs, work.receivers, strict=True):
                for index, msg in enumerate(item.msgs):
                    seq = first_seq + index if first_seq else 0
                    pushes.append(
                        Push(
                            item.conversation_id, seq, msg, item.raw[index], item.operation_ids[index], receivers[index]
                        )
                    )
            # Whoever holds the push lease by then: what was pushed need not be pushed again.
            log = keys.log(keys.TO_PUSH, work.lease.shard)
            trims.append(("XTRIM", log, "MINID", next_entry_id(answer.last_push_id)))
        self._deferred += pusher.push_deferred(pushes, whereabouts, trims)

    def _after_commit(self, lease: Lease, batch: Batch, answer: CommitAnswer | None) -> None:
        if answer is None:
            # The answer of a commit that did happen got lost; what it would have said is not known, so wake all.
            wake("persist", lease.shard)
            wake("push", lease.shard)
            wake("webhook", lease.shard)
            return
        if answer.persist:
            wake("persist", lease.shard)
        if answer.push == WAKE_PUSH:
            wake("push", lease.shard)
        if answer.webhook:
            wake("webhook", lease.shard)
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

    def _commit(self, lease: Lease, batch: Batch, entries: list[Entry], *, leaves_some: bool) -> CommitAnswer | None:
        """Step 4. Raises LeaseLost; MustWait when ranges cannot be refilled because MongoDB is away."""
        self._seed_read_seqs(batch.receipts)
        overdraft = 0
        for _attempt in range(COMMIT_ATTEMPTS):
            script_keys, args = self._script_arguments(
                lease, batch, entries, overdraft=overdraft, leaves_some=leaves_some
            )
            answer = get_script("commit").run(self._redis, script_keys, args)
            status, *rest = answer
            if status == COMMITTED:
                return CommitAnswer.parse(answer, len(batch.lists))
            if status == LEASE_LOST:
                raise LeaseLost(lease.key)
            if status == COMMITTED_BEFORE:
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
        if self._refilling is not None:
            # Who refills ahead usually takes two milliseconds; one that hangs tells that we would hang too.
            self._refilling.join(REFILL_SECONDS)
            if self._refilling.is_alive():
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

    def _refill_ahead(self, lists: list[MsgList]) -> None:
        """Ranges that run low are refilled before a batch has to wait for them."""
        if time.monotonic() < self._mongo_away_until:
            return
        try:
            for item in lists:
                self._seqs.ensure_range(item.conversation_id, len(item.msgs) + REFILL_AHEAD)
        except SeqUnavailable:
            return
        except PyMongoError as error:
            metrics.SEQ_REFILLS_FAILED.inc()
            self._note_mongo_away("seq range not refilled ahead", error)

    def _refill_soon(self, lists: list[MsgList]) -> None:
        """The same on a thread of its own: a MongoDB that hangs must not hold up the next batch. While it is at it, nothing
        more is asked; a range that is still low says so at its next commit."""
        if lists and not (self._refilling and self._refilling.is_alive()):
            self._refilling = threading.Thread(target=self._refill_ahead, args=(lists,), daemon=True)
            self._refilling.start()

    def _note_mongo_away(self, what: str, error: PyMongoError) -> None:
        logger.warning(what, extra={"action": "transfer", "error": repr(error)[:300]})
        if self._pusher is None:
            self._mongo_away_until = time.monotonic() + MONGO_RETRY_SECONDS
        elif self._mongo_away_until <= time.monotonic():
            # Nobody's message is the one that finds out whether it is back.
            self._mongo_away_until = math.inf
            threading.Thread(target=self._wait_for_mongo, daemon=True).start()

    def _wait_for_mongo(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(MONGO_RETRY_SECONDS)
            try:
                with pymongo.timeout(MONGO_RETRY_SECONDS):
                    self._database.client.admin.command("ping")
            except PyMongoError:
                continue
            self._mongo_away_until = 0.0
            return

    def _script_arguments(
        self,
        lease: Lease,
        batch: Batch,
        entries: list[Entry],
        *,
        overdraft: int = 0,
        leaves_some: bool = False,
        pushes: bool = False,
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
            "1" if pushes else "0",
            self._config.lease_ms,
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
        if not new:
            return
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
