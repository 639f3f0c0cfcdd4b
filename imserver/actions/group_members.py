"""Who is in a group: joining, inviting, quitting, kicking."""

from __future__ import annotations

from collections.abc import Iterator

from imserver.actions import group_applications, group_membership
from imserver.actions.group_applications import apply
from imserver.actions.group_notices import MOST_MEMBERS_IN_TIPS, announce, describe_operator
from imserver.actions.groups import (
    MANAGERS,
    MOST_PER_REQUEST,
    Operator,
    check_member,
    check_users,
    get_group,
    get_living_group,
    group_store,
    is_member,
    to_member_infos,
)
from imserver.constants import ContentType, HandleResult, JoinSource, NeedVerification, RoleLevel
from imserver.errors import ArgsError, NoPermission, RecordNotFound, UserIDNotFound
from imserver.protocol.gen.sdkws_pb2 import MemberEnterTips, MemberInvitedTips, MemberKickedTips, MemberQuitTips
from imserver.storage.clients import Document
from imserver.storage.groups import new_member

#: How a user may say it found the group.
JOIN_SOURCES = (JoinSource.INVITATION, JoinSource.SEARCH, JoinSource.QR_CODE)


def in_parts(user_ids: list[str]) -> Iterator[list[str]]:
    """As many as one notification names."""
    for at in range(0, len(user_ids), MOST_MEMBERS_IN_TIPS):
        yield user_ids[at : at + MOST_MEMBERS_IN_TIPS]


# -- coming


async def check_join(user_id: str, group_id: str, join_source: int) -> Document:
    """Returns the group. Raises RecordNotFound, GroupDismissed, ArgsError (also a member already)."""
    if join_source not in JOIN_SOURCES:
        raise ArgsError("joinSource must be 2 (invitation), 3 (search) or 4 (QR code)")
    group = await get_living_group(group_id)
    await check_users([user_id])
    if await is_member(user_id, group_id):
        raise ArgsError(f"{user_id} is in group {group_id} already")
    return group


async def do_join(
    operator: Operator, group: Document, user_id: str, *, join_source: int, req_msg: str, ex: str
) -> None:
    """Become a member, or apply to, as the group wants it."""
    group_id = group["group_id"]
    if group["need_verification"] != NeedVerification.NOBODY:
        await apply(operator, group_id, user_id, req_msg=req_msg, join_source=join_source, ex=ex)
        return
    await enter(operator, group_id, user_id, join_source=join_source)


async def enter(operator: Operator, group_id: str, user_id: str, *, join_source: int) -> None:
    """A user becomes a member by itself."""
    row = new_member(
        group_id,
        user_id,
        RoleLevel.MEMBER,
        join_source=join_source,
        inviter_user_id=user_id,
        operator_user_id=operator.user_id,
    )
    added, version = await group_membership.add(group_id, [row])
    if added:
        (info,) = await to_member_infos(added)
        await announce(operator, group_id, ContentType.MEMBER_ENTER, MemberEnterTips, version=version, entrantUser=info)


async def check_invite(operator: Operator, group_id: str, user_ids: list[str]) -> Document:
    """Returns the group. Raises ArgsError, RecordNotFound, GroupDismissed, NoPermission."""
    if not user_ids:
        raise ArgsError("invitedUserIDs is empty")
    group = await get_living_group(group_id)
    await check_member(operator, group_id)
    await check_users(user_ids)
    if len(await group_store().find_members(group_id, user_ids)) == len(user_ids):
        raise ArgsError(f"they are in group {group_id} already")
    return group


async def do_invite(
    operator: Operator, group: Document, user_ids: list[str], *, reason: str, send_message: bool | None
) -> None:
    """Make members of those who are none yet, or applicants where an ordinary member may only propose them."""
    group_id = group["group_id"]
    if not await _may_invite(operator, group):
        members = await group_store().find_members(group_id, user_ids)
        for user_id in user_ids:
            if user_id not in members:
                await apply(
                    operator,
                    group_id,
                    user_id,
                    req_msg=reason,
                    join_source=JoinSource.INVITATION,
                    inviter_user_id=operator.user_id,
                )
        return
    await bring_in(operator, group_id, user_ids, inviter_user_id=operator.user_id, send_message=send_message)


async def _may_invite(operator: Operator, group: Document) -> bool:
    if operator.is_admin or group["need_verification"] != NeedVerification.ALL_BUT_MANAGERS_INVITATIONS:
        return True
    inviter = await group_store().find_member(group["group_id"], operator.user_id)
    return inviter is not None and inviter["role_level"] in MANAGERS


