"""Friends: making and ending friendships, and what an owner notes on a friend.

A friendship is two rows, one in each list. Ending it removes the row of who ends it; the other's stays, as in OpenIM.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from imserver.actions.friend_notices import Version, tell, tell_approved
from imserver.actions.groups import MOST_PER_REQUEST, Operator, check_users
from imserver.actions.users import to_user_info
from imserver.constants import ContentType, FriendSource
from imserver.errors import ArgsError, CannotAddYourself, RecordNotFound
from imserver.protocol.gen.relation_pb2 import updateFriendsReq
from imserver.protocol.gen.sdkws_pb2 import (
    FriendDeletedTips,
    FriendInfoChangedTips,
    FriendsInfoUpdateTips,
    FromToUserID,
    UserInfo,
)
from imserver.storage import user_facts, versions
from imserver.storage.clients import Document, get_async_mongo, get_async_redis
from imserver.storage.friend_requests import FriendRequests
from imserver.storage.friends import ORDER_ITEM, Friends, new_friend
from imserver.storage.users import Users
from imserver.storage.versions import State, Versions

MAX_CHARS = {"remark": 255, "ex": 4000, "reqMsg": 1000, "handleMsg": 1000}

#: Notifications of an import that are on their way at the same time: they share the calls to the log.
_AT_ONCE = 100


def friend_store() -> Friends:
    return Friends(get_async_mongo())


def check_ids(user_ids: Iterable[str], name: str) -> list[str]:
    """A list of users that a request asks about. Raises ArgsError."""
    found = list(user_ids)
    if not 1 <= len(found) <= MOST_PER_REQUEST:
        raise ArgsError(f"{name} must be 1 to {MOST_PER_REQUEST}")
    if not all(found) or len(set(found)) != len(found):
        raise ArgsError(f"{name}: one is empty or stands twice")
    return found


def check_texts(**texts: str) -> None:
    """Texts stay within what tips can carry. Raises ArgsError."""
    for name, text in texts.items():
        if len(text) > MAX_CHARS[name]:
            raise ArgsError(f"{name} is longer than {MAX_CHARS[name]} characters")


async def describe(user_ids: Iterable[str]) -> dict[str, UserInfo]:
    """Users by id. Nobody is left out: clients read the users of friends, blocked users and applications unseen."""
    wanted = list(dict.fromkeys(user_ids))
    known = {user["user_id"]: to_user_info(user) for user in await Users(get_async_mongo()).find(wanted)}
    return {user_id: known.get(user_id) or UserInfo(userID=user_id) for user_id in wanted}


# -- becoming friends


async def befriend(
    owner: str, user_ids: list[str], *, add_source: FriendSource, operator_user_id: str
) -> tuple[list[str], Version]:
    """Put users into the owner's list and the owner into theirs. May run twice.

    Who had the other one already is told so as well, lest a process that died before it noted the change leaves clients
    without a friend for good.

    Returns:
        Those of the users with whom it was no friendship of both sides yet, and the version of the owner's list.
    """
    rows = [new_friend(owner, user_id, add_source, operator_user_id) for user_id in user_ids]
    rows += [new_friend(user_id, owner, add_source, operator_user_id) for user_id in user_ids]
    added = {(row["owner_user_id"], row["friend_user_id"]) for row in await friend_store().add(rows)}
    await user_facts.forget(get_async_redis(), [owner, *user_ids])

    def change(owner_user_id: str, friends: list[str]) -> dict[str, State]:
        new = {friend: State.INSERT for friend in friends if (owner_user_id, friend) in added}
        old = {friend: State.UPDATE for friend in friends if friend not in new}
        # With a changed order clients fetch the list of ids again, and find there who was never told to them.
        return {**old, ORDER_ITEM: State.UPDATE, **new} if old else new

    store = Versions(get_async_mongo())
    await store.record_many({versions.friends_of(user_id): change(user_id, [owner]) for user_id in user_ids})
    version = await store.record(versions.friends_of(owner), change(owner, user_ids))
    return [user_id for user_id in user_ids if {(owner, user_id), (user_id, owner)} & added], version


async def check_import(owner: str, user_ids: list[str]) -> None:
    """Raises ArgsError, CannotAddYourself, RecordNotFound."""
    if not owner:
        raise ArgsError("ownerUserID is empty")
    check_ids(user_ids, "friendUserIDs")
    if owner in user_ids:
        raise CannotAddYourself("nobody is their own friend")
    await check_users([owner])
    await check_users(user_ids)


async def do_import(operator: Operator, owner: str, user_ids: list[str]) -> None:
    """Make friends of users who were not asked. May run twice: the second time nobody is told."""
    new, version = await befriend(owner, user_ids, add_source=FriendSource.IMPORT, operator_user_id=operator.user_id)
    infos = await describe(new)
    for at in range(0, len(new), _AT_ONCE):
        await asyncio.gather(
            *(
                tell_approved(owner, infos[user_id], operation_id=operator.operation_id, version=version)
                for user_id in new[at : at + _AT_ONCE]
            )
        )


# -- ending it


async def check_are_friends(owner: str, user_ids: Iterable[str]) -> None:
    """The users stand in the owner's list. Raises RecordNotFound."""
    wanted = list(user_ids)
    found = {row["friend_user_id"] for row in await friend_store().find_friends(owner, wanted)}
    missing = [user_id for user_id in wanted if user_id not in found]
    if missing:
        raise RecordNotFound(f"not in the friend list: {', '.join(missing[:10])}")


