"""Which seqs of a conversation a user may pull: from where (cleared before), and up to where (left the group).

MongoDB holds them: ``seq`` {conversation_id, min_seq} for everybody, ``conversation`` {owner_user_id, conversation_id, min_seq,
max_seq} for one owner; a max_seq of 0 is no cap. Redis holds copies: a hash a user, and one of all conversations that were
cleared for everybody, which are few. So a pull costs two more commands, whatever the number of conversations.

A copy stays right because whoever changes MongoDB tells it afterwards, and that is counted: a reader who looked into MongoDB
before cannot put back what it saw (put_unchanged.lua). Who dies between the two leaves an old copy for SEQ_LIMITS_TTL at most,
of a request that was never answered.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pymongo
import redis.asyncio
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError

from imserver.protocol.conversations import GROUP_PREFIX
from imserver.storage import keys
from imserver.storage.clients import Document
from imserver.storage.scripts import get_script

logger = logging.getLogger(__name__)

#: Collections of storage/seq.py and storage/conversations.py, which both stand above this module.
SEQS = "seq"
CONVERSATIONS = "conversation"

#: A copy is missing and MongoDB does not answer: a pull must not wait for the driver's patience.
FILL_SECONDS = 1.0

VERSION = "v"
#: Field of SEQ_MIN that says: every conversation that was cleared for all is in it.
COMPLETE = ""
#: Users whose copies are told in one round trip.
CALLS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Limits:
    """``cap`` 0: none."""

    min_seq: int = 0
    cap: int = 0

    def clamp_max(self, max_seq: int) -> int:
        return min(max_seq, self.cap) if self.cap > 0 else max_seq


class SeqLimits:
    def __init__(self, client: redis.asyncio.Redis, database: AsyncDatabase[Document]) -> None:
        self._client = client
        self._database = database

    async def get(self, user_id: str, conversation_ids: Iterable[str]) -> dict[str, Limits]:
        """The limits of each chat. While MongoDB is away, chats of two whose limits Redis does not know have none.

        Raises:
            pymongo.errors.PyMongoError: MongoDB is away, and whether the user may see a group's messages is not known.
        """
        ids = list(dict.fromkeys(conversation_ids))
        if not ids:
            return {}
        pipe = self._client.pipeline(transaction=False)
        pipe.hmget(keys.seq_limits(user_id), [VERSION, *ids])
        pipe.hmget(keys.seq_min(), [VERSION, COMPLETE, *ids])
        (version, *own), (min_version, is_complete, *min_seqs) = await pipe.execute()
        known = {item: _parse(value) for item, value in zip(ids, own, strict=True) if value is not None}
        missing = [item for item in ids if item not in known]
        if missing:
            known |= await self._fill(user_id, missing, version or b"")
        if is_complete:
            for_all = {item: int(value) for item, value in zip(ids, min_seqs, strict=True) if value is not None}
        else:
            for_all = await self._fill_min_seqs(min_version or b"")
        return {item: Limits(max(known[item].min_seq, for_all.get(item, 0)), known[item].cap) for item in ids}

    async def raise_for_all(self, min_seqs: dict[str, int]) -> None:
        """Nobody sees what is before the seq of each conversation any more. Only moves forward."""
        for conversation_id, min_seq in min_seqs.items():
            await self._database[SEQS].update_one({"conversation_id": conversation_id}, {"$max": {"min_seq": min_seq}})
        await self._run(
            "change_cached",
            [
                ([keys.seq_min()], [keys.SEQ_LIMITS_TTL_SECONDS, "raise", min_seq, conversation_id])
                for conversation_id, min_seq in min_seqs.items()
            ],
        )

    async def forget(self, changed: Iterable[tuple[str, str]]) -> None:
        """(conversation id, user id) whose record has another min or max seq; to be called after MongoDB was changed."""
        by_user: dict[str, list[str]] = {}
        for conversation_id, user_id in changed:
            by_user.setdefault(user_id, []).append(conversation_id)
        await self._run(
            "change_cached",
            [
                ([keys.seq_limits(user_id)], [keys.SEQ_LIMITS_TTL_SECONDS, "drop", "", *ids])
                for user_id, ids in by_user.items()
            ],
        )

    async def _fill(self, user_id: str, missing: list[str], version: bytes) -> dict[str, Limits]:
        try:
            with pymongo.timeout(FILL_SECONDS):
                stored = await self._load(user_id, missing)
        except PyMongoError:
            if any(item.startswith(GROUP_PREFIX) for item in missing):
                raise
            logger.warning("limits of seqs unknown", extra={"action": "seq_limits", "count": len(missing)})
            return dict.fromkeys(missing, Limits())
        found = {item: stored.get(item, Limits()) for item in missing}
        args: list[Any] = [version, keys.SEQ_LIMITS_TTL_SECONDS]
        for item, limits in found.items():
            args += (item, f"{limits.min_seq} {limits.cap}")
        await self._run("put_unchanged", [([keys.seq_limits(user_id)], args)])
        return found

    async def _fill_min_seqs(self, version: bytes) -> dict[str, int]:
        try:
            with pymongo.timeout(FILL_SECONDS):
                found = await self._load_min_seqs()
        except PyMongoError:
            logger.warning("conversations cleared for all unknown", extra={"action": "seq_limits"})
            return {}
        args: list[Any] = [version, keys.SEQ_LIMITS_TTL_SECONDS, COMPLETE, 1]
        for item, min_seq in found.items():
            args += (item, min_seq)
        await self._run("put_unchanged", [([keys.seq_min()], args)])
        return found

    async def _load(self, user_id: str, conversation_ids: list[str]) -> dict[str, Limits]:
        cursor = self._database[CONVERSATIONS].find(
            {"owner_user_id": user_id, "conversation_id": {"$in": conversation_ids}},
            {"_id": 0, "conversation_id": 1, "min_seq": 1, "max_seq": 1},
        )
        return {
            document["conversation_id"]: Limits(int(document.get("min_seq") or 0), int(document.get("max_seq") or 0))
            async for document in cursor
        }

    async def _load_min_seqs(self) -> dict[str, int]:
        cursor = self._database[SEQS].find({"min_seq": {"$gt": 0}}, {"_id": 0, "conversation_id": 1, "min_seq": 1})
        return {document["conversation_id"]: int(document["min_seq"]) async for document in cursor}

    async def _run(self, script: str, calls: list[tuple[list[Any], list[Any]]]) -> None:
        for at in range(0, len(calls), CALLS_AT_ONCE):
            for result in await get_script(script).run_many_async(self._client, calls[at : at + CALLS_AT_ONCE]):
                if isinstance(result, Exception):
                    raise result


def _parse(value: bytes) -> Limits:
    min_seq, cap = value.split()
    return Limits(int(min_seq), int(cap))
