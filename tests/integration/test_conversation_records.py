"""Conversation records and the list of a user's conversations: pipeline.md section 3, step 5."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo.database import Database

from imserver.actions.chats import find_records
from imserver.storage import conversations, keys
from imserver.storage.clients import Document, close_async_clients, get_async_mongo, get_async_redis
from imserver.storage.conversations import Conversations, NewConversation
from tests.factories import make_msg, make_notification, persist, read_log, shard_of_msg, transfer, unique

DEFAULTS = {"recv_msg_opt": 0, "is_pinned": False, "is_private_chat": False, "burn_duration": 0, "group_at_type": 0}


@pytest.fixture
async def listed(database: Database[Document]) -> AsyncIterator[Conversations]:
    yield Conversations(get_async_redis(), get_async_mongo())
    await close_async_clients()


def records(database: Database[Document]) -> dict[tuple[str, str], Document]:
    return {
        (document["owner_user_id"], document["conversation_id"]): document
        for document in database["conversation"].find({}, {"_id": 0})
    }


def test_the_first_message_creates_a_record_for_each_side(database: Database[Document]) -> None:
    transfer([make_msg("b", "a"), make_msg("a", "b")])
    persist()

    found = records(database)
    assert {owner: (item["user_id"], item["conversation_type"]) for (owner, _), item in found.items()} == {
        "a": ("b", 1),
        "b": ("a", 1),
    }
    assert {conversation_id for _, conversation_id in found} == {"si_a_b"}
    assert all(DEFAULTS.items() <= item.items() for item in found.values())


async def test_a_conversation_can_be_asked_for_before_persist_has_written_its_record(
    database: Database[Document], listed: Conversations
) -> None:
    transfer([make_msg("a", "b")])

    (early,) = await find_records("b", ["si_a_b", "si_b_c"])
    assert records(database) == {}
    persist()
    (late,) = await find_records("b", ["si_a_b"])

    assert {**early, "create_time": 0} == {**late, "create_time": 0}
    await listed.delete("b", {"si_a_b": 1})
    assert await find_records("b", ["si_a_b"]) == []


async def test_a_record_written_while_its_conversation_is_asked_for_is_not_missed(
    database: Database[Document], listed: Conversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer([make_msg("a", "b")])
    get_owned = Conversations.get_owned

    async def persist_in_between(self: Conversations, user_id: str, conversation_ids: Iterable[str]) -> set[str]:
        persist()
        return await get_owned(self, user_id, conversation_ids)

    monkeypatch.setattr(Conversations, "get_owned", persist_in_between)

    assert [record["conversation_id"] for record in await find_records("b", ["si_a_b"])] == ["si_a_b"]


def test_a_chat_with_oneself_has_one_record(database: Database[Document]) -> None:
    transfer([make_msg("a", "a")])
    persist()

    ((at, record),) = records(database).items()
    assert at == ("a", "si_a_a")
    assert record["user_id"] == "a"


def test_later_messages_leave_the_records_as_their_owners_set_them(database: Database[Document]) -> None:
    transfer([make_msg("a", "b")])
    persist()
    database["conversation"].update_one({"owner_user_id": "b"}, {"$set": {"is_pinned": True, "recv_msg_opt": 2}})
    before = records(database)

    transfer([make_msg("a", "b"), make_msg("b", "a")])
    persist()

    assert records(database) == before


def test_a_replayed_first_message_leaves_existing_records_untouched(
    database: Database[Document], redis_client: redis.Redis
) -> None:
    msg = make_msg("a", "b")
    transfer([msg])
    entries = read_log(redis_client, keys.TO_MONGO, shard_of_msg(msg))
    persist()
    database["conversation"].update_one({"owner_user_id": "a"}, {"$set": {"is_pinned": True}})
    before = records(database)

    redis_client.xadd(keys.log(keys.TO_MONGO, shard_of_msg(msg)), entries[0][1])  # type: ignore[arg-type]
    persist()

    assert records(database) == before


def test_notifications_create_no_record(database: Database[Document]) -> None:
    transfer([make_notification("a", "b", stored=True), make_notification("a", "b", stored=False)])
    persist()

    assert records(database) == {}


def test_records_of_several_conversations_are_created_together(database: Database[Document]) -> None:
    items = [NewConversation(owner, "sg_G", 3, group_id="G") for owner in ("a", "b")] + [
        NewConversation("a", "si_a_c", 1, user_id="c")
    ]

    conversations.create_records(database, items)
    conversations.create_records(database, items)
    conversations.create_records(database, [])

    found = records(database)
    assert set(found) == {("a", "sg_G"), ("b", "sg_G"), ("a", "si_a_c")}
    assert (found["a", "sg_G"]["group_id"], found["a", "sg_G"]["conversation_type"]) == ("G", 3)


async def test_a_list_that_was_loaded_is_marked_complete_and_not_loaded_again(
    listed: Conversations, database: Database[Document], redis_client: redis.Redis
) -> None:
    conversations.create_records(database, [NewConversation("a", "si_a_b", 1, user_id="b")])

    assert await listed.get_ids("a") == {"si_a_b"}
    assert redis_client.sismember(keys.conversations("a"), conversations.COMPLETE)
    database["conversation"].delete_many({})
    assert await listed.get_ids("a") == {"si_a_b"}


async def test_an_empty_list_is_an_answer_too(listed: Conversations, redis_client: redis.Redis) -> None:
    assert await listed.get_ids("nobody") == set()

    assert redis_client.smembers(keys.conversations("nobody")) == {b""}


async def test_a_list_that_redis_lost_is_rebuilt(
    listed: Conversations, database: Database[Document], redis_client: redis.Redis
) -> None:
    conversations.create_records(database, [NewConversation("a", "si_a_b", 1, user_id="b")])
    await listed.get_ids("a")
    redis_client.delete(keys.conversations("a"))

    assert await listed.get_ids("a") == {"si_a_b"}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    stored=st.sets(st.integers(0, 5)),
    early=st.sets(st.integers(0, 8)),
    late=st.sets(st.integers(0, 8)),
)
async def test_ids_that_a_transfer_adds_before_or_after_the_load_are_merged(
    listed: Conversations,
    database: Database[Document],
    redis_client: redis.Redis,
    stored: set[int],
    early: set[int],
    late: set[int],
) -> None:
    user = unique("owner")
    conversations.create_records(database, [NewConversation(user, f"si_{number}", 1) for number in stored])
    conversations.remember_ids(redis_client, {(user, f"si_{number}") for number in early})

    assert await listed.get_ids(user) == {f"si_{number}" for number in stored | early}
    conversations.remember_ids(redis_client, {(user, f"si_{number}") for number in late})
    assert await listed.get_ids(user) == {f"si_{number}" for number in stored | early | late}


async def test_a_conversation_is_listed_before_mongodb_has_it(listed: Conversations) -> None:
    transfer([make_msg("a", "b")])

    assert await listed.get_ids("a") == {"si_a_b"}
    assert await listed.get_ids("b") == {"si_a_b"}
    assert await listed.get_ids("c") == set()
