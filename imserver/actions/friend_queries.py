"""Looking at friends: lists, and what changed since a client's version."""

from __future__ import annotations

from imserver.actions.friends import check_ids, describe, friend_store
from imserver.actions.groups import check_page
from imserver.actions.users import get_users_info
from imserver.errors import ArgsError
from imserver.protocol.gen import relation_pb2
from imserver.protocol.gen.sdkws_pb2 import BlackInfo, FriendInfo, PublicUserInfo, UserInfo
from imserver.storage import versions
from imserver.storage.blacks import Blacks
from imserver.storage.clients import Document, get_async_mongo
from imserver.storage.friends import ORDER_ITEM
from imserver.storage.versions import Versions, id_hash


def to_friend_info(row: Document, user: UserInfo, *, in_ms: bool = False) -> FriendInfo:
    """``createTime`` is in seconds, in one answer of OpenIM in milliseconds."""
    return FriendInfo(
        ownerUserID=row["owner_user_id"],
        remark=row["remark"],
        createTime=row["create_time"] if in_ms else row["create_time"] // 1000,
        friendUser=user,
        addSource=row["add_source"],
        operatorUserID=row["operator_user_id"],
        ex=row["ex"],
        isPinned=row["is_pinned"],
    )


def to_black_info(row: Document, user: UserInfo, *, in_ms: bool = False) -> BlackInfo:
    """``createTime`` is in seconds in lists, in milliseconds where single users are asked for."""
    return BlackInfo(
        ownerUserID=row["owner_user_id"],
        createTime=row["create_time"] if in_ms else row["create_time"] // 1000,
        blackUserInfo=PublicUserInfo(userID=user.userID, nickname=user.nickname, faceURL=user.faceURL, ex=user.ex),
        addSource=row["add_source"],
        operatorUserID=row["operator_user_id"],
        ex=row["ex"],
    )


async def to_friend_infos(rows: list[Document]) -> list[FriendInfo]:
    users = await describe(row["friend_user_id"] for row in rows)
    return [to_friend_info(row, users[row["friend_user_id"]]) for row in rows]


async def get_page(request: relation_pb2.getPaginationFriendsReq) -> relation_pb2.getPaginationFriendsResp:
    """A page of a friend list: pinned ones first, then by the time they were added. Raises ArgsError."""
    skip, limit = check_page(request.pagination)
    total, rows = await friend_store().page(request.userID, skip=skip, limit=limit)
    return relation_pb2.getPaginationFriendsResp(total=total, friendsInfo=await to_friend_infos(rows))


async def get_designated(owner: str, user_ids: list[str]) -> list[FriendInfo]:
    """Those of the users that stand in the owner's list, in the order asked. Raises ArgsError."""
    if not user_ids:
        return []
    return await to_friend_infos(await friend_store().find_friends(owner, check_ids(user_ids, "friendUserIDs")))


async def is_friend(user_id: str, other_id: str) -> relation_pb2.isFriendResp:
    """Raises ArgsError."""
    if not user_id or not other_id:
        raise ArgsError("userID1 or userID2 is empty")
    return relation_pb2.isFriendResp(
        inUser1Friends=await friend_store().is_friend(user_id, other_id),
        inUser2Friends=await friend_store().is_friend(other_id, user_id),
    )


async def get_specified(owner: str, user_ids: list[str]) -> relation_pb2.getSpecifiedFriendsInfoResp:
    """What the users are to the owner: friend, blocked, both or neither. Unknown users are missing. Raises ArgsError."""
    wanted = check_ids(user_ids, "userIDList")
    friends = {row["friend_user_id"]: row for row in await friend_store().find_friends(owner, wanted)}
    blacks = {row["block_user_id"]: row for row in await Blacks(get_async_mongo()).find(owner, wanted)}
    answer = relation_pb2.getSpecifiedFriendsInfoResp()
    for user in await get_users_info(wanted):
        friend, black = friends.get(user.userID), blacks.get(user.userID)
        answer.infos.add(
            userInfo=user,
            friendInfo=to_friend_info(friend, user, in_ms=True) if friend else None,
            blackInfo=to_black_info(black, user, in_ms=True) if black else None,
        )
    return answer


# -- incremental sync


async def get_full_ids(request: relation_pb2.getFullFriendUserIDsReq) -> relation_pb2.getFullFriendUserIDsResp:
    # The version first: a change in between is told again, and never missed.
    version_id, version = await Versions(get_async_mongo()).get(versions.friends_of(request.userID))
    ids = await friend_store().friend_ids(request.userID)
    equal = id_hash(ids) == request.idHash
    return relation_pb2.getFullFriendUserIDsResp(
        version=version, versionID=version_id, equal=equal, userIDs=[] if equal else ids
    )


async def get_changed(request: relation_pb2.getIncrementalFriendsReq) -> relation_pb2.getIncrementalFriendsResp:
    noted = await Versions(get_async_mongo()).changes_since(
        versions.friends_of(request.userID), request.versionID, request.version
    )
    rows = await friend_store().find_friends(request.userID, noted.items)
    # Clients append what is inserted, so it comes in the list's order.
    rows.sort(key=lambda row: (row["create_time"], row["friend_user_id"]))
    infos = {info.friendUser.userID: info for info in await to_friend_infos(rows)}
    is_order_changed = ORDER_ITEM in noted.items
    changes = noted.settle({*infos, ORDER_ITEM})
    inserted = set(changes.inserted)
    return relation_pb2.getIncrementalFriendsResp(
        version=changes.version,
        versionID=changes.version_id,
        full=changes.is_full,
        delete=changes.deleted,
        insert=[info for user_id, info in infos.items() if user_id in inserted],
        update=[infos[user_id] for user_id in changes.updated if user_id != ORDER_ITEM],
        sortVersion=changes.version if is_order_changed else 0,
    )