async def bring_in(
    operator: Operator,
    group_id: str,
    user_ids: list[str],
    *,
    inviter_user_id: str,
    send_message: bool | None = None,
) -> None:
    """Users become members by invitation. In parts: who is invited must find itself named."""
    for part in in_parts(user_ids):
        rows = [
            new_member(
                group_id,
                user_id,
                RoleLevel.MEMBER,
                join_source=JoinSource.INVITATION,
                inviter_user_id=inviter_user_id,
                operator_user_id=operator.user_id,
            )
            for user_id in part
        ]
        added, version = await group_membership.add(group_id, rows)
        if not added:
            continue
        inviter = Operator(inviter_user_id, operator.is_admin, operator.operation_id)
        await announce(
            operator,
            group_id,
            ContentType.MEMBER_INVITED,
            MemberInvitedTips,
            version=version,
            send_message=send_message,
            invitedUserList=await to_member_infos(added),
            inviterUser=await describe_operator(inviter, group_id),
        )


async def do_answer_application(operator: Operator, row: Document, *, result: int, handle_msg: str) -> None:
    """Raises GroupRequestHandled, GroupDismissed."""
    await group_applications.do_answer(operator, row, result=result, handle_msg=handle_msg)
    if result != HandleResult.AGREED:
        return
    group_id, user_id, inviter = row["group_id"], row["user_id"], row["inviter_user_id"]
    if inviter:
        await bring_in(operator, group_id, [user_id], inviter_user_id=inviter)
    else:
        await enter(operator, group_id, user_id, join_source=row["join_source"])


# -- going


async def check_quit(user_id: str, group_id: str) -> Document:
    """Returns the member's row. Raises RecordNotFound, NoPermission (the owner)."""
    await get_group(group_id)
    member = await group_store().find_member(group_id, user_id)
    if member is None:
        raise RecordNotFound(f"{user_id} is not in group {group_id}")
    if member["role_level"] == RoleLevel.OWNER:
        raise NoPermission("the owner hands the group over, or dismisses it, and does not quit")
    return member


async def do_quit(operator: Operator, member: Document) -> None:
    """May run twice: the second time only the notification repeats."""
    group_id, user_id = member["group_id"], member["user_id"]
    (info,) = await to_member_infos([member])
    gone, version = await group_membership.remove(group_id, [user_id])
    if gone:
        who = Operator(user_id, operator.is_admin, operator.operation_id)
        await announce(
            who, group_id, ContentType.MEMBER_QUIT, MemberQuitTips, version=version, quitUser=info, opUser=info
        )


async def check_kick(operator: Operator, group_id: str, user_ids: list[str]) -> list[Document]:
    """Returns the rows of who is to go. Raises ArgsError, RecordNotFound, NoPermission, UserIDNotFound (no member)."""
    await get_group(group_id)
    if not user_ids or not all(user_ids) or len(set(user_ids)) != len(user_ids):
        raise ArgsError("kickedUserIDs is empty, or one is empty or stands twice")
    if len(user_ids) > MOST_PER_REQUEST:
        raise ArgsError(f"more than {MOST_PER_REQUEST} users at once")
    if operator.user_id in user_ids:
        raise ArgsError("nobody kicks themselves; quit instead")
    rows = await group_store().find_members(group_id, [*user_ids, operator.user_id])
    kicker = rows.pop(operator.user_id, None)
    if not operator.is_admin and (kicker is None or kicker["role_level"] not in MANAGERS):
        raise NoPermission(f"only owner and admins of group {group_id} may do this")
    missing = [user_id for user_id in user_ids if user_id not in rows]
    if missing:
        raise UserIDNotFound(f"not in the group: {', '.join(missing[:10])}")
    roles = {row["role_level"] for row in rows.values()}
    if RoleLevel.OWNER in roles:
        raise ArgsError("the owner cannot be kicked")
    if (
        not operator.is_admin
        and kicker is not None
        and kicker["role_level"] == RoleLevel.ADMIN
        and roles != {RoleLevel.MEMBER}
    ):
        raise NoPermission("an admin of a group kicks ordinary members only")
    return list(rows.values())


async def do_kick(operator: Operator, rows: list[Document], *, send_message: bool | None) -> None:
    """May run twice: the second time only the notification repeats."""
    group_id = rows[0]["group_id"]
    infos = {info.userID: info for info in await to_member_infos(rows)}
    for part in in_parts(list(infos)):
        gone, version = await group_membership.remove(group_id, part)
        if gone:
            await announce(
                operator,
                group_id,
                ContentType.MEMBER_KICKED,
                MemberKickedTips,
                version=version,
                send_message=send_message,
                kickedUserList=[infos[user_id] for user_id in gone],
            )
