"""Online push: group a batch's receivers by gateway node, one channel-layer message a node.

An online push is a hint: what it loses, the client's next pull brings. Per conversation, pushes leave in seq order.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from pymongo.errors import PyMongoError

from imserver import metrics
from imserver.clock import now_ms
from imserver.protocol.frames import push_messages, with_seq
from imserver.protocol.gen.log_pb2 import LogBatch
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.storage import routes
from imserver.storage.clients import get_mongo, get_redis
from imserver.storage.logs import DeadLetter, Entry, Lease
from tasks.drain import Stage
from tasks.names import PUSH_EVENT
from tasks.push.layer import send_to_nodes
from tasks.receivers import Receivers

logger = logging.getLogger(__name__)

LATE_MS = 10_000


@dataclass(frozen=True, slots=True)
class Push:
    """One message for some users."""

    operation_id: str
    payload: bytes
    receivers: list[str]


class OnlinePush(Stage):
    name = "push"

    def __init__(self) -> None:
        self._redis = get_redis()
        self._receivers = Receivers(self._redis, get_mongo())

    def process(self, lease: Lease, entries: list[Entry]) -> None:
        pushes: list[Push] = []
        dead: list[DeadLetter] = []
        for _entry_id, fields in entries:
            try:
                pushes += self._pushes_of(fields)
            except (KeyError, ValueError, DecodeError) as error:
                dead.append(DeadLetter(f"not a batch: {error!r}"[:200], fields))
        by_node = routes.find_nodes(self._redis, {user for push in pushes for user in push.receivers})
        events = {node: {"type": PUSH_EVENT, "frames": _frames_for(users, pushes)} for node, users in by_node.items()}
        send_to_nodes(events)
        lease.trim(self._redis, entries[-1][0], dead)
        metrics.NODE_EVENTS.inc(len(events))
        metrics.PUSHED.labels("handed to nodes").inc(len(pushes))
        if dead:
            metrics.DEAD_LETTERS.labels(self.name).inc(len(dead))

    def _pushes_of(self, fields: dict[bytes, bytes]) -> list[Push]:
        conversation_id, first_seq = fields[b"c"].decode(), int(fields[b"s"])
        batch = LogBatch.FromString(fields[b"b"])
        late_before = now_ms() - LATE_MS
        pushes = []
        for index, raw in enumerate(batch.msgs):
            msg = MsgData.FromString(raw)
            if msg.sendTime < late_before:
                metrics.PUSHED_LATE.inc()
            payload = push_messages(conversation_id, with_seq(raw, first_seq + index if first_seq else 0))
            pushes.append(Push(batch.operation_ids[index], payload, self._receivers_of(msg)))
        return pushes

    def _receivers_of(self, msg: MsgData) -> list[str]:
        try:
            return self._receivers.of(msg)
        except PyMongoError as error:
            # An online push is a hint: better none than to hold up the shard's other conversations for an outage.
            logger.warning(
                "members unknown, not pushed",
                extra={"action": "push", "group_id": msg.groupID, "error": repr(error)[:300]},
            )
            return []


def _frames_for(users: set[str], pushes: list[Push]) -> list[tuple[str, bytes, list[str]]]:
    """What a node needs of a batch: [operation id, PushMessages, users on that node]."""
    frames = []
    for push in pushes:
        here = [user for user in push.receivers if user in users]
        if here:
            frames.append((push.operation_id, push.payload, here))
    return frames
