"""What a group and its members are set to: mutes, names, roles, the owner."""

from __future__ import annotations

import asyncio

from imserver.actions import mentions
from imserver.actions.group_notices import GROUP_ITEM, ORDER_ITEM, Version, announce, record_change
from imserver.actions.groups import (
    MANAGERS,
    Operator,
    check_role,
    check_texts,
    get_living_group,
    get_member_infos,
    group_store,
    is_member,
    to_member_infos,
)
from imserver.clock import now_ms
from imserver.constants import ContentType, GroupStatus, NeedVerification, RoleLevel
from imserver.errors import ArgsError, GroupDismissed, NoPermission, RecordNotFound
from imserver.protocol.gen.group_pb2 import SetGroupInfoExReq, SetGroupMemberInfo
from imserver.protocol.gen.sdkws_pb2 import (
    GroupCancelMutedTips,
    GroupInfoSetAnnouncementTips,
    GroupInfoSetNameTips,
    GroupInfoSetTips,
    GroupMemberCancelMutedTips,
    GroupMemberFullInfo,
    GroupMemberInfoSetTips,
    GroupMemberMutedTips,
    GroupMutedTips,
    GroupOwnerTransferredTips,
)
from imserver.storage.clients import Document
from imserver.storage.versions import State

MOST_MEMBERS_PER_REQUEST = 100
#: Groups that are told of one user's new name at the same time.
_GROUPS_AT_ONCE = 16

#: Wrapped fields of SetGroupInfoExReq -> fields of the group's row.
_TEXTS = {"notification": "notification", "introduction": "introduction", "faceURL": "face_url", "ex": "ex"}
_NUMBERS = {
    "needVerification": ("need_verification", max(NeedVerification)),
    "lookMemberInfo": ("look_member_info", 1),
    "applyMemberFriend": ("apply_member_friend", 1),
}


# -- mutes


async def check_mute_member(operator: Operator, group_id: str, user_id: str) -> None:
    """Raises RecordNotFound (no such group or member), GroupDismissed, NoPermission.

    The owner is muted by app admins only, an admin of the group by the owner.
    """
    await get_living_group(group_id)
    rows = await group_store().find_members(group_id, [user_id, operator.user_id])
    muter = rows.get(operator.user_id)
    if not operator.is_admin and (muter is None or muter["role_level"] not in MANAGERS):
        raise NoPermission(f"only owner and admins of group {group_id} may do this")
    if user_id not in rows:
        raise RecordNotFound(f"{user_id} is not in group {group_id}")
    if operator.is_admin or muter is None:
        return
    role = rows[user_id]["role_level"]
    if role == RoleLevel.OWNER or (role == RoleLevel.ADMIN and muter["role_level"] != RoleLevel.OWNER):
        raise NoPermission("owner and admins are muted by their superiors only")


async def do_mute_member(operator: Operator, group_id: str, user_id: str, seconds: int) -> None:
    """Mute for some seconds from now; 0 lifts a mute. Raises RecordNotFound when the user has left meanwhile."""
    end = now_ms() + seconds * 1000 if seconds else 0
    version = await _update_member(group_id, user_id, {"mute_end_time": end})
    (info,) = await get_member_infos(group_id, [user_id])
    if seconds:
        await announce(
            operator,
            group_id,
            ContentType.GROUP_MEMBER_MUTED,
            GroupMemberMutedTips,
            version=version,
            mutedUser=info,
            mutedSeconds=seconds,
        )
        return
    await announce(
        operator,
        group_id,
        ContentType.GROUP_MEMBER_CANCEL_MUTED,
        GroupMemberCancelMutedTips,
        version=version,
        mutedUser=info,
    )


async def check_mute_group(operator: Operator, group_id: str) -> None:
    """Raises RecordNotFound, GroupDismissed, NoPermission."""
    await get_living_group(group_id)
    await check_role(operator, group_id, MANAGERS)


async def do_mute_group(operator: Operator, group_id: str, *, is_muted: bool) -> None:
    """May run twice: the second time only the notification repeats. Raises GroupDismissed when it ended meanwhile."""
    version = await _update_group(group_id, {"status": int(GroupStatus.MUTED if is_muted else GroupStatus.OK)})
    if is_muted:
        await announce(operator, group_id, ContentType.GROUP_MUTED, GroupMutedTips, version=version)
    else:
        await announce(operator, group_id, ContentType.GROUP_CANCEL_MUTED, GroupCancelMutedTips, version=version)


# -- the group's information


