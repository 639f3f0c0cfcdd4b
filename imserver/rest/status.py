"""/user: who is online."""

from __future__ import annotations

from imserver.actions import presence
from imserver.constants import OnlineStatus, StatusGenre
from imserver.errors import ArgsError
from imserver.protocol.gen import msggateway_pb2, user_pb2
from imserver.protocol.json_mapping import to_json
from imserver.rest.decorators import Answer, Call, Who, route


def _status(is_online: object) -> int:
    return OnlineStatus.ONLINE if is_online else OnlineStatus.OFFLINE


def _list(platforms: dict[str, list[int]]) -> list[user_pb2.onlineStatus]:
    return [
        user_pb2.onlineStatus(userID=user_id, status=_status(platform_ids), platformIDs=platform_ids)
        for user_id, platform_ids in platforms.items()
    ]


def _asked(call: Call) -> list[str]:
    user_ids = list(call.parse(msggateway_pb2.GetUsersOnlineStatusReq).userIDs)
    if not user_ids:
        raise ArgsError("userIDs is empty")
    return user_ids


@route(Who.ADMIN)
async def get_users_online_status(call: Call) -> Answer:
    """Every user asked for, with each connection. Tokens are left empty: get_users_online_token_detail has them."""
    found = await presence.get_connections(_asked(call))
    return [
        to_json(
            msggateway_pb2.SuccessResult(
                userID=user_id,
                status=_status(routes),
                detailPlatformStatus=[
                    msggateway_pb2.SuccessDetail(
                        platformID=item.platform_id, connID=item.connection_id, isBackground=item.is_background
                    )
                    for item in routes
                ],
            )
        )
        for user_id, routes in found.items()
    ]


@route(Who.ADMIN)
async def get_users_online_token_detail(call: Call) -> Answer:
    """The users that are online, with the tokens of their connections by platform."""
    found = await presence.get_connected_tokens(_asked(call))
    return [
        to_json(
            msggateway_pb2.SingleDetail(
                userID=user_id,
                status=OnlineStatus.ONLINE,
                singlePlatformToken=[
                    msggateway_pb2.SinglePlatformToken(platformID=platform_id, total=len(tokens), token=tokens)
                    for platform_id, tokens in sorted(by_platform.items())
                ],
            )
        )
        for user_id, by_platform in found.items()
    ]


@route(Who.ANY)
async def subscribe_users_status(call: Call) -> Answer:
    """Genre 1 adds to the caller's list and answers how they are, genre 2 removes."""
    request = call.parse(user_pb2.subscribeOrCancelUsersStatusReq)
    call.check_self(request.userID)
    if request.genre == StatusGenre.SUBSCRIBE:
        platforms = await presence.subscribe(request.userID, list(request.userIDs))
        return user_pb2.subscribeOrCancelUsersStatusResp(statusList=_list(platforms))
    if request.genre == StatusGenre.UNSUBSCRIBE:
        await presence.unsubscribe(request.userID, list(request.userIDs))
        return user_pb2.subscribeOrCancelUsersStatusResp()
    raise ArgsError("genre must be 1 (subscribe) or 2 (unsubscribe)")


@route(Who.ANY)
async def get_users_status(call: Call) -> Answer:
    request = call.parse(user_pb2.getUserStatusReq)
    call.check_self(request.userID)
    if not request.userIDs:
        raise ArgsError("userIDs is empty")
    platforms = await presence.get_online_platforms(list(request.userIDs))
    return user_pb2.getUserStatusResp(statusList=_list(platforms))


@route(Who.ANY)
async def get_subscribe_users_status(call: Call) -> Answer:
    request = call.parse(user_pb2.getSubscribeUsersStatusReq)
    call.check_self(request.userID)
    return user_pb2.getSubscribeUsersStatusResp(statusList=_list(await presence.get_subscribed(request.userID)))
