"""Version logs for incremental sync: what changed in a list (a user's conversations, friends, groups; a group's members).

MongoDB ``version``: {list_id, version_id, version, trimmed}: a counter a list; changes up to ``trimmed`` are forgotten.
MongoDB ``version_log``: {list_id, item_id, version, state}: the last change of each item, one document an item, so a list of
any length costs what changed and not what it holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import md5
from typing import Any

import orjson
from bson import ObjectId
from bson.errors import InvalidId
from pymongo import ReturnDocument, UpdateOne
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.database import Database

from imserver.storage.clients import Document

COUNTERS = "version"
LOG = "version_log"

#: A client that missed more changes than this fetches the whole list: OpenIM's number.
MOST_CHANGES = 200
#: Lists in one bulk write.
LISTS_PER_CALL = 1000


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


def _bump(list_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Filter and update that move a list's counter by one, making the list when it is new."""
    return {"list_id": list_id}, {"$inc": {"version": 1}, "$setOnInsert": {"version_id": ObjectId(), "trimmed": 0}}


def _log_operations(list_id: str, version: int, changes: dict[str, State]) -> list[UpdateOne]:
    """Only an item's last change counts: inserted and then updated is an update."""
    return [
        UpdateOne(
            {"list_id": list_id, "item_id": item_id}, {"$set": {"version": version, "state": int(state)}}, upsert=True
        )
        for item_id, state in changes.items()
    ]


def record(database: Database[Document], list_id: str, changes: dict[str, State]) -> int:
    """Note changes of a list (for the tasks); returns the list's version after them."""
    counter = database[COUNTERS].find_one_and_update(
        *_bump(list_id), upsert=True, return_document=ReturnDocument.AFTER, projection={"version": 1}
    )
    version = int((counter or {})["version"])
    operations = _log_operations(list_id, version, changes)
    if operations:
        database[LOG].bulk_write(operations, ordered=False)
    return version


def record_missing(database: Database[Document], pairs: list[tuple[str, str]]) -> None:
    """Note new items (list, item) that no list's log names yet, for the tasks. May run twice: once noted, nothing happens."""
    for at in range(0, len(pairs), LISTS_PER_CALL):
        some = pairs[at : at + LISTS_PER_CALL]
        where = {
            "list_id": {"$in": [item[0] for item in some]},
            "item_id": {"$in": list({item[1] for item in some})},
            "state": {"$ne": int(State.DELETE)},
        }
        noted = {
            (entry["list_id"], entry["item_id"])
            for entry in database[LOG].find(where, {"list_id": 1, "item_id": 1, "_id": 0})
        }
        missing: dict[str, dict[str, State]] = {}
        for list_id, item_id in some:
            if (list_id, item_id) not in noted:
                missing.setdefault(list_id, {})[item_id] = State.INSERT
        if not missing:
            continue
        counters = database[COUNTERS]
        counters.bulk_write([UpdateOne(*_bump(item), upsert=True) for item in missing], ordered=False)
        cursor = counters.find({"list_id": {"$in": list(missing)}}, {"list_id": 1, "version": 1, "_id": 0})
        now = {counter["list_id"]: int(counter["version"]) for counter in cursor}
        operations = [item for list_id in missing for item in _log_operations(list_id, now[list_id], missing[list_id])]
        database[LOG].bulk_write(operations, ordered=False)


class Versions:
    """The side of the actions."""

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._counters = database[COUNTERS]
        self._log = database[LOG]

    async def record(self, list_id: str, changes: dict[str, State]) -> tuple[str, int]:
        """Note changes of a list; returns (version id, version) after them."""
        counter = await self._counters.find_one_and_update(
            *_bump(list_id), upsert=True, return_document=ReturnDocument.AFTER
        )
        version = int((counter or {})["version"])
        operations = _log_operations(list_id, version, changes)
        if operations:
            await self._log.bulk_write(operations, ordered=False)
        return str((counter or {})["version_id"]), version

    async def record_many(self, changes: dict[str, dict[str, State]]) -> None:
        """``record`` for many lists, as when everybody's list of groups loses one: three calls for a thousand lists.

        A list that somebody else changes at the same time may get its entry under the later version: clients ask for
        more than they have, so it is still told.
        """
        list_ids = list(changes)
        for at in range(0, len(list_ids), LISTS_PER_CALL):
            some = list_ids[at : at + LISTS_PER_CALL]
            await self._counters.bulk_write([UpdateOne(*_bump(item), upsert=True) for item in some], ordered=False)
            cursor = self._counters.find({"list_id": {"$in": some}}, {"list_id": 1, "version": 1, "_id": 0})
            versions = {counter["list_id"]: int(counter["version"]) async for counter in cursor}
            await self._log.bulk_write(
                [operation for item in some for operation in _log_operations(item, versions[item], changes[item])],
                ordered=False,
            )

    async def get(self, list_id: str) -> tuple[str, int]:
        """(version id, version) of a list, which is made when there is none: a client needs something to come back with."""
        counter = await self._counters.find_one_and_update(
            {"list_id": list_id},
            {"$setOnInsert": {"version_id": ObjectId(), "version": 1, "trimmed": 1}},
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
        return str((counter or {})["version_id"]), int((counter or {})["version"])

    async def changes_since(self, list_id: str, version_id: str, version: int) -> Changes:
        """What changed since the client's version."""
        current_id, current = await self.get(list_id)
        if not _is_same(version_id, current_id) or version <= 0 or version > current:
            return Changes(current_id, current, is_full=True)
        if version == current:
            return Changes(current_id, current)
        counter = await self._counters.find_one({"list_id": list_id}, {"trimmed": 1})
        if version < int((counter or {}).get("trimmed", 0)):
            return Changes(current_id, current, is_full=True)
        cursor = self._log.find({"list_id": list_id, "version": {"$gt": version}}).sort("version", 1)
        entries = [entry async for entry in cursor.limit(MOST_CHANGES + 1)]
        if len(entries) > MOST_CHANGES:
            return Changes(current_id, current, is_full=True)
        by_state: dict[int, list[str]] = {int(state): [] for state in State}
        for entry in entries:
            by_state[entry["state"]].append(entry["item_id"])
        return Changes(
            current_id,
            current,
            inserted=by_state[State.INSERT],
            deleted=by_state[State.DELETE],
            updated=by_state[State.UPDATE],
        )


def _is_same(asked: str, current: str) -> bool:
    try:
        return str(ObjectId(asked)) == current
    except (InvalidId, TypeError):
        return False
