"""/statistics: figures for an app server's dashboard."""

from __future__ import annotations

from imserver.actions import statistics
from imserver.protocol.gen import statistics_pb2
from imserver.rest.decorators import Answer, Call, Who, route


@route(Who.ADMIN)
async def user_register(call: Call) -> Answer:
    return await statistics.count_users(call.parse(statistics_pb2.CountReq))


@route(Who.ADMIN)
async def user_active(call: Call) -> Answer:
    return await statistics.get_active_users(call.parse(statistics_pb2.GetActiveUserReq))


@route(Who.ADMIN)
async def group_create(call: Call) -> Answer:
    return await statistics.count_groups(call.parse(statistics_pb2.CountReq))


@route(Who.ADMIN)
async def group_active(call: Call) -> Answer:
    return await statistics.get_active_groups(call.parse(statistics_pb2.GetActiveGroupReq))
