"""Applications to join a group: making, answering and listing them."""

from __future__ import annotations

import secrets

from google.protobuf.message import Message

from imserver.actions.group_notices import describe_operator, tell
from imserver.actions.groups import (
    MANAGERS,
    MOST_PER_REQUEST,
    Operator,
    check_page,
    check_role,
    get_group,
    get_group_infos,
    get_living_group,
    group_store,
)
from imserver.actions.users import to_user_info
from imserver.constants import ContentType, HandleResult, SessionType
from imserver.errors import ArgsError, GroupRequestHandled, NoPermission, RecordNotFound
from imserver.protocol.gen import group_pb2
from imserver.protocol.gen.sdkws_pb2 import (
    GroupApplicationAcceptedTips,
    GroupApplicationRejectedTips,
    GroupInfo,
    GroupRequest,
    JoinGroupApplicationTips,
    PublicUserInfo,
)
from imserver.storage.clients import Document, get_async_mongo
from imserver.storage.group_requests import GroupRequests, of_user, to_groups, unhandled_since
from imserver.storage.users import Users

#: Texts of requests: they travel in the notifications to owner, admins and applicant.
MAX_CHARS = {"reqMessage": 1000, "reason": 1000, "handledMsg": 1000, "ex": 4000}

#: ``receiverAs`` of 1505 and 1506.
AS_APPLICANT, AS_MANAGER = 0, 1


def _store() -> GroupRequests:
    return GroupRequests(get_async_mongo())


async def to_requests(rows: list[Document]) -> list[GroupRequest]:
    """Neither user nor group is ever left out: clients read them unseen."""
    user_ids = [row["user_id"] for row in rows]
    users = {user["user_id"]: to_user_info(user) for user in await Users(get_async_mongo()).find(user_ids)}
    groups = {info.groupID: info for info in await get_group_infos([row["group_id"] for row in rows])}
    requests = []
    for row in rows:
        user = users.get(row["user_id"])
        requests.append(
            GroupRequest(
                userInfo=PublicUserInfo(
                    userID=row["user_id"],
                    nickname=user.nickname if user else "",
                    faceURL=user.faceURL if user else "",
                    ex=user.ex if user else "",
                ),
                groupInfo=groups.get(row["group_id"], GroupInfo(groupID=row["group_id"])),
                handleResult=row["handle_result"],
                reqMsg=row["req_msg"],
                handleMsg=row["handle_msg"],
                reqTime=row["req_time"],
                handleUserID=row["handle_user_id"],
                handleTime=row["handle_time"],
                ex=row["ex"],
                joinSource=row["join_source"],
                inviterUserID=row["inviter_user_id"],
            )
        )
    return requests


def check_texts(**texts: str) -> None:
    """Raises ArgsError."""
    for name, text in texts.items():
        if len(text) > MAX_CHARS[name]:
            raise ArgsError(f"{name} is longer than {MAX_CHARS[name]} characters")


async def apply(
    operator: Operator,
    group_id: str,
    user_id: str,
    *,
    req_msg: str,
    join_source: int,
    inviter_user_id: str = "",
    ex: str = "",
) -> None:
    """Note that a user wants to join, or is proposed by a member, and tell owner, admins and who asked for it."""
    row = await _store().put(
        group_id, user_id, req_msg=req_msg, join_source=join_source, inviter_user_id=inviter_user_id, ex=ex
    )
    (request,) = await to_requests([row])
    tips = JoinGroupApplicationTips(
        group=request.groupInfo,
        applicant=request.userInfo,
        reqMsg=req_msg,
        uuid=secrets.token_hex(16),
        request=request,
    )
    for receiver in await _receivers(group_id, inviter_user_id or user_id):
        await _tell_one(operator, ContentType.JOIN_GROUP_APPLICATION, tips, receiver)


async def check_answer(operator: Operator, group_id: str, user_id: str, result: int) -> Document:
    """Returns the application. Raises ArgsError, NoPermission, RecordNotFound, GroupDismissed, GroupRequestHandled."""
    if result not in (HandleResult.AGREED, HandleResult.REFUSED):
        raise ArgsError("handleResult must be 1 (agree) or -1 (refuse)")
    await get_living_group(group_id)
    await check_role(operator, group_id, MANAGERS)
    row = await _store().find(group_id, user_id)
    if row is None:
        raise RecordNotFound(f"{user_id} has not applied to group {group_id}")
    if row["handle_result"] != HandleResult.PENDING:
        raise GroupRequestHandled("the application was answered already")
    return row