async def do_delete(operator: Operator, owner: str, user_id: str) -> None:
    """Remove a friend from the owner's list. May run twice."""
    await FriendRequests(get_async_mongo()).finish(owner, user_id)
    await friend_store().remove(owner, user_id)
    await user_facts.forget(get_async_redis(), [owner])
    version = await _record(owner, {user_id: State.DELETE})
    tips = FriendDeletedTips(
        fromToUserID=FromToUserID(fromUserID=owner, toUserID=user_id),
        friendVersionID=version[0],
        friendVersion=version[1],
    )
    await tell(ContentType.FRIEND_DELETED, tips, send_id=owner, recv_id=user_id, operation_id=operator.operation_id)


# -- notes


async def check_update(request: updateFriendsReq) -> Document:
    """Returns the columns to change; none is fine. Raises ArgsError, RecordNotFound."""
    check_ids(request.friendUserIDs, "friendUserIDs")
    wrappers = {"isPinned": "is_pinned", "remark": "remark", "ex": "ex"}
    changes = {column: getattr(request, name).value for name, column in wrappers.items() if request.HasField(name)}
    check_texts(remark=request.remark.value, ex=request.ex.value)
    await check_are_friends(request.ownerUserID, request.friendUserIDs)
    return changes


async def do_update(operator: Operator, owner: str, user_ids: list[str], changes: Document) -> None:
    """May run twice."""
    if not changes:
        return
    version = await _change(owner, user_ids, changes)
    tips = FriendsInfoUpdateTips(
        fromToUserID=FromToUserID(fromUserID=owner, toUserID=owner),
        friendIDs=user_ids,
        friendVersionID=version[0],
        friendVersion=version[1],
    )
    await tell(ContentType.FRIENDS_INFO_UPDATE, tips, send_id=owner, recv_id=owner, operation_id=operator.operation_id)


async def check_set_remark(owner: str, user_id: str, remark: str) -> None:
    """Raises ArgsError, RecordNotFound."""
    check_texts(remark=remark)
    await check_are_friends(owner, [user_id])


async def do_set_remark(operator: Operator, owner: str, user_id: str, remark: str) -> None:
    """May run twice."""
    version = await _change(owner, [user_id], {"remark": remark})
    tips = FriendInfoChangedTips(
        fromToUserID=FromToUserID(fromUserID=owner, toUserID=user_id),
        friendVersionID=version[0],
        friendVersion=version[1],
    )
    await tell(ContentType.FRIEND_REMARK_SET, tips, send_id=owner, recv_id=user_id, operation_id=operator.operation_id)


async def _change(owner: str, user_ids: list[str], changes: dict[str, Any]) -> Version:
    await friend_store().update(owner, user_ids, changes)
    order = {ORDER_ITEM: State.UPDATE} if "is_pinned" in changes else {}
    return await _record(owner, {**order, **dict.fromkeys(user_ids, State.UPDATE)})


async def note_changed_user(user_id: str) -> list[str]:
    """A user's name or face changed: note it in the friend lists where the user stands; returns their owners.

    Who calls it sends them 1209 afterwards. May run twice.
    """
    owners = await friend_store().owners_having(user_id)
    change = {user_id: State.UPDATE}
    await Versions(get_async_mongo()).record_many({versions.friends_of(owner): change for owner in owners})
    return owners


async def _record(owner: str, changes: dict[str, State]) -> Version:
    return await Versions(get_async_mongo()).record(versions.friends_of(owner), changes)
