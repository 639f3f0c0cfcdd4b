"""/user: users."""

from __future__ import annotations

from imserver.actions import user_infos, users
from imserver.actions.groups import check_page
from imserver.protocol.gen import user_pb2
from imserver.protocol.gen.sdkws_pb2 import UserInfo, UserInfoWithEx
from imserver.rest.decorators import Answer, Call, Who, route


@route(Who.ADMIN)
async def user_register(call: Call) -> Answer:
    request = call.parse(user_pb2.userRegisterReq)
    await users.check_register(list(request.users))
    await users.do_register(list(request.users))
    return None


@route(Who.ANY)
async def get_users_info(call: Call) -> Answer:
    request = call.parse(user_pb2.getDesignateUsersReq)
    return user_pb2.getDesignateUsersResp(usersInfo=await users.get_users_info(list(request.userIDs)))


@route(Who.ADMIN)
async def account_check(call: Call) -> Answer:
    request = call.parse(user_pb2.accountCheckReq)
    registered = await users.find_registered(list(request.checkUserIDs))
    status = user_pb2.accountCheckResp.singleUserStatus
    results = [status(userID=user_id, accountStatus=int(is_in)) for user_id, is_in in registered.items()]
    return user_pb2.accountCheckResp(results=results)


@route(Who.ADMIN)
async def get_all_users_uid(call: Call) -> Answer:
    page = check_page(call.parse(user_pb2.getAllUserIDReq).pagination)
    total, ids = await users.get_page_of_ids(*page)
    return user_pb2.getAllUserIDResp(total=total, userIDs=ids)


@route(Who.ADMIN)
async def get_users(call: Call) -> Answer:
    request = call.parse(user_pb2.getPaginationUsersReq)
    total, page = await users.get_page(request.userID, request.nickName, *check_page(request.pagination))
    return user_pb2.getPaginationUsersResp(total=total, users=page)


# -- what users set about themselves


@route(Who.ANY)
async def update_user_info(call: Call) -> Answer:
    return await _update(call, call.parse(user_pb2.updateUserInfoReq).userInfo)


@route(Who.ANY)
async def update_user_info_ex(call: Call) -> Answer:
    return await _update(call, call.parse(user_pb2.updateUserInfoExReq).userInfo)


async def _update(call: Call, info: UserInfo | UserInfoWithEx) -> Answer:
    call.check_self(info.userID)
    changes = user_infos.check_update(info)
    await user_infos.do_update(call.operator, info.userID, changes)
    return None


@route(Who.ANY)
async def set_global_msg_recv_opt(call: Call) -> Answer:
    request = call.parse(user_pb2.setGlobalRecvMessageOptReq)
    call.check_self(request.userID)
    user_infos.check_receive_option(request.globalRecvMsgOpt)
    changes = {"global_recv_msg_opt": request.globalRecvMsgOpt}
    await user_infos.do_update(call.operator, request.userID, changes)
    return None
