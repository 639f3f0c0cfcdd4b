"""/group: groups, their members, applications to join."""

from __future__ import annotations

from typing import Any

from imserver.actions import (
    group_applications,
    group_life,
    group_members,
    group_queries,
    group_settings,
)
from imserver.errors import ArgsError
from imserver.protocol.gen import group_pb2
from imserver.protocol.json_mapping import to_json
from imserver.rest.decorators import Answer, Call, Who, route

#: In an answer of changed members these must be null when they are empty: OpenIM's JS SDK fails its sync on [].
_NULL_WHEN_EMPTY = ("insert", "update")


def _send_message(request: Any) -> bool | None:
    """``sendMessage`` is three-valued: not given means as usual."""
    return request.sendMessage if request.HasField("sendMessage") else None


# -- beginning and end


@route(Who.ANY)
async def create_group(call: Call) -> Answer:
    request = call.parse(group_pb2.CreateGroupReq)
    call.check_self(request.ownerUserID)
    await group_life.check_create(call.operator, request)
    return group_pb2.CreateGroupResp(groupInfo=await group_life.do_create(call.operator, request))


@route(Who.ANY)
async def dismiss_group(call: Call) -> Answer:
    """``deleteMember`` is not looked at: the members always go."""
    request = call.parse(group_pb2.DismissGroupReq)
    await group_life.check_dismiss(call.operator, request.groupID)
    await group_life.do_dismiss(call.operator, request.groupID, send_message=_send_message(request))
    return None


# -- who is in it


@route(Who.ANY)
async def join_group(call: Call) -> Answer:
    """``inviterUserID`` is the applicant; left out, it is the caller."""
    request, operator = call.parse(group_pb2.JoinGroupReq), call.operator
    user_id = request.inviterUserID or operator.user_id
    call.check_self(user_id)
    group_applications.check_texts(reqMessage=request.reqMessage, ex=request.ex)
    group = await group_members.check_join(user_id, request.groupID, request.joinSource)
    await group_members.do_join(
        operator, group, user_id, join_source=request.joinSource, req_msg=request.reqMessage, ex=request.ex
    )
    return None


@route(Who.ANY)
async def invite_user_to_group(call: Call) -> Answer:
    request, operator = call.parse(group_pb2.InviteUserToGroupReq), call.operator
    user_ids = list(request.invitedUserIDs)
    group_applications.check_texts(reason=request.reason)
    group = await group_members.check_invite(operator, request.groupID, user_ids)
    await group_members.do_invite(operator, group, user_ids, reason=request.reason, send_message=_send_message(request))
    return None


@route(Who.ANY)
async def quit_group(call: Call) -> Answer:
    """Without ``userID`` it is the caller."""
    request = call.parse(group_pb2.QuitGroupReq)
    user_id = request.userID or call.user_id
    call.check_self(user_id)
    await group_members.do_quit(call.operator, await group_members.check_quit(user_id, request.groupID))
    return None


@route(Who.ANY)
async def kick_group(call: Call) -> Answer:
    request, operator = call.parse(group_pb2.KickGroupMemberReq), call.operator
    rows = await group_members.check_kick(operator, request.groupID, list(request.kickedUserIDs))
    await group_members.do_kick(operator, rows, send_message=_send_message(request))
    return None


# -- settings


@route(Who.ANY)
async def transfer_group(call: Call) -> Answer:
    request, operator = call.parse(group_pb2.TransferGroupOwnerReq), call.operator
    old, new = await group_settings.check_transfer(
        operator, request.groupID, request.oldOwnerUserID, request.newOwnerUserID
    )
    await group_settings.do_transfer(operator, old, new)
    return None


@route(Who.ANY)
async def mute_group_member(call: Call) -> Answer:
    request, operator = call.parse(group_pb2.MuteGroupMemberReq), call.operator
    if request.mutedSeconds < 1:
        raise ArgsError("mutedSeconds must be at least 1")
    await group_settings.check_mute_member(operator, request.groupID, request.userID)
    await group_settings.do_mute_member(operator, request.groupID, request.userID, request.mutedSeconds)
    return None


