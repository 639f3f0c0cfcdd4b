"""/third: device tokens and badges for offline pushes, records of clients' log files."""

from __future__ import annotations

from imserver.actions import client_logs, device_tokens
from imserver.protocol.gen import third_pb2
from imserver.rest.decorators import Answer, Call, Who, route


@route(Who.ANY)
async def fcm_update_token(call: Call) -> Answer:
    request = call.parse(third_pb2.FcmUpdateTokenReq)
    call.check_self(request.account)
    wanted = (request.account, request.platformID, request.fcmToken, request.expireTime)
    await device_tokens.check_set_token(*wanted)
    await device_tokens.do_set_token(*wanted)
    return None


@route(Who.ANY)
async def set_app_badge(call: Call) -> Answer:
    request = call.parse(third_pb2.SetAppBadgeReq)
    call.check_self(request.userID)
    await device_tokens.check_set_badge(request.userID, request.appUnreadCount)
    await device_tokens.do_set_badge(request.userID, request.appUnreadCount)
    return None


@route(Who.ANY)
async def upload_logs(call: Call) -> Answer:
    request = call.parse(third_pb2.UploadLogsReq)
    client_logs.check_upload(request)
    await client_logs.do_upload(call.user_id, request)
    return None


@route(Who.ADMIN)
async def delete_logs(call: Call) -> Answer:
    log_ids = list(call.parse(third_pb2.DeleteLogsReq).logIDs)
    await client_logs.check_delete(log_ids)
    await client_logs.do_delete(log_ids)
    return None


@route(Who.ADMIN)
async def search_logs(call: Call) -> Answer:
    return await client_logs.search(call.parse(third_pb2.SearchLogsReq))
