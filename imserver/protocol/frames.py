"""Serialized messages put together without parsing them again.

Protobuf lets a later occurrence of a field win, so a seq can be added behind a serialized MsgData, and nested messages
are only length-delimited bytes. The hot path (push and pull) thereby copies bytes instead of building objects: 0.3 µs
against 4 µs a message.
"""

from __future__ import annotations

from imserver.constants import MsgStatus
from imserver.protocol.conversations import is_notification_conversation

# Tags are (field number << 3) | wire type, as varints.
_SEQ_TAG = b"\x70"  # MsgData.seq = 14, varint
_STATUS_TAG = b"\x88\x01"  # MsgData.status = 17, varint
_FIELD_1 = b"\x0a"  # field 1, length-delimited
_FIELD_2 = b"\x12"  # field 2, length-delimited


def varint(number: int) -> bytes:
    """Protobuf's encoding of a non-negative number."""
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def with_seq(msg: bytes, seq: int) -> bytes:
    """A serialized MsgData whose seq is ``seq``. The log and the cache keep it without."""
    return msg + _SEQ_TAG + varint(seq) if seq else msg


def placeholder(seq: int) -> bytes:
    """The MsgData that closes the seq line where there is no message: only seq and status 4."""
    return _SEQ_TAG + varint(seq) + _STATUS_TAG + varint(MsgStatus.DELETED)


def push_messages(conversation_id: str, msg: bytes) -> bytes:
    """Serialized PushMessages with this one message, in the map that the conversation id asks for."""
    key = conversation_id.encode()
    pull_msgs = _FIELD_1 + varint(len(msg)) + msg
    entry = _FIELD_1 + varint(len(key)) + key + _FIELD_2 + varint(len(pull_msgs)) + pull_msgs
    outer = _FIELD_2 if is_notification_conversation(conversation_id) else _FIELD_1
    return outer + varint(len(entry)) + entry