@route(Who.ANY)
async def cancel_mute_group_member(call: Call) -> Answer:
    request, operator = call.parse(group_pb2.CancelMuteGroupMemberReq), call.operator
    await group_settings.check_mute_member(operator, request.groupID, request.userID)
    await group_settings.do_mute_member(operator, request.groupID, request.userID, 0)
    return None


@route(Who.ANY)
async def mute_group(call: Call) -> Answer:
    request, operator = call.parse(group_pb2.MuteGroupReq), call.operator
    await group_settings.check_mute_group(operator, request.groupID)
    await group_settings.do_mute_group(operator, request.groupID, is_muted=True)
    return None


@route(Who.ANY)
async def cancel_mute_group(call: Call) -> Answer:
    request, operator = call.parse(group_pb2.CancelMuteGroupReq), call.operator
    await group_settings.check_mute_group(operator, request.groupID)
    await group_settings.do_mute_group(operator, request.groupID, is_muted=False)
    return None


@route(Who.ANY)
async def set_group_info_ex(call: Call) -> Answer:
    request, operator = call.parse(group_pb2.SetGroupInfoExReq), call.operator
    changes = await group_settings.check_set_group_info(operator, request)
    await group_settings.do_set_group_info(operator, request.groupID, changes)
    return None


@route(Who.ANY)
async def set_group_info(call: Call) -> Answer:
    """The older form of the route above: an empty text means as it was."""
    given, operator = call.parse(group_pb2.SetGroupInfoReq).groupInfoForSet, call.operator
    request = group_pb2.SetGroupInfoExReq(groupID=given.groupID)
    for name in ("groupName", "notification", "introduction", "faceURL"):
        if getattr(given, name).strip():
            getattr(request, name).value = getattr(given, name)
    for name in ("ex", "needVerification", "lookMemberInfo", "applyMemberFriend"):
        if given.HasField(name):
            getattr(request, name).CopyFrom(getattr(given, name))
    changes = await group_settings.check_set_group_info(operator, request)
    await group_settings.do_set_group_info(operator, request.groupID, changes)
    return None


@route(Who.ANY)
async def set_group_member_info(call: Call) -> Answer:
    members, operator = list(call.parse(group_pb2.SetGroupMemberInfoReq).members), call.operator
    await group_settings.check_set_member_info(operator, members)
    await group_settings.do_set_member_info(operator, members)
    return None


# -- looking


@route(Who.ANY)
async def get_groups_info(call: Call) -> Answer:
    request = call.parse(group_pb2.GetGroupsInfoReq)
    return group_pb2.GetGroupsInfoResp(groupInfos=await group_queries.get_groups_info(list(request.groupIDs)))


@route(Who.ANY)
async def get_group_member_list(call: Call) -> Answer:
    return await group_queries.get_member_list(call.operator, call.parse(group_pb2.GetGroupMemberListReq))


@route(Who.ANY)
async def get_group_members_info(call: Call) -> Answer:
    return await group_queries.get_members_info(call.operator, call.parse(group_pb2.GetGroupMembersInfoReq))


@route(Who.ANY)
async def get_joined_group_list(call: Call) -> Answer:
    request = call.parse(group_pb2.GetJoinedGroupListReq)
    call.check_self(request.fromUserID)
    return await group_queries.get_joined_groups(request)


@route(Who.ANY)
async def get_full_join_group_ids(call: Call) -> Answer:
    request = call.parse(group_pb2.GetFullJoinGroupIDsReq)
    call.check_self(request.userID)
    return await group_queries.get_full_joined_ids(request)


@route(Who.ANY)
async def get_full_group_member_user_ids(call: Call) -> Answer:
    return await group_queries.get_full_member_ids(call.operator, call.parse(group_pb2.GetFullGroupMemberUserIDsReq))


