"""Figures for an app server's dashboard."""

from __future__ import annotations

from imserver.actions.groups import check_page, get_group_infos
from imserver.actions.users import to_user_info
from imserver.errors import ArgsError
from imserver.protocol.gen import statistics_pb2
from imserver.protocol.gen.sdkws_pb2 import GroupInfo, UserInfo
from imserver.storage.clients import get_async_mongo
from imserver.storage.statistics import GROUPS, USERS, Statistics
from imserver.storage.users import Users

#: Days of one answer.
MOST_DAYS = 366
_DAY_MS = 86_400_000
#: Last moment that MongoDB can show as a date.
_LAST_MS = 253_402_300_799_999


def _check_time(start_ms: int, end_ms: int) -> None:
    """Raises ArgsError."""
    if not 0 <= start_ms < end_ms <= _LAST_MS:
        raise ArgsError("start and end must be Unix milliseconds, start before end")
    if end_ms - start_ms > MOST_DAYS * _DAY_MS:
        raise ArgsError(f"start and end must be at most {MOST_DAYS} days apart")


def _statistics() -> Statistics:
    return Statistics(get_async_mongo())


async def count_users(request: statistics_pb2.CountReq) -> statistics_pb2.CountResp:
    """Registered users. Raises ArgsError."""
    return await _count(USERS, request)


async def count_groups(request: statistics_pb2.CountReq) -> statistics_pb2.CountResp:
    """Created groups, dismissed ones as well. Raises ArgsError."""
    return await _count(GROUPS, request)


async def _count(collection: str, request: statistics_pb2.CountReq) -> statistics_pb2.CountResp:
    _check_time(request.start, request.end)
    made = await _statistics().made(collection, request.start, request.end)
    return statistics_pb2.CountResp(total=made.total, before=made.before, count=made.by_day)


async def get_active_users(request: statistics_pb2.GetActiveUserReq) -> statistics_pb2.GetActiveUserResp:
    """Who said how much: in single chats, with ``group`` also in groups. Raises ArgsError."""
    _check_time(request.start, request.end)
    skip, limit = check_page(request.pagination)
    kinds = "si|sg" if request.group else "si"
    found = await _statistics().spoken(
        "send_id", kinds, request.start, request.end, is_ascending=request.ase, skip=skip, limit=limit
    )
    users = await Users(get_async_mongo()).find([user_id for user_id, _ in found.page])
    infos = {user["user_id"]: to_user_info(user) for user in users}
    return statistics_pb2.GetActiveUserResp(
        msgCount=found.msg_count,
        userCount=found.speaker_count,
        dateCount=found.by_day,
        users=[
            statistics_pb2.ActiveUser(user=infos.get(user_id, UserInfo(userID=user_id)), count=count)
            for user_id, count in found.page
        ],
    )


async def get_active_groups(request: statistics_pb2.GetActiveGroupReq) -> statistics_pb2.GetActiveGroupResp:
    """In which groups how much was said. Raises ArgsError."""
    _check_time(request.start, request.end)
    skip, limit = check_page(request.pagination)
    found = await _statistics().spoken(
        "group_id", "sg", request.start, request.end, is_ascending=request.ase, skip=skip, limit=limit
    )
    infos = {info.groupID: info for info in await get_group_infos([group_id for group_id, _ in found.page])}
    return statistics_pb2.GetActiveGroupResp(
        msgCount=found.msg_count,
        groupCount=found.speaker_count,
        dateCount=found.by_day,
        groups=[
            statistics_pb2.ActiveGroup(group=infos.get(group_id, GroupInfo(groupID=group_id)), count=count)
            for group_id, count in found.page
        ],
    )
