"""The beginning and the end of a group."""

from __future__ import annotations

import re
import secrets

from imserver.actions import group_membership
from imserver.actions.group_notices import MOST_MEMBERS_IN_TIPS, announce, describe_operator
from imserver.actions.groups import (
    MOST_PER_REQUEST,
    Operator,
    check_role,
    check_texts,
    check_users,
    get_group,
    get_group_infos,
    get_member_infos,
    group_store,
)
from imserver.clock import now_ms
from imserver.constants import GROUP_TYPE, ContentType, GroupStatus, JoinSource, NeedVerification, RoleLevel
from imserver.errors import ArgsError, GroupDismissed, GroupIDExisted, UserIDNotFound
from imserver.protocol.gen.group_pb2 import CreateGroupReq
from imserver.protocol.gen.sdkws_pb2 import (
    GroupCreatedTips,
    GroupDismissedTips,
    GroupInfo,
    GroupInfoSetAnnouncementTips,
)
from imserver.storage.clients import Document, get_async_mongo
from imserver.storage.groups import new_member
from imserver.storage.users import Users

#: Underscores are for app admins: ``_check_group_id``.
GROUP_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
#: Made-up ids are ten digits, as in the original; a clash is tried again.
_MADE_UP_IDS = 9_000_000_000
_ATTEMPTS = 5


async def check_create(operator: Operator, request: CreateGroupReq) -> None:
    """Raises ArgsError, UserIDNotFound, GroupIDExisted."""
    info = request.groupInfo
    if not request.ownerUserID:
        raise ArgsError("ownerUserID is empty")
    if info.groupType != GROUP_TYPE:
        raise ArgsError(f"groupType must be {GROUP_TYPE}")
    if info.needVerification not in list(NeedVerification):
        raise ArgsError("needVerification must be 0 to 2")
    if info.lookMemberInfo not in (0, 1) or info.applyMemberFriend not in (0, 1):
        raise ArgsError("lookMemberInfo and applyMemberFriend must be 0 or 1")
    if info.groupID:
        await _check_group_id(operator, info.groupID)
    check_texts(_new_group(operator, request, info.groupID))
    if max(len(request.memberUserIDs), len(request.adminUserIDs)) > MOST_PER_REQUEST:
        raise ArgsError(f"memberUserIDs and adminUserIDs must be at most {MOST_PER_REQUEST} each")
    # OpenIM's clients give a full list of members, and the owner beside it.
    users = [request.ownerUserID, *request.adminUserIDs, *request.memberUserIDs]
    await check_users(users, most=2 * MOST_PER_REQUEST + 1, error=UserIDNotFound)
    if info.groupID and await group_store().find_one(info.groupID) is not None:
        raise GroupIDExisted(f"group {info.groupID} exists already")


async def _check_group_id(operator: Operator, group_id: str) -> None:
    """Raises ArgsError.

    A group ``a_b`` shares its notifications, and who may pull them, with the single chat of a and b. So it must not be named like
    two users, and a user, who could guess the ids of users to come, must not give it an underscore at all.
    """
    if not GROUP_ID.fullmatch(group_id):
        raise ArgsError("groupID must be 1 to 64 letters, digits, hyphens or underscores")
    if "_" not in group_id:
        return
    if not operator.is_admin:
        raise ArgsError("only an app admin may give a groupID with underscores")
    splits = [(group_id[:at], group_id[at + 1 :]) for at, letter in enumerate(group_id) if letter == "_"]
    # The id of a chat names its users in order.
    pairs = [(first, second) for first, second in splits if first <= second]
    known = set(await Users(get_async_mongo()).find_existing([user_id for pair in pairs for user_id in pair]))
    for first, second in pairs:
        if first in known and second in known:
            raise ArgsError(f"groupID names the chat of users {first} and {second}")


