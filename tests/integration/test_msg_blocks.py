"""Messages in MongoDB, 100 a document: pipeline.md section 6."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo.database import Database

from imserver.protocol.documents import to_document
from imserver.storage.clients import Document, close_async_clients, get_async_mongo
from imserver.storage.msg_blocks import (
    MsgBlockReader,
    MsgBlockWriter,
    SeqsNotContiguous,
    StoredMsgs,
    WriteFailed,
    doc_id,
)
from tests.factories import make_msg, unique

EMPTY_SLOT: Document = {"msg": None, "revoke": None, "del_list": [], "is_read": False}


@pytest.fixture
def writer(database: Database[Document]) -> MsgBlockWriter:
    return MsgBlockWriter(database)


@pytest.fixture
async def reader(database: Database[Document]) -> AsyncIterator[MsgBlockReader]:
    yield MsgBlockReader(get_async_mongo())
    await close_async_clients()


def batch(conversation_id: str, first: int, count: int, text: str = "hi") -> StoredMsgs:
    msgs = [to_document(make_msg("a", "b", f"{text} {seq}"), seq) for seq in range(first, first + count)]
    return StoredMsgs(conversation_id, first, msgs)


def stored_seqs(database: Database[Document], conversation_id: str) -> list[int]:
    """Seqs of all messages in the order of their places, each checked to be in its own slot."""
    found = []
    for document in database["msg"].find({"conversation_id": conversation_id}, sort=[("block", 1)]):
        assert document["doc_id"] == f"{conversation_id}:{document['block']}"
        assert len(document["msgs"]) == 100
        for slot, content in enumerate(document["msgs"]):
            if content["msg"] is None:
                assert content == EMPTY_SLOT
            else:
                assert content["msg"]["seq"] == document["block"] * 100 + slot + 1
                found.append(content["msg"]["seq"])
    return found


def everything(database: Database[Document]) -> list[Document]:
    return list(database["msg"].find(sort=[("doc_id", 1)]))


@pytest.mark.parametrize(
    ("seq", "expected"), [(1, "si_a_b:0"), (100, "si_a_b:0"), (101, "si_a_b:1"), (200, "si_a_b:1"), (201, "si_a_b:2")]
)
def test_a_hundred_seqs_share_a_document(seq: int, expected: str) -> None:
    assert doc_id("si_a_b", seq) == expected


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(cuts=st.lists(st.integers(1, 130), min_size=1, max_size=5), together=st.booleans())
def test_batches_of_any_size_fill_their_slots(
    writer: MsgBlockWriter, database: Database[Document], cuts: list[int], together: bool
) -> None:
    conversation_id, first, batches = unique("si_"), 1, []
    for count in cuts:
        batches.append(batch(conversation_id, first, count))
        first += count

    created = writer.write(batches) if together else sum(writer.write([item]) for item in batches)

    assert stored_seqs(database, conversation_id) == list(range(1, first))
    assert created == (first - 2) // 100 + 1
    assert writer.last_seq(conversation_id) == first - 1


def test_a_block_is_created_with_all_its_messages_and_empty_slots_elsewhere(
    writer: MsgBlockWriter, database: Database[Document]
) -> None:
    item = batch("si_a_b", 99, 4)

    assert writer.write([item]) == 2

    first, second = everything(database)
    assert [slot["msg"] for slot in first["msgs"][98:]] == item.msgs[:2]
    assert [slot["msg"] for slot in second["msgs"][:2]] == item.msgs[2:]
    assert first["msgs"][:98] == [EMPTY_SLOT] * 98
    assert second["msgs"][2:] == [EMPTY_SLOT] * 98


def test_more_messages_than_a_batch_and_several_conversations_at_once(
    writer: MsgBlockWriter, database: Database[Document]
) -> None:
    created = writer.write([batch("si_a_b", 51, 730), batch("n_a_b", 1, 150), batch("si_a_c", 1, 1)])

    assert created == 8 + 2 + 1
    assert stored_seqs(database, "si_a_b") == list(range(51, 781))
    assert stored_seqs(database, "n_a_b") == list(range(1, 151))
    assert stored_seqs(database, "si_a_c") == [1]


@pytest.mark.parametrize("broken", [[1, 3], [2, 1], [1, 1], [2]])
def test_seqs_that_are_not_contiguous_are_an_error_and_nothing_is_written(
    writer: MsgBlockWriter, database: Database[Document], broken: list[int]
) -> None:
    item = StoredMsgs("si_a_b", 1, [to_document(make_msg("a", "b"), seq) for seq in broken])

    with pytest.raises(SeqsNotContiguous, match="si_a_b"):
        writer.write([batch("si_a_c", 1, 3), item])

    assert everything(database) == []


def test_writing_twice_changes_nothing(writer: MsgBlockWriter, database: Database[Document]) -> None:
    batches = [batch("si_a_b", 1, 130), batch("si_a_b", 131, 5), batch("n_a_b", 40, 3)]
    writer.write(batches)
    before = everything(database)

    assert writer.write(batches) == 0
    assert sum(writer.write([item]) for item in batches) == 0

    assert everything(database) == before


def test_a_replay_leaves_alone_what_users_did_to_a_message(
    writer: MsgBlockWriter, database: Database[Document]
) -> None:
    item = batch("si_a_b", 1, 3)
    writer.write([item])
    done = {"msgs.1.revoke": {"user_id": "a", "time": 5}, "msgs.1.del_list": ["b"], "msgs.1.is_read": True}
    database["msg"].update_one({"doc_id": "si_a_b:0"}, {"$set": done})
    before = everything(database)

    writer.write([item])
    writer.write([StoredMsgs("si_a_b", 2, item.msgs[1:])])

    assert everything(database) == before


def test_an_existing_document_gets_the_new_slots_only(writer: MsgBlockWriter, database: Database[Document]) -> None:
    early, late = batch("si_a_b", 1, 10), batch("si_a_b", 11, 10)
    writer.write([early])

    assert writer.write([late]) == 0

    (document,) = everything(database)
    assert [slot["msg"] for slot in document["msgs"][:20]] == early.msgs + late.msgs
    assert document["msgs"][20:] == [EMPTY_SLOT] * 80


def test_writers_that_create_the_same_blocks_at_once_lose_nothing(
    database: Database[Document], writer: MsgBlockWriter
) -> None:
    rounds = [batch(f"si_a_{number}", 1, 220) for number in range(20)]
    barrier = threading.Barrier(2)

    def write() -> int:
        own, created = MsgBlockWriter(database), 0
        for item in rounds:
            barrier.wait(10)
            created += own.write([item])
        return created

    with ThreadPoolExecutor(2) as pool:
        created = sum(worker.result(30) for worker in [pool.submit(write) for _ in range(2)])

    assert created == 3 * len(rounds)
    for item in rounds:
        assert stored_seqs(database, item.conversation_id) == list(range(1, 221))


def test_a_block_that_somebody_creates_at_the_last_moment_is_updated_instead(
    database: Database[Document], writer: MsgBlockWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, insert = MsgBlockWriter(database), writer._insert
    calls: list[int] = []

    def late_insert(blocks: dict[tuple[str, int], dict[int, Document]]) -> set[tuple[str, int]]:
        if blocks and not calls:
            calls.append(1)
            other.write([batch("si_a_b", 1, 20)])
        return insert(blocks)

    monkeypatch.setattr(writer, "_insert", late_insert)

    assert writer.write([batch("si_a_b", 21, 20)]) == 0

    assert stored_seqs(database, "si_a_b") == list(range(1, 41))


def test_the_last_seq_of_an_unknown_conversation_is_0(writer: MsgBlockWriter) -> None:
    assert writer.last_seq("si_a_b") == 0


async def test_slots_are_read_by_conversation_and_seq_and_missing_ones_are_left_out(
    writer: MsgBlockWriter, reader: MsgBlockReader
) -> None:
    writer.write([batch("si_a_b", 90, 40), batch("n_a_b", 1, 2)])

    found = await reader.get_slots({"si_a_b": [1, 90, 100, 101, 129, 130, 500], "n_a_b": [2, 3], "si_a_c": [1]})

    assert {name: sorted(slots) for name, slots in found.items()} == {
        "si_a_b": [90, 100, 101, 129],
        "n_a_b": [2],
        "si_a_c": [],
    }
    assert all(slot["msg"]["seq"] == seq for slots in found.values() for seq, slot in slots.items())
    assert await reader.last_seq("si_a_b") == 129
    assert await reader.last_seq("si_a_c") == 0


def test_a_write_concern_that_was_not_fulfilled_is_tried_again() -> None:
    """A secondary lags: the driver names no write that failed."""
    assert not WriteFailed(set()).is_permanent
    assert WriteFailed({17419}).is_permanent
    assert not WriteFailed({17419, 91}).is_permanent
