"""Telling a group what happened in it: the notifications 1501 to 1520.

By the time one is sent the change is done, so a log that does not take it is not the request's failure: members learn of the
change by their next sync.
"""

from __future__ import annotations

import logging
from typing import Any

from google.protobuf.message import Message

from imserver.actions.groups import Operator, get_group_infos, group_store, to_member_infos
from imserver.actions.notify import send_notification
from imserver.clock import now_ms
from imserver.constants import AppManagerLevel, ContentType, RoleLevel, SessionType
from imserver.errors import ServerBusy, StorageUnavailable
from imserver.protocol.gen.sdkws_pb2 import GroupMemberFullInfo
from imserver.storage import versions
from imserver.storage.clients import get_async_mongo
from imserver.storage.users import Users
from imserver.storage.versions import State, Versions

logger = logging.getLogger(__name__)

#: Members that one notification names. A join or a kick of more is told in several.
MOST_MEMBERS_IN_TIPS = 50
#: Tips larger than this are not stored as a chat message: a hundred messages share a MongoDB document.
MAX_STORED_TIPS_BYTES = 60_000

#: Items of a group's version log that are no members (a user id has no colon): its own row, and the order of the list.
GROUP_ITEM = ":group"
ORDER_ITEM = ":order"

#: What members also see as a line in the chat. Requests that carry ``sendMessage`` may say otherwise.
SHOWN_IN_CHAT = frozenset(
    {
        ContentType.GROUP_CREATED,
        ContentType.MEMBER_QUIT,
        ContentType.GROUP_OWNER_TRANSFERRED,
        ContentType.MEMBER_KICKED,
        ContentType.MEMBER_INVITED,
        ContentType.MEMBER_ENTER,
        ContentType.GROUP_DISMISSED,
        ContentType.GROUP_MEMBER_MUTED,
        ContentType.GROUP_MEMBER_CANCEL_MUTED,
        ContentType.GROUP_MUTED,
        ContentType.GROUP_CANCEL_MUTED,
        ContentType.GROUP_INFO_SET_ANNOUNCEMENT,
        ContentType.GROUP_INFO_SET_NAME,
    }
)

#: (version id, version) of a group's member list.
Version = tuple[str, int]


async def record_change(group_id: str, changes: dict[str, State]) -> Version:
    """Note what changed of a group's members, GROUP_ITEM and ORDER_ITEM included."""
    return await Versions(get_async_mongo()).record(versions.members_of(group_id), changes)


async def describe_operator(operator: Operator, group_id: str) -> GroupMemberFullInfo:
    """The operator as tips name it: a member, or an app admin who need not be one."""
    row = await group_store().find_member(group_id, operator.user_id)
    if row is not None:
        (info,) = await to_member_infos([row])
        return info
    user = next(iter(await Users(get_async_mongo()).find([operator.user_id])), {})
    return GroupMemberFullInfo(
        groupID=group_id,
        userID=operator.user_id,
        roleLevel=RoleLevel.ADMIN if operator.is_admin else 0,
        appMangerLevel=AppManagerLevel.ADMIN if operator.is_admin else 0,
        nickname=user.get("nickname", ""),
        faceURL=user.get("face_url", ""),
        operatorUserID=operator.user_id,
    )


async def announce(
    operator: Operator,
    group_id: str,
    content_type: ContentType,
    tips_type: type[Message],
    *,
    version: Version = ("", 0),
    send_message: bool | None = None,
    **fields: Any,
) -> None:
    """Tell the whole group.

    What the tips have in common is filled in as far as the type has it: the group as it is now, the operator, the time, and
    the version of the member list.

    Args:
        send_message: show it in the chat or not; None is as usual.
        fields: the rest of the tips; they win over what is filled in.
    """
    (group,) = await get_group_infos([group_id])
    op_user = fields.get("opUser") or await describe_operator(operator, group_id)
    known = {
        "group": group,
        "operationTime": now_ms(),
        "groupMemberVersionID": version[0],
        "groupMemberVersion": version[1],
        **fields,
        "opUser": op_user,
    }
    tips = tips_type(**{name: known[name] for name in tips_type.DESCRIPTOR.fields_by_name if name in known})
    is_shown = content_type in SHOWN_IN_CHAT if send_message is None else send_message
    await tell(
        operator,
        content_type,
        tips,
        recv_id=group_id,
        session_type=SessionType.GROUP,
        sender=op_user,
        is_shown=is_shown and tips.ByteSize() <= MAX_STORED_TIPS_BYTES,
    )


async def tell(
    operator: Operator,
    content_type: ContentType,
    tips: Message,
    *,
    recv_id: str,
    session_type: SessionType,
    sender: GroupMemberFullInfo | None = None,
    is_shown: bool = False,
) -> None:
    """Send a notification; a failure is logged only."""
    try:
        await send_notification(
            content_type,
            tips,
            send_id=operator.user_id,
            recv_id=recv_id,
            session_type=session_type,
            operation_id=operator.operation_id,
            is_send_msg=is_shown,
            sender_nickname=sender.nickname if sender else "",
            sender_face_url=sender.faceURL if sender else "",
        )
    except (ServerBusy, StorageUnavailable) as error:
        facts = {"action": "group_notice", "operation_id": operator.operation_id, "content_type": int(content_type)}
        logger.warning("group notification lost", extra=facts, exc_info=error)
