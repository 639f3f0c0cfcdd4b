"""/friend: friends, applications to become friends, blacklists."""

from __future__ import annotations

from imserver.actions import blacks, friend_applications, friend_queries, friends
from imserver.errors import NoPermission
from imserver.protocol.gen import relation_pb2
from imserver.rest.decorators import Answer, Call, Who, route


def _check_one_of(call: Call, *user_ids: str) -> None:
    """The token's user is one of them, or an admin. Raises NoPermission."""
    if not call.is_admin and call.operator.user_id not in user_ids:
        raise NoPermission("only one of the two users or an admin may do this")


# -- applications


@route(Who.ANY)
async def add_friend(call: Call) -> Answer:
    request, operator = call.parse(relation_pb2.applyToAddFriendReq), call.operator
    call.check_self(request.fromUserID)
    await friend_applications.check_apply(operator, request)
    await friend_applications.do_apply(operator, request)
    return None


@route(Who.ANY)
async def add_friend_response(call: Call) -> Answer:
    request = call.parse(relation_pb2.respondFriendApplyReq)
    call.check_self(request.toUserID)
    await friend_applications.check_answer(request)
    await friend_applications.do_answer(call.operator, request)
    return None


@route(Who.ANY)
async def get_friend_apply_list(call: Call) -> Answer:
    request = call.parse(relation_pb2.getPaginationFriendsApplyToReq)
    call.check_self(request.userID)
    return await friend_applications.get_received(request)


@route(Who.ANY)
async def get_self_friend_apply_list(call: Call) -> Answer:
    request = call.parse(relation_pb2.getPaginationFriendsApplyFromReq)
    call.check_self(request.userID)
    return await friend_applications.get_sent(request)


@route(Who.ANY)
async def get_self_unhandled_apply_count(call: Call) -> Answer:
    request = call.parse(relation_pb2.getSelfUnhandledApplyCountReq)
    call.check_self(request.userID)
    count = await friend_applications.count_unhandled(request.userID, request.time)
    return relation_pb2.getSelfUnhandledApplyCountResp(count=count)


@route(Who.ANY)
async def get_designated_friend_apply(call: Call) -> Answer:
    request = call.parse(relation_pb2.getDesignatedFriendsApplyReq)
    _check_one_of(call, request.fromUserID, request.toUserID)
    found = await friend_applications.get_between(request.fromUserID, request.toUserID)
    return relation_pb2.getDesignatedFriendsApplyResp(friendRequests=found)


# -- friends


@route(Who.ADMIN)
async def import_friend(call: Call) -> Answer:
    request = call.parse(relation_pb2.importFriendReq)
    user_ids = list(request.friendUserIDs)
    await friends.check_import(request.ownerUserID, user_ids)
    await friends.do_import(call.operator, request.ownerUserID, user_ids)
    return None


@route(Who.ANY)
async def delete_friend(call: Call) -> Answer:
    request = call.parse(relation_pb2.deleteFriendReq)
    call.check_self(request.ownerUserID)
    await friends.check_are_friends(request.ownerUserID, [request.friendUserID])
    await friends.do_delete(call.operator, request.ownerUserID, request.friendUserID)
    return None


@route(Who.ANY)
async def update_friends(call: Call) -> Answer:
    request = call.parse(relation_pb2.updateFriendsReq)
    call.check_self(request.ownerUserID)
    changes = await friends.check_update(request)
    await friends.do_update(call.operator, request.ownerUserID, list(request.friendUserIDs), changes)
    return None


@route(Who.ANY)
async def set_friend_remark(call: Call) -> Answer:
    request = call.parse(relation_pb2.setFriendRemarkReq)
    call.check_self(request.ownerUserID)
    await friends.check_set_remark(request.ownerUserID, request.friendUserID, request.remark)
    await friends.do_set_remark(call.operator, request.ownerUserID, request.friendUserID, request.remark)
    return None


# -- looking


@route(Who.ANY)
async def get_friend_list(call: Call) -> Answer:
    request = call.parse(relation_pb2.getPaginationFriendsReq)
    call.check_self(request.userID)
    return await friend_queries.get_page(request)


@route(Who.ANY)
async def get_designated_friends(call: Call) -> Answer:
    request = call.parse(relation_pb2.getDesignatedFriendsReq)
    call.check_self(request.ownerUserID)
    found = await friend_queries.get_designated(request.ownerUserID, list(request.friendUserIDs))
    return relation_pb2.getDesignatedFriendsResp(friendsInfo=found)


@route(Who.ANY)
async def get_specified_friends_info(call: Call) -> Answer:
    request = call.parse(relation_pb2.getSpecifiedFriendsInfoReq)
    call.check_self(request.ownerUserID)
    return await friend_queries.get_specified(request.ownerUserID, list(request.userIDList))


@route(Who.ANY)
async def is_friend(call: Call) -> Answer:
    request = call.parse(relation_pb2.isFriendReq)
    _check_one_of(call, request.userID1, request.userID2)
    return await friend_queries.is_friend(request.userID1, request.userID2)


@route(Who.ANY)
async def get_friend_id(call: Call) -> Answer:
    request = call.parse(relation_pb2.getFriendIDsReq)
    call.check_self(request.userID)
    return relation_pb2.getFriendIDsResp(friendIDs=await friends.friend_store().friend_ids(request.userID))


@route(Who.ANY)
async def get_full_friend_user_ids(call: Call) -> Answer:
    request = call.parse(relation_pb2.getFullFriendUserIDsReq)
    call.check_self(request.userID)
    return await friend_queries.get_full_ids(request)


@route(Who.ANY)
async def get_incremental_friends(call: Call) -> Answer:
    request = call.parse(relation_pb2.getIncrementalFriendsReq)
    call.check_self(request.userID)
    return await friend_queries.get_changed(request)


# -- blacklists


@route(Who.ANY)
async def add_black(call: Call) -> Answer:
    request = call.parse(relation_pb2.addBlackReq)
    call.check_self(request.ownerUserID)
    await blacks.check_add(request)
    await blacks.do_add(call.operator, request)
    return None


@route(Who.ANY)
async def remove_black(call: Call) -> Answer:
    request = call.parse(relation_pb2.removeBlackReq)
    call.check_self(request.ownerUserID)
    await blacks.check_remove(request)
    await blacks.do_remove(call.operator, request)
    return None


@route(Who.ANY)
async def get_black_list(call: Call) -> Answer:
    request = call.parse(relation_pb2.getPaginationBlacksReq)
    call.check_self(request.userID)
    return await blacks.get_page(request)


@route(Who.ANY)
async def get_specified_blacks(call: Call) -> Answer:
    request = call.parse(relation_pb2.GetSpecifiedBlacksReq)
    call.check_self(request.ownerUserID)
    return await blacks.get_specified(request)


@route(Who.ANY)
async def get_incremental_blacks(call: Call) -> Answer:
    request = call.parse(relation_pb2.getIncrementalBlacksReq)
    call.check_self(request.userID)
    return await blacks.get_changed(request)
