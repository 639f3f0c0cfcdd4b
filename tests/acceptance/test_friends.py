"""Friends through REST: applications, lists, rights, errors, and what a client's sync is told."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from imserver.storage.versions import MOST_CHANGES
from tests.acceptance.friend_api import FriendApi
from tests.client import Api
from tests.stack import Stack

pytestmark = pytest.mark.acceptance


@pytest.fixture
def people(api: Api, names: Iterator[str]) -> FriendApi:
    return FriendApi(api, names)


# -- applications


async def test_an_application_that_is_agreed_to_makes_friends_of_both(people: FriendApi) -> None:
    alice, bob = await people.users(2)

    assert await people.apply(alice, bob, reqMsg="hi", ex="{}") == 0

    (request,) = await people.received(bob)
    assert request == {
        "fromUserID": alice,
        "fromNickname": alice,
        "fromFaceURL": "",
        "toUserID": bob,
        "toNickname": bob,
        "toFaceURL": "",
        "handleResult": 0,
        "reqMsg": "hi",
        "createTime": request["createTime"],
        "handlerUserID": "",
        "handleMsg": "",
        "handleTime": 0,
        "ex": "{}",
    }
    assert await people.sent(alice) == [request]
    assert (await people.unhandled(bob), await people.unhandled(alice)) == (1, 0)
    assert await people.unhandled(bob, request["createTime"]) == 0
    assert (await people.ids(alice), await people.ids(bob)) == ([], [])

    assert await people.answer(bob, alice, handleMsg="gladly") == 0

    assert (await people.ids(alice), await people.ids(bob)) == ([bob], [alice])
    (friend,) = await people.friends(alice)
    assert friend == {
        "ownerUserID": alice,
        "remark": "",
        "createTime": friend["createTime"],
        "addSource": 2,
        "operatorUserID": alice,
        "ex": "",
        "isPinned": False,
        "friendUser": friend["friendUser"],
    }
    assert (friend["friendUser"]["userID"], friend["friendUser"]["nickname"]) == (bob, bob)
    assert request["createTime"] // 1000 <= friend["createTime"] <= request["createTime"] // 1000 + 60
    (answered,) = await people.received(bob)
    assert (answered["handleResult"], answered["handleMsg"], answered["handlerUserID"]) == (1, "gladly", bob)
    assert (await people.unhandled(bob), await people.received(bob, 0, -1)) == (0, [])


async def test_an_application_that_cannot_be_is_refused_and_not_noted(people: FriendApi) -> None:
    alice, bob = await people.users(2)

    assert await people.apply(alice, alice) == 1301
    assert await people.apply(alice, "nobody_at_all") == 1004
    assert await people.apply(alice, "") == 1001
    assert await people.apply(alice, bob, reqMsg="x" * 1001) == 1001
    assert await people.apply(alice, bob, reqMsg=7) == 1001
    await people.block(bob, alice)
    assert await people.apply(alice, bob) == 1302
    assert await people.sent(alice) == []
    assert await people.code(None, "add_friend", fromUserID=alice, toUserID=bob) == 0
    await people.befriend(alice, bob)
    assert await people.apply(alice, bob) == 1304


async def test_an_answer_is_given_once(people: FriendApi) -> None:
    alice, bob = await people.users(2)
    assert await people.answer(bob, alice) == 1004
    await people.apply(alice, bob)

    assert await people.answer(bob, alice, 0) == 1001
    assert await people.answer(bob, alice, 2) == 1001
    assert await people.answer(bob, alice, handleMsg="x" * 1001) == 1001
    assert (await people.received(bob))[0]["handleResult"] == 0
    codes = await asyncio.gather(*(people.answer(bob, alice, result) for result in (1, 1, -1, 1)))

    assert sorted(codes) == [0, 1305, 1305, 1305]
    assert await people.answer(bob, alice, -1) == 1305
    result = (await people.received(bob))[0]["handleResult"]
    assert await people.ids(alice) == ([bob] if result == 1 else [])


async def test_who_was_refused_may_apply_again(people: FriendApi) -> None:
    alice, bob = await people.users(2)
    await people.apply(alice, bob, reqMsg="first")
    assert await people.answer(bob, alice, -1, handleMsg="no") == 0
    assert (await people.received(bob, -1))[0]["handleMsg"] == "no"
    assert await people.ids(alice) == []

    assert await people.apply(alice, bob, reqMsg="second") == 0

    (request,) = await people.received(bob)
    assert (request["reqMsg"], request["handleResult"], request["handleMsg"]) == ("second", 0, "")
    assert await people.answer(bob, alice) == 0
    assert (await people.ids(alice), await people.ids(bob)) == ([bob], [alice])


async def test_two_who_apply_to_each_other_are_friends_with_the_first_answer(people: FriendApi) -> None:
    alice, bob = await people.users(2)
    start = await people.changed(bob)
    codes = await asyncio.gather(people.apply(alice, bob), people.apply(bob, alice), people.apply(alice, bob))
    assert set(codes) == {0}
    both = {"fromUserID": alice, "toUserID": bob}
    found = (await people.call(bob, "get_designated_friend_apply", **both))["friendRequests"]
    assert [item["fromUserID"] for item in found] == [alice, bob]

    answers = await asyncio.gather(people.answer(bob, alice), people.answer(alice, bob))

    assert set(answers) in ({0}, {0, 1305})
    assert (await people.ids(alice), await people.ids(bob)) == ([bob], [alice])
    assert (await people.received(alice, 0), await people.received(bob, 0)) == ([], [])
    assert await people.answer(alice, bob) == 1305
    # Two answers at once are an insert, or an insert and an update.
    told = await people.changed(bob, start)
    assert [item["friendUser"]["userID"] for item in [*told["insert"], *told["update"]]] == [alice]


async def test_an_agreement_left_half_done_is_completed_by_the_same_answer(people: FriendApi, stack: Stack) -> None:
    alice, bob = await people.users(2)
    await people.apply(alice, bob)
    left = {"handle_result": 1, "is_unfinished": True, "handle_time": 5}
    where = {"from_user_id": alice, "to_user_id": bob}
    stack.database["friend_request"].update_one(where, {"$set": left})

    assert await people.answer(bob, alice, -1) == 1305
    assert await people.answer(bob, alice) == 0

    assert (await people.ids(alice), await people.ids(bob)) == ([bob], [alice])
    assert await people.answer(bob, alice) == 1305
    # Who ended the friendship since does not get it back that way.
    stack.database["friend_request"].update_one(where, {"$set": left})
    await people.delete(alice, bob)
    assert await people.answer(bob, alice) == 1305
    assert await people.ids(alice) == []


async def test_applications_come_newest_first_and_in_pages(people: FriendApi) -> None:
    target, *others = await people.users(4)
    for other in others:
        await people.apply(other, target)

    body = {"userID": target, "pagination": {"pageNumber": 2, "showNumber": 2}}
    data = await people.call(target, "get_friend_apply_list", **body)

    assert (data["total"], [item["fromUserID"] for item in data["FriendRequests"]]) == (3, others[:1])
    assert [item["fromUserID"] for item in await people.received(target)] == others[::-1]


# -- making and ending


async def test_an_app_server_makes_a_thousand_friends_at_once(people: FriendApi) -> None:
    (owner,) = await people.users(1)
    users = await people.users(1000)
    start, others_start = await people.changed(owner), await people.changed(users[7])
    body = {"ownerUserID": owner, "friendUserIDs": users}

    await people.call(None, "import_friend", **body)

    assert set(await people.ids(owner)) == set(users)
    assert (await people.changed(owner, start))["full"]
    assert await people.ids(users[7]) == [owner]
    assert len((await people.changed(users[7], others_start))["insert"]) == 1
    (friend,) = await people.friends(users[999])
    assert (friend["addSource"], friend["operatorUserID"]) == (1, "imAdmin")
    await people.call(None, "import_friend", **body)
    assert len(await people.ids(owner)) == 1000
    assert [len(await people.friends(owner, number, 400)) for number in (1, 2, 3, 4)] == [400, 400, 200, 0]


async def test_an_import_that_cannot_be_changes_nothing(people: FriendApi) -> None:
    owner, user = await people.users(2)

    async def code(owner_id: str, *user_ids: str) -> int:
        return await people.code(None, "import_friend", ownerUserID=owner_id, friendUserIDs=list(user_ids))

    assert await code(owner) == 1001
    assert await code("", user) == 1001
    assert await code(owner, user, user) == 1001
    assert await code(owner, user, "") == 1001
    assert await code(owner, *(f"x{number}" for number in range(1001))) == 1001
    assert await code(owner, user, owner) == 1301
    assert await code(owner, user, "nobody_at_all") == 1004
    assert await code("nobody_at_all", user) == 1004
    assert await people.ids(owner) == []


async def test_who_deletes_a_friend_stays_in_the_others_list_and_may_apply_again(people: FriendApi) -> None:
    alice, bob = await people.users(2)
    await people.befriend(alice, bob)
    await people.apply(alice, bob)

    assert await people.delete(alice, bob) == 0

    assert (await people.ids(alice), await people.ids(bob)) == ([], [alice])
    friends = await people.call(bob, "is_friend", userID1=alice, userID2=bob)
    assert friends == {"inUser1Friends": False, "inUser2Friends": True}
    assert await people.delete(alice, bob) == 1004
    assert await people.delete(alice, "") == 1004
    assert await people.apply(alice, bob) == 0
    before = await people.changed(alice)
    assert await people.answer(bob, alice) == 0
    assert (await people.ids(alice), await people.ids(bob)) == ([bob], [alice])
    assert [item["friendUser"]["userID"] for item in (await people.changed(alice, before))["insert"]] == [bob]


# -- looking


async def test_pinned_friends_come_first_on_every_page_and_in_the_list_of_ids(people: FriendApi) -> None:
    owner, *users = await people.users(6)
    for user in users:
        await people.befriend(owner, user)
    assert await people.ids(owner) == users

    assert await people.update(owner, users[3], isPinned=True) == 0

    order = [users[3], *users[:3], users[4]]
    pages = [await people.friends(owner, number, 2) for number in (1, 2, 3, 4)]
    assert [[item["friendUser"]["userID"] for item in page] for page in pages] == [order[:2], order[2:4], order[4:], []]
    data = await people.call(owner, "get_full_friend_user_ids", userID=owner, idHash=0)
    assert (data["userIDs"], data["equal"], len(data["versionID"])) == (order, False, 24)
    hashed = int.from_bytes(hashlib.md5(orjson.dumps(order)).digest()[:8], "big")  # noqa: S324
    again = await people.call(owner, "get_full_friend_user_ids", userID=owner, idHash=hashed)
    assert (again["userIDs"], again["equal"], again["version"]) == ([], True, data["version"])


async def test_single_users_are_asked_for_as_friends_and_as_blocked(people: FriendApi) -> None:
    owner, friend, blocked, stranger = await people.users(4)
    await people.befriend(owner, friend)
    await people.block(owner, blocked)
    wanted = [stranger, friend, blocked, "nobody_at_all"]

    designated = await people.call(owner, "get_designated_friends", ownerUserID=owner, friendUserIDs=wanted)
    data = await people.call(owner, "get_specified_friends_info", ownerUserID=owner, userIDList=wanted)

    assert [item["friendUser"]["userID"] for item in designated["friendsInfo"]] == [friend]
    facts = {item["userInfo"]["userID"]: (item["friendInfo"], item["blackInfo"]) for item in data["infos"]}
    assert list(facts) == [stranger, friend, blocked]
    assert facts[stranger] == (None, None)
    assert facts[friend][0]["createTime"] // 1000 == designated["friendsInfo"][0]["createTime"]
    assert (facts[friend][0]["friendUser"]["userID"], facts[friend][1]) == (friend, None)
    assert (facts[blocked][0], facts[blocked][1]["blackUserInfo"]["userID"]) == (None, blocked)
    nobody = await people.call(owner, "get_designated_friends", ownerUserID=owner, friendUserIDs=[])
    assert nobody == {"friendsInfo": []}


# -- notes


async def test_an_owner_notes_remark_extra_and_pin_on_friends(people: FriendApi) -> None:
    owner, first, second, stranger = await people.users(4)
    await people.befriend(owner, first, second)

    assert await people.update(owner, first, second, remark="pal", ex="{}") == 0
    assert await people.update(owner, first, remark="", isPinned=True) == 0
    remark = {"ownerUserID": owner, "friendUserID": second, "remark": "mate"}
    assert await people.code(owner, "set_friend_remark", **remark) == 0

    noted = {item["friendUser"]["userID"]: item for item in await people.friends(owner)}
    assert [(item["remark"], item["ex"], item["isPinned"]) for item in (noted[first], noted[second])] == [
        ("", "{}", True),
        ("mate", "{}", False),
    ]
    assert (await people.friends(first))[0]["remark"] == ""
    assert await people.update(owner, first, stranger, remark="x") == 1004
    assert await people.update(owner, first) == 0
    assert await people.update(owner, stranger) == 1004
    assert await people.update(owner, remark="x") == 1001
    assert await people.update(owner, first, first, remark="x") == 1001
    assert await people.update(owner, first, remark="x" * 256) == 1001
    assert await people.update(owner, first, ex="x" * 4001) == 1001
    assert await people.update(owner, first, isPinned="yes") == 1001
    assert await people.code(owner, "set_friend_remark", **{**remark, "friendUserID": stranger}) == 1004
    assert await people.code(owner, "set_friend_remark", **{**remark, "remark": "x" * 256}) == 1001
    assert {item["friendUser"]["userID"]: item for item in await people.friends(owner)} == noted


# -- incremental sync


async def test_a_client_learns_of_new_changed_and_lost_friends_by_the_version(people: FriendApi) -> None:
    owner, first, second = await people.users(3)
    start = await people.changed(owner)
    assert (start["full"], start["insert"], start["update"], start["delete"]) == (True, [], [], [])
    assert (start["version"] >= 1, len(start["versionID"])) == (True, 24)

    await people.befriend(owner, first)
    await people.befriend(owner, second)
    inserted = await people.changed(owner, start)
    await people.update(owner, second, remark="x")
    updated = await people.changed(owner, inserted)
    await people.update(owner, second, isPinned=True)
    pinned = await people.changed(owner, updated)
    await people.delete(owner, first)
    deleted = await people.changed(owner, pinned)

    def ids(infos: list[dict[str, Any]]) -> list[str]:
        return [item["friendUser"]["userID"] for item in infos]

    def told(data: dict[str, Any]) -> tuple[Any, ...]:
        return data["full"], ids(data["insert"]), ids(data["update"]), data["delete"]

    assert told(inserted) == (False, [first, second], [], [])
    assert (told(updated), updated["update"][0]["remark"]) == ((False, [], [second], []), "x")
    assert (told(pinned), pinned["sortVersion"]) == ((False, [], [second], []), pinned["version"])
    assert told(deleted) == (False, [], [], [first])
    assert [data["sortVersion"] for data in (inserted, updated, deleted)] == [0, 0, 0]
    assert told(await people.changed(owner, deleted)) == (False, [], [], [])
    assert (await people.changed(owner, deleted))["version"] == deleted["version"]
    # Inserted and then updated counts as updated; what is gone by now is told as such only.
    assert told(await people.changed(owner, start)) == (False, [], [second], [first])
    assert (await people.changed(owner, {**deleted, "versionID": "0" * 24}))["full"]
    assert (await people.changed(owner, {**deleted, "versionID": "no id"}))["full"]
    assert (await people.changed(owner, {**deleted, "version": deleted["version"] + 1}))["full"]
    assert {item["versionID"] for item in (start, inserted, updated, deleted)} == {start["versionID"]}


async def test_who_missed_more_than_the_log_holds_fetches_all(people: FriendApi) -> None:
    (owner,) = await people.users(1)
    users = await people.users(MOST_CHANGES + 1)
    start = await people.changed(owner)

    await people.befriend(owner, *users[:MOST_CHANGES])
    known = await people.changed(owner, start)
    await people.befriend(owner, users[-1])

    assert (known["full"], len(known["insert"])) == (False, MOST_CHANGES)
    assert [item["friendUser"]["userID"] for item in known["insert"]] == (await people.ids(owner))[:MOST_CHANGES]
    missed = await people.changed(owner, start)
    assert (missed["full"], missed["insert"]) == (True, [])
    assert len((await people.changed(owner, known))["insert"]) == 1
