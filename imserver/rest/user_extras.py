"""/user: what users keep on the server, what clients are set to, service accounts."""

from __future__ import annotations

from imserver.actions import client_configs, notification_accounts, user_commands
from imserver.actions.groups import check_page
from imserver.protocol.gen import user_pb2
from imserver.rest.decorators import Answer, Call, Who, route

# -- what users keep


@route(Who.ANY)
async def process_user_command_add(call: Call) -> Answer:
    request = call.parse(user_pb2.processUserCommandAddReq)
    call.check_self(request.userID)
    await user_commands.check_add(request)
    await user_commands.do_add(request)
    return None


@route(Who.ANY)
async def process_user_command_delete(call: Call) -> Answer:
    request = call.parse(user_pb2.processUserCommandDeleteReq)
    call.check_self(request.userID)
    await user_commands.do_delete(request.userID, request.type, request.uuid)
    return None


@route(Who.ANY)
async def process_user_command_update(call: Call) -> Answer:
    request = call.parse(user_pb2.processUserCommandUpdateReq)
    call.check_self(request.userID)
    await user_commands.do_update(request)
    return None


@route(Who.ANY)
async def process_user_command_get(call: Call) -> Answer:
    request = call.parse(user_pb2.processUserCommandGetReq)
    call.check_self(request.userID)
    return await user_commands.get(request.userID, request.type)


@route(Who.ANY)
async def process_user_command_get_all(call: Call) -> Answer:
    request = call.parse(user_pb2.processUserCommandGetAllReq)
    call.check_self(request.userID)
    return await user_commands.get(request.userID)


# -- what clients are set to


@route(Who.ANY)
async def get_user_client_config(call: Call) -> Answer:
    user_id = call.parse(user_pb2.getUserClientConfigReq).userID
    if user_id:
        call.check_self(user_id)
    return user_pb2.getUserClientConfigResp(configs=await client_configs.get(user_id))


@route(Who.ADMIN)
async def set_user_client_config(call: Call) -> Answer:
    request = call.parse(user_pb2.setUserClientConfigReq)
    values = dict(request.configs)
    await client_configs.check_set(request.userID, values)
    await client_configs.do_set(request.userID, values)
    return None


@route(Who.ADMIN)
async def del_user_client_config(call: Call) -> Answer:
    request = call.parse(user_pb2.delUserClientConfigReq)
    await client_configs.do_delete(request.userID, list(request.keys))
    return None


@route(Who.ADMIN)
async def page_user_client_config(call: Call) -> Answer:
    request = call.parse(user_pb2.pageUserClientConfigReq)
    return await client_configs.get_page(request, *check_page(request.pagination))


# -- service accounts


@route(Who.ADMIN)
async def add_notification_account(call: Call) -> Answer:
    request = call.parse(user_pb2.addNotificationAccountReq)
    return await notification_accounts.do_add(await notification_accounts.check_add(request))


@route(Who.ADMIN)
async def update_notification_account(call: Call) -> Answer:
    request = call.parse(user_pb2.updateNotificationAccountInfoReq)
    changes = await notification_accounts.check_update(request)
    await notification_accounts.do_change(call.operator, request.userID, changes)
    return None


@route(Who.ADMIN)
async def search_notification_account(call: Call) -> Answer:
    request = call.parse(user_pb2.searchNotificationAccountReq)
    return await notification_accounts.search(request.keyword, *check_page(request.pagination))