async def do_answer(operator: Operator, row: Document, *, result: int, handle_msg: str) -> None:
    """Note the answer and tell owner, admins and applicant; making a member is the caller's.

    Raises:
        GroupRequestHandled: somebody else was quicker.
    """
    group_id, user_id = row["group_id"], row["user_id"]
    if not await _store().handle(
        group_id, user_id, result=result, handle_msg=handle_msg, handle_user_id=operator.user_id
    ):
        raise GroupRequestHandled("the application was answered already")
    (request,) = await to_requests([await _store().find(group_id, user_id) or row])
    is_agreed = result == HandleResult.AGREED
    content_type = ContentType.GROUP_APPLICATION_ACCEPTED if is_agreed else ContentType.GROUP_APPLICATION_REJECTED
    tips_type = GroupApplicationAcceptedTips if is_agreed else GroupApplicationRejectedTips
    tips = tips_type(
        group=request.groupInfo,
        opUser=await describe_operator(operator, group_id),
        handleMsg=handle_msg,
        uuid=secrets.token_hex(16),
        request=request,
    )
    for receiver in await _receivers(group_id, user_id):
        tips.receiverAs = AS_APPLICANT if receiver == user_id else AS_MANAGER
        await _tell_one(operator, content_type, tips, receiver)


async def _receivers(group_id: str, user_id: str) -> list[str]:
    """Owner, admins and a user."""
    return list(dict.fromkeys([*await group_store().member_ids(group_id, MANAGERS), user_id]))


async def _tell_one(operator: Operator, content_type: ContentType, tips: Message, user_id: str) -> None:
    await tell(operator, content_type, tips, recv_id=user_id, session_type=SessionType.SINGLE)


# -- lists


async def get_received(
    operator: Operator, request: group_pb2.GetGroupApplicationListReq
) -> group_pb2.GetGroupApplicationListResp:
    """Applications to the groups that the request names, else to those that a user manages. Raises ArgsError, NoPermission.

    App admins name any groups, others those that they manage.
    """
    skip, limit = check_page(request.pagination)
    wanted = list(dict.fromkeys(request.groupIDs))
    if not wanted or not operator.is_admin:
        managed = await group_store().managed_ids(request.fromUserID)
        foreign = set(wanted).difference(managed)
        if foreign:
            raise NoPermission(f"only owner and admins may do this: {', '.join(sorted(foreign)[:10])}")
        wanted = wanted or managed
    where = to_groups(wanted, request.handleResults)
    total, rows = await _store().page(where, skip=skip, limit=limit)
    return group_pb2.GetGroupApplicationListResp(total=total, groupRequests=await to_requests(rows))


async def get_own(request: group_pb2.GetUserReqApplicationListReq) -> group_pb2.GetUserReqApplicationListResp:
    """A user's own applications."""
    skip, limit = check_page(request.pagination)
    where = of_user(request.userID, request.groupIDs, request.handleResults)
    total, rows = await _store().page(where, skip=skip, limit=limit)
    return group_pb2.GetUserReqApplicationListResp(total=total, groupRequests=await to_requests(rows))


async def count_unhandled(user_id: str, time_ms: int) -> int:
    """Pending applications to the user's groups that came after a time."""
    return await _store().count(unhandled_since(await group_store().managed_ids(user_id), time_ms))


async def get_of_user(operator: Operator, group_id: str, user_id: str) -> list[GroupRequest]:
    """A user's application to a group, for the user and those who answer it. Raises NoPermission."""
    if operator.user_id != user_id:
        await check_role(operator, group_id, MANAGERS)
    row = await _store().find(group_id, user_id)
    return await to_requests([row]) if row else []


async def get_of_users(operator: Operator, group_id: str, user_ids: list[str]) -> list[GroupRequest]:
    """Applications of some users to a group, for those who answer them. Raises ArgsError, RecordNotFound, NoPermission."""
    if not user_ids or len(user_ids) > MOST_PER_REQUEST:
        raise ArgsError(f"userIDs must be 1 to {MOST_PER_REQUEST}")
    await get_group(group_id)
    await check_role(operator, group_id, MANAGERS)
    where = {"group_id": group_id, "user_id": {"$in": user_ids}}
    _, rows = await _store().page(where, skip=0, limit=len(user_ids))
    return await to_requests(rows)
