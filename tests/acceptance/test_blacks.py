"""Blacklists through REST: blocking and unblocking, lists, and what a client's sync is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.acceptance.friend_api import FIRST_PAGE, FriendApi, version_of
from tests.client import Api

pytestmark = pytest.mark.acceptance


@pytest.fixture
def people(api: Api, names: Iterator[str]) -> FriendApi:
    return FriendApi(api, names)


async def test_a_blacklist_is_kept_page_by_page_and_asked_for_by_user(people: FriendApi) -> None:
    owner, first, second, other = await people.users(4)

    assert await people.block(owner, first, ex="{}") == 0
    assert await people.block(owner, second) == 0
    assert await people.block(owner, first) == 1003
    assert await people.block(owner, "nobody_at_all") == 1004

    body = {"userID": owner, "pagination": {"pageNumber": 1, "showNumber": 1}}
    data = await people.call(owner, "get_black_list", **body)
    (black,) = data["blacks"]
    assert data["total"] == 2
    assert black == {
        "ownerUserID": owner,
        "createTime": black["createTime"],
        "addSource": 0,
        "operatorUserID": owner,
        "ex": "{}",
        "blackUserInfo": {"userID": first, "nickname": first, "faceURL": "", "ex": ""},
    }
    wanted = {"ownerUserID": owner, "userIDList": [other, second, first]}
    specified = await people.call(owner, "get_specified_blacks", **wanted)
    assert [item["blackUserInfo"]["userID"] for item in specified["blacks"]] == [second, first]
    assert (specified["total"], specified["blacks"][1]["createTime"] // 1000) == (2, black["createTime"])

    assert await people.unblock(owner, first) == 0
    assert await people.unblock(owner, first) == 0
    body["pagination"] = FIRST_PAGE
    data = await people.call(owner, "get_black_list", **body)
    assert [item["blackUserInfo"]["userID"] for item in data["blacks"]] == [second]
    empty = await people.call(other, "get_black_list", userID=other, pagination=FIRST_PAGE)
    assert empty == {"total": 0, "blacks": []}


async def test_two_who_block_the_same_user_at_once_block_it_once(people: FriendApi) -> None:
    owner, user = await people.users(2)

    codes = await asyncio.gather(*(people.block(owner, user) for _ in range(4)))

    assert sorted(codes) == [0, 1003, 1003, 1003]


async def test_a_client_learns_of_blocked_and_unblocked_users_by_the_version(people: FriendApi) -> None:
    owner, first, second = await people.users(3)
    start = await people.changed_blacks(owner)
    assert (start["full"], start["insert"]) == (True, [])

    await people.block(owner, first)
    await people.block(owner, second)
    await people.unblock(owner, first)

    changed = await people.changed_blacks(owner, start)
    assert (changed["full"], changed["update"], changed["delete"]) == (False, [], [first])
    (black,) = changed["insert"]
    assert (black["ownerUserID"], black["blackUserID"], black["blackNickname"]) == (owner, second, second)
    assert await people.changed_blacks(owner, changed) == {
        **version_of(changed),
        "full": False,
        "delete": [],
        "insert": [],
        "update": [],
    }
