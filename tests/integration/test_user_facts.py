"""What a process keeps of users: for the checks of every send, and right a moment after somebody changed it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pymongo.database import Database
from pymongo.errors import PyMongoError

from imserver.storage import user_facts
from imserver.storage.clients import Document, close_async_clients, get_async_mongo, get_async_redis
from imserver.storage.conversations import Conversations, NewConversation
from imserver.storage.friends import Friends, new_black, new_friend
from imserver.storage.user_facts import UserFacts, UserFactsCache, get_user_facts
from imserver.storage.users import new_user

DEADLINE_SECONDS = 20


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            if condition():
                return
            await asyncio.sleep(0.002)


async def until_dropped(cache: UserFactsCache, user_id: str = "a") -> None:
    await until(lambda: user_id not in cache._known)


@pytest.fixture
async def facts(database: Database[Document]) -> AsyncIterator[UserFactsCache]:
    """Subscribed; ``a`` is registered."""
    database["user"].insert_one(new_user("a", "A"))
    cache = get_user_facts()
    await until(lambda: cache._is_live)
    yield cache
    await close_async_clients()


async def get(facts: UserFactsCache, user_id: str = "a") -> UserFacts:
    found = await facts.get(user_id)
    assert found is not None
    return found


async def test_facts_are_loaded_once(facts: UserFactsCache, database: Database[Document]) -> None:
    database["black"].insert_many([new_black("a", "b"), new_black("x", "c")])

    first = await get(facts)

    assert (first.level, first.receive_option, first.receive_options) == (0, 0, {})
    assert first.blocked == {"b"}
    database["user"].delete_many({})
    assert await get(facts) is first


async def test_an_unknown_user_is_looked_for_each_time(facts: UserFactsCache, database: Database[Document]) -> None:
    assert await facts.get("late") is None

    database["user"].insert_one(new_user("late", "L"))

    assert await facts.get("late") is not None


async def test_a_receive_option_that_is_set_is_known_everywhere(facts: UserFactsCache) -> None:
    other = UserFactsCache()
    await until(lambda: other._is_live)
    await get(facts)
    await get(other)
    conversations = Conversations(get_async_redis(), get_async_mongo())

    await conversations.set(NewConversation("a", "si_a_b", 1, "b"), {"recv_msg_opt": 2})

    for cache in (facts, other):
        await until_dropped(cache)
        assert (await get(cache)).receive_options == {"si_a_b": 2}


async def test_facts_that_change_while_they_are_loaded_are_not_kept(
    facts: UserFactsCache, database: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = user_facts._read

    async def slow_read(user_id: str) -> UserFacts | None:
        found = await read(user_id)
        database["black"].insert_one(new_black("a", "b"))
        facts.drop(["a"])
        return found

    with monkeypatch.context() as patched:
        patched.setattr(user_facts, "_read", slow_read)
        assert (await get(facts)).blocked == frozenset()

    assert (await get(facts)).blocked == {"b"}


async def test_a_process_that_lost_its_subscription_forgets_and_subscribes_again(facts: UserFactsCache) -> None:
    await get(facts)
    client: Any = get_async_redis()

    await client.client_kill_filter(_type="pubsub")

    await until_dropped(facts)
    await until(lambda: facts._is_live)
    await get(facts)
    await user_facts.forget(client, ["a"])
    await until_dropped(facts)


async def test_old_facts_serve_while_new_ones_are_loaded_and_while_mongodb_is_away(
    facts: UserFactsCache, database: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = await get(facts)
    database["user"].update_one({"user_id": "a"}, {"$set": {"app_manger_level": 4}})

    async def away(_user_id: str) -> UserFacts | None:
        raise PyMongoError("away")

    with monkeypatch.context() as patched:
        patched.setattr(user_facts, "_read", away)
        old.loaded_at -= user_facts.FRESH_SECONDS + 1
        assert await get(facts) is old
        await until(lambda: not facts._loads)
        assert await get(facts) is old
        with pytest.raises(PyMongoError):
            await facts.get("stranger")
    old.loaded_at -= user_facts.FRESH_SECONDS + 1
    assert await get(facts) is old
    await until(lambda: facts._known["a"] is not old)

    assert (await get(facts)).level == 4


async def test_a_friend_is_who_stands_in_the_owners_list(facts: UserFactsCache, database: Database[Document]) -> None:
    database["friend"].insert_many([new_friend("a", "b"), new_friend("c", "a"), new_friend("a", "d")])

    assert [await facts.is_friend("a", await get(facts), user) for user in ("b", "c", "b")] == [True, False, True]
    rows = await Friends(get_async_mongo()).find_friends("a", ["d", "c", "b", "d"])
    assert [row["friend_user_id"] for row in rows] == ["d", "b"]
