"""Every change of a conversation record is told to its owner's list, once."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from pymongo.database import Database

from imserver.storage import conversations, versions
from imserver.storage.clients import Document, close_async_clients, get_async_mongo, get_async_redis
from imserver.storage.conversations import Conversations, NewConversation
from imserver.storage.versions import Versions
from tests.factories import make_msg, persist, transfer

LIST = versions.conversations_of("a")


@pytest.fixture
async def store(database: Database[Document]) -> AsyncIterator[Conversations]:
    yield Conversations(get_async_redis(), get_async_mongo())
    await close_async_clients()


async def changes(since: tuple[str, int]) -> tuple[list[str], list[str], int]:
    """(inserted, updated, version)"""
    found = await Versions(get_async_mongo()).changes_since(LIST, *since)
    assert not found.is_full
    return found.inserted, found.updated, found.version


@pytest.mark.usefixtures("store")
async def test_a_record_that_persist_makes_is_told_once(database: Database[Document]) -> None:
    start = await Versions(get_async_mongo()).get(LIST)
    transfer([make_msg("a", "b"), make_msg("c", "a")])

    persist()
    after = await changes(start)
    conversations.create_records(database, [NewConversation("a", "si_a_b", 1, "b")])

    assert sorted(after[0]) == ["si_a_b", "si_a_c"]
    assert await changes(start) == after


@pytest.mark.usefixtures("store")
async def test_a_record_whose_process_died_before_it_was_told_is_told_by_the_next(
    database: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = await Versions(get_async_mongo()).get(LIST)
    item = NewConversation("a", "si_a_b", 1, "b")
    with monkeypatch.context() as patched:
        patched.setattr(versions, "record_missing", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            conversations.create_records(database, [item])
    assert (await changes(start))[0] == []

    conversations.create_records(database, [item])

    assert (await changes(start))[0] == ["si_a_b"]


async def test_only_what_really_changes_is_told(store: Conversations) -> None:
    start = await Versions(get_async_mongo()).get(LIST)
    item = NewConversation("a", "si_a_b", 1, "b")

    assert await store.set(item, {"is_pinned": True})
    assert not await store.set(item, {"is_pinned": True})
    assert await changes(start) == (["si_a_b"], [], start[1] + 1)
    assert await store.set(item, {"is_pinned": False})

    assert await changes(start) == ([], ["si_a_b"], start[1] + 2)


async def test_many_owners_are_set_at_once_and_only_those_who_had_another_value_are_told(store: Conversations) -> None:
    owners = ["a", "b", "c"]
    for owner in owners:
        await store.set(NewConversation(owner, "sg_g", 3, group_id="g"), {"group_at_type": int(owner == "b")})
    start = await Versions(get_async_mongo()).get(LIST)

    changed = await store.set_for_owners("sg_g", [*owners, "nobody"], {"group_at_type": 1})

    assert sorted(changed) == ["a", "c"]
    assert await store.set_for_owners("sg_g", owners, {"group_at_type": 1}) == []
    assert (await changes(start))[1] == ["sg_g"]


async def test_limits_only_rise_and_make_missing_records(store: Conversations, database: Database[Document]) -> None:
    item = NewConversation("a", "si_a_b", 1, "b")
    start = await Versions(get_async_mongo()).get(LIST)

    for min_seq in (4, 9, 6):
        await store.raise_min_seqs({item: min_seq})

    (record,) = database["conversation"].find({})
    assert (record["min_seq"], record["user_id"], record["recv_msg_opt"]) == (9, "b", 0)
    assert (await changes(start))[:2] == ([], ["si_a_b"])
    assert await store.get_ids("a") == {"si_a_b"}
