"""Which seqs of a conversation a user may pull: from where (cleared before), and up to where (left the group).

MongoDB holds them: ``seq`` {conversation_id, min_seq} for everybody, ``conversation`` {owner_user_id, conversation_id, min_seq,
max_seq} for one owner; a max_seq of 0 is no cap. Redis holds copies, so that a pull costs one pipelined read whatever the
number of conversations. A copy stays right because whoever changes MongoDB calls ``forget`` afterwards: it drops the copy and
counts the change, and a reader who looked into MongoDB before that cannot put back what it saw (put_unchanged.lua). Who dies
between the two leaves an old copy for SEQ_USER_TTL at most, of a request that was never answered.
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

from imserver.conf import get_config
from imserver.protocol.conversations import GROUP_PREFIX, is_notification_conversation, shard_of
from imserver.storage import keys
from imserver.storage.clients import Document
from imserver.storage.scripts import get_script

logger = logging.getLogger(__name__)

#: Collections of storage/seq.py and storage/conversations.py, which both stand above this module.
SEQS = "seq"
CONVERSATIONS = "conversation"

#: Copies are missing and MongoDB does not answer: a pull must not wait for the driver's patience.
FILL_SECONDS = 1.0

#: (conversation id, user id or "" for everybody)
Owner = tuple[str, str]


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
        self._shards = get_config().shards

    async def get(self, user_id: str, conversation_ids: Iterable[str]) -> dict[str, Limits]:
        """The limits of each conversation. While MongoDB is away, chats of two whose limits Redis does not know have none.

        Raises:
            pymongo.errors.PyMongoError: MongoDB is away, and whether the user may see a group's messages is not known.
        """
        ids = list(dict.fromkeys(conversation_ids))
        owners = [(item, "") for item in ids]
        owners += [(item, user_id) for item in ids if not is_notification_conversation(item)]
        if not owners:
            return {}
        known, versions = await self._read(owners)
        missing = [owner for owner in owners if owner not in known]
        if missing:
            known |= await self._fill(missing, versions)
        limits = {}
        for item in ids:
            everybody, own = known[item, ""], known.get((item, user_id), Limits())
            limits[item] = Limits(max(everybody.min_seq, own.min_seq), own.cap)
        return limits

    async def raise_for_all(self, min_seqs: dict[str, int]) -> None:
        """Nobody sees what is before the seq of each conversation any more. Only moves forward."""
        for conversation_id, min_seq in min_seqs.items():
            await self._database[SEQS].update_one({"conversation_id": conversation_id}, {"$max": {"min_seq": min_seq}})
        await self.forget([(conversation_id, "") for conversation_id in min_seqs])

    async def forget(self, owners: Iterable[Owner]) -> None:
        """Drop copies; to be called after MongoDB was changed."""
        calls: list[tuple[list[Any], list[Any]]] = [
            ([self._key(owner)], [keys.SEQ_USER_TTL_SECONDS, "drop", "", "min", "max"]) for owner in owners
        ]
        if not calls:
            return
        for result in await get_script("change_cached").run_many_async(self._client, calls):
            if isinstance(result, Exception):
                raise result

    async def _read(self, owners: list[Owner]) -> tuple[dict[Owner, Limits], dict[Owner, bytes]]:
        pipe = self._client.pipeline(transaction=False)
        for owner in owners:
            pipe.hmget(self._key(owner), ["min", "max", "v"])
        known, versions = {}, {}
        for owner, (min_seq, cap, version) in zip(owners, await pipe.execute(), strict=True):
            versions[owner] = version or b""
            if min_seq is not None and cap is not None:
                known[owner] = Limits(int(min_seq), int(cap))
        return known, versions

    async def _fill(self, missing: list[Owner], versions: dict[Owner, bytes]) -> dict[Owner, Limits]:
        try:
            with pymongo.timeout(FILL_SECONDS):
                stored = await self._load(missing)
        except PyMongoError:
            if any(owner[0].startswith(GROUP_PREFIX) for owner in missing):
                raise
            logger.warning("limits of seqs unknown", extra={"action": "seq_limits", "count": len(missing)})
            return {owner: Limits() for owner in missing}
        found = {owner: stored.get(owner, Limits()) for owner in missing}
        calls: list[tuple[list[Any], list[Any]]] = []
        for owner, limits in found.items():
            args = [versions[owner], keys.SEQ_USER_TTL_SECONDS, "min", limits.min_seq, "max", limits.cap]
            calls.append(([self._key(owner)], args))
        await get_script("put_unchanged").run_many_async(self._client, calls)
        return found

    async def _load(self, owners: list[Owner]) -> dict[Owner, Limits]:
        found: dict[Owner, Limits] = {}
        for_all = [conversation_id for conversation_id, user_id in owners if not user_id]
        if for_all:
            cursor = self._database[SEQS].find(
                {"conversation_id": {"$in": for_all}}, {"_id": 0, "conversation_id": 1, "min_seq": 1}
            )
            async for document in cursor:
                found[document["conversation_id"], ""] = Limits(int(document.get("min_seq") or 0))
        own = [(conversation_id, user_id) for conversation_id, user_id in owners if user_id]
        if own:
            user_id = own[0][1]
            cursor = self._database[CONVERSATIONS].find(
                {"owner_user_id": user_id, "conversation_id": {"$in": [item for item, _ in own]}},
                {"_id": 0, "conversation_id": 1, "min_seq": 1, "max_seq": 1},
            )
            async for document in cursor:
                limits = Limits(int(document.get("min_seq") or 0), int(document.get("max_seq") or 0))
                found[document["conversation_id"], user_id] = limits
        return found

    def _key(self, owner: Owner) -> str:
        conversation_id, user_id = owner
        return keys.seq_user(shard_of(conversation_id, self._shards), conversation_id, user_id)
