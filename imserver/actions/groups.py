"""Groups, the part that others ask: may this message be sent, who is a member, what does a group look like."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import pymongo
from pymongo.errors import PyMongoError

from imserver.actions.speakers import LOOK_SECONDS, get_speakers
from imserver.clock import now_ms
from imserver.conf import get_config
from imserver.constants import NOTIFICATION_BEGIN, NOTIFICATION_END, ContentType, GroupStatus, RoleLevel
from imserver.errors import (
    ArgsError,
    GroupDismissed,
    IMError,
    MutedGroup,
    MutedInGroup,
    NoPermission,
    NotInGroup,
    RecordNotFound,
)
from imserver.protocol.gen.sdkws_pb2 import GroupInfo, GroupMemberFullInfo, MsgData, RequestPagination
from imserver.storage.clients import Document, get_async_mongo, get_async_redis
from imserver.storage.groups import Groups
from imserver.storage.users import Users

MANAGERS = (RoleLevel.OWNER, RoleLevel.ADMIN)

#: Users or rows that one request may name or ask for.
MOST_PER_REQUEST = 1000


MAX_CHARS = {
    "group_name": 255,
    "nickname": 255,
    "face_url": 1024,
    "notification": 4000,
    "introduction": 4000,
    "ex": 4000,
}


@dataclass(frozen=True, slots=True)
class Operator:
    """Who asks for something. ``is_admin``: with a token of an app admin."""

    user_id: str
    is_admin: bool
    operation_id: str


def group_store() -> Groups:
    return Groups(get_async_redis(), get_async_mongo())


# -- sending


async def check_group_send(msg: MsgData) -> None:
    """May this message go to its group? While MongoDB is away, who spoke there before goes on (actions/speakers.py).

    Raises:
        ArgsError: no group is named.  RecordNotFound: no such group.  GroupDismissed: it takes nothing but the notice of its end.
        NotInGroup, MutedInGroup (the owner never), MutedGroup (owner and admins never): not for notifications and configured
        admins.  pymongo.errors.PyMongoError: MongoDB is away, and nothing is known of the sender.
    """
    if not msg.groupID:
        raise ArgsError("groupID is empty")
    is_exempt = NOTIFICATION_BEGIN <= msg.contentType <= NOTIFICATION_END or msg.sendID in get_config().admins
    speaker = (msg.groupID, "" if is_exempt else msg.sendID)
    speakers = get_speakers()
    if speakers.is_allowed(speaker):
        return
    token = await group_store().get_state(msg.groupID)
    is_known = speakers.was_allowed(speaker, token)
    if is_known and speakers.is_away:
        return
    patience: AbstractContextManager[object] = pymongo.timeout(LOOK_SECONDS) if is_known else nullcontext()
    try:
        with patience:
            is_living = await _check_in_store(msg, is_exempt=is_exempt)
    except PyMongoError:
        speakers.note_away()
        if not is_known:
            raise
    except IMError:
        speakers.refuse(speaker)
        raise
    else:
        if is_living:
            speakers.allow(speaker, token)


async def _check_in_store(msg: MsgData, *, is_exempt: bool) -> bool:
    """False: the group has ended, and this is the notice of it. Raises as ``check_group_send``."""
    group = await get_group(msg.groupID)
    if group["status"] == GroupStatus.DISMISSED:
        if msg.contentType == ContentType.GROUP_DISMISSED:
            return False
        raise GroupDismissed(f"group {msg.groupID} was dismissed")
    if not is_exempt:
        _check_may_speak(group, await group_store().find_member(msg.groupID, msg.sendID))
    return True


def _check_may_speak(group: Document, member: Document | None) -> None:
    if member is None:
        raise NotInGroup(f"the sender is not in group {group['group_id']}")
    role = member["role_level"]
    if role != RoleLevel.OWNER and member["mute_end_time"] > now_ms():
        raise MutedInGroup(f"the sender is muted in group {group['group_id']}")
    if role not in MANAGERS and group["status"] == GroupStatus.MUTED:
        raise MutedGroup(f"group {group['group_id']} is muted")


async def is_member(user_id: str, group_id: str) -> bool:
    return await group_store().find_member(group_id, user_id) is not None


# -- rights and lookups that the operations share


async def get_group(group_id: str) -> Document:
    """Raises RecordNotFound."""
    group = await group_store().find_one(group_id)
    if group is None:
        raise RecordNotFound(f"group {group_id} does not exist")
    return group


async def get_living_group(group_id: str) -> Document:
    """Raises RecordNotFound, GroupDismissed."""
    group = await get_group(group_id)
    if group["status"] == GroupStatus.DISMISSED:
        raise GroupDismissed(f"group {group_id} was dismissed")
    return group


async def check_member(operator: Operator, group_id: str) -> None:
    """The operator is in the group, or an app admin. Raises NoPermission."""
    if not operator.is_admin and not await is_member(operator.user_id, group_id):
        raise NoPermission(f"only members of group {group_id} may do this")


async def check_role(operator: Operator, group_id: str, roles: Iterable[int]) -> None:
    """The operator has one of the roles in the group, or is an app admin. Raises NoPermission."""
    if operator.is_admin:
        return
    member = await group_store().find_member(group_id, operator.user_id)
    if member is None or member["role_level"] not in roles:
        raise NoPermission(f"this takes another role in group {group_id}")


async def check_users(
    user_ids: list[str], *, most: int = MOST_PER_REQUEST, error: type[IMError] = RecordNotFound
) -> None:
    """A list of users that a request names. Raises ArgsError, and the error when one of them is not registered."""
    if len(user_ids) > most:
        raise ArgsError(f"more than {most} users at once")
    if not all(user_ids) or len(set(user_ids)) != len(user_ids):
        raise ArgsError("a user id is empty or stands twice in the request")
    known = set(await Users(get_async_mongo()).find_existing(user_ids))
    missing = [user_id for user_id in user_ids if user_id not in known]
    if missing:
        raise error(f"not registered: {', '.join(missing[:10])}")


def check_texts(row: Document) -> None:
    """Texts of a group's or a member's row stay within what tips can carry. Raises ArgsError."""
    for column, most in MAX_CHARS.items():
        if len(row.get(column, "")) > most:
            raise ArgsError(f"{column} is longer than {most} characters")


def check_page(pagination: RequestPagination) -> tuple[int, int]:
    """(rows to skip, rows of the page). Raises ArgsError."""
    if pagination.pageNumber < 1 or not 1 <= pagination.showNumber <= MOST_PER_REQUEST:
        raise ArgsError(f"pageNumber must be at least 1, showNumber 1 to {MOST_PER_REQUEST}")
    return (pagination.pageNumber - 1) * pagination.showNumber, pagination.showNumber


# -- what goes into answers and tips


async def to_group_infos(groups: list[Document]) -> list[GroupInfo]:
    counts = await group_store().count_members([group["group_id"] for group in groups]) if groups else {}
    return [_to_group_info(group, counts.get(group["group_id"], 0)) for group in groups]


async def get_group_infos(group_ids: list[str]) -> list[GroupInfo]:
    """The groups that exist, in the order asked."""
    return await to_group_infos(await group_store().find(group_ids))


async def to_member_infos(rows: Iterable[Document]) -> list[GroupMemberFullInfo]:
    """Names and faces are the user's where the member has set none for the group."""
    rows = list(rows)
    users = {user["user_id"]: user for user in await Users(get_async_mongo()).find([row["user_id"] for row in rows])}
    return [_to_member_info(row, users.get(row["user_id"], {})) for row in rows]


