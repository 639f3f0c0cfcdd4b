"""What a push batch says to whom: messages with their receivers, and the frames that a node needs of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from imserver import metrics
from imserver.clock import now_ms
from imserver.protocol.frames import push_messages, with_seq
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.protocol.push_event import Frame, pack
from imserver.storage.route_finder import Whereabouts
from tasks.push.nodes import Event

LATE_MS = 10_000


@dataclass(frozen=True, slots=True)
class Push:
    """One message for some users."""

    conversation_id: str
    #: 0 when it has none.
    seq: int
    msg: MsgData
    #: The message serialized, without its seq.
    raw: bytes
    operation_id: str
    receivers: Sequence[str]

    @property
    def payload(self) -> bytes:
        """Serialized PushMessages."""
        return push_messages(self.conversation_id, with_seq(self.raw, self.seq))


def events_for(whereabouts: Whereabouts, pushes: Sequence[Push]) -> dict[str, list[Event]]:
    """Channel-layer messages for each node that holds a receiver: one, or several when the batch is very large."""
    frames: dict[str, list[Frame]] = {node: [] for node in whereabouts.users_by_node}
    #: Messages of one group have the same list of receivers, and so of receivers on a node.
    here: dict[tuple[int, str], list[str]] = {}
    for push in pushes:
        payload = push.payload
        for node, users in whereabouts.users_by_node.items():
            at = (id(push.receivers), node)
            if at not in here:
                here[at] = [user for user in push.receivers if user in users]
            if here[at]:
                frames[node].append((push.operation_id, payload, here[at]))
    return {node: pack(of_node) for node, of_node in frames.items() if of_node}


def count_late(msgs: Iterable[MsgData]) -> None:
    late_before = now_ms() - LATE_MS
    late = sum(msg.sendTime < late_before for msg in msgs)
    if late:
        metrics.PUSHED_LATE.inc(late)
