"""Version logs for incremental sync: what changed in a list (a user's conversations, friends, groups; a group's members).

MongoDB ``list_version``: {list_id, version_id, version, trimmed, log}: one document a list. ``version`` counts its changes,
``log`` holds {item, version, state} for the items that changed last, each item once, oldest first; changes up to ``trimmed``
are forgotten.

Counter and log change in one update of one document: nobody reads a version whose changes are not in the log yet, and of two
who change one item the later version is the one that stays. Whoever changes a row does so before it notes the change, and a
reader takes the log before the rows; so what a reader has missed of a row is noted under a later version than the one it got.
A state says how the item changed when it was noted; whether there is a row now, only the rows say (``Changes.settle``).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from enum import IntEnum
from hashlib import md5

import orjson
from bson import ObjectId
from bson.errors import InvalidId
from pymongo import ReturnDocument, UpdateOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.collection import Collection as SyncCollection
from pymongo.database import Database
from pymongo.errors import BulkWriteError, DuplicateKeyError

from imserver.storage.clients import Document

COLLECTION = "list_version"

#: A client that missed more changes than this fetches the whole list: OpenIM's number. So no log need be longer.
MOST_CHANGES = 200
#: Lists in one bulk write.
LISTS_PER_CALL = 1000
#: Two who make the same list at once: one of them meets the unique index, and finds the list the next time.
_TRIES = 3
_DUPLICATE_KEY = 11000
_MAX_INT64 = (1 << 63) - 1
#: An entry under the version that the update has just made.
_STAMPED = {"$mergeObjects": ["$$this", {"version": "$version"}]}


class State(IntEnum):
    INSERT = 1
    DELETE = 2
    UPDATE = 3


@dataclass(frozen=True, slots=True)
class Changes:
    """Answer to "what changed since my version"; with ``is_full`` the lists are empty and the client fetches all."""

    version_id: str
    version: int
    is_full: bool = False
    inserted: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)

    @property
    def items(self) -> list[str]:
        return [*self.inserted, *self.updated, *self.deleted]

    def settle(self, existing: Collection[str]) -> Changes:
        """The changes with the rows' word on what is there, for who looked for the rows of all ``items`` after the log.

        One who deletes a row and one who makes it again may note that in the other order.
        """
        if self.is_full:
            return self
        return replace(
            self,
            inserted=[item for item in self.inserted if item in existing],
            updated=[item for item in [*self.updated, *self.deleted] if item in existing],
            deleted=[item for item in self.items if item not in existing],
        )


def id_hash(ids: list[str]) -> int:
    """What a client compares its list of ids by: eight bytes of the MD5 of their JSON array, 0 for an empty list."""
    if not ids:
        return 0
    return int.from_bytes(md5(orjson.dumps(ids), usedforsecurity=False).digest()[:8], "big")


def conversations_of(user_id: str) -> str:
    return f"conversation:{user_id}"


def friends_of(user_id: str) -> str:
    return f"friend:{user_id}"


def groups_of(user_id: str) -> str:
    return f"group:{user_id}"


def members_of(group_id: str) -> str:
    return f"member:{group_id}"


# -- the update


def _note(changes: dict[str, State]) -> list[Document]:
    """The update that moves a list's counter by one and notes the changes under it, making the list when it is new."""
    # Of more than the log holds, one too many is enough to say so.
    last = list(changes.items())[-(MOST_CHANGES + 1) :]
    items = {"$literal": [item for item, _ in last]}
    entries = {"$literal": [{"item": item, "state": int(state)} for item, state in last]}
    size = {"$size": "$log"}
    last_dropped = {"$arrayElemAt": ["$log.version", {"$subtract": [size, MOST_CHANGES + 1]}]}
    kept = {"$ifNull": ["$log", []]}
    return [
        {
            "$set": {
                "version_id": {"$ifNull": ["$version_id", ObjectId()]},
                "version": {"$add": [{"$ifNull": ["$version", 0]}, 1]},
                # Only an item's last change counts: inserted and then updated is an update.
                "log": {"$filter": {"input": kept, "cond": {"$not": [{"$in": ["$$this.item", items]}]}}},
            }
        },
        {"$set": {"log": {"$concatArrays": ["$log", {"$map": {"input": entries, "in": _STAMPED}}]}}},
        {
            "$set": {
                "trimmed": {"$cond": [{"$gt": [size, MOST_CHANGES]}, last_dropped, {"$ifNull": ["$trimmed", 0]}]},
                "log": {"$slice": ["$log", -MOST_CHANGES]},
            }
        },
    ]


def _make() -> Document:
    """The update that makes a list, if there is none, with a version that a client can come back with."""
    return {"$setOnInsert": {"version_id": ObjectId(), "version": 1, "trimmed": 1, "log": []}}


def _failed(operations: list[UpdateOne], error: BulkWriteError, tries_left: int) -> list[UpdateOne]:
    """What of a bulk write has to be done again. Raises the error when that would not help."""
    errors = error.details["writeErrors"]
    if not tries_left or error.details["writeConcernErrors"] or any(item["code"] != _DUPLICATE_KEY for item in errors):
        raise error
    return [operations[item["index"]] for item in errors]