async def do_create(operator: Operator, request: CreateGroupReq) -> GroupInfo:
    """Raises GroupIDExisted when another request was quicker."""
    group_id = await _add_group(operator, request)
    roles = {
        request.ownerUserID: RoleLevel.OWNER,
        **dict.fromkeys(request.adminUserIDs, RoleLevel.ADMIN),
        **dict.fromkeys(request.memberUserIDs, RoleLevel.MEMBER),
    }
    rows = [
        new_member(
            group_id,
            user_id,
            role,
            join_source=JoinSource.INVITATION,
            inviter_user_id=operator.user_id,
            operator_user_id=operator.user_id,
        )
        for user_id, role in roles.items()
    ]
    _, version = await group_membership.add(group_id, rows, is_new_group=True)
    members = await get_member_infos(group_id, list(roles)[:MOST_MEMBERS_IN_TIPS])
    await announce(
        operator,
        group_id,
        ContentType.GROUP_CREATED,
        GroupCreatedTips,
        version=version,
        send_message=request.sendMessage if request.HasField("sendMessage") else None,
        memberList=members,
        groupOwnerUser=members[0],
    )
    if request.groupInfo.notification:
        await announce(
            operator,
            group_id,
            ContentType.GROUP_INFO_SET_ANNOUNCEMENT,
            GroupInfoSetAnnouncementTips,
            version=version,
            send_message=True,
        )
    (info,) = await get_group_infos([group_id])
    return info


async def _add_group(operator: Operator, request: CreateGroupReq) -> str:
    if request.groupInfo.groupID:
        await group_store().add(_new_group(operator, request, request.groupInfo.groupID))
        return request.groupInfo.groupID
    for attempt in range(_ATTEMPTS):
        group_id = str(1_000_000_000 + secrets.randbelow(_MADE_UP_IDS))
        try:
            await group_store().add(_new_group(operator, request, group_id))
        except GroupIDExisted:
            if attempt == _ATTEMPTS - 1:
                raise
            continue
        return group_id
    raise AssertionError("unreachable")


def _new_group(operator: Operator, request: CreateGroupReq, group_id: str) -> Document:
    info = request.groupInfo
    return {
        "group_id": group_id,
        "group_name": info.groupName,
        "notification": info.notification,
        "introduction": info.introduction,
        "face_url": info.faceURL,
        "ex": info.ex,
        "owner_user_id": request.ownerUserID,
        "creator_user_id": operator.user_id,
        "create_time": now_ms(),
        "status": int(GroupStatus.OK),
        "group_type": GROUP_TYPE,
        "need_verification": info.needVerification,
        "look_member_info": info.lookMemberInfo,
        "apply_member_friend": info.applyMemberFriend,
        "notification_update_time": 0,
        "notification_user_id": "",
    }


async def check_dismiss(operator: Operator, group_id: str) -> None:
    """Raises RecordNotFound, NoPermission, GroupDismissed."""
    group = await get_group(group_id)
    if group["status"] == GroupStatus.DISMISSED and not await group_store().member_ids(group_id, limit=1):
        raise GroupDismissed(f"group {group_id} was dismissed")
    await check_role(operator, group_id, [RoleLevel.OWNER])


async def do_dismiss(operator: Operator, group_id: str, *, send_message: bool | None) -> None:
    """End a group for good: nobody speaks in it again, everybody leaves it, its messages stay.

    May run twice: a dismissal that died half-way is finished by the next.
    """
    op_user = await describe_operator(operator, group_id)
    await group_store().update(group_id, {"status": int(GroupStatus.DISMISSED)})
    # The tips show the group as its members knew it, so its count is taken before they go.
    (info,) = await get_group_infos([group_id])
    await group_membership.remove(group_id, await group_store().member_ids(group_id), is_dismissed=True)
    await announce(
        operator,
        group_id,
        ContentType.GROUP_DISMISSED,
        GroupDismissedTips,
        send_message=send_message,
        group=info,
        opUser=op_user,
    )