async def check_set_group_info(operator: Operator, request: SetGroupInfoExReq) -> Document:
    """Returns the changes, as fields of the row; none is fine. Raises ArgsError, RecordNotFound, GroupDismissed, NoPermission."""
    await get_living_group(request.groupID)
    await check_role(operator, request.groupID, MANAGERS)
    changes: Document = {}
    if request.HasField("groupName"):
        if not request.groupName.value.strip():
            raise ArgsError("groupName is empty")
        changes["group_name"] = request.groupName.value
    for name, column in _TEXTS.items():
        if request.HasField(name):
            changes[column] = getattr(request, name).value
    if "notification" in changes:
        changes["notification"] = changes["notification"].strip()
    for name, (column, greatest) in _NUMBERS.items():
        if request.HasField(name):
            changes[column] = getattr(request, name).value
            if not 0 <= changes[column] <= greatest:
                raise ArgsError(f"{name} must be 0 to {greatest}")
    check_texts(changes)
    return changes


async def do_set_group_info(operator: Operator, group_id: str, changes: Document) -> None:
    """A new name and a new announcement are told in notifications of their own. Raises GroupDismissed.

    An announcement that was taken down is no line in the chat.
    """
    if not changes:
        return
    has_announcement, has_name = "notification" in changes, "group_name" in changes
    if has_announcement:
        changes = {**changes, "notification_update_time": now_ms(), "notification_user_id": operator.user_id}
    version = await _update_group(group_id, changes)
    if has_announcement:
        is_new = changes["notification"] != ""
        await announce(
            operator,
            group_id,
            ContentType.GROUP_INFO_SET_ANNOUNCEMENT,
            GroupInfoSetAnnouncementTips,
            version=version,
            send_message=is_new,
        )
        if is_new:
            mentions.mark_announcement(group_id, operator.operation_id)
    if has_name:
        await announce(operator, group_id, ContentType.GROUP_INFO_SET_NAME, GroupInfoSetNameTips, version=version)
    told = {"notification", "notification_update_time", "notification_user_id", "group_name"}
    if changes.keys() - told:
        await announce(operator, group_id, ContentType.GROUP_INFO_SET, GroupInfoSetTips, version=version)


# -- members


async def check_transfer(
    operator: Operator, group_id: str, old_owner: str, new_owner: str
) -> tuple[Document, Document]:
    """Returns the rows of both. Raises ArgsError, RecordNotFound, GroupDismissed, NoPermission."""
    await get_living_group(group_id)
    if old_owner == new_owner:
        raise ArgsError("old and new owner are the same")
    if not operator.is_admin and operator.user_id != old_owner:
        raise NoPermission("only the owner or an app admin may do this")
    rows = await group_store().find_members(group_id, [old_owner, new_owner])
    if len(rows) < 2:
        raise ArgsError("both must be in the group")
    if rows[old_owner]["role_level"] != RoleLevel.OWNER:
        raise NoPermission(f"{old_owner} is not the owner")
    return rows[old_owner], rows[new_owner]


async def do_transfer(operator: Operator, old: Document, new: Document) -> None:
    """The old owner gets the role that the new one had. Raises NoPermission when somebody else was quicker."""
    group_id, old_id, new_id = old["group_id"], old["user_id"], new["user_id"]
    if not await group_store().swap_owner(group_id, old, new):
        raise NoPermission("the group has another owner by now, or the new one has left")
    changes = {old_id: State.UPDATE, new_id: State.UPDATE, ORDER_ITEM: State.UPDATE, GROUP_ITEM: State.UPDATE}
    version = await record_change(group_id, changes)
    infos = {info.userID: info for info in await get_member_infos(group_id, [old_id, new_id])}
    await announce(
        operator,
        group_id,
        ContentType.GROUP_OWNER_TRANSFERRED,
        GroupOwnerTransferredTips,
        version=version,
        newGroupOwner=infos[new_id],
        oldGroupOwner=old_id,
        oldGroupOwnerInfo=infos[old_id],
    )


