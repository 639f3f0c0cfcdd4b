"""Accounts in whose name the app server speaks: service accounts and robots. They do not log in."""

from __future__ import annotations

import re
import secrets

from imserver.actions.groups import MAX_CHARS, Operator
from imserver.actions.user_infos import do_update
from imserver.actions.users import MAX_NICKNAME_CHARS, check_user_id
from imserver.actions.words import check_word
from imserver.constants import AppManagerLevel
from imserver.errors import ArgsError, RecordNotFound
from imserver.protocol.gen import user_pb2
from imserver.storage.clients import Document, get_async_mongo
from imserver.storage.users import Users, new_user

LEVELS = (AppManagerLevel.NOTIFICATION, AppManagerLevel.ROBOT)


async def check_add(request: user_pb2.addNotificationAccountReq) -> Document:
    """The new row; without a given id under one of ours. Raises ArgsError."""
    if request.appMangerLevel not in LEVELS:
        raise ArgsError("appMangerLevel must be 3 (notification account) or 4 (robot)")
    if request.userID:
        check_user_id(request.userID)
    if not request.nickName:
        raise ArgsError("nickName is empty")
    _check_texts(request.nickName, request.faceURL)
    if request.userID and await _store().exists(request.userID):
        raise ArgsError(f"userID {request.userID} is used")
    user_id = request.userID or secrets.token_hex(8)
    return new_user(user_id, request.nickName, request.faceURL, level=request.appMangerLevel)


async def do_add(row: Document) -> user_pb2.notificationAccountInfo:
    """Raises RegisteredAlready when another request was quicker."""
    await _store().add([row])
    return _to_info(row)


async def check_update(request: user_pb2.updateNotificationAccountInfoReq) -> Document:
    """The changes; what is empty stays as it is. Raises ArgsError, RecordNotFound."""
    _check_texts(request.nickName, request.faceURL)
    changes = {"nickname": request.nickName, "face_url": request.faceURL}
    changes = {column: text for column, text in changes.items() if text}
    if not changes:
        raise ArgsError("nothing to change")
    rows = await _store().find([request.userID])
    if not rows or rows[0]["app_manger_level"] not in LEVELS:
        raise RecordNotFound(f"{request.userID} is no notification account")
    return changes


async def do_change(operator: Operator, user_id: str, changes: Document) -> None:
    """Raises RecordNotFound."""
    await do_update(operator, user_id, changes)


async def search(keyword: str, skip: int, limit: int) -> user_pb2.searchNotificationAccountResp:
    """Those whose id or name contains the keyword; without one all. Raises ArgsError."""
    check_word("keyword", keyword)
    where: Document = {"app_manger_level": {"$in": [int(level) for level in LEVELS]}}
    if keyword:
        contains = {"$regex": re.escape(keyword), "$options": "i"}
        where["$or"] = [{"user_id": contains}, {"nickname": contains}]
    total, rows = await _store().page(where, skip=skip, limit=limit)
    return user_pb2.searchNotificationAccountResp(total=total, notificationAccounts=[_to_info(row) for row in rows])


def _check_texts(nickname: str, face_url: str) -> None:
    if len(nickname) > MAX_NICKNAME_CHARS or len(face_url) > MAX_CHARS["face_url"]:
        raise ArgsError(f"nickName has at most {MAX_NICKNAME_CHARS} characters, faceURL {MAX_CHARS['face_url']}")


def _to_info(row: Document) -> user_pb2.notificationAccountInfo:
    return user_pb2.notificationAccountInfo(
        userID=row["user_id"],
        faceURL=row["face_url"],
        nickName=row["nickname"],
        appMangerLevel=row["app_manger_level"],
    )


def _store() -> Users:
    return Users(get_async_mongo())
