"""Conversation records: one for each owner. MongoDB ``conversation``; the list of ids also in Redis.

Whoever changes a record here also says so: to the owner's version log (storage/versions.py), to the copies of min and max seq
(storage/seq_limits.py) and of receive options (storage/user_facts.py). So change records through this module only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import redis
import redis.asyncio
from pymongo import DeleteOne, UpdateOne
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.database import Database

from imserver.clock import now_ms
from imserver.storage import keys, user_facts, versions
from imserver.storage.clients import Document, as_text
from imserver.storage.seq_limits import SeqLimits
from imserver.storage.versions import State, Versions

COLLECTION = "conversation"

#: Member of the Redis set that says: every conversation of MongoDB is in it.
COMPLETE = ""

#: A record that its owner deleted stays, for it says whose the conversation is: ``deleted_seq`` is the last seq by then. It
#: is in no list until it is shown again, by a newer message or when something of it is set.
LISTED: Document = {"deleted_seq": {"$exists": False}}
_SHOW: Document = {"$unset": {"deleted_seq": ""}}


@dataclass(frozen=True, slots=True)
class NewConversation:
    """A record to create for an owner on the first message."""

    owner_user_id: str
    conversation_id: str
    conversation_type: int
    user_id: str = ""
    group_id: str = ""


#: What an owner may set.
_OWNERS_DEFAULTS: Document = {
    "recv_msg_opt": 0,
    "is_pinned": False,
    "is_private_chat": False,
    "burn_duration": 0,
    "group_at_type": 0,
    "attached_info": "",
    "ex": "",
    "is_msg_destruct": False,
    "msg_destruct_time": 0,
    "latest_msg_destruct_time": 0,
}


def _defaults(item: NewConversation) -> Document:
    return {
        "conversation_type": item.conversation_type,
        "user_id": item.user_id,
        "group_id": item.group_id,
        **_OWNERS_DEFAULTS,
        "min_seq": 0,
        "max_seq": 0,
        "create_time": now_ms(),
    }


def is_listed(record: Document) -> bool:
    """The owner has not deleted it."""
    return "deleted_seq" not in record


def unborn_record(item: NewConversation) -> Document:
    """What the record will be that persist is about to create."""
    return {"owner_user_id": item.owner_user_id, "conversation_id": item.conversation_id, **_defaults(item)}


def create_records(database: Database[Document], items: list[NewConversation]) -> None:
    """Create the records that do not exist, and tell their owners' lists; those that do stay as they are.

    May run twice: a record is told of once, also when a process died between the two.
    """
    if not items:
        return
    database[COLLECTION].bulk_write(
        [
            UpdateOne(
                {"owner_user_id": item.owner_user_id, "conversation_id": item.conversation_id},
                {"$setOnInsert": _defaults(item)},
                upsert=True,
            )
            for item in items
        ],
        ordered=False,
    )
    versions.record_missing(
        database, [(versions.conversations_of(item.owner_user_id), item.conversation_id) for item in items]
    )


def remember_ids(client: redis.Redis, ids: set[tuple[str, str]]) -> None:
    """Add (owner, conversation id) pairs to the owners' sets, so that a login lists them before MongoDB has them."""
    if not ids:
        return
    pipe = client.pipeline(transaction=False)
    for owner_user_id, conversation_id in ids:
        key = keys.conversations(owner_user_id)
        pipe.sadd(key, conversation_id)
        pipe.expire(key, keys.CONVERSATIONS_TTL_SECONDS)
    pipe.execute()


