"""What a stored slot shows: the message as it was sent, or what was done to it since.

Slot of a MongoDB block: {msg, revoke {user_id, role, nickname, time}, del_list [user ids], is_read, is_deleted}.
"""

from __future__ import annotations

from typing import Any

import orjson

from imserver.constants import ContentType
from imserver.protocol.documents import from_document
from imserver.protocol.gen.sdkws_pb2 import MessageRevokedContent, MsgData
from imserver.protocol.json_mapping import to_json

Slot = dict[str, Any]

# Tag of MsgData.isRead = 18 (varint) and the value true. Added behind a serialized message, it wins over what stands before.
READ_SUFFIX = b"\x90\x01\x01"


def shown_msg(slot: Slot, user_id: str) -> MsgData | None:
    """The message as this user sees it, without its seq; None when it is deleted, for everybody or for the user."""
    if slot.get("is_deleted") or user_id in (slot.get("del_list") or ()):
        return None
    return _told(slot)


def is_the_same_for_all(slot: Slot) -> bool:
    """May what one user sees of the slot be kept for the others?"""
    return not slot.get("is_deleted") and not slot.get("del_list")


def _told(slot: Slot) -> MsgData:
    msg = from_document(slot["msg"])
    msg.seq = 0
    if slot.get("is_read"):
        msg.isRead = True
    revocation = slot.get("revoke")
    if revocation:
        _rewrite(msg, revocation, slot["msg"]["seq"])
    return msg


def _rewrite(msg: MsgData, revocation: dict[str, Any], seq: int) -> None:
    """A revoked message keeps its ids, seq and times; what it said gives way to who took it back."""
    content = MessageRevokedContent(
        revokerID=revocation["user_id"],
        revokerRole=revocation["role"],
        clientMsgID=msg.clientMsgID,
        revokerNickname=revocation["nickname"],
        revokeTime=revocation["time"],
        sourceMessageSendTime=msg.sendTime,
        sourceMessageSendID=msg.sendID,
        sourceMessageSenderNickname=msg.senderNickname,
        sessionType=msg.sessionType,
        seq=seq,
        ex=msg.ex,
    )
    msg.contentType = ContentType.MSG_REVOKE
    msg.content = orjson.dumps({"detail": orjson.dumps(to_json(content)).decode()})
    msg.ClearField("offlinePushInfo")
    msg.ClearField("atUserIDList")
