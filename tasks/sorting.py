"""Steps 1 to 3 of transfer: parse a batch, take the read receipts, sort messages into lists of one conversation and kind."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

import orjson
from google.protobuf.message import DecodeError

from imserver.constants import ContentType
from imserver.errors import ArgsError
from imserver.protocol.conversations import conversation_id_of, conversation_key_of, conversations_of_key
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.protocol.options import is_notification, is_stored, split_send_msg
from imserver.storage.logs import DeadLetter, Entry

logger = logging.getLogger(__name__)

#: What a number of MongoDB can hold.
MOST_SEQ = 2**63 - 1


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
    # Not by its key alone: that is in any number of made-up ids.
    if seq <= 0 or user_id != msg.sendID or conversation_id not in conversations_of_key(conversation_key_of(msg)):
        return []
    return [ReadReceipt(user_id, conversation_id, seq)]
