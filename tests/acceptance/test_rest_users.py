"""/user: registering and looking up (protocol: rest.md 2.2)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from imserver.protocol.conversations import single_conversation_id
from tests.client import Api, Connect, text_of
from tests.stack import Stack

pytestmark = pytest.mark.acceptance

LONGEST_ID = 64
LONGEST_NICKNAME = 255
MOST_AT_ONCE = 1000


def user(user_id: str, nickname: str = "Somebody", **more: Any) -> dict[str, Any]:
    return {"userID": user_id, "nickname": nickname, **more}


async def register(api: Api, *users: Any) -> int:
    code: int = (await api.post("/user/user_register", {"users": list(users)}))["errCode"]
    return code


async def infos(api: Api, *user_ids: str) -> list[dict[str, Any]]:
    data = await api.call("/user/get_users_info", {"userIDs": list(user_ids)})
    found: list[dict[str, Any]] = data["usersInfo"]
    return found


# -- registering


async def test_registered_users_are_found_as_they_were_registered(api: Api, names: Iterator[str]) -> None:
    alice, bob = next(names), next(names)

    assert await register(api, user(alice, "Ålice 🙂", faceURL="http://f/1", ex='{"a":1}'), user(bob, "Bob")) == 0

    found = await infos(api, alice, bob)
    assert [(item["userID"], item["nickname"], item["faceURL"], item["ex"]) for item in found] == [
        (alice, "Ålice 🙂", "http://f/1", '{"a":1}'),
        (bob, "Bob", "", ""),
    ]


async def test_level_and_receive_option_are_as_registered_and_the_time_is_the_servers(
    api: Api, names: Iterator[str]
) -> None:
    plain, other = next(names), next(names)
    by_level = {level: next(names) for level in range(5)}

    assert await register(api, user(plain)) == 0
    for level, user_id in by_level.items():
        assert await register(api, user(user_id, appMangerLevel=level, globalRecvMsgOpt=2, createTime=5)) == 0
    for field, value in (("appMangerLevel", 5), ("appMangerLevel", -1), ("globalRecvMsgOpt", 3)):
        assert await register(api, {**user(other), field: value}) == 1001

    found = await infos(api, *by_level.values(), plain, other)
    assert [(item["appMangerLevel"], item["globalRecvMsgOpt"]) for item in found] == [
        *((level, 2) for level in by_level),
        (0, 0),
    ]
    assert all(item["createTime"] > 5 for item in found)


async def test_a_level_makes_nobody_an_app_admin(api: Api, names: Iterator[str]) -> None:
    alice, other = next(names), next(names)
    await register(api, user(alice, appMangerLevel=2))
    token = await api.token(alice)

    envelope = await api.post("/user/user_register", {"users": [user(other)]}, token=token)

    assert envelope["errCode"] == 1002
    assert (await api.post("/auth/get_admin_token", {"secret": "openIM123", "userID": alice}))["errCode"] == 1001
    assert (await api.post("/auth/get_user_token", {"userID": alice, "platformID": 10}))["errCode"] == 1002


async def test_a_user_id_of_other_than_letters_digits_and_underscores_is_refused(
    api: Api, names: Iterator[str]
) -> None:
    bad = ["", " ", "a b", "a-b", "a.b", "a\n", "a\u0000", "x" * (LONGEST_ID + 1), "ü" * (LONGEST_ID + 1), "a/b", "$ne"]
    # An emoji, an accent of its own, a joiner that nobody sees.
    bad += ["🙂", "e\u0301", "a\u200db"]
    beside = next(names)

    codes = {user_id: await register(api, user(beside), user(user_id)) for user_id in bad}

    assert codes == dict.fromkeys(bad, 1001)
    assert await infos(api, beside, *bad) == []


async def test_every_allowed_character_and_the_longest_id_are_taken(api: Api, names: Iterator[str]) -> None:
    ids = [f"{next(names)}_A_z_09", f"_{next(names)}", next(names).ljust(LONGEST_ID, "x"), next(names).upper()]
    ids += [f"用户_{next(names)}", next(names).ljust(LONGEST_ID, "ü"), f"{next(names)}_٣"]

    assert await register(api, *map(user, ids)) == 0

    assert [item["userID"] for item in await infos(api, *ids)] == ids


async def test_users_with_ids_of_any_script_are_friends_and_chat(
    api: Api, connect: Connect, names: Iterator[str]
) -> None:
    alice, bob = f"Ünal_{next(names)}", f"用户{next(names)}".ljust(LONGEST_ID, "户")
    await api.register(alice, bob)
    clients = [await connect(user_id) for user_id in (alice, bob)]

    await api.call("/friend/import_friend", {"ownerUserID": alice, "friendUserIDs": [bob]})
    await clients[0].send_text(bob, "hello")
    await clients[1].until(lambda: any(msg.contentType == 101 for msg in clients[1].chat_with(alice)))
    await clients[1].send_text(alice, "hello, too")
    await clients[0].until(lambda: len([msg for msg in clients[0].chat_with(bob) if msg.contentType == 101]) == 2)

    late = await connect(bob, platform_id=2)
    chat = single_conversation_id(alice, bob)
    assert (await late.max_seqs())[chat] == 3
    assert [text_of(msg) for msg in await late.pull(chat, 2, 3)] == ["hello", "hello, too"]
    assert (await api.call("/friend/get_friend_id", {"userID": alice}))["friendIDs"] == [bob]


async def test_user_ids_differ_by_case(api: Api, names: Iterator[str]) -> None:
    alice = next(names)

    assert await register(api, user(alice, "small")) == 0
    assert await register(api, user(alice.upper(), "BIG")) == 0

    assert [item["nickname"] for item in await infos(api, alice.upper(), alice)] == ["BIG", "small"]


async def test_a_nickname_is_needed_and_has_a_limit(api: Api, names: Iterator[str]) -> None:
    alice = next(names)

    for nickname in (None, "", "x" * (LONGEST_NICKNAME + 1)):
        assert await register(api, {"userID": alice, "nickname": nickname}) == 1001
    assert await infos(api, alice) == []
    assert await register(api, user(alice, "x" * LONGEST_NICKNAME)) == 0


async def test_registering_nobody_is_refused(api: Api) -> None:
    bodies: list[dict[str, Any]] = [{}, {"users": []}, {"users": None}]

    for body in bodies:
        assert (await api.post("/user/user_register", body))["errCode"] == 1001


async def test_an_id_that_stands_twice_in_a_request_is_refused_and_nobody_is_registered(
    api: Api, names: Iterator[str]
) -> None:
    alice, bob = next(names), next(names)

    assert await register(api, user(bob), user(alice, "one"), user(alice, "two")) == 1001

    assert await infos(api, alice, bob) == []


async def test_an_id_that_exists_is_refused_and_nobody_is_registered_or_changed(api: Api, names: Iterator[str]) -> None:
    alice, bob = next(names), next(names)
    await register(api, user(alice, "first"))

    envelope = await api.post("/user/user_register", {"users": [user(bob), user(alice, "second")]})

    assert (envelope["errCode"], envelope["errMsg"]) == (1102, "RegisteredAlreadyError")
    assert [item["nickname"] for item in await infos(api, alice, bob)] == ["first"]


async def test_the_admin_is_registered_already(api: Api) -> None:
    assert await register(api, user("imAdmin")) == 1102


async def test_of_registrations_at_once_exactly_one_wins(stack: Stack, api: Api, names: Iterator[str]) -> None:
    alice = next(names)

    codes = await asyncio.gather(*(register(api, user(alice, f"name {number}")) for number in range(10)))

    assert Counter(codes) == {0: 1, 1102: 9}
    assert [item["nickname"] for item in await infos(api, alice)] == [f"name {codes.index(0)}"]
    assert stack.database["user"].count_documents({"user_id": alice}) == 1


async def test_a_thousand_users_are_registered_at_once_and_more_are_refused(api: Api, names: Iterator[str]) -> None:
    ids = [next(names) for _ in range(MOST_AT_ONCE + 1)]

    assert await register(api, *map(user, ids)) == 1001
    assert await register(api, *map(user, ids[:-1])) == 0

    assert len(await infos(api, *ids[:-1])) == MOST_AT_ONCE


# -- looking up


async def test_unknown_users_are_silently_missing(api: Api, names: Iterator[str]) -> None:
    alice, bob, nobody = next(names), next(names), next(names)
    await api.register(alice, bob)

    assert [item["userID"] for item in await infos(api, bob, nobody, "", alice, "not an id!")] == [bob, alice]


async def test_a_user_asked_for_twice_is_told_once(api: Api, names: Iterator[str]) -> None:
    alice = next(names)
    await api.register(alice)

    assert [item["userID"] for item in await infos(api, alice, alice)] == [alice]


async def test_any_user_may_look_up_oneself_and_others(api: Api, names: Iterator[str]) -> None:
    alice, bob = next(names), next(names)
    await api.register(alice, bob)

    data = await api.call("/user/get_users_info", {"userIDs": [alice, bob]}, token=await api.token(alice))

    assert [item["userID"] for item in data["usersInfo"]] == [alice, bob]


async def test_asking_for_nobody_finds_nobody(api: Api) -> None:
    assert await infos(api) == []


async def test_asking_for_more_than_a_thousand_is_refused(api: Api) -> None:
    ids = [f"n{number}" for number in range(MOST_AT_ONCE + 1)]

    assert (await api.post("/user/get_users_info", {"userIDs": ids}))["errCode"] == 1001
