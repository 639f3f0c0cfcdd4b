"""/user: who is online, over REST."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.acceptance.devices import IOS, WEB, Devices
from tests.client import Api
from tests.stack import Stack

pytestmark = pytest.mark.acceptance


@pytest.fixture
async def devices(stack: Stack, api: Api) -> AsyncIterator[Devices]:
    made = Devices(stack, api)
    yield made
    for client in made.open:
        await client.close()


async def test_rest_tells_who_is_online_where(api: Api, devices: Devices, names: Iterator[str]) -> None:
    alice, bob = next(names), next(names)
    await api.register(alice, bob)
    token = await api.token(alice, IOS)
    await devices.connect(alice, IOS, token=token)
    web = await api.token(alice, WEB)
    await devices.connect(alice, WEB, token=web)
    asked = {"userIDs": [alice, bob]}

    status = await api.call("/user/get_users_online_status", asked)
    detail = await api.call("/user/get_users_online_token_detail", asked)
    listed = await api.call("/user/get_users_status", {"userID": alice, **asked}, token=token)

    assert [(item["userID"], item["status"]) for item in status] == [(alice, 1), (bob, 0)]
    assert [item["platformID"] for item in status[0]["detailPlatformStatus"]] == [IOS, WEB]
    assert all(item["connID"] and not item["isBackground"] for item in status[0]["detailPlatformStatus"])
    assert detail == [
        {
            "userID": alice,
            "status": 1,
            "singlePlatformToken": [
                {"platformID": IOS, "total": 1, "token": [token]},
                {"platformID": WEB, "total": 1, "token": [web]},
            ],
        }
    ]
    assert listed == {
        "statusList": [
            {"userID": alice, "status": 1, "platformIDs": [IOS, WEB]},
            {"userID": bob, "status": 0, "platformIDs": []},
        ]
    }


async def test_rest_keeps_a_list_of_whom_a_user_subscribed(api: Api, devices: Devices, names: Iterator[str]) -> None:
    alice, bob, carol = (next(names) for _ in range(3))
    await api.register(alice, bob, carol)
    token = await api.token(alice, WEB)
    await devices.connect(bob, IOS)
    of_bob = {"userID": bob, "status": 1, "platformIDs": [IOS]}
    of_carol = {"userID": carol, "status": 0, "platformIDs": []}

    async def change(genre: int, *user_ids: str) -> Any:
        body = {"userID": alice, "userIDs": list(user_ids), "genre": genre}
        return (await api.call("/user/subscribe_users_status", body, token=token))["statusList"]

    async def listed() -> Any:
        data = await api.call("/user/get_subscribe_users_status", {"userID": alice}, token=token)
        return sorted(data["statusList"] or [], key=lambda item: item["userID"] == carol)

    assert await listed() == []
    assert await change(1, bob, carol) == [of_bob, of_carol]
    assert await listed() == [of_bob, of_carol]
    await change(2, carol)
    assert await listed() == [of_bob]
    for part in range(2):
        await change(1, *(f"{part}x{number}" for number in range(1000)))
    too_many = {"userID": alice, "userIDs": [f"y{number}" for number in range(1000)], "genre": 1}
    assert (await api.post("/user/subscribe_users_status", too_many, token=token))["errCode"] == 1001
    assert len(await listed()) == 2001


async def test_status_routes_refuse_bad_input_strangers_and_bad_tokens(api: Api, names: Iterator[str]) -> None:
    alice, bob = next(names), next(names)
    await api.register(alice, bob)
    token = await api.token(alice)
    many = [f"u{number}" for number in range(1001)]
    admin_only = ["/user/get_users_online_status", "/user/get_users_online_token_detail"]
    own = ["/user/get_users_status", "/user/subscribe_users_status", "/user/get_subscribe_users_status"]

    for path in admin_only:
        assert (await api.post(path, {"userIDs": [bob]}, token=token))["errCode"] == 1002
        for user_ids in ([], many, "a", [1]):
            assert (await api.post(path, {"userIDs": user_ids}))["errCode"] == 1001
    for path in own:
        assert (await api.post(path, {"userID": bob, "userIDs": [bob], "genre": 1}, token=token))["errCode"] == 1002
        assert (await api.post(path, {"userIDs": [bob], "genre": 1}, token=token))["errCode"] == 1001
    for body in (
        {"userIDs": [], "genre": 1},
        {"userIDs": [], "genre": 2},
        {"userIDs": [""], "genre": 1},
        {"userIDs": many, "genre": 1},
        {"userIDs": [bob], "genre": 0},
        {"userIDs": [bob], "genre": 3},
        {"userIDs": [bob], "genre": "1"},
    ):
        answer = await api.post("/user/subscribe_users_status", {"userID": alice, **body}, token=token)
        assert answer["errCode"] == 1001, body
    for user_ids in ([], many):
        body = {"userID": alice, "userIDs": user_ids}
        assert (await api.post("/user/get_users_status", body, token=token))["errCode"] == 1001
    for path in (*admin_only, *own):
        assert (await api.post(path, {"userIDs": [bob]}, token=""))["errCode"] == 1001
        assert (await api.post(path, {"userIDs": [bob]}, token="a.b.c"))["errCode"] == 1503
    listed = await api.call("/user/get_subscribe_users_status", {"userID": alice}, token=token)
    assert not listed["statusList"]
