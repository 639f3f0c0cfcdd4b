"""The version log of a list under writers and readers at once: nobody ends with what is not so."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from pymongo.database import Database

from imserver.storage import versions
from imserver.storage.clients import Document, close_async_clients, get_async_mongo
from imserver.storage.versions import MOST_CHANGES, State, Versions

LIST = versions.friends_of("a")
#: Few enough changes an item that one which is missed is not mended by the next, and no more items than a log holds.
WRITERS, READERS, ITEMS, STEPS = 12, 4, 150, 60


@pytest.fixture
async def log(database: Database[Document]) -> AsyncIterator[Versions]:
    database["row"].create_index([("item", 1)], unique=True)
    yield Versions(get_async_mongo())
    await close_async_clients()


class Reader:
    """A client: a copy of the rows, and the version that it is of."""

    def __init__(self, log: Versions) -> None:
        self._log = log
        self._version = ("", 0)
        self.rows: dict[str, int] = {}

    async def sync(self) -> None:
        changes = await self._log.changes_since(LIST, *self._version)
        wanted = {} if changes.is_full else {"item": {"$in": changes.items}}
        found = {row["item"]: row["value"] async for row in get_async_mongo()["row"].find(wanted)}
        changes = changes.settle(found)
        if changes.is_full:
            self.rows = found
        for item in changes.deleted:
            self.rows.pop(item, None)
        self.rows |= {item: found[item] for item in [*changes.inserted, *changes.updated]}
        self._version = (changes.version_id, changes.version)


async def change_rows(log: Versions, seed: int) -> None:
    """Make, change and delete rows that the others change too, each noted after it is done."""
    chance, rows = random.Random(seed), get_async_mongo()["row"]
    for step in range(STEPS):
        item, value = f"i{chance.randrange(ITEMS)}", seed * STEPS + step
        state = chance.choice(list(State))
        if state is State.DELETE:
            await rows.delete_one({"item": item})
        else:
            await rows.update_one({"item": item}, {"$set": {"value": value}}, upsert=state is State.INSERT)
        if chance.random() < 0.3:
            await asyncio.sleep(chance.random() / 200)
        await log.record(LIST, {item: state})


async def test_no_client_ends_with_stale_rows_however_writers_and_readers_meet(log: Versions) -> None:
    readers = [Reader(log) for _ in range(READERS)]
    async with asyncio.TaskGroup() as group:
        writers = [group.create_task(change_rows(log, seed)) for seed in range(WRITERS)]

        async def follow(reader: Reader) -> None:
            while not all(writer.done() for writer in writers):
                await reader.sync()

        for reader in readers:
            group.create_task(follow(reader))

    truth = {row["item"]: row["value"] async for row in get_async_mongo()["row"].find({})}
    for reader in readers:
        await reader.sync()
        assert reader.rows == truth
    # A reader may have made the list, which is its version 1.
    assert (await log.get(LIST))[1] - WRITERS * STEPS in (0, 1)


async def test_whoever_sees_a_version_sees_its_changes(log: Versions) -> None:
    """A version that a reader has is never given an entry afterwards."""
    version_id, start = await log.get(LIST)
    seen: dict[int, set[str]] = {}

    async def write(number: int) -> None:
        for step in range(20):
            await log.record(LIST, {f"w{number}-{step}": State.INSERT})

    async with asyncio.TaskGroup() as group:
        writers = [group.create_task(write(number)) for number in range(8)]
        while not all(writer.done() for writer in writers):
            changes = await log.changes_since(LIST, version_id, start)
            assert not changes.is_full
            seen.setdefault(changes.version, set()).update(changes.items)

    last = await log.changes_since(LIST, version_id, start)
    assert last.version == start + 8 * 20
    for version, items in seen.items():
        later = set((await log.changes_since(LIST, version_id, version)).items)
        assert later | items == set(last.items)


async def test_writers_who_make_a_list_at_once_are_all_noted_in_one(
    log: Versions, database: Database[Document]
) -> None:
    lists = [versions.groups_of(f"u{number}") for number in range(40)]
    with ThreadPoolExecutor(4) as pool:
        threads: list[Future[Any]] = [
            pool.submit(versions.record_missing, database, [(item, "c1") for item in lists]),
            pool.submit(versions.record_missing, database, [(item, "c2") for item in lists]),
            *(pool.submit(versions.record, database, item, {"c3": State.INSERT}) for item in lists),
        ]
        many = [log.record_many({item: {f"g{number}": State.INSERT} for item in lists}) for number in range(4)]
        await asyncio.gather(*many, *(log.get(item) for item in lists))
        for thread in threads:
            await asyncio.wrap_future(thread)

    stored = {row["list_id"]: row for row in database[versions.COLLECTION].find({})}
    assert stored.keys() == set(lists)
    for row in stored.values():
        assert sorted(entry["item"] for entry in row["log"]) == ["c1", "c2", "c3", "g0", "g1", "g2", "g3"]
        assert [entry["version"] for entry in row["log"]] == sorted({entry["version"] for entry in row["log"]})


async def test_a_client_within_the_log_gets_its_changes_and_one_before_it_fetches_all(
    log: Versions, database: Database[Document]
) -> None:
    start = await log.get(LIST)
    for number in range(MOST_CHANGES):
        await log.record(LIST, {f"i{number}": State.INSERT})
    assert len((await log.changes_since(LIST, *start)).inserted) == MOST_CHANGES

    await log.record(LIST, {"one too many": State.INSERT})

    assert (await log.changes_since(LIST, *start)).is_full
    assert len((await log.changes_since(LIST, start[0], start[1] + 1)).inserted) == MOST_CHANGES
    assert len((database[versions.COLLECTION].find_one({"list_id": LIST}) or {})["log"]) == MOST_CHANGES


async def test_a_change_larger_than_the_log_makes_everybody_fetch_all(
    log: Versions, database: Database[Document]
) -> None:
    start = await log.get(LIST)
    after = await log.record(LIST, {f"i{number}": State.INSERT for number in range(5 * MOST_CHANGES)})

    assert (await log.changes_since(LIST, *start)).is_full
    assert (await log.changes_since(LIST, *after)).items == []
    await log.record(LIST, {"i7": State.DELETE})
    assert (await log.changes_since(LIST, *after)).deleted == ["i7"]
    assert len((database[versions.COLLECTION].find_one({"list_id": LIST}) or {})["log"]) == MOST_CHANGES


async def test_an_item_that_changes_often_takes_one_place_and_is_told_by_its_last_change(log: Versions) -> None:
    start = await log.get(LIST)
    await log.record(LIST, {"x": State.INSERT, "$version": State.INSERT})
    for _ in range(2 * MOST_CHANGES):
        await log.record(LIST, {"x": State.UPDATE})

    changes = await log.changes_since(LIST, *start)

    assert (changes.inserted, changes.updated, changes.deleted) == (["$version"], ["x"], [])
    assert changes.version == start[1] + 1 + 2 * MOST_CHANGES


@pytest.mark.parametrize(
    ("version_id", "ahead"),
    [
        ("", 0),
        ("nonsense", 0),
        ("65a0c0ffee65a0c0ffee65a0", 0),
        (None, -99),
        (None, 1),
        (None, 1 << 63),
        (None, (1 << 64) - 1),
    ],
)
async def test_a_client_with_a_version_of_another_list_or_time_fetches_all(
    log: Versions, version_id: str | None, ahead: int
) -> None:
    current_id, current = await log.record(LIST, {"x": State.INSERT})

    changes = await log.changes_since(LIST, current_id if version_id is None else version_id, current + ahead)

    assert (changes.is_full, changes.version_id, changes.version, changes.items) == (True, current_id, current, [])


def test_rows_have_the_last_word_on_what_is_there() -> None:
    changes = versions.Changes("id", 9, inserted=["a", "b"], deleted=["c", "d"], updated=["e", "f"])

    settled = changes.settle({"a", "c", "e"})

    assert (settled.inserted, settled.updated, settled.deleted) == (["a"], ["e", "c"], ["b", "f", "d"])
