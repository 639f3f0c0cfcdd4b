"""/auth: tokens."""

from __future__ import annotations

from imserver.actions import auth
from imserver.protocol.gen import auth_pb2
from imserver.rest.decorators import Answer, Call, Who, route


@route(Who.NOBODY)
async def get_admin_token(call: Call) -> Answer:
    request = call.parse(auth_pb2.getAdminTokenReq)
    issued = await auth.get_admin_token(request.secret, request.userID)
    return auth_pb2.getAdminTokenResp(token=issued.token, expireTimeSeconds=issued.lifetime_seconds)


@route(Who.ADMIN)
async def get_user_token(call: Call) -> Answer:
    request = call.parse(auth_pb2.getUserTokenReq)
    issued = await auth.get_user_token(request.userID, request.platformID)
    return auth_pb2.getUserTokenResp(token=issued.token, expireTimeSeconds=issued.lifetime_seconds)


@route(Who.NOBODY)
async def parse_token(call: Call) -> Answer:
    claims = await auth.check_claims(call.parse(auth_pb2.parseTokenReq).token)
    return auth_pb2.parseTokenResp(
        userID=claims.user_id, platformID=claims.platform_id, expireTimeSeconds=claims.expires_at
    )


@route(Who.ADMIN)
async def force_logout(call: Call) -> Answer:
    request = call.parse(auth_pb2.forceLogoutReq)
    await auth.force_logout(request.userID, request.platformID, call.operation_id)
    return None
