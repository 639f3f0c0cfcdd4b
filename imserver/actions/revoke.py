"""Taking a message back: who may, and telling everybody who has it.

MongoDB decides: of two revocations one succeeds. The cache is told before, so that a message that is revoked is looked up in
the store from then on, and the notification goes out after. Whoever dies in between leaves a revoked message that not all have
heard of; the client's repeat is answered with 1404 and tells them again (once, by the notification's fixed id).
"""

from __future__ import annotations

from hashlib import md5

import orjson

from imserver.actions import pull
from imserver.actions.chats import check_chat
from imserver.actions.groups import group_store
from imserver.actions.notify import build_notification
from imserver.actions.outgoing import do_send
from imserver.actions.single_checks import get_facts
from imserver.actions.stored import wait_until_stored
from imserver.clock import now_ms
from imserver.constants import AppManagerLevel, ContentType, RoleLevel, SessionType
from imserver.errors import ArgsError, MsgAlreadyRevoked, NoPermission, RecordNotFound
from imserver.protocol.conversations import is_notification_conversation
from imserver.protocol.gen.sdkws_pb2 import MsgData, RevokeMsgTips
from imserver.storage.clients import get_async_mongo, get_async_redis
from imserver.storage.msg_cache import MsgCache
from imserver.storage.msg_states import MsgStates
from imserver.storage.users import Users

#: In whose name nobody asks: sees what is not deleted for everybody.
NOBODY = ""


async def check_revoke(
    user_id: str, conversation_id: str, seq: int, operation_id: str, *, is_admin: bool
) -> tuple[MsgData, int]:
    """The message to take back and the role in which the user does it.

    Raises:
        ArgsError, NoPermission, RecordNotFound, MsgAlreadyRevoked
    """
    if seq < 1:
        raise ArgsError("seq must be at least 1")
    if is_notification_conversation(conversation_id):
        raise ArgsError("notifications are not taken back")
    if not is_admin:
        await check_chat(user_id, conversation_id)
    raw = (await pull.get_msgs(NOBODY, {conversation_id: [seq]}))[conversation_id].get(seq)
    if raw is None:
        raise RecordNotFound(f"{conversation_id} has no message {seq}")
    msg = MsgData.FromString(raw)
    if msg.contentType == ContentType.MSG_REVOKE:
        await _repeat_notification(msg, conversation_id, operation_id)
        raise MsgAlreadyRevoked(f"message {seq} was revoked before")
    return msg, await check_may_take_back(user_id, msg, is_admin=is_admin)


async def check_may_take_back(user_id: str, msg: MsgData, *, is_admin: bool) -> int:
    """The user's role: in a group its role there, else its app level. Raises NoPermission."""
    if msg.sessionType != SessionType.GROUP:
        if msg.sendID != user_id and not is_admin:
            raise NoPermission("only the sender takes back a message of a single chat")
        return (await get_facts(user_id)).level or AppManagerLevel.ORDINARY
    roles = await group_store().find_members(msg.groupID, [user_id, msg.sendID])
    own = int(roles[user_id]["role_level"]) if user_id in roles else 0
    sender = int(roles[msg.sendID]["role_level"]) if msg.sendID in roles else RoleLevel.MEMBER
    outranks = own == RoleLevel.OWNER or (own == RoleLevel.ADMIN and sender == RoleLevel.MEMBER)
    if not is_admin and not outranks and not (own and user_id == msg.sendID):
        raise NoPermission(
            "only the sender, the owner, or an admin for an ordinary member takes back a group's message"
        )
    return own or int(AppManagerLevel.ADMIN)


async def do_revoke(
    user_id: str, role: int, msg: MsgData, conversation_id: str, operation_id: str, *, operator_id: str, is_admin: bool
) -> None:
    """Take it back, and tell.

    Args:
        operator_id: who asks; an app admin may do it in the name of any user.

    Raises:
        MsgAlreadyRevoked: somebody was quicker.  DatabaseUnavailable: the message is not stored in time.
    """
    await wait_until_stored(conversation_id, [msg.seq])
    await MsgCache(get_async_redis()).mark(conversation_id, [msg.seq])
    users = await Users(get_async_mongo()).find([user_id])
    now = now_ms()
    revocation = {
        "user_id": user_id,
        "role": role,
        "nickname": users[0]["nickname"] if users else "",
        "time": now,
    }
    if not await MsgStates(get_async_mongo()).revoke(conversation_id, msg.seq, revocation):
        raise MsgAlreadyRevoked(f"message {msg.seq} was revoked before")
    tips = RevokeMsgTips(
        revokerUserID=operator_id,
        clientMsgID=msg.clientMsgID,
        revokeTime=now,
        sesstionType=msg.sessionType,
        seq=msg.seq,
        conversationID=conversation_id,
        isAdminRevoke=is_admin,
    )
    await _notify(msg, tips, operation_id, in_name_of=user_id)


async def _repeat_notification(revoked: MsgData, conversation_id: str, operation_id: str) -> None:
    content = orjson.loads(orjson.loads(revoked.content)["detail"])
    tips = RevokeMsgTips(
        revokerUserID=content["revokerID"],
        clientMsgID=revoked.clientMsgID,
        revokeTime=content["revokeTime"],
        sesstionType=revoked.sessionType,
        seq=revoked.seq,
        conversationID=conversation_id,
        isAdminRevoke=content["revokerID"] != revoked.sendID and revoked.sessionType != SessionType.GROUP,
    )
    await _notify(revoked, tips, operation_id, in_name_of=content["revokerID"])


async def _notify(msg: MsgData, tips: RevokeMsgTips, operation_id: str, *, in_name_of: str) -> None:
    """2101, to everybody who has the message. In a chat of two it goes in the sender's name, so that it stays in that chat."""
    is_group = msg.sessionType == SessionType.GROUP
    notification = build_notification(
        ContentType.MSG_REVOKE,
        tips,
        send_id=in_name_of if is_group else msg.sendID,
        recv_id=msg.groupID if is_group else msg.recvID,
        session_type=SessionType(msg.sessionType),
        is_stored=True,
    )
    name = f"revoke {tips.conversationID} {tips.seq}"
    notification.clientMsgID = md5(name.encode(), usedforsecurity=False).hexdigest()
    await do_send(notification, operation_id, entrance="notification")
