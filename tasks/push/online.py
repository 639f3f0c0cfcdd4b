"""Online push: group a batch's receivers by gateway node, one channel-layer message a node.

An online push is a hint: what it loses, the client's next pull brings. Per conversation, pushes leave in seq order.
Who was not reached on a phone is handed on to the offline push stage.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import redis
from google.protobuf.message import DecodeError
from pymongo.errors import PyMongoError

from imserver import metrics
from imserver.conf import get_config
from imserver.constants import PUSH_TERMINALS, ContentType, Option, PushResult, SessionType
from imserver.protocol.gen.log_pb2 import LogBatch
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.protocol.options import is_on
from imserver.storage import groups
from imserver.storage.clients import get_mongo, get_redis
from imserver.storage.lean_redis import Command
from imserver.storage.logs import DeadLetter, Entry, Lease, LeaseLost, ScriptCall
from imserver.storage.route_finder import RouteFinder, Whereabouts
from imserver.storage.scripts import get_script
from tasks.drain import Stage
from tasks.push.hooks import PushHooks
from tasks.push.messages import Push, count_late, events_for
from tasks.push.nodes import Events, NodeSender
from tasks.push.results import ResultInbox
from tasks.receivers import Receivers
from tasks.wakeup import wake

logger = logging.getLogger(__name__)

#: Entries whose messages the hooks are asked about at a time.
MOST_ASKED_ENTRIES = 32


class OnlinePusher:
    """What the push stage, and transfer when it pushes by itself, share."""

    def __init__(self, client: redis.Redis, receivers: Receivers) -> None:
        self._receivers = receivers
        self._sender = NodeSender(client)
        self.finder = RouteFinder(client)

    def receivers_of(self, msg: MsgData, known: dict[tuple[str, bool], list[str]]) -> list[str]:
        """Who is to get a message.

        Args:
            known: what was found for groups of the same batch; one look-up serves all their messages.
        """
        if msg.sessionType != SessionType.GROUP:
            return self._receivers.of(msg)
        at = (msg.groupID, msg.contentType in groups.LEAVER_NOTIFICATIONS)
        if at not in known:
            known[at] = self._members(msg)
        return known[at]

    def _members(self, msg: MsgData) -> list[str]:
        try:
            return self._receivers.of(msg)
        except PyMongoError as error:
            # An online push is a hint: better none than to hold up the shard's other conversations for an outage.
            logger.warning(
                "members unknown, not pushed",
                extra={"action": "push", "group_id": msg.groupID, "error": repr(error)[:300]},
            )
            return []

    def push(
        self,
        pushes: Sequence[Push],
        whereabouts: Whereabouts,
        trims: list[ScriptCall],
    ) -> tuple[set[str], list[Any]]:
        """Send the nodes their messages and trim; returns the nodes that took theirs, and the trims' answers."""
        return self._sender.send(self._events(pushes, whereabouts), trims)

    def push_and_ask(self, pushes: Sequence[Push], whereabouts: Whereabouts, reply: dict[str, Any]) -> dict[str, int]:
        """The same, and the nodes send their results to ``reply`` (results.py); returns how many from each are to come."""
        events = self._events(pushes, whereabouts)
        for of_node in events.values():
            for part, event in enumerate(of_node):
                event.update(reply, part=part)
        takers, _ = self._sender.send(events, [])
        return {node: len(events[node]) for node in takers}

    def push_deferred(self, pushes: Sequence[Push], whereabouts: Whereabouts, trims: list[Command]) -> list[Command]:
        """The commands that push and then trim, for who sends them with its next round trip."""
        return [*self._sender.send_deferred(self._events(pushes, whereabouts)), *trims]

    @staticmethod
    def _events(pushes: Sequence[Push], whereabouts: Whereabouts) -> Events:
        events = events_for(whereabouts, pushes)
        metrics.NODE_EVENTS.inc(sum(map(len, events.values())))
        metrics.PUSHED.labels("handed to nodes").inc(len(pushes))
        count_late(push.msg for push in pushes)
        return events


@dataclass(slots=True)
class _Work:
    """What a batch of a shard comes to."""

    lease: Lease
    last_entry_id: bytes
    pushes: list[Push] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)


