"""Users: registering and looking up."""

from __future__ import annotations

import re

from imserver.errors import ArgsError, RegisteredAlready
from imserver.protocol.gen.sdkws_pb2 import UserInfo
from imserver.storage.clients import Document, get_async_mongo
from imserver.storage.users import Users, new_user

USER_ID = re.compile(r"[A-Za-z0-9_]{1,64}")
MAX_NICKNAME_CHARS = 255
MOST_USERS_PER_REQUEST = 1000


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
        if not USER_ID.fullmatch(user.userID):
            raise ArgsError("userID must be 1 to 64 letters, digits or underscores")
        if not user.nickname or len(user.nickname) > MAX_NICKNAME_CHARS:
            raise ArgsError(f"nickname must be 1 to {MAX_NICKNAME_CHARS} characters")
    existing = await Users(get_async_mongo()).find_existing(ids)
    if existing:
        raise RegisteredAlready(f"registered already: {', '.join(existing[:10])}")


async def do_register(users: list[UserInfo]) -> None:
    """Raises RegisteredAlready when another request was quicker."""
    documents = [new_user(user.userID, user.nickname, user.faceURL, user.ex) for user in users]
    await Users(get_async_mongo()).add(documents)


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