# -- the side of the tasks


def record(database: Database[Document], list_id: str, changes: dict[str, State]) -> int:
    """Note changes of a list; returns the list's version after them."""
    for tries_left in reversed(range(_TRIES)):
        try:
            after = database[COLLECTION].find_one_and_update(
                {"list_id": list_id},
                _note(changes),
                upsert=True,
                return_document=ReturnDocument.AFTER,
                projection={"version": 1},
            )
        except DuplicateKeyError:
            if not tries_left:
                raise
        else:
            return int((after or {})["version"])
    raise AssertionError("unreachable")


def record_missing(database: Database[Document], pairs: list[tuple[str, str]]) -> None:
    """Note new items (list, item) that their list's log does not name yet. May run twice: what is noted stays as it is."""
    collection = database[COLLECTION]
    for at in range(0, len(pairs), LISTS_PER_CALL):
        some = pairs[at : at + LISTS_PER_CALL]
        _write(collection, [UpdateOne({"list_id": item}, _make(), upsert=True) for item in {item for item, _ in some}])
        _write(
            collection,
            [
                UpdateOne(
                    {
                        "list_id": list_id,
                        "log": {"$not": {"$elemMatch": {"item": item, "state": {"$ne": int(State.DELETE)}}}},
                    },
                    _note({item: State.INSERT}),
                )
                for list_id, item in some
            ],
        )


def _write(collection: SyncCollection[Document], operations: list[UpdateOne]) -> None:
    tries_left = _TRIES
    while operations:
        tries_left -= 1
        try:
            collection.bulk_write(operations, ordered=False)
        except BulkWriteError as error:
            operations = _failed(operations, error, tries_left)
        else:
            return


# -- the side of the actions


class Versions:
    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._collection: AsyncCollection[Document] = database[COLLECTION]

    async def record(self, list_id: str, changes: dict[str, State]) -> tuple[str, int]:
        """Note changes of a list; returns (version id, version) after them."""
        return await self._update(list_id, _note(changes))

    async def record_many(self, changes: dict[str, dict[str, State]]) -> None:
        """``record`` for many lists, as when everybody's list of groups loses one: one call for a thousand lists."""
        list_ids = list(changes)
        for at in range(0, len(list_ids), LISTS_PER_CALL):
            some = list_ids[at : at + LISTS_PER_CALL]
            await self._write([UpdateOne({"list_id": item}, _note(changes[item]), upsert=True) for item in some])

    async def get(self, list_id: str) -> tuple[str, int]:
        """(version id, version) of a list, which is made when there is none: a client needs something to come back with."""
        return await self._update(list_id, _make())

    async def changes_since(self, list_id: str, version_id: str, version: int) -> Changes:
        """What changed since the client's version, as one look at the list shows it."""
        # Versions come from requests; one that MongoDB cannot hold is none of ours.
        since = version if 0 < version <= _MAX_INT64 else 0
        newer = {"$filter": {"input": "$log", "cond": {"$gt": ["$$this.version", since]}}}
        found = await self._collection.find_one(
            {"list_id": list_id}, {"version_id": 1, "version": 1, "trimmed": 1, "log": newer if since else []}
        )
        if found is None:
            return Changes(*await self.get(list_id), is_full=True)
        current_id, current = str(found["version_id"]), int(found["version"])
        if not _is_same(version_id, current_id) or not max(1, int(found["trimmed"])) <= since <= current:
            return Changes(current_id, current, is_full=True)
        by_state: dict[int, list[str]] = {int(state): [] for state in State}
        for entry in found["log"]:
            by_state[entry["state"]].append(entry["item"])
        return Changes(
            current_id,
            current,
            inserted=by_state[State.INSERT],
            deleted=by_state[State.DELETE],
            updated=by_state[State.UPDATE],
        )

    async def _write(self, operations: list[UpdateOne]) -> None:
        tries_left = _TRIES
        while operations:
            tries_left -= 1
            try:
                await self._collection.bulk_write(operations, ordered=False)
            except BulkWriteError as error:
                operations = _failed(operations, error, tries_left)
            else:
                return

    async def _update(self, list_id: str, update: Document | list[Document]) -> tuple[str, int]:
        for tries_left in reversed(range(_TRIES)):
            try:
                after = await self._collection.find_one_and_update(
                    {"list_id": list_id},
                    update,
                    upsert=True,
                    return_document=ReturnDocument.AFTER,
                    projection={"version_id": 1, "version": 1},
                )
            except DuplicateKeyError:
                if not tries_left:
                    raise
            else:
                return str((after or {})["version_id"]), int((after or {})["version"])
        raise AssertionError("unreachable")


def _is_same(asked: str, current: str) -> bool:
    try:
        return str(ObjectId(asked)) == current
    except (InvalidId, TypeError):
        return False