class OnlinePush(Stage):
    name = "push"

    def __init__(self) -> None:
        self._redis = get_redis()
        self._pusher = OnlinePusher(self._redis, Receivers(self._redis, get_mongo()))
        self._hooks = PushHooks(self._redis, get_mongo())
        self._inbox = ResultInbox()

    @property
    def lingers(self) -> bool:  # type: ignore[override]
        """Where transfer pushes by itself, only what it left behind comes here, and it waits for the lease."""
        return needs_stage(self._hooks)

    @property
    def shares_round_trips(self) -> bool:  # type: ignore[override]
        """With hooks to ask, which take their time, shard by shard."""
        return not self._hooks.are_on()

    def process(self, lease: Lease, entries: list[Entry]) -> None:
        if not self._hooks.are_on():
            (outcome,) = self.process_many([(lease, entries)])
        else:
            # Few at a time: the app server may need its whole time-out for each message.
            work = self._parse(lease, entries[:MOST_ASKED_ENTRIES])
            work.pushes = self._hooks.apply(work.pushes, lease)
            lease.renew(self._redis)
            (outcome,) = self._push_all([work])
        if outcome is not None:
            raise outcome

    def process_many(self, batches: list[tuple[Lease, list[Entry]]]) -> list[Exception | None]:
        return self._push_all([self._parse(lease, entries) for lease, entries in batches])

    def _push_all(self, works: list[_Work]) -> list[Exception | None]:
        pushes = [push for work in works for push in work.pushes]
        whereabouts = self._pusher.finder.find(list({user for push in pushes for user in push.receivers}))
        if not get_config().offline_push_vendor:
            trims = [work.lease.trim_call(work.last_entry_id, work.dead) for work in works]
            _, answers = self._pusher.push(pushes, whereabouts, trims)
        else:
            reached = self._push_and_hear(pushes, whereabouts)
            trims = [
                work.lease.trim_call(
                    work.last_entry_id, work.dead, next_stage="offline_push", hand_on=_missed(work.pushes, reached)
                )
                for work in works
            ]
            answers = get_script("trim").run_many(self._redis, trims)
        return [self._conclude(work, answer) for work, answer in zip(works, answers, strict=True)]

    def _push_and_hear(self, pushes: list[Push], whereabouts: Whereabouts) -> set[str]:
        """Push, and wait for what the nodes with phones say; returns the users whose phone took everything."""
        concerned = {user for push in pushes if is_on(push.msg, Option.OFFLINE_PUSH) for user in push.receivers}
        phones = {
            node
            for user in concerned
            for node, platform in whereabouts.terminals.get(user, ())
            if platform in PUSH_TERMINALS
        }
        if not phones:
            self._pusher.push(pushes, whereabouts, [])
            return set()
        with self._inbox.open() as answer:
            parts = self._pusher.push_and_ask(pushes, whereabouts, answer.address)
            results = answer.wait_for({node: count for node, count in parts.items() if node in phones})
        return {
            user for (user, platform), code in results.items() if platform in PUSH_TERMINALS and code == PushResult.OK
        }

    def _conclude(self, work: _Work, answer: Any) -> Exception | None:
        try:
            if work.lease.is_wake_due(answer):
                wake("offline_push", work.lease.shard)
        except (LeaseLost, redis.ResponseError) as error:
            return error
        if work.dead:
            metrics.DEAD_LETTERS.labels(self.name).inc(len(work.dead))
        return None

    def _parse(self, lease: Lease, entries: list[Entry]) -> _Work:
        work = _Work(lease, entries[-1][0])
        known: dict[tuple[str, bool], list[str]] = {}
        for _entry_id, fields in entries:
            try:
                work.pushes += self._pushes_of(fields, known)
            except (KeyError, ValueError, DecodeError) as error:
                work.dead.append(DeadLetter(f"not a batch: {error!r}"[:200], fields))
        return work

    def _pushes_of(self, fields: dict[bytes, bytes], known: dict[tuple[str, bool], list[str]]) -> list[Push]:
        conversation_id, first_seq = fields[b"c"].decode(), int(fields[b"s"])
        batch = LogBatch.FromString(fields[b"b"])
        pushes = []
        for index, raw in enumerate(batch.msgs):
            msg = MsgData.FromString(raw)
            seq = first_seq + index if first_seq else 0
            receivers = self._pusher.receivers_of(msg, known)
            pushes.append(Push(conversation_id, seq, msg, raw, batch.operation_ids[index], receivers))
        return pushes


def needs_stage(hooks: PushHooks) -> bool:
    """Whether a push takes more than handing it to the nodes: an app server's word, or the decision on offline push."""
    return bool(get_config().offline_push_vendor) or hooks.are_on()


def _missed(pushes: list[Push], reached: set[str]) -> list[dict[bytes, bytes]]:
    """Entries for the offline push stage: one a message that somebody, other than its sender, did not get on a phone."""
    entries = []
    for push in pushes:
        if not is_on(push.msg, Option.OFFLINE_PUSH) or push.msg.contentType == ContentType.TYPING:
            continue
        users = [user for user in push.receivers if user != push.msg.sendID and user not in reached]
        if users:
            entries.append(
                {
                    b"c": push.conversation_id.encode(),
                    b"s": str(push.seq).encode(),
                    b"m": push.raw,
                    b"o": push.operation_id.encode(),
                    b"u": orjson.dumps(users),
                }
            )
    return entries
