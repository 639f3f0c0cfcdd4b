"""Conversation records: one for each owner. MongoDB ``conversation``; the list of ids also in Redis."""

from __future__ import annotations

from dataclasses import dataclass

import redis
import redis.asyncio
from pymongo import UpdateOne
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.database import Database

from imserver.clock import now_ms
from imserver.storage import keys
from imserver.storage.clients import Document, as_text

COLLECTION = "conversation"

#: Member of the Redis set that says: every conversation of MongoDB is in it.
COMPLETE = ""


@dataclass(frozen=True, slots=True)
class NewConversation:
    """A record to create for an owner on the first message."""

    owner_user_id: str
    conversation_id: str
    conversation_type: int
    user_id: str = ""
    group_id: str = ""


def _defaults(item: NewConversation) -> Document:
    return {
        "conversation_type": item.conversation_type,
        "user_id": item.user_id,
        "group_id": item.group_id,
        "recv_msg_opt": 0,
        "is_pinned": False,
        "is_private_chat": False,
        "burn_duration": 0,
        "group_at_type": 0,
        "attached_info": "",
        "ex": "",
        "min_seq": 0,
        "max_seq": 0,
        "is_msg_destruct": False,
        "msg_destruct_time": 0,
        "latest_msg_destruct_time": 0,
        "create_time": now_ms(),
    }


def create_records(database: Database[Document], items: list[NewConversation]) -> None:
    """Create the records that do not exist; those that do stay as they are."""
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