@route(Who.ANY)
async def get_incremental_join_groups(call: Call) -> Answer:
    request = call.parse(group_pb2.getIncrementalJoinGroupReq)
    call.check_self(request.userID)
    return await group_queries.get_changed_joined(request)


@route(Who.ANY)
async def get_incremental_group_members_batch(call: Call) -> Answer:
    request = call.parse(group_pb2.BatchGetIncrementalGroupMemberReq)
    call.check_self(request.userID)
    answer = to_json(await group_queries.get_changed_members(call.operator, request))
    for entry in answer["respList"].values():
        for name in _NULL_WHEN_EMPTY:
            entry[name] = entry[name] or None
    return answer


@route(Who.ANY)
async def get_incremental_group_members(call: Call) -> Answer:
    """The route above for one group."""
    item, operator = call.parse(group_pb2.getIncrementalGroupMemberReq), call.operator
    request = group_pb2.BatchGetIncrementalGroupMemberReq(userID=operator.user_id, reqList=[item])
    answer = to_json((await group_queries.get_changed_members(operator, request)).respList[item.groupID])
    return {**answer, **{name: answer[name] or None for name in _NULL_WHEN_EMPTY}}


@route(Who.ANY)
async def get_group_member_user_id(call: Call) -> Answer:
    group_id = call.parse(group_pb2.GetGroupMemberUserIDsReq).groupID
    return group_pb2.GetGroupMemberUserIDsResp(userIDs=await group_queries.get_user_ids(call.operator, group_id))


@route(Who.ANY)
async def get_group_abstract_info(call: Call) -> Answer:
    abstracts = await group_queries.get_abstracts(list(call.parse(group_pb2.GetGroupAbstractInfoReq).groupIDs))
    return group_pb2.GetGroupAbstractInfoResp(groupAbstractInfos=abstracts)


@route(Who.ADMIN)
async def get_groups(call: Call) -> Answer:
    return await group_queries.search_groups(call.parse(group_pb2.GetGroupsReq))


# -- applications


@route(Who.ANY)
async def group_application_response(call: Call) -> Answer:
    request, operator = call.parse(group_pb2.GroupApplicationResponseReq), call.operator
    group_applications.check_texts(handledMsg=request.handledMsg)
    row = await group_applications.check_answer(operator, request.groupID, request.fromUserID, request.handleResult)
    await group_members.do_answer_application(operator, row, result=request.handleResult, handle_msg=request.handledMsg)
    return None


@route(Who.ANY)
async def get_recv_group_application_list(call: Call) -> Answer:
    request = call.parse(group_pb2.GetGroupApplicationListReq)
    call.check_self(request.fromUserID)
    return await group_applications.get_received(call.operator, request)


@route(Who.ANY)
async def get_user_req_group_application_list(call: Call) -> Answer:
    request = call.parse(group_pb2.GetUserReqApplicationListReq)
    call.check_self(request.userID)
    return await group_applications.get_own(request)


@route(Who.ANY)
async def get_group_application_unhandled_count(call: Call) -> Answer:
    request = call.parse(group_pb2.GetGroupApplicationUnhandledCountReq)
    call.check_self(request.userID)
    count = await group_applications.count_unhandled(request.userID, request.time)
    return group_pb2.GetGroupApplicationUnhandledCountResp(count=count)


@route(Who.ANY)
async def get_specified_user_group_request_info(call: Call) -> Answer:
    """``groupRequests``: a user's application to a group, or none, and ``total``."""
    request = call.parse(group_pb2.QuitGroupReq)
    found = await group_applications.get_of_user(call.operator, request.groupID, request.userID)
    return {"total": len(found), "groupRequests": [to_json(item) for item in found]}


@route(Who.ANY)
async def get_group_users_req_application_list(call: Call) -> Answer:
    """Applications of some users to a group."""
    request = call.parse(group_pb2.getGroupUsersReqApplicationListReq)
    user_ids = list(request.userIDs)
    found = await group_applications.get_of_users(call.operator, request.groupID, user_ids)
    return group_pb2.getGroupUsersReqApplicationListResp(total=len(found), groupRequests=found)