async def check_set_member_info(operator: Operator, members: list[SetGroupMemberInfo]) -> None:
    """Everybody sets their own name, face and extra; owner, and admins for ordinary members, also others'. Roles are the
    owner's to give; an admin may lay down its own. App admins may do all of it.

    Raises:
        ArgsError (also who is no member), RecordNotFound (no such group), GroupDismissed, NoPermission
    """
    if not members or len(members) > MOST_MEMBERS_PER_REQUEST:
        raise ArgsError(f"members must be 1 to {MOST_MEMBERS_PER_REQUEST}")
    if len({(member.groupID, member.userID) for member in members}) != len(members):
        raise ArgsError("a member stands twice in the request")
    for group_id in {member.groupID for member in members}:
        await get_living_group(group_id)
    for member in members:
        check_texts(_changes_of(member))
        rows = await group_store().find_members(member.groupID, [member.userID, operator.user_id])
        setter = RoleLevel.OWNER if operator.is_admin else rows.get(operator.user_id, {}).get("role_level", 0)
        if not setter:
            raise NoPermission(f"only members of group {member.groupID} may do this")
        if member.userID not in rows:
            raise ArgsError(f"{member.userID} is not in group {member.groupID}")
        _check_may_set(operator, setter, member, rows[member.userID])


def _check_may_set(operator: Operator, setter: int, member: SetGroupMemberInfo, row: Document) -> None:
    is_own = member.userID == operator.user_id
    if member.HasField("roleLevel"):
        role = member.roleLevel.value
        if RoleLevel.OWNER in (role, row["role_level"]):
            raise NoPermission("the owner's role changes by a transfer only")
        if role not in (RoleLevel.ADMIN, RoleLevel.MEMBER):
            raise ArgsError("roleLevel must be 60 or 20")
        if setter != RoleLevel.OWNER and not (is_own and role <= row["role_level"]):
            raise NoPermission("roles are the owner's to give")
    if not is_own and setter != RoleLevel.OWNER and (setter == RoleLevel.MEMBER or row["role_level"] in MANAGERS):
        raise NoPermission("this takes a higher role")


async def do_set_member_info(operator: Operator, members: list[SetGroupMemberInfo]) -> None:
    """Raises RecordNotFound when somebody has left meanwhile; those before are changed."""
    for member in members:
        changes = _changes_of(member)
        is_role = "role_level" in changes
        if not changes:
            continue
        version = await _update_member(member.groupID, member.userID, changes, is_order=is_role)
        (info,) = await get_member_infos(member.groupID, [member.userID])
        told = []
        if is_role:
            is_admin = member.roleLevel.value == RoleLevel.ADMIN
            told.append(ContentType.GROUP_MEMBER_SET_TO_ADMIN if is_admin else ContentType.GROUP_MEMBER_SET_TO_ORDINARY)
        if changes.keys() - {"role_level"}:
            told.append(ContentType.GROUP_MEMBER_INFO_SET)
        for content_type in told:
            await announce(
                operator,
                member.groupID,
                content_type,
                GroupMemberInfoSetTips,
                version=version,
                changedUser=info,
                groupSortVersion=version[1] if is_role else 0,
            )


async def tell_changed_user(operator: Operator, user_id: str) -> None:
    """A user's name or face changed: note it and tell it where the member has none of its own for the group."""
    limit = asyncio.Semaphore(_GROUPS_AT_ONCE)

    async def tell_group(info: GroupMemberFullInfo) -> None:
        async with limit:
            if not await is_member(user_id, info.groupID):
                return  # has left while other groups were told
            version = await record_change(info.groupID, {user_id: State.UPDATE})
            await announce(
                operator,
                info.groupID,
                ContentType.GROUP_MEMBER_INFO_SET,
                GroupMemberInfoSetTips,
                version=version,
                changedUser=info,
                opUser=info if operator.user_id == user_id else None,
            )

    rows = await group_store().rows_of(user_id)
    infos = await to_member_infos(row for row in rows if not row["nickname"] or not row["face_url"])
    await asyncio.gather(*(tell_group(info) for info in infos))


def _changes_of(member: SetGroupMemberInfo) -> Document:
    columns = {"nickname": "nickname", "faceURL": "face_url", "roleLevel": "role_level", "ex": "ex"}
    return {column: getattr(member, name).value for name, column in columns.items() if member.HasField(name)}


async def _update_group(group_id: str, changes: Document) -> Version:
    if not await group_store().update(group_id, changes):
        raise GroupDismissed(f"group {group_id} was dismissed")
    return await record_change(group_id, {GROUP_ITEM: State.UPDATE})


async def _update_member(group_id: str, user_id: str, changes: Document, *, is_order: bool = False) -> Version:
    if not await group_store().update_member(group_id, user_id, changes):
        raise RecordNotFound(f"{user_id} is not in group {group_id}")
    order = {ORDER_ITEM: State.UPDATE} if is_order else {}
    return await record_change(group_id, {user_id: State.UPDATE, **order})
