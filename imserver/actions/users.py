"""Users: registering and looking up. What changes of them is in user_infos.py."""

from __future__ import annotations

import re

from imserver.actions.words import check_word
from imserver.constants import AppManagerLevel, RecvMsgOpt
from imserver.errors import ArgsError, RecordNotFound, RegisteredAlready
from imserver.protocol.gen.sdkws_pb2 import UserInfo
from imserver.storage.clients import Document, get_async_mongo
from imserver.storage.users import Users, new_user

MAX_USER_ID_CHARS = 64
MAX_NICKNAME_CHARS = 255
#: As long as an update may make them.
MAX_FACE_URL_CHARS, MAX_EX_CHARS = 1024, 4000
MOST_USERS_PER_REQUEST = 1000


def check_user_id(user_id: str) -> None:
    """Raises ArgsError."""
    if not 1 <= len(user_id) <= MAX_USER_ID_CHARS or not all(item == "_" or item.isalnum() for item in user_id):
        raise ArgsError(f"userID must be 1 to {MAX_USER_ID_CHARS} letters, digits or underscores")


async def check_register(users: list[UserInfo]) -> None:
    """Raises ArgsError, RegisteredAlready."""
    if not users:
        raise ArgsError("users is empty")
    if len(users) > MOST_USERS_PER_REQUEST:
        raise ArgsError(f"more than {MOST_USERS_PER_REQUEST} users at once")
    ids = [user.userID for user in users]
    if len(set(ids)) != len(ids):
        raise ArgsError("a userID stands twice in the request")
    for user in users:
        check_user_id(user.userID)
        if not user.nickname or len(user.nickname) > MAX_NICKNAME_CHARS:
            raise ArgsError(f"nickname must be 1 to {MAX_NICKNAME_CHARS} characters")
        if len(user.faceURL) > MAX_FACE_URL_CHARS or len(user.ex) > MAX_EX_CHARS:
            raise ArgsError(f"faceURL is at most {MAX_FACE_URL_CHARS} characters, ex at most {MAX_EX_CHARS}")
        if user.appMangerLevel and user.appMangerLevel not in set(AppManagerLevel):
            raise ArgsError(f"appMangerLevel must be 0 to {max(AppManagerLevel)}")
        if user.globalRecvMsgOpt not in set(RecvMsgOpt):
            raise ArgsError("globalRecvMsgOpt must be 0, 1 or 2")
    existing = await Users(get_async_mongo()).find_existing(ids)
    if existing:
        raise RegisteredAlready(f"registered already: {', '.join(existing[:10])}")


async def do_register(users: list[UserInfo]) -> None:
    """Raises RegisteredAlready when another request was quicker."""
    documents = [
        new_user(
            user.userID,
            user.nickname,
            user.faceURL,
            user.ex,
            level=user.appMangerLevel,
            receive_option=user.globalRecvMsgOpt,
        )
        for user in users
    ]
    await Users(get_async_mongo()).add(documents)


async def check_exists(user_id: str) -> None:
    """Raises RecordNotFound."""
    if not await Users(get_async_mongo()).exists(user_id):
        raise RecordNotFound(f"user {user_id} does not exist")


async def find_registered(user_ids: list[str]) -> dict[str, bool]:
    """Whether each of these users is registered. Raises ArgsError."""
    if len(user_ids) > MOST_USERS_PER_REQUEST:
        raise ArgsError(f"more than {MOST_USERS_PER_REQUEST} users at once")
    if len(set(user_ids)) != len(user_ids):
        raise ArgsError("a userID stands twice in the request")
    existing = set(await Users(get_async_mongo()).find_existing(user_ids))
    return {user_id: user_id in existing for user_id in user_ids}


async def get_page_of_ids(skip: int, limit: int) -> tuple[int, list[str]]:
    """(how many users there are, ids of the page), in their order."""
    total, rows = await Users(get_async_mongo()).page({}, skip=skip, limit=limit)
    return total, [row["user_id"] for row in rows]


async def get_page(user_id: str, nickname: str, skip: int, limit: int) -> tuple[int, list[UserInfo]]:
    """(how many there are, those of the page): users without special rights whose id and name contain these texts. Raises ArgsError."""
    check_word("userID", user_id)
    check_word("nickName", nickname)
    where: Document = {"app_manger_level": {"$lt": int(AppManagerLevel.ADMIN)}}
    for column, text in (("user_id", user_id), ("nickname", nickname)):
        if text:
            where[column] = {"$regex": re.escape(text), "$options": "i"}
    total, rows = await Users(get_async_mongo()).page(where, skip=skip, limit=limit)
    return total, [to_user_info(row) for row in rows]


async def get_users_info(user_ids: list[str]) -> list[UserInfo]:
    """The users that exist, in the order asked."""
    if len(user_ids) > MOST_USERS_PER_REQUEST:
        raise ArgsError(f"more than {MOST_USERS_PER_REQUEST} users at once")
    return [to_user_info(document) for document in await Users(get_async_mongo()).find(user_ids)]


def to_user_info(document: Document) -> UserInfo:
    return UserInfo(
        userID=document["user_id"],
        nickname=document["nickname"],
        faceURL=document.get("face_url", ""),
        ex=document.get("ex", ""),
        createTime=document.get("create_time", 0),
        appMangerLevel=document.get("app_manger_level", 0),
        globalRecvMsgOpt=document.get("global_recv_msg_opt", 0),
    )
