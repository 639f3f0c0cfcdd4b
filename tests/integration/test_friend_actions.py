"""Friends where processes die half-way, and whose lists a changed user stands in."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from pymongo.database import Database

from imserver.actions import friends
from imserver.actions.friend_queries import get_changed, get_designated
from imserver.constants import FriendSource
from imserver.protocol.gen.relation_pb2 import getIncrementalFriendsReq, getIncrementalFriendsResp
from imserver.storage.clients import Document, close_async_clients
from imserver.storage.friends import ORDER_ITEM, new_friend
from imserver.storage.users import new_user
from imserver.storage.versions import State, friends_of, record


@pytest.fixture(autouse=True)
async def users(database: Database[Document]) -> AsyncIterator[None]:
    database["user"].insert_many([new_user(user_id, user_id.upper()) for user_id in ("a", "b", "c")])
    yield
    await close_async_clients()


async def changed(user_id: str, version: getIncrementalFriendsResp | None = None) -> getIncrementalFriendsResp:
    known = version or getIncrementalFriendsResp()
    return await get_changed(getIncrementalFriendsReq(userID=user_id, versionID=known.versionID, version=known.version))


async def befriend(owner: str, *user_ids: str) -> list[str]:
    new, _ = await friends.befriend(owner, list(user_ids), add_source=FriendSource.IMPORT, operator_user_id="admin")
    return new


async def test_friends_made_by_a_process_that_died_are_told_when_it_is_done_again(
    database: Database[Document],
) -> None:
    start = {user_id: await changed(user_id) for user_id in ("a", "b")}
    # It died between the rows and the version log; one side's row is missing even.
    database["friend"].insert_one(new_friend("a", "b"))
    assert not (await changed("a", start["a"])).update

    assert await befriend("a", "b") == ["b"]

    first, second = await changed("a", start["a"]), await changed("b", start["b"])
    assert [info.friendUser.userID for info in first.update] == ["b"]
    assert first.sortVersion == first.version
    assert ([info.friendUser.userID for info in second.insert], second.sortVersion) == (["a"], 0)
    assert await befriend("a", "b") == []


async def test_what_was_noted_in_the_wrong_order_is_told_as_the_rows_are(database: Database[Document]) -> None:
    await befriend("a", "b", "c")
    start = await changed("a")
    database["friend"].delete_one({"owner_user_id": "a", "friend_user_id": "b"})
    record(database, friends_of("a"), {"b": State.DELETE})
    record(database, friends_of("a"), {"b": State.INSERT, "c": State.DELETE})

    told = await changed("a", start)

    assert (list(told.delete), list(told.insert)) == (["b"], [])
    assert [info.friendUser.userID for info in told.update] == ["c"]


async def test_a_changed_user_is_noted_in_the_lists_where_it_stands(database: Database[Document]) -> None:
    await befriend("a", "b", "c")
    await friends.friend_store().remove("c", "a")
    start = {user_id: await changed(user_id) for user_id in ("a", "b", "c")}
    database["user"].update_one({"user_id": "a"}, {"$set": {"nickname": "Anna"}})

    assert await friends.note_changed_user("a") == ["b"]

    told = await changed("b", start["b"])
    assert [(info.friendUser.nickname, info.ownerUserID) for info in told.update] == [("Anna", "b")]
    assert not (await changed("c", start["c"])).update
    assert await friends.note_changed_user("nobody") == []


async def test_a_friend_who_is_no_user_any_more_is_still_named(database: Database[Document]) -> None:
    await befriend("a", "b")
    database["user"].delete_one({"user_id": "b"})

    (info,) = await get_designated("a", ["b"])

    assert (info.friendUser.userID, info.friendUser.nickname) == ("b", "")


async def test_the_order_of_a_list_is_no_friend(database: Database[Document]) -> None:
    await befriend("a", "b")
    start = await changed("a")
    record(database, friends_of("a"), {ORDER_ITEM: State.UPDATE})

    told = await changed("a", start)

    assert (list(told.insert), list(told.update), list(told.delete)) == ([], [], [])
    assert told.sortVersion == told.version == start.version + 1
    assert await friends.friend_store().friend_ids("a") == ["b"]
