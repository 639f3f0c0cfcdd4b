"""A message on the wire (MsgData) and in MongoDB (a document with snake_case names), both ways."""

from __future__ import annotations

from typing import Any

from imserver.protocol.gen.sdkws_pb2 import MsgData, OfflinePushInfo

Document = dict[str, Any]

#: document field -> MsgData field, for those that are copied as they are.
_PLAIN_FIELDS = {
    "send_id": "sendID",
    "recv_id": "recvID",
    "group_id": "groupID",
    "client_msg_id": "clientMsgID",
    "server_msg_id": "serverMsgID",
    "sender_platform_id": "senderPlatformID",
    "sender_nickname": "senderNickname",
    "sender_face_url": "senderFaceURL",
    "session_type": "sessionType",
    "msg_from": "msgFrom",
    "content_type": "contentType",
    "seq": "seq",
    "send_time": "sendTime",
    "create_time": "createTime",
    "status": "status",
    "attached_info": "attachedInfo",
    "ex": "ex",
}


def to_document(msg: MsgData, seq: int) -> Document:
    """The document of a stored message. Content that is not UTF-8 stays bytes."""
    document: Document = {name: getattr(msg, field) for name, field in _PLAIN_FIELDS.items()}
    document["seq"] = seq
    try:
        document["content"] = msg.content.decode()
    except UnicodeDecodeError:
        document["content"] = msg.content
    document["is_read"] = msg.isRead
    document["options"] = dict(msg.options)
    push = msg.offlinePushInfo if msg.HasField("offlinePushInfo") else None
    document["offline_push"] = push and {
        "title": push.title,
        "desc": push.desc,
        "ex": push.ex,
        "ios_push_sound": push.iOSPushSound,
        "ios_badge_count": push.iOSBadgeCount,
    }
    document["at_user_id_list"] = list(msg.atUserIDList)
    return document


def from_document(document: Document) -> MsgData:
    """The message of a document."""
    msg = MsgData(**{field: document[name] for name, field in _PLAIN_FIELDS.items() if name in document})
    content = document["content"]
    msg.content = content.encode() if isinstance(content, str) else bytes(content)
    msg.isRead = bool(document.get("is_read"))
    for key, value in (document.get("options") or {}).items():
        msg.options[key] = value
    push = document.get("offline_push")
    if push:
        msg.offlinePushInfo.CopyFrom(
            OfflinePushInfo(
                title=push["title"],
                desc=push["desc"],
                ex=push["ex"],
                iOSPushSound=push["ios_push_sound"],
                iOSBadgeCount=push["ios_badge_count"],
            )
        )
    msg.atUserIDList.extend(document.get("at_user_id_list") or ())
    return msg
