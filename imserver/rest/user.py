"""/user: users."""

from __future__ import annotations

from imserver.actions import users
from imserver.protocol.gen import user_pb2
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
