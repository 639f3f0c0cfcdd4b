"""What is sent to which webhook: command, body and filters, with OpenIM's field names."""

from __future__ import annotations

import base64
from typing import Any

import orjson

from imserver.constants import NOTIFICATION_BEGIN, NOTIFICATION_END, ContentType, SessionType, WebhookCommand
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.storage.webhooks import AFTER_SAVE, Hook

_BEFORE_SEND = {
    SessionType.SINGLE: WebhookCommand.BEFORE_SEND_SINGLE,
    SessionType.GROUP: WebhookCommand.BEFORE_SEND_GROUP,
}
_AFTER_SEND = {
    SessionType.SINGLE: WebhookCommand.AFTER_SEND_SINGLE,
    SessionType.GROUP: WebhookCommand.AFTER_SEND_GROUP,
}
_WITH_KEY = (WebhookCommand.AFTER_SEND_SINGLE, WebhookCommand.AFTER_SEND_GROUP, WebhookCommand.AFTER_SAVE)
_UINT32 = 0xFFFFFFFF


def _is_notification_type(msg: MsgData) -> bool:
    return NOTIFICATION_BEGIN <= msg.contentType <= NOTIFICATION_END


def is_exempt(msg: MsgData) -> bool:
    """Notifications and typing go to no webhook of the message path."""
    return msg.contentType == ContentType.TYPING or _is_notification_type(msg)


def before_send_command(msg: MsgData) -> WebhookCommand | None:
    return _BEFORE_SEND.get(msg.sessionType)  # type: ignore[call-overload, no-any-return]


def after_command(kind: str, msg: MsgData) -> WebhookCommand | None:
    """The after hook that a message of an entry of this kind goes to; None: to none."""
    if is_exempt(msg):
        return None
    if kind == AFTER_SAVE:
        return WebhookCommand.AFTER_SAVE
    return _AFTER_SEND.get(msg.sessionType)  # type: ignore[call-overload, no-any-return]


def is_wanted(hook: Hook, msg: MsgData) -> bool:
    """The hook's own filters: content types that it refuses, and receivers or groups it only wants."""
    if msg.contentType in hook.denied_types:
        return False
    return not hook.attention_ids or _target_of(msg) in hook.attention_ids


def _target_of(msg: MsgData) -> str:
    return msg.groupID if msg.sessionType == SessionType.GROUP else msg.recvID


def body_of(command: WebhookCommand, msg: MsgData, operation_id: str, seq: int = 0) -> bytes:
    """The JSON of a call."""
    body: dict[str, Any] = {
        "sendID": msg.sendID,
        "callbackCommand": command,
        "serverMsgID": msg.serverMsgID,
        "clientMsgID": msg.clientMsgID,
        "operationID": operation_id,
        "senderPlatformID": msg.senderPlatformID,
        "senderNickname": msg.senderNickname,
        "sessionType": msg.sessionType,
        "msgFrom": msg.msgFrom,
        "contentType": msg.contentType,
        "status": msg.status,
        "sendTime": msg.sendTime,
        "createTime": msg.createTime,
        "content": _content_of(msg),
        "seq": seq & _UINT32,
        # Go's JSON of an empty list that was never filled.
        "atUserList": list(msg.atUserIDList) or None,
        "faceURL": msg.senderFaceURL,
        "ex": msg.ex,
    }
    if command is WebhookCommand.AFTER_SAVE:
        is_group = msg.sessionType == SessionType.GROUP
        body |= {"recvID": "" if is_group else msg.recvID, "groupID": msg.groupID if is_group else ""}
    elif command in (WebhookCommand.BEFORE_SEND_GROUP, WebhookCommand.AFTER_SEND_GROUP):
        body["groupID"] = msg.groupID
    elif command is not WebhookCommand.BEFORE_MODIFY:
        body["recvID"] = msg.recvID
    return orjson.dumps(body)


def _content_of(msg: MsgData) -> str:
    if _is_notification_type(msg):
        try:
            return str(orjson.loads(msg.content)["detail"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return ""
    return msg.content.decode(errors="replace")


def query_of(command: WebhookCommand, msg: MsgData) -> dict[str, str]:
    """Query parameters of a call: after hooks have the message's ids in ``key``, which ``/msg/send_simple_msg`` takes back."""
    if command not in _WITH_KEY:
        return {}
    ids = orjson.dumps({"sendID": msg.sendID, "recvID": msg.recvID, "groupID": msg.groupID})
    return {"key": base64.b64encode(ids).decode()}
