"""/msg: what app servers send, in a user's name or in their own."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import orjson
from django.http import HttpRequest

from imserver.actions import app_messages, send
from imserver.constants import ContentType, MsgFrom, MsgStatus, Option, Platform, SessionType
from imserver.errors import ArgsError
from imserver.protocol.gen import msg_pb2
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.protocol.json_mapping import to_json
from imserver.rest.decorators import Answer, Call, Who, read_json, route

#: What an app server may send in a user's name.
REST_CONTENT_TYPES = frozenset(
    {
        ContentType.TEXT,
        ContentType.PICTURE,
        ContentType.VOICE,
        ContentType.VIDEO,
        ContentType.FILE,
        ContentType.AT_TEXT,
        ContentType.CUSTOM,
        ContentType.QUOTE,
        ContentType.MARKDOWN_TEXT,
        ContentType.OA_NOTIFICATION,
    }
)
_ONLINE_ONLY_OFF = (Option.HISTORY, Option.PERSISTENT, Option.SENDER_SYNC, Option.CONVERSATION_UPDATE)

#: Fields of MsgData that the app server gives; keys match without regard to case.
_GIVEN = frozenset(
    {
        "sendid",
        "recvid",
        "groupid",
        "clientmsgid",
        "sendernickname",
        "senderfaceurl",
        "senderplatformid",
        "sessiontype",
        "contenttype",
        "sendtime",
        "offlinepushinfo",
        "ex",
    }
)
#: … and of those what is given when a message is answered; the key says the rest.
_ANSWER_GIVEN = ("sendid", "offlinepushinfo", "ex")


@route(Who.ADMIN)
async def send_msg(call: Call) -> Answer:
    """Send a message in a user's name. The body is MsgData, flat, with ``content`` as a JSON object.

    With a clientMsgID of the app server's a repeat of the request is recognised, as a client's is.
    """
    try:
        answer = await _submit(call, await _read_msg(call))
    except Exception:
        await app_messages.note_status(call.operation_id, MsgStatus.FAILED)
        raise
    await app_messages.note_status(call.operation_id, MsgStatus.SUCCESS)
    return answer


@route(Who.ADMIN)
async def check_msg_is_send_success(call: Call) -> Answer:
    """What became of the message that was sent under the same operationID."""
    return msg_pb2.GetSendMsgStatusResp(status=await app_messages.get_status(call.operation_id))


@route(Who.ADMIN)
async def batch_send_msg(call: Call) -> Answer:
    """The same message to many users, or to all."""
    body = {key.lower(): value for key, value in call.body.items()}
    is_to_all = _switch(body, "isSendAll")
    recv_ids = body.get("recvids") or []
    if not isinstance(recv_ids, list) or not all(isinstance(item, str) for item in recv_ids):
        raise ArgsError("recvIDs must be a list of user ids")
    msg = await _read_msg(call)
    app_messages.check_many(msg, recv_ids, is_to_all=is_to_all)
    sent, failed = await app_messages.do_send_many(msg, recv_ids, call.operation_id, is_to_all=is_to_all)
    results = [{**_shown(answer), "recvID": recv_id} for recv_id, answer in sent.items()]
    return {"results": results, "failedUserIDs": failed}


async def _read_msg(call: Call) -> MsgData:
    """The message of a request. Raises ArgsError, RecordNotFound."""
    body = {key.lower(): value for key, value in call.body.items()}
    content = body.get("content")
    if not isinstance(content, dict) or not content:
        raise ArgsError("content must be a JSON object")
    given = {key: value for key, value in body.items() if key in _GIVEN}
    msg = Call(given, call.operation_id, call.claims).parse(MsgData)
    if not msg.sendID:
        raise ArgsError("sendID is empty")
    if msg.contentType not in REST_CONTENT_TYPES:
        raise ArgsError(f"contentType {msg.contentType} cannot be sent by REST")
    if msg.contentType == ContentType.OA_NOTIFICATION:
        msg.sessionType = SessionType.NOTIFICATION
        # Clients read it as they read notifications.
        content = {"detail": orjson.dumps(content).decode()}
    if msg.contentType == ContentType.AT_TEXT:
        msg.atUserIDList.extend(_named(content))
    msg.content = orjson.dumps(content)
    msg.msgFrom = MsgFrom.SYSTEM
    if _switch(body, "isOnlineOnly"):
        for option in _ONLINE_ONLY_OFF:
            msg.options[option] = False
    if _switch(body, "notOfflinePush"):
        msg.options[Option.OFFLINE_PUSH] = False
    await send.check_user_exists(msg.sendID)
    return msg


def _named(content: dict[str, Any]) -> list[str]:
    """Whom an @ text names, which an SDK would say beside the content too. Raises ArgsError."""
    named = content.get("atUserList") or []
    if not isinstance(named, list) or not all(isinstance(item, str) for item in named):
        raise ArgsError("atUserList must be a list of user ids")
    return list(dict.fromkeys(named))


def _switch(body: dict[str, Any], name: str) -> bool:
    """Raises ArgsError."""
    value = body.get(name.lower())
    if value is not None and not isinstance(value, bool):
        raise ArgsError(f"{name} must be true or false")
    return bool(value)


async def _submit(call: Call, msg: MsgData) -> dict[str, Any]:
    future = await send.submit(msg, msg.sendID, call.operation_id, entrance="rest")
    return _shown(msg_pb2.SendMsgResp.FromString(await future))


def _shown(answer: msg_pb2.SendMsgResp) -> dict[str, Any]:
    """``modify`` is there when a webhook changed the message, as in the WebSocket's answer."""
    shown = {"serverMsgID": answer.serverMsgID, "clientMsgID": answer.clientMsgID, "sendTime": answer.sendTime}
    return {**shown, "modify": to_json(answer.modify)} if answer.HasField("modify") else shown


