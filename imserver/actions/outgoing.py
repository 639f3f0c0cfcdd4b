"""The last steps of every send, of a user's or of the server's own: what is ours to fill in, and into the log."""

from __future__ import annotations

import asyncio
import secrets

from imserver.actions.append import get_appender
from imserver.clock import now_ms
from imserver.constants import ContentType, MsgStatus, Option
from imserver.protocol.conversations import conversation_key_of
from imserver.protocol.gen.msg_pb2 import SendMsgResp
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.protocol.options import force_options
from imserver.storage.logs import Append

MAX_OPERATION_ID_CHARS = 256


def do_send(msg: MsgData, operation_id: str, *, entrance: str) -> asyncio.Future[bytes]:
    """Complete and append a message of the server's own: neither checks nor webhooks. The future gives the serialized
    SendMsgResp, or raises ServerBusy, StorageUnavailable.
    """
    complete(msg)
    return hand_over(msg, operation_id, entrance=entrance)


def complete(msg: MsgData) -> None:
    """Fill in what is the server's to say; a client could hide a message behind a status or a seq of its own."""
    msg.serverMsgID = secrets.token_hex(16)
    if msg.sendTime <= 0:
        msg.sendTime = now_ms()
    if msg.createTime <= 0:
        msg.createTime = msg.sendTime
    if not msg.clientMsgID:
        msg.clientMsgID = secrets.token_hex(16)
    msg.status = MsgStatus.SUCCESS
    msg.seq = 0
    msg.isRead = False
    force_options(msg)
    if msg.contentType == ContentType.HAS_READ_RECEIPT:
        msg.options[Option.IS_NOT_NOTIFICATION] = False


def hand_over(msg: MsgData, operation_id: str, *, entrance: str, is_modified: bool = False) -> asyncio.Future[bytes]:
    """``is_modified``: a webhook changed the message, so the answer tells how."""
    answer = SendMsgResp(serverMsgID=msg.serverMsgID, clientMsgID=msg.clientMsgID, sendTime=msg.sendTime)
    if is_modified:
        answer.modify.CopyFrom(msg)
    return get_appender().submit(
        Append(
            key=conversation_key_of(msg),
            send_id=msg.sendID,
            client_msg_id=msg.clientMsgID,
            msg=msg.SerializeToString(),
            operation_id=operation_id[:MAX_OPERATION_ID_CHARS],
            answer=answer.SerializeToString(),
            entrance=entrance,
        )
    )