class Conversations:
    """The side of the actions."""

    def __init__(self, client: redis.asyncio.Redis, database: AsyncDatabase[Document]) -> None:
        self._client = client
        self._collection = database[COLLECTION]

    async def get_ids(self, user_id: str) -> set[str]:
        """Ids of all chat conversations of a user, without the notification twins.

        A set that was rebuilt from MongoDB is marked complete; ids that a transfer added meanwhile are merged, so a
        conversation is never missing, whichever write comes first.
        """
        key = keys.conversations(user_id)
        members = {as_text(member) for member in await self._client.smembers(key)}
        if COMPLETE not in members:
            cursor = self._collection.find({"owner_user_id": user_id}, {"conversation_id": 1})
            stored = [document["conversation_id"] async for document in cursor]
            members |= set(stored)
            pipe = self._client.pipeline(transaction=False)
            pipe.sadd(key, COMPLETE, *stored)
            pipe.expire(key, keys.CONVERSATIONS_TTL_SECONDS)
            await pipe.execute()
        return members - {COMPLETE}

    async def get_owned(self, user_id: str, conversation_ids: Iterable[str]) -> set[str]:
        """Those of the ids that are conversations of the user; usually one round trip, however many the user has."""
        ids = list(dict.fromkeys(conversation_ids))
        if not ids:
            return set()
        is_complete, *found = await self._client.smismember(keys.conversations(user_id), [COMPLETE, *ids])
        owned = {conversation_id for conversation_id, is_in in zip(ids, found, strict=True) if is_in}
        if is_complete or len(owned) == len(ids):
            return owned
        return await self.get_ids(user_id) & set(ids)

    async def find(self, owner_user_id: str, conversation_ids: Iterable[str]) -> list[Document]:
        """The records that exist and are not deleted, in the order asked."""
        wanted = list(dict.fromkeys(conversation_ids))
        found = await self.find_any(owner_user_id, wanted)
        return [found[item] for item in wanted if item in found and is_listed(found[item])]

    async def find_any(self, owner_user_id: str, conversation_ids: Iterable[str]) -> dict[str, Document]:
        """The records that exist by conversation id, also the deleted ones (``is_listed``)."""
        where = {"owner_user_id": owner_user_id, "conversation_id": {"$in": list(conversation_ids)}}
        return {row["conversation_id"]: row async for row in self._collection.find(where, {"_id": 0})}

    async def find_owners(self, conversation_id: str, owner_user_ids: list[str]) -> set[str]:
        """Those of the users who have a record."""
        where = {"conversation_id": conversation_id, "owner_user_id": {"$in": owner_user_ids}}
        return {row["owner_user_id"] async for row in self._collection.find(where, {"_id": 0, "owner_user_id": 1})}

    async def find_page(self, owner_user_id: str, *, skip: int = 0, limit: int = 0) -> list[Document]:
        """Records of an owner in the order of their ids; no limit: all."""
        where = {"owner_user_id": owner_user_id, **LISTED}
        cursor = self._collection.find(where, {"_id": 0}).sort("conversation_id", 1)
        return [document async for document in cursor.skip(skip).limit(limit)]

    async def count(self, owner_user_id: str) -> int:
        return await self._collection.count_documents({"owner_user_id": owner_user_id, **LISTED})

    async def list_ids(self, owner_user_id: str, only_if: Document | None = None) -> list[str]:
        """Ids of an owner's records, sorted, as MongoDB has them; ``only_if`` narrows them down."""
        where = {"owner_user_id": owner_user_id, **LISTED, **(only_if or {})}
        cursor = self._collection.find(where, {"_id": 0, "conversation_id": 1}).sort("conversation_id", 1)
        return [document["conversation_id"] async for document in cursor]

    async def set(self, item: NewConversation, values: Document) -> bool:
        """Set values of an owner's record, which is made when there is none; True when that changed anything."""
        defaults = {name: value for name, value in _defaults(item).items() if name not in values}
        result = await self._collection.update_one(
            {"owner_user_id": item.owner_user_id, "conversation_id": item.conversation_id},
            {"$set": values, "$setOnInsert": defaults, **_SHOW},
            upsert=True,
        )
        if result.upserted_id is None and not result.modified_count:
            return False
        if result.upserted_id is not None:
            await self._remember(item.owner_user_id, item.conversation_id)
        state = State.UPDATE if result.upserted_id is None else State.INSERT
        await self._tell({item.owner_user_id: {item.conversation_id: state}}, values)
        return True

    async def set_for_owners(self, conversation_id: str, owner_user_ids: list[str], values: Document) -> list[str]:
        """Set values of the records that exist; returns the owners for whom that changed anything."""
        where: Document = {
            "conversation_id": conversation_id,
            "owner_user_id": {"$in": owner_user_ids},
            "$or": [*({name: {"$ne": value}} for name, value in values.items()), {"deleted_seq": {"$exists": True}}],
        }
        cursor = self._collection.find(where, {"_id": 0, "owner_user_id": 1})
        changed = [document["owner_user_id"] async for document in cursor]
        if changed:
            await self._collection.update_many({**where, "owner_user_id": {"$in": changed}}, {"$set": values, **_SHOW})
            await self._tell({owner: {conversation_id: State.UPDATE} for owner in changed}, values)
        return changed

    async def set_all(self, owner_user_id: str, values: Document) -> list[str]:
        """Set values of all listed records of an owner; returns the conversations that it changed anything of."""
        where: Document = {
            "owner_user_id": owner_user_id,
            **LISTED,
            "$or": [{name: {"$ne": value}} for name, value in values.items()],
        }
        cursor = self._collection.find(where, {"_id": 0, "conversation_id": 1})
        changed = [document["conversation_id"] async for document in cursor]
        if changed:
            await self._collection.update_many({**where, "conversation_id": {"$in": changed}}, {"$set": values})
            await self._tell({owner_user_id: dict.fromkeys(changed, State.UPDATE)}, values)
        return changed

    async def delete(self, owner_user_id: str, last_seqs: dict[str, int]) -> list[str]:
        """Delete records with what their owner has set, until there is a message after the given seq of each.

        What the owner may see stays as it is. Returns the conversations that were listed before. May run twice.
        """
        deleted = [row["conversation_id"] for row in await self.find(owner_user_id, last_seqs)]
        operations = [
            UpdateOne(
                {"owner_user_id": owner_user_id, "conversation_id": conversation_id, **LISTED},
                {"$set": {**_OWNERS_DEFAULTS, "deleted_seq": last_seqs[conversation_id]}},
            )
            for conversation_id in deleted
        ]
        if operations:
            await self._collection.bulk_write(operations, ordered=False)
            changes = {owner_user_id: dict.fromkeys(deleted, State.DELETE)}
            await self._tell(changes, _OWNERS_DEFAULTS)
        return deleted

    async def find_deleted(self, owner_user_id: str) -> dict[str, int]:
        """Seq at which each deleted record of an owner was deleted; most owners have none."""
        where = {"owner_user_id": owner_user_id, "deleted_seq": {"$exists": True}}
        cursor = self._collection.find(where, {"_id": 0, "conversation_id": 1, "deleted_seq": 1})
        return {row["conversation_id"]: int(row["deleted_seq"]) async for row in cursor}

    async def show(self, owner_user_id: str, conversation_ids: list[str]) -> None:
        """List deleted records again. May run twice."""
        where = {"owner_user_id": owner_user_id, "conversation_id": {"$in": conversation_ids}}
        await self._collection.update_many(where, _SHOW)
        await self._tell({owner_user_id: dict.fromkeys(conversation_ids, State.UPDATE)}, {})

    async def raise_min_seqs(self, min_seqs: dict[NewConversation, int]) -> None:
        """Owners see nothing before the seq of each conversation any more. Only moves forward; makes missing records."""
        items = list(min_seqs)
        operations = []
        for item in items:
            defaults = {name: value for name, value in _defaults(item).items() if name != "min_seq"}
            where = {"owner_user_id": item.owner_user_id, "conversation_id": item.conversation_id}
            update = {"$max": {"min_seq": min_seqs[item]}, "$setOnInsert": defaults}
            operations.append(UpdateOne(where, update, upsert=True))
        if not operations:
            return
        made = (await self._collection.bulk_write(operations, ordered=False)).upserted_ids or {}
        changes: dict[str, dict[str, State]] = {}
        for at, item in enumerate(items):
            if at in made:
                await self._remember(item.owner_user_id, item.conversation_id)
            state = State.INSERT if at in made else State.UPDATE
            changes.setdefault(item.owner_user_id, {})[item.conversation_id] = state
        await self._tell(changes, {"min_seq": 0})

    async def _remember(self, owner_user_id: str, conversation_id: str) -> None:
        key = keys.conversations(owner_user_id)
        pipe = self._client.pipeline(transaction=False)
        pipe.sadd(key, conversation_id)
        pipe.expire(key, keys.CONVERSATIONS_TTL_SECONDS)
        await pipe.execute()

    async def _tell(self, changes: dict[str, dict[str, State]], values: Document) -> None:
        """What MongoDB has now, to everybody who keeps a copy."""
        if "min_seq" in values or "max_seq" in values:
            limits = SeqLimits(self._client, self._collection.database)
            await limits.forget((conversation_id, owner) for owner, ids in changes.items() for conversation_id in ids)
        if "recv_msg_opt" in values:
            await user_facts.forget(self._client, list(changes))
        lists = {versions.conversations_of(owner): states for owner, states in changes.items()}
        await Versions(self._collection.database).record_many(lists)