# -- in the app server's own name


@route(Who.ADMIN)
async def send_business_notification(call: Call) -> Answer:
    """2001 with a key and data of the app's own, to a user or a group."""
    body = {key.lower(): value for key, value in call.body.items()}
    texts = {}
    for name in ("key", "data", "sendUserID", "recvUserID", "recvGroupID"):
        value = body.get(name.lower())
        texts[name] = "" if value is None else value
        if not isinstance(texts[name], str):
            raise ArgsError(f"{name} must be a text")
    level = body.get("reliabilityLevel".lower())
    if level is not None and level not in (1, 2):
        raise ArgsError("reliabilityLevel must be 1 (pushed and forgotten) or 2 (stored)")
    notice = app_messages.BusinessNotice(
        key=texts["key"],
        data=texts["data"],
        send_id=texts["sendUserID"],
        recv_id=texts["recvUserID"],
        group_id=texts["recvGroupID"],
        is_stored=level == 2,
        is_send_msg=_switch(body, "sendMsg"),
    )
    await app_messages.check_business_notice(notice)
    return _shown(await app_messages.do_send_business_notice(notice, call.operation_id))


def _read_with_key(request: HttpRequest) -> dict[str, Any]:
    """The body, and what the query says of the conversation: base64 of JSON, as a webhook was given it."""
    body = read_json(request)
    try:
        key = orjson.loads(base64.b64decode(request.GET.get("key", ""), validate=True))
    except (binascii.Error, ValueError) as error:
        raise ArgsError("key in the query must be base64 of JSON") from error
    if not isinstance(key, dict):
        raise ArgsError("key in the query must hold an object")
    return {**{name.lower(): value for name, value in body.items()}, "key": key}


@route(Who.ADMIN, _read_with_key)
async def send_simple_msg(call: Call) -> Answer:
    """Answer a message with Markdown: ``key`` in the query is {sendID, recvID, groupID} of the message that is answered."""
    content = call.body.get("content")
    if not isinstance(content, str) or not content:
        raise ArgsError("content must be a text")
    key = Call(call.body["key"], call.operation_id, call.claims).parse(MsgData)
    given = {name: value for name, value in call.body.items() if name in _ANSWER_GIVEN}
    msg = Call(given, call.operation_id, call.claims).parse(MsgData)
    if key.groupID:
        msg.sessionType, msg.groupID = SessionType.GROUP, key.groupID
    else:
        msg.sessionType, msg.sendID, msg.recvID = SessionType.SINGLE, key.recvID, key.sendID
    if not msg.sendID:
        raise ArgsError("who sends is not given: sendID, or recvID of the key")
    msg.contentType, msg.msgFrom, msg.senderPlatformID = ContentType.MARKDOWN_TEXT, MsgFrom.USER, Platform.ADMIN
    msg.content = orjson.dumps({"content": content})
    await send.check_user_exists(msg.sendID)
    return await _submit(call, msg)
