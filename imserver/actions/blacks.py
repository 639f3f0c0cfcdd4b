"""Blacklists: blocking, unblocking and listing. Whom an owner has blocked writes to the owner no more."""

from __future__ import annotations

import asyncio

from google.protobuf.message import Message

from imserver.actions.friend_notices import tell
from imserver.actions.friend_queries import to_black_info
from imserver.actions.friends import check_ids, check_texts, describe
from imserver.actions.groups import Operator, check_page, check_users
from imserver.constants import ContentType
from imserver.errors import ArgsError
from imserver.protocol.gen import relation_pb2
from imserver.protocol.gen.sdkws_pb2 import BlackAddedTips, BlackDeletedTips, BlackInfo, FromToUserID
from imserver.storage import user_facts
from imserver.storage.blacks import Blacks, blacks_of
from imserver.storage.clients import Document, get_async_mongo, get_async_redis
from imserver.storage.friends import new_black
from imserver.storage.versions import State, Versions

#: OpenIM's clients fetch the blacklist both after their own call and when they are told, and do not keep the two apart: at the
#: same moment, one stumbles over the row that the other has just written, and the call fails for the user. What is lost when
#: the process ends meanwhile, the next sync brings.
TELL_AFTER_SECONDS = 0.3

_telling: set[asyncio.Task[None]] = set()


def _store() -> Blacks:
    return Blacks(get_async_mongo())


async def check_add(request: relation_pb2.addBlackReq) -> None:
    """Raises ArgsError, RecordNotFound."""
    if request.ownerUserID == request.blackUserID:
        raise ArgsError("nobody blocks oneself")
    check_texts(ex=request.ex)
    await check_users([request.ownerUserID, request.blackUserID])


async def do_add(operator: Operator, request: relation_pb2.addBlackReq) -> None:
    """Raises DuplicateKey: the user is blocked already."""
    owner, blocked = request.ownerUserID, request.blackUserID
    await _store().add(new_black(owner, blocked, request.ex, operator.user_id))
    await _note(owner, blocked, State.INSERT)
    tips = BlackAddedTips(fromToUserID=FromToUserID(fromUserID=owner, toUserID=blocked))
    await _tell(operator, ContentType.BLACK_ADDED, tips, owner, blocked)


async def check_remove(request: relation_pb2.removeBlackReq) -> None:
    """Raises ArgsError."""
    if not request.ownerUserID or not request.blackUserID:
        raise ArgsError("ownerUserID or blackUserID is empty")


async def do_remove(operator: Operator, request: relation_pb2.removeBlackReq) -> None:
    """Who is not blocked stays so, and nobody is told. May run twice."""
    owner, blocked = request.ownerUserID, request.blackUserID
    if not await _store().remove(owner, blocked):
        return
    await _note(owner, blocked, State.DELETE)
    tips = BlackDeletedTips(fromToUserID=FromToUserID(fromUserID=owner, toUserID=blocked))
    await _tell(operator, ContentType.BLACK_DELETED, tips, owner, blocked)


async def _note(owner: str, blocked: str, state: State) -> None:
    """In force at the next send, and told by the next sync."""
    await user_facts.forget(get_async_redis(), [owner])
    await Versions(get_async_mongo()).record(blacks_of(owner), {blocked: state})


async def _tell(operator: Operator, content_type: ContentType, tips: Message, owner: str, blocked: str) -> None:
    """Once the answer is out, and not before the client has dealt with it."""

    async def tell_later() -> None:
        await asyncio.sleep(TELL_AFTER_SECONDS)
        await tell(content_type, tips, send_id=owner, recv_id=blocked, operation_id=operator.operation_id)

    task = asyncio.create_task(tell_later())
    _telling.add(task)
    task.add_done_callback(_telling.discard)


# -- looking


async def get_page(request: relation_pb2.getPaginationBlacksReq) -> relation_pb2.getPaginationBlacksResp:
    """Raises ArgsError."""
    skip, limit = check_page(request.pagination)
    total, rows = await _store().page(request.userID, skip=skip, limit=limit)
    return relation_pb2.getPaginationBlacksResp(total=total, blacks=await _to_infos(rows))


async def get_specified(request: relation_pb2.GetSpecifiedBlacksReq) -> relation_pb2.GetSpecifiedBlacksResp:
    """Those of the users that the owner has blocked, in the order asked. Raises ArgsError."""
    wanted = check_ids(request.userIDList, "userIDList")
    blacks = await _to_infos(await _store().find(request.ownerUserID, wanted), in_ms=True)
    return relation_pb2.GetSpecifiedBlacksResp(blacks=blacks, total=len(blacks))


async def get_changed(request: relation_pb2.getIncrementalBlacksReq) -> relation_pb2.getIncrementalBlacksResp:
    noted = await Versions(get_async_mongo()).changes_since(
        blacks_of(request.userID), request.versionID, request.version
    )
    rows = await _store().find(request.userID, noted.items)
    infos = {info.blackUserID: info for info in await _to_flat_infos(rows)}
    changes = noted.settle(infos)
    return relation_pb2.getIncrementalBlacksResp(
        version=changes.version,
        versionID=changes.version_id,
        full=changes.is_full,
        delete=changes.deleted,
        insert=[infos[user_id] for user_id in changes.inserted],
        update=[infos[user_id] for user_id in changes.updated],
    )


async def _to_infos(rows: list[Document], *, in_ms: bool = False) -> list[BlackInfo]:
    users = await describe(row["block_user_id"] for row in rows)
    return [to_black_info(row, users[row["block_user_id"]], in_ms=in_ms) for row in rows]


async def _to_flat_infos(rows: list[Document]) -> list[relation_pb2.blackInfo]:
    return [
        relation_pb2.blackInfo(
            ownerUserID=info.ownerUserID,
            blackUserID=info.blackUserInfo.userID,
            blackNickname=info.blackUserInfo.nickname,
            blackFaceURL=info.blackUserInfo.faceURL,
            createTime=info.createTime,
            addSource=info.addSource,
            operatorUserID=info.operatorUserID,
            ex=info.ex,
        )
        for info in await _to_infos(rows)
    ]