async def add_group_records(
    client: redis.asyncio.Redis,
    database: AsyncDatabase[Document],
    items: list[NewConversation],
    *,
    min_seq: int | None = None,
) -> set[str]:
    """Records of users who joined a group: a cap from an earlier membership is lifted; returns whose record is new.

    Args:
        min_seq: first seq that they may see; None leaves it as it is.
    """
    bounds = {"max_seq": 0, **({} if min_seq is None else {"min_seq": min_seq})}
    new = await _set_bounds(client, database, items, bounds)
    pipe = client.pipeline(transaction=False)
    for item in items:
        pipe.sadd(keys.conversations(item.owner_user_id), item.conversation_id)
        pipe.expire(keys.conversations(item.owner_user_id), keys.CONVERSATIONS_TTL_SECONDS)
    await pipe.execute()
    return new


async def cap_group_records(
    client: redis.asyncio.Redis, database: AsyncDatabase[Document], items: list[NewConversation], max_seq: int
) -> None:
    """Users who left a group see nothing after ``max_seq``.

    Who has no record gets one: the first message may have listed the conversation already, while persist has yet to write
    the records. A cap of 0 would be none, so in a group without messages the records go.
    """
    if max_seq > 0:
        await _set_bounds(client, database, items, {"max_seq": max_seq})
        return
    wheres = [{"owner_user_id": item.owner_user_id, "conversation_id": item.conversation_id} for item in items]
    await database[COLLECTION].bulk_write([DeleteOne(where) for where in wheres], ordered=False)
    await SeqLimits(client, database).forget((item.conversation_id, item.owner_user_id) for item in items)
    pipe = client.pipeline(transaction=False)
    for item in items:
        pipe.srem(keys.conversations(item.owner_user_id), item.conversation_id)
    await pipe.execute()


async def _set_bounds(
    client: redis.asyncio.Redis, database: AsyncDatabase[Document], items: list[NewConversation], bounds: dict[str, int]
) -> set[str]:
    """Set min and max seq of records, which are made where there are none; returns whose record is new."""
    operations = []
    for item in items:
        defaults = {name: value for name, value in _defaults(item).items() if name not in bounds}
        where = {"owner_user_id": item.owner_user_id, "conversation_id": item.conversation_id}
        update: Document = {"$set": bounds, "$setOnInsert": defaults, **(_SHOW if not bounds["max_seq"] else {})}
        operations.append(UpdateOne(where, update, upsert=True))
    result = await database[COLLECTION].bulk_write(operations, ordered=False)
    await SeqLimits(client, database).forget((item.conversation_id, item.owner_user_id) for item in items)
    return {items[at].owner_user_id for at in result.upserted_ids or {}}
