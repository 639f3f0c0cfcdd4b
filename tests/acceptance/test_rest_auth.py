"""/auth: who gets a token, whom a token lets in, and how it stops (protocol: rest.md 2.1, websocket.md 7 and 8)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest

from tests.client import Api, Client, Connect
from tests.stack import Stack

pytestmark = [
    pytest.mark.acceptance,
    # OpenIM's shipped secret is short, and so are the wrong ones here.
    pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning"),
]

SECRET = "openIM123"
NINETY_DAYS = 7_776_000
#: Between what this process and the server take for now.
SLACK_SECONDS = 10


async def code_of(api: Api, token: str) -> int:
    """What a token is answered with: 0 when it is good."""
    code: int = (await api.post("/user/get_users_info", {"userIDs": []}, token=token))["errCode"]
    return code


async def codes_of(api: Api, *tokens: str) -> list[int]:
    return [await code_of(api, token) for token in tokens]


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, SECRET, algorithms=["HS256"])
    return claims


# -- admin tokens


async def test_the_secret_gives_an_admin_a_token_of_platform_10_for_90_days(api: Api) -> None:
    data = await api.call("/auth/get_admin_token", {"secret": SECRET, "userID": "imAdmin"}, token="")

    assert set(data) == {"token", "expireTimeSeconds"}
    assert data["expireTimeSeconds"] == NINETY_DAYS
    parsed = await api.call("/auth/parse_token", {"token": data["token"]}, token="")
    assert (parsed["userID"], parsed["platformID"]) == ("imAdmin", 10)
    assert await code_of(api, data["token"]) == 0


async def test_who_lacks_the_secret_or_is_no_admin_gets_no_admin_token(api: Api) -> None:
    bodies = [
        ({"secret": "wrong", "userID": "imAdmin"}, 1002),
        ({"secret": "", "userID": "imAdmin"}, 1002),
        ({"userID": "imAdmin"}, 1002),
        ({"secret": "öpenIM123", "userID": "imAdmin"}, 1002),
        ({"secret": SECRET.upper(), "userID": "imAdmin"}, 1002),
        ({"secret": "wrong", "userID": "nobody"}, 1002),
        ({"secret": SECRET, "userID": "nobody"}, 1001),
        ({"secret": SECRET, "userID": "IMADMIN"}, 1001),
        ({"secret": SECRET, "userID": ""}, 1001),
        ({"secret": SECRET}, 1001),
    ]

    for body, code in bodies:
        assert (await api.post("/auth/get_admin_token", body, token=""))["errCode"] == code, body


async def test_a_registered_user_is_no_admin_even_with_the_secret(api: Api, names: Iterator[str]) -> None:
    alice = next(names)
    await api.register(alice)

    envelope = await api.post("/auth/get_admin_token", {"secret": SECRET, "userID": alice}, token="")

    assert envelope["errCode"] == 1001


async def test_a_new_admin_token_leaves_the_old_one_good_for_its_grace(api: Api) -> None:
    body = {"secret": SECRET, "userID": "imAdmin"}

    tokens = [(await api.call("/auth/get_admin_token", body, token=""))["token"] for _ in range(3)]

    assert len(set(tokens)) == 3
    assert await codes_of(api, *tokens) == [0, 0, 0]


# -- user tokens


async def test_an_admin_gets_a_token_for_a_user_on_any_platform(api: Api, names: Iterator[str]) -> None:
    alice = next(names)
    await api.register(alice)

    tokens = []
    for platform_id in (1, 2, 3, 4, 5, 6, 7, 8, 9, 11):
        data = await api.call("/auth/get_user_token", {"userID": alice, "platformID": platform_id})

        tokens.append(data["token"])
        assert set(data) == {"token", "expireTimeSeconds"}
        assert data["expireTimeSeconds"] == NINETY_DAYS
        claims = claims_of(data["token"])
        assert (claims["UserID"], claims["PlatformID"]) == (alice, platform_id)
        assert claims["exp"] - claims["iat"] == NINETY_DAYS + 5
    assert await codes_of(api, *tokens) == [0] * len(tokens)


async def test_a_user_token_is_refused_with_the_reasons_code(api: Api, names: Iterator[str]) -> None:
    alice = next(names)
    await api.register(alice)
    reasons: list[tuple[dict[str, object], int]] = [
        ({"platformID": 10}, 1002),
        ({"userID": "imAdmin"}, 1002),
        ({"userID": "nobody_at_all"}, 1004),
        ({"platformID": 0}, 1001),
        ({"platformID": 12}, 1001),
        ({"platformID": -1}, 1001),
    ]

    for change, code in reasons:
        envelope = await api.post("/auth/get_user_token", {"userID": alice, "platformID": 1, **change})

        assert envelope["errCode"] == code, change


@pytest.mark.parametrize(("level", "code"), [(1, 0), (2, 0), (3, 1001), (4, 1001)])
async def test_nobody_logs_in_as_a_notification_account_or_a_robot(
    stack: Stack, api: Api, names: Iterator[str], level: int, code: int
) -> None:
    account = next(names)
    stack.database["user"].insert_one(
        {"user_id": account, "nickname": "News", "create_time": 1, "app_manger_level": level}
    )

    envelope = await api.post("/auth/get_user_token", {"userID": account, "platformID": 5})

    assert envelope["errCode"] == code


async def test_a_second_token_for_the_same_platform_kicks_the_first(api: Api, names: Iterator[str]) -> None:
    alice, bob = next(names), next(names)
    await api.register(alice, bob)
    bobs = await api.token(bob, 1)
    other_platform = await api.token(alice, 5)
    first = await api.token(alice, 1)

    second = await api.token(alice, 1)

    assert await codes_of(api, first, second, other_platform, bobs) == [1506, 0, 0, 0]


async def test_a_kicked_token_stays_kicked_when_further_tokens_are_issued(api: Api, names: Iterator[str]) -> None:
    alice = next(names)
    await api.register(alice)

    tokens = [await api.token(alice, 1) for _ in range(3)]

    assert await codes_of(api, *tokens) == [1506, 1506, 0]


async def test_of_tokens_asked_for_at_once_one_survives(api: Api, names: Iterator[str]) -> None:
    alice = next(names)
    await api.register(alice)

    tokens = await asyncio.gather(*(api.token(alice, 1) for _ in range(8)))

    assert len(set(tokens)) == 8
    assert sorted(await codes_of(api, *tokens)) == [0] + [1506] * 7


# -- looking into a token


async def test_parse_token_tells_whose_it_is_and_when_it_ends(api: Api, names: Iterator[str]) -> None:
    alice = next(names)
    await api.register(alice)
    token = await api.token(alice, 5)

    data = await api.call("/auth/parse_token", {"token": token}, token="")

    ends = data.pop("expireTimeSeconds")
    assert data == {"userID": alice, "platformID": 5}
    assert ends == claims_of(token)["exp"]
    assert abs(ends - (time.time() + NINETY_DAYS)) < SLACK_SECONDS


async def test_parse_token_refuses_a_bad_token_with_its_code(api: Api, names: Iterator[str]) -> None:
    alice = next(names)
    await api.register(alice)
    kicked = await api.token(alice)
    await api.token(alice)
    now = int(time.time())
    mine = {"UserID": alice, "PlatformID": 1, "exp": now + 100}

    codes = {
        "nothing": (await api.post("/auth/parse_token", {}, token=""))["errCode"],
        **{
            why: (await api.post("/auth/parse_token", {"token": token}, token=""))["errCode"]
            for why, token in {
                "malformed": "a.b.c",
                "expired": jwt.encode({**mine, "exp": now - 1}, SECRET),
                "not valid yet": jwt.encode({**mine, "nbf": now + 50}, SECRET),
                "wrong signature": jwt.encode(mine, "another secret"),
                "unknown to the store": jwt.encode(mine, SECRET),
                "kicked": kicked,
            }.items()
        },
    }

    assert codes.pop("nothing") in (1001, 1503)
    assert codes == {
        "malformed": 1503,
        "expired": 1501,
        "not valid yet": 1504,
        "wrong signature": 1505,
        "unknown to the store": 1507,
        "kicked": 1506,
    }


# -- logging out


async def test_force_logout_kicks_the_platforms_token_and_connections_and_nothing_else(
    stack: Stack, api: Api, connect: Connect, names: Iterator[str]
) -> None:
    alice, bob = next(names), next(names)
    await api.register(alice, bob)
    phone, web, bobs = await api.token(alice, 1), await api.token(alice, 5), await api.token(bob, 1)
    async with (
        Client(stack.gateway_url, alice, phone, platform_id=1) as on_phone,
        Client(stack.gateway_url, alice, web, platform_id=5) as on_web,
    ):
        await api.call("/auth/force_logout", {"userID": alice, "platformID": 1})

        await on_phone.wait_closed()
        assert on_phone.kicked
        assert await codes_of(api, phone, web, bobs) == [1506, 0, 0]
        assert await on_web.max_seqs() == {}


async def test_a_user_who_was_logged_out_may_log_in_again(api: Api, connect: Connect, names: Iterator[str]) -> None:
    alice = next(names)
    await api.register(alice)
    old = await api.token(alice)
    await api.call("/auth/force_logout", {"userID": alice, "platformID": 1})

    client = await connect(alice)

    assert await client.max_seqs() == {}
    assert await code_of(api, old) == 1506


async def test_logging_out_who_is_not_there_changes_nothing(api: Api, names: Iterator[str]) -> None:
    alice = next(names)
    await api.register(alice)
    token = await api.token(alice, 1)

    for body in ({"userID": alice, "platformID": 2}, {"userID": next(names), "platformID": 1}):
        assert (await api.post("/auth/force_logout", body))["errCode"] == 0

    assert await code_of(api, token) == 0


async def test_force_logout_refuses_a_platform_that_does_not_exist(api: Api, names: Iterator[str]) -> None:
    alice = next(names)

    for platform_id in (0, -1, 12, 99):
        assert (await api.post("/auth/force_logout", {"userID": alice, "platformID": platform_id}))["errCode"] == 1001
