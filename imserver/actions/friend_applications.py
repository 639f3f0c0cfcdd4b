"""Applications to become friends: making, answering and listing them."""

from __future__ import annotations

from imserver.actions.friend_notices import tell, tell_approved
from imserver.actions.friends import befriend, check_texts, describe, friend_store
from imserver.actions.groups import Operator, check_page, check_users
from imserver.constants import ContentType, FriendSource, HandleResult
from imserver.errors import (
    ArgsError,
    BlockedByPeer,
    CannotAddYourself,
    FriendRequestHandled,
    RecordNotFound,
    RelationshipAlready,
)
from imserver.protocol.gen import relation_pb2
from imserver.protocol.gen.sdkws_pb2 import (
    FriendApplicationRejectedTips,
    FriendApplicationTips,
    FriendRequest,
    FromToUserID,
)
from imserver.storage.blacks import Blacks
from imserver.storage.clients import Document, get_async_mongo
from imserver.storage.friend_requests import FriendRequests, received_by, sent_by, unhandled_since


def _store() -> FriendRequests:
    return FriendRequests(get_async_mongo())


async def to_requests(rows: list[Document]) -> list[FriendRequest]:
    users = await describe(user_id for row in rows for user_id in (row["from_user_id"], row["to_user_id"]))
    requests = []
    for row in rows:
        applicant, target = users[row["from_user_id"]], users[row["to_user_id"]]
        requests.append(
            FriendRequest(
                fromUserID=applicant.userID,
                fromNickname=applicant.nickname,
                fromFaceURL=applicant.faceURL,
                toUserID=target.userID,
                toNickname=target.nickname,
                toFaceURL=target.faceURL,
                handleResult=row["handle_result"],
                reqMsg=row["req_msg"],
                createTime=row["create_time"],
                handlerUserID=row["handler_user_id"],
                handleMsg=row["handle_msg"],
                handleTime=row["handle_time"],
                ex=row["ex"],
            )
        )
    return requests


async def check_apply(operator: Operator, request: relation_pb2.applyToAddFriendReq) -> None:
    """Raises ArgsError, CannotAddYourself, RecordNotFound, RelationshipAlready, BlockedByPeer (not for app admins)."""
    applicant, target = request.fromUserID, request.toUserID
    if applicant == target:
        raise CannotAddYourself("nobody is their own friend")
    check_texts(reqMsg=request.reqMsg, ex=request.ex)
    await check_users([applicant, target])
    friends = friend_store()
    if await friends.is_friend(applicant, target) and await friends.is_friend(target, applicant):
        raise RelationshipAlready("the two are friends already")
    if not operator.is_admin and await Blacks(get_async_mongo()).has(target, applicant):
        raise BlockedByPeer("the other one has blocked the applicant")


async def do_apply(operator: Operator, request: relation_pb2.applyToAddFriendReq) -> None:
    """Note an application, in the place of an earlier one, and tell the target. May run twice."""
    row = await _store().put(request.fromUserID, request.toUserID, req_msg=request.reqMsg, ex=request.ex)
    (noted,) = await to_requests([row])
    tips = FriendApplicationTips(fromToUserID=_from_to(row), request=noted)
    await tell(
        ContentType.FRIEND_APPLICATION,
        tips,
        send_id=request.fromUserID,
        recv_id=request.toUserID,
        operation_id=operator.operation_id,
    )


async def check_answer(request: relation_pb2.respondFriendApplyReq) -> None:
    """Raises ArgsError, RecordNotFound. Whether it was answered already, only the answer finds out."""
    if request.handleResult not in (HandleResult.AGREED, HandleResult.REFUSED):
        raise ArgsError("handleResult must be 1 (agree) or -1 (refuse)")
    check_texts(handleMsg=request.handleMsg)
    if await _store().find(request.fromUserID, request.toUserID) is None:
        raise RecordNotFound(f"{request.fromUserID} has not applied to {request.toUserID}")


async def do_answer(operator: Operator, request: relation_pb2.respondFriendApplyReq) -> None:
    """Answer an application, make friends of the two when they agree, and tell the applicant.

    Whatever the target itself had applied for at the same time is agreed to as well.

    Raises:
        FriendRequestHandled: it was answered already.
    """
    applicant, target = request.fromUserID, request.toUserID
    requests = _store()
    is_first = await requests.handle(
        applicant,
        target,
        result=request.handleResult,
        handle_msg=request.handleMsg,
        handler_user_id=operator.user_id,
    )
    if not is_first:
        raise FriendRequestHandled("the application was answered already")
    row = await requests.find(applicant, target)
    if row is None:
        raise RecordNotFound(f"{applicant} has not applied to {target}")
    (noted,) = await to_requests([row])
    if request.handleResult == HandleResult.REFUSED:
        tips = FriendApplicationRejectedTips(fromToUserID=_from_to(row), handleMsg=request.handleMsg, request=noted)
        await tell(
            ContentType.FRIEND_APPLICATION_REJECTED,
            tips,
            send_id=target,
            recv_id=applicant,
            operation_id=operator.operation_id,
        )
        return
    await requests.handle_opposite(applicant, target, handler_user_id=operator.user_id)
    _, version = await befriend(applicant, [target], add_source=FriendSource.APPLICATION, operator_user_id=applicant)
    await tell_approved(
        applicant,
        (await describe([target]))[target],
        operation_id=operator.operation_id,
        version=version,
        handle_msg=request.handleMsg,
        request=noted,
    )
    await requests.finish(applicant, target)


def _from_to(row: Document) -> FromToUserID:
    return FromToUserID(fromUserID=row["from_user_id"], toUserID=row["to_user_id"])


# -- lists


async def get_received(
    request: relation_pb2.getPaginationFriendsApplyToReq,
) -> relation_pb2.getPaginationFriendsApplyToResp:
    """Applications to a user, newest first. Raises ArgsError."""
    skip, limit = check_page(request.pagination)
    where = received_by(request.userID, request.handleResults)
    total, rows = await _store().page(where, skip=skip, limit=limit)
    return relation_pb2.getPaginationFriendsApplyToResp(total=total, FriendRequests=await to_requests(rows))


async def get_sent(
    request: relation_pb2.getPaginationFriendsApplyFromReq,
) -> relation_pb2.getPaginationFriendsApplyFromResp:
    """A user's own applications, newest first. Raises ArgsError."""
    skip, limit = check_page(request.pagination)
    where = sent_by(request.userID, request.handleResults)
    total, rows = await _store().page(where, skip=skip, limit=limit)
    return relation_pb2.getPaginationFriendsApplyFromResp(total=total, friendRequests=await to_requests(rows))


async def count_unhandled(user_id: str, time_ms: int) -> int:
    """Pending applications to a user that came after a time."""
    return await _store().count(unhandled_since(user_id, time_ms))


async def get_between(from_user_id: str, to_user_id: str) -> list[FriendRequest]:
    """The applications between two users, those of the first one first. Raises ArgsError."""
    if not from_user_id or not to_user_id:
        raise ArgsError("fromUserID or toUserID is empty")
    return await to_requests(await _store().find_both(from_user_id, to_user_id))