async def get_member_infos(group_id: str, user_ids: list[str]) -> list[GroupMemberFullInfo]:
    """Those of the users that are members, in the order asked."""
    return await to_member_infos((await group_store().find_members(group_id, user_ids)).values())


def _to_group_info(group: Document, member_count: int) -> GroupInfo:
    return GroupInfo(
        groupID=group["group_id"],
        groupName=group["group_name"],
        notification=group["notification"],
        introduction=group["introduction"],
        faceURL=group["face_url"],
        ownerUserID=group["owner_user_id"],
        createTime=group["create_time"],
        memberCount=member_count,
        ex=group["ex"],
        status=group["status"],
        creatorUserID=group["creator_user_id"],
        groupType=group["group_type"],
        needVerification=group["need_verification"],
        lookMemberInfo=group["look_member_info"],
        applyMemberFriend=group["apply_member_friend"],
        notificationUpdateTime=group["notification_update_time"],
        notificationUserID=group["notification_user_id"],
    )


def _to_member_info(row: Document, user: Document) -> GroupMemberFullInfo:
    return GroupMemberFullInfo(
        groupID=row["group_id"],
        userID=row["user_id"],
        roleLevel=row["role_level"],
        joinTime=row["join_time"],
        nickname=row["nickname"] or user.get("nickname", ""),
        faceURL=row["face_url"] or user.get("face_url", ""),
        joinSource=row["join_source"],
        operatorUserID=row["operator_user_id"],
        ex=row["ex"],
        muteEndTime=row["mute_end_time"],
        inviterUserID=row["inviter_user_id"],
    )
