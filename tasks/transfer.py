"""Transfer: number a batch of one shard, cache it and hand it on. Steps in the order of docs/message-path.md.

All of a batch's effects are one script (commit.lua), so a batch that is killed anywhere leaves nothing behind.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from typing import Any

from pymongo.errors import PyMongoError

from imserver import metrics
from imserver.conf import get_config
from imserver.constants import SessionType
from imserver.protocol.conversations import (
    conversation_key,
    is_notification_conversation,
)
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.storage import conversations, keys, logs, webhooks
from imserver.storage.clients import get_mongo, get_redis
from imserver.storage.lean_redis import Command, LeanRedis
from imserver.storage.logs import Entry, Lease, LeaseLost, next_entry_id
from imserver.storage.route_finder import Whereabouts
from imserver.storage.scripts import get_script
from tasks.commit_call import (
    COMMITTED,
    COMMITTED_BEFORE,
    LEASE_LOST,
    PUSHES_ITSELF,
    REFILL_FIRST,
    WAKE_PUSH,
    CommitAnswer,
    commit_call,
)
from tasks.drain import AWAY, Stage
from tasks.push.hooks import PushHooks
from tasks.push.messages import Push
from tasks.push.online import OnlinePusher, needs_stage
from tasks.receivers import Receivers
from tasks.seq_supply import SeqSupply
from tasks.sorting import Batch, MsgList, sort_batch
from tasks.wakeup import wake

logger = logging.getLogger(__name__)

#: A range that was refilled can only be used up by the drainer itself, so two rounds are one more than needed.
COMMIT_ATTEMPTS = 5
#: Rounds of commits before a batch goes the long way: the first may find that ranges must be refilled.
QUICK_ROUNDS = 2


class MustWait(Exception):
    """Conversations (by key) that cannot get seqs now."""

    def __init__(self, conversation_keys: set[str]) -> None:
        super().__init__(f"{len(conversation_keys)} conversations wait for MongoDB")
        self.keys = conversation_keys


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
        self._receivers = Receivers(self._redis, self._database)
        self._supply = SeqSupply(self._redis, self._database, watches=pushes)
        self._config = get_config()
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
                self._supply.refill_ahead([batch.lists[number - 1] for number in answer.low])
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
        if any(committed.has_wake_up for _work, committed in done):
            # A broker that takes its time, or hangs, must not hold up what is committed.
            logs.run_deferred(self._lean, self.take_deferred())
        low = []
        for work, committed in done:
            self._after_commit(work.lease, work.batch, committed)
            low += [work.batch.lists[number - 1] for number in committed.low]
        if short or low:
            # MongoDB may take its time; nobody's push is to wait for that.
            logs.run_deferred(self._lean, self.take_deferred())
        self._supply.refill_soon(low)
        return outcomes, [work for work, lists in short if self._supply.refill(lists)]

    def _prepare(
        self,
        pusher: OnlinePusher,
        number: int,
        lease: Lease,
        entries: list[Entry],
        known: dict[tuple[str, bool], list[str]],
    ) -> Prepared:
        batch = sort_batch(entries, secrets.token_hex(8))
        self._supply.seed_read_seqs(batch.receipts)
        receivers = [[pusher.receivers_of(msg, known) for msg in item.msgs] for item in batch.lists]
        return Prepared(number, lease, entries, batch, receivers)

    def _commit_all(self, pusher: OnlinePusher, prepared: list[Prepared]) -> tuple[list[list[Any]], Whereabouts]:
        users = list({user for work in prepared for item in work.receivers for users in item for user in users})
        commit = get_script("commit")
        overdraft = self._config.seq_overdraft if self._supply.is_away else 0
        is_hooked = self._is_hooked()
        commands: list[Command] = [
            commit.command(
                *commit_call(
                    work.lease, work.batch, work.entries, overdraft=overdraft, pushes=True, is_hooked=is_hooked
                )
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
        if answer.dropped:
            logs.note_dropped(keys.TO_WEBHOOK, lease.shard, answer.dropped)
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
        self._supply.seed_read_seqs(batch.receipts)
        overdraft = 0
        for _attempt in range(COMMIT_ATTEMPTS):
            call = commit_call(
                lease, batch, entries, overdraft=overdraft, leaves_some=leaves_some, is_hooked=self._is_hooked()
            )
            answer = get_script("commit").run(self._redis, *call)
            status, *rest = answer
            if status == COMMITTED:
                return CommitAnswer.parse(answer, len(batch.lists))
            if status == LEASE_LOST:
                raise LeaseLost(lease.key)
            if status == COMMITTED_BEFORE:
                return None
            short = [batch.lists[number - 1] for number in rest]
            if not self._supply.refill(short):
                if overdraft or not self._config.seq_overdraft:
                    raise MustWait({conversation_key(item.conversation_id) for item in short})
                overdraft = self._config.seq_overdraft
        raise RuntimeError(f"seq ranges of shard {lease.shard} were used up as fast as they were refilled")

    def _is_hooked(self) -> bool:
        return webhooks.AFTER_SEND in webhooks.enabled_after_kinds(self._database)

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
