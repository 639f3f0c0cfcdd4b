"""Read seqs: forward only, in MongoDB soon after (pipeline.md section 5)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import PyMongoError

from imserver.protocol.conversations import shard_of
from imserver.storage import keys, read_seq
from imserver.storage.clients import Document, close_async_clients, get_async_mongo, get_async_redis
from imserver.storage.read_seq import ReadSeqs
from tests.factories import unique

SHARD = shard_of("si_a_b", 16)


@pytest.fixture
async def seqs(database: Database[Document]) -> AsyncIterator[ReadSeqs]:
    yield ReadSeqs(get_async_redis(), get_async_mongo())
    await close_async_clients()


def stored(database: Database[Document]) -> dict[tuple[str, str], int]:
    return {
        (document["conversation_id"], document["user_id"]): document["read_seq"]
        for document in database["seq_user"].find()
    }


def mark_dirty(client: redis.Redis, user_id: str, seq: int, *, conversation_id: str = "si_a_b") -> None:
    client.hset(keys.read_dirty(shard_of(conversation_id, 16)), read_seq.dirty_field(conversation_id, user_id), seq)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=st.lists(st.integers(1, 30), min_size=1, max_size=8), flush_every=st.integers(1, 4))
async def test_a_read_seq_only_moves_forward_and_mongodb_gets_the_last_one(
    seqs: ReadSeqs, redis_client: redis.Redis, database: Database[Document], steps: list[int], flush_every: int
) -> None:
    conversation_id, reached = unique("si_"), 0
    for at, step in enumerate(steps):
        assert await seqs.forward("a", conversation_id, step) == reached
        reached = max(reached, step)
        assert await seqs.get("a", [conversation_id]) == {conversation_id: reached}
        if at % flush_every == 0:
            read_seq.flush(redis_client, database)

    read_seq.flush(redis_client, database)

    assert stored(database)[conversation_id, "a"] == reached


async def test_users_and_conversations_are_told_apart(seqs: ReadSeqs) -> None:
    await seqs.forward("a", "si_a_b", 3)
    await seqs.forward("b", "si_a_b", 5)

    assert await seqs.get("a", ["si_a_b", "si_a_c"]) == {"si_a_b": 3, "si_a_c": 0}
    assert await seqs.get("b", ["si_a_b"]) == {"si_a_b": 5}
    assert await seqs.get("a", []) == {}


async def test_what_redis_does_not_have_is_read_from_mongodb(
    seqs: ReadSeqs, redis_client: redis.Redis, database: Database[Document]
) -> None:
    await seqs.forward("a", "si_a_b", 7)
    read_seq.flush(redis_client, database)
    redis_client.delete(keys.read_seq(SHARD, "si_a_b", "a"))

    assert await seqs.get("a", ["si_a_b"]) == {"si_a_b": 7}


async def test_a_flush_writes_each_change_once(
    seqs: ReadSeqs, redis_client: redis.Redis, database: Database[Document]
) -> None:
    for seq in (1, 5, 9):
        await seqs.forward("a", "si_a_b", seq)
    await seqs.forward("a", "sg_G_1", 2)

    assert read_seq.flush(redis_client, database) == 2
    assert read_seq.flush(redis_client, database) == 0

    assert stored(database) == {("si_a_b", "a"): 9, ("sg_G_1", "a"): 2}


def test_a_flush_never_moves_mongodb_back(redis_client: redis.Redis, database: Database[Document]) -> None:
    mark_dirty(redis_client, "a", 9)
    read_seq.flush(redis_client, database)
    mark_dirty(redis_client, "a", 4)
    mark_dirty(redis_client, "b", 2)

    read_seq.flush(redis_client, database)

    assert stored(database) == {("si_a_b", "a"): 9, ("si_a_b", "b"): 2}


def test_what_moves_on_during_a_flush_is_written_by_the_next(
    redis_client: redis.Redis, database: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    mark_dirty(redis_client, "a", 3)
    mark_dirty(redis_client, "b", 8)
    bulk_write = Collection.bulk_write

    def moved_on(*args: Any, **options: Any) -> Any:
        answer = bulk_write(*args, **options)
        mark_dirty(redis_client, "a", 5)
        return answer

    with monkeypatch.context() as patched:
        patched.setattr(Collection, "bulk_write", moved_on)
        read_seq.flush(redis_client, database)
    assert stored(database) == {("si_a_b", "a"): 3, ("si_a_b", "b"): 8}

    read_seq.flush(redis_client, database)

    assert stored(database) == {("si_a_b", "a"): 5, ("si_a_b", "b"): 8}
    assert not redis_client.exists(keys.read_dirty(SHARD))


def test_nothing_is_forgotten_when_mongodb_refuses(
    redis_client: redis.Redis, database: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    mark_dirty(redis_client, "a", 3)

    def refuse(*_: Any, **__: Any) -> None:
        raise PyMongoError("away")

    with monkeypatch.context() as patched:
        patched.setattr("pymongo.synchronous.collection.Collection.bulk_write", refuse)
        with pytest.raises(PyMongoError):
            read_seq.flush(redis_client, database)
    mark_dirty(redis_client, "a", 6)
    read_seq.flush(redis_client, database)

    assert stored(database) == {("si_a_b", "a"): 6}


def test_ids_with_underscores_are_kept_apart(redis_client: redis.Redis, database: Database[Document]) -> None:
    mark_dirty(redis_client, "a_1", 3, conversation_id="si_a_1_b_2")
    mark_dirty(redis_client, "b_2", 4, conversation_id="si_a_1_b_2")

    read_seq.flush(redis_client, database)

    assert stored(database) == {("si_a_1_b_2", "a_1"): 3, ("si_a_1_b_2", "b_2"): 4}
