"""Groups and their members: MongoDB ``group`` and ``group_member``; ids of members, which every group message needs, also
in Redis.

``GROUP_STATE:<group>`` holds a random token that names the member list as it is now. A change writes MongoDB, then sets a
new token. A reader takes the token first and the ids afterwards, and keeps them under ``GROUP_MEMBERS:<group>:<token>``.
So whoever is slow harms nobody: ids read before a change end up under a token that nobody asks for any more, and ids under
the current token were read after the change that set it. Who dies between MongoDB and the token leaves a list that is wrong
until its set expires. Both doors are shut in ``changing``: the token changes before the write as well.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import redis
import redis.asyncio
from cachetools import LRUCache
from pymongo import ASCENDING, DESCENDING
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.database import Database
from pymongo.errors import BulkWriteError, DuplicateKeyError, PyMongoError

from imserver.clock import now_ms
from imserver.constants import ContentType, GroupStatus, RoleLevel
from imserver.errors import GroupIDExisted
from imserver.runtime import one_a_process
from imserver.storage import keys, users
from imserver.storage.clients import Document, as_text
from imserver.storage.msg_blocks import DUPLICATE_KEY

GROUPS = "group"
MEMBERS = "group_member"

#: Order of the member list, on every page and in the list of all ids; an index has it.
MEMBER_ORDER = [("role_level", DESCENDING), ("join_time", ASCENDING), ("user_id", ASCENDING)]
#: Order of a user's list of groups: what was joined last stands last, as clients append it.
JOIN_ORDER = [("join_time", ASCENDING), ("group_id", ASCENDING)]

#: Notifications that also those get who just left: their push asks for ``member_ids(..., include_leavers=True)``.
LEAVER_NOTIFICATIONS = frozenset({ContentType.MEMBER_QUIT, ContentType.MEMBER_KICKED, ContentType.GROUP_DISMISSED})

#: Member of a set that says: it is whole.
COMPLETE = ""
#: Ids in one Redis command.
CHUNK = 1000
#: Ids that are too old, and that MongoDB could not be asked for, serve for so long before it is asked again.
OUTAGE_SECONDS = 5
#: Ids that a process remembers, of all groups together.
REMEMBERED_IDS = 1_000_000


def new_member(
    group_id: str, user_id: str, role_level: int, *, join_source: int, inviter_user_id: str, operator_user_id: str
) -> Document:
    """Nickname and face are empty until the member sets its own for this group: then the user's count."""
    return {
        "group_id": group_id,
        "user_id": user_id,
        "role_level": int(role_level),
        "nickname": "",
        "face_url": "",
        "ex": "",
        "join_source": int(join_source),
        "inviter_user_id": inviter_user_id,
        "operator_user_id": operator_user_id,
        "join_time": now_ms(),
        "mute_end_time": 0,
    }


class Groups:
    """The side of the actions."""

    def __init__(self, client: redis.asyncio.Redis, database: AsyncDatabase[Document]) -> None:
        self._client = client
        self._groups = database[GROUPS]
        self._members = database[MEMBERS]

    # -- groups

    async def add(self, group: Document) -> None:
        """Raises GroupIDExisted."""
        try:
            await self._groups.insert_one(dict(group))
        except DuplicateKeyError as error:
            raise GroupIDExisted(f"group {group['group_id']} exists already") from error

    async def find(self, group_ids: Iterable[str]) -> list[Document]:
        """The groups that exist, in the order asked."""
        wanted = list(dict.fromkeys(group_ids))
        found = {item["group_id"]: item async for item in self._groups.find({"group_id": {"$in": wanted}}, {"_id": 0})}
        return [found[group_id] for group_id in wanted if group_id in found]

    async def find_one(self, group_id: str) -> Document | None:
        return await self._groups.find_one({"group_id": group_id}, {"_id": 0})

    async def search(self, keyword: str, *, skip: int, limit: int) -> tuple[int, list[Document]]:
        """(how many, groups of the page) whose name holds the keyword, in any case; newest first."""
        where: Document = {"group_name": {"$regex": re.escape(keyword), "$options": "i"}} if keyword else {}
        cursor = self._groups.find(where, {"_id": 0}).sort([("create_time", DESCENDING), ("group_id", ASCENDING)])
        found = [group async for group in cursor.skip(skip).limit(limit)]
        return await self._groups.count_documents(where), found

    async def update(self, group_id: str, changes: Document, *, only_if: Document | None = None) -> bool:
        """Change fields; False when the group is dismissed, or not as ``only_if`` says, by now."""
        condition = {"group_id": group_id, "status": {"$ne": int(GroupStatus.DISMISSED)}, **(only_if or {})}
        async with self.changing(group_id) if "status" in changes else nullcontext():
            return (await self._groups.update_one(condition, {"$set": changes})).matched_count == 1

    # -- members

    async def count_members(self, group_ids: list[str]) -> dict[str, int]:
        """Counted in the index; groups without members are missing."""
        pipeline: list[dict[str, Any]] = [
            {"$match": {"group_id": {"$in": group_ids}}},
            {"$group": {"_id": "$group_id", "n": {"$sum": 1}}},
        ]
        return {item["_id"]: int(item["n"]) async for item in await self._members.aggregate(pipeline)}

    async def find_members(self, group_id: str, user_ids: Iterable[str]) -> dict[str, Document]:
        """Rows by user id in the order asked; who is no member is missing."""
        wanted = list(dict.fromkeys(user_ids))
        cursor = self._members.find({"group_id": group_id, "user_id": {"$in": wanted}}, {"_id": 0})
        found = {row["user_id"]: row async for row in cursor}
        return {user_id: found[user_id] for user_id in wanted if user_id in found}

    async def find_member(self, group_id: str, user_id: str) -> Document | None:
        return await self._members.find_one({"group_id": group_id, "user_id": user_id}, {"_id": 0})

    async def groups_with(self, user_id: str, group_ids: Iterable[str]) -> set[str]:
        """Those of the groups that the user is in."""
        cursor = self._members.find(
            {"user_id": user_id, "group_id": {"$in": list(group_ids)}}, {"group_id": 1, "_id": 0}
        )
        return {row["group_id"] async for row in cursor}

    async def member_ids(self, group_id: str, roles: Sequence[int] = (), *, skip: int = 0, limit: int = 0) -> list[str]:
        """Ids in the list's order, from the index alone; a limit of 0 is none."""
        cursor = self._members.find(_with_roles(group_id, roles), {"user_id": 1, "_id": 0})
        return [row["user_id"] async for row in cursor.sort(MEMBER_ORDER).skip(skip).limit(limit)]

    async def count_with_roles(self, group_id: str, roles: Sequence[int] = ()) -> int:
        return await self._members.count_documents(_with_roles(group_id, roles))

    async def search_members(
        self, group_id: str, keyword: str, roles: Sequence[int], *, skip: int, limit: int
    ) -> tuple[int, list[str]]:
        """(how many, ids of the page) of the members whose user id or shown name holds the keyword, in any case."""
        pattern = {"$regex": re.escape(keyword), "$options": "i"}
        pipeline: list[dict[str, Any]] = [
            {"$match": _with_roles(group_id, roles)},
            {"$sort": dict(MEMBER_ORDER)},
            {"$project": {"user_id": 1, "nickname": 1}},
            {
                "$lookup": {
                    "from": users.COLLECTION,
                    "localField": "user_id",
                    "foreignField": "user_id",
                    "pipeline": [{"$project": {"nickname": 1, "_id": 0}}],
                    "as": "user",
                }
            },
            {
                "$match": {
                    "$or": [{"user_id": pattern}, {"nickname": pattern}, {"nickname": "", "user.nickname": pattern}]
                }
            },
            {"$facet": {"total": [{"$count": "n"}], "page": [{"$skip": skip}, {"$limit": limit}]}},
        ]
        answer = await anext(await self._members.aggregate(pipeline))
        total = int(answer["total"][0]["n"]) if answer["total"] else 0
        return total, [row["user_id"] for row in answer["page"]]

    async def joined_ids(self, user_id: str, *, skip: int = 0, limit: int = 0) -> list[str]:
        """Ids of the user's groups in the list's order, from the index alone."""
        cursor = self._members.find({"user_id": user_id}, {"group_id": 1, "_id": 0})
        return [row["group_id"] async for row in cursor.sort(JOIN_ORDER).skip(skip).limit(limit)]

    async def rows_of(self, user_id: str) -> list[Document]:
        """The user's rows in all its groups, in the list's order."""
        return [row async for row in self._members.find({"user_id": user_id}, {"_id": 0}).sort(JOIN_ORDER)]

    async def managed_ids(self, user_id: str) -> list[str]:
        """Groups where the user is owner or admin."""
        roles = [int(RoleLevel.OWNER), int(RoleLevel.ADMIN)]
        cursor = self._members.find({"user_id": user_id, "role_level": {"$in": roles}}, {"group_id": 1, "_id": 0})
        return [row["group_id"] async for row in cursor]

    async def count_joined(self, user_id: str) -> int:
        return await self._members.count_documents({"user_id": user_id})

    async def add_members(self, group_id: str, rows: list[Document]) -> list[Document]:
        """Add who is not in the group yet; returns the rows that were added. May run twice."""
        refused: set[int] = set()
        async with self.changing(group_id):
            try:
                await self._members.insert_many([dict(row) for row in rows], ordered=False)
            except BulkWriteError as error:
                problems = (error.details or {}).get("writeErrors", [])
                if any(problem["code"] != DUPLICATE_KEY for problem in problems):
                    raise
                refused = {problem["index"] for problem in problems}
        return [row for at, row in enumerate(rows) if at not in refused]

    async def remove_members(self, group_id: str, user_ids: list[str], *, keep_owner: bool = True) -> list[str]:
        """Remove members and return who is none now; for a while the news of it still reach them. May run twice.

        The owner stays unless the group ends: who became it meanwhile is not returned.
        """
        await self._remember_leavers(group_id, user_ids)
        condition: Document = {"group_id": group_id, "user_id": {"$in": user_ids}}
        if keep_owner:
            condition["role_level"] = {"$ne": int(RoleLevel.OWNER)}
        async with self.changing(group_id):
            deleted = (await self._members.delete_many(condition)).deleted_count
        if deleted == len(user_ids):
            return user_ids
        left = await self.find_members(group_id, user_ids)
        return [user_id for user_id in user_ids if user_id not in left]

    async def update_member(self, group_id: str, user_id: str, changes: Document) -> bool:
        """False when the user is no member by now."""
        async with self.changing(group_id) if "mute_end_time" in changes else nullcontext():
            result = await self._members.update_one({"group_id": group_id, "user_id": user_id}, {"$set": changes})
        return result.matched_count == 1

    async def swap_owner(self, group_id: str, old: Document, new: Document) -> bool:
        """Give the owner's role to ``new`` and the role that ``new`` had to the old owner.

        The group's row decides between two transfers at once; False when it was another one, or somebody left meanwhile.
        """
        old_id, new_id = old["user_id"], new["user_id"]
        if not await self.update(group_id, {"owner_user_id": new_id}, only_if={"owner_user_id": old_id}):
            return False
        owner: Document = {"role_level": int(RoleLevel.OWNER), "mute_end_time": 0}
        if not await self.update_member(group_id, new_id, owner):
            await self.update(group_id, {"owner_user_id": old_id}, only_if={"owner_user_id": new_id})
            return False
        await self.update_member(group_id, old_id, {"role_level": new["role_level"]})
        return True

    # -- ids in Redis

    @asynccontextmanager
    async def changing(self, group_id: str) -> AsyncIterator[None]:
        """Around a change in MongoDB of the member list, or of who of it may speak."""
        await self._set_new_state(group_id)
        try:
            yield
        finally:
            await self._set_new_state(group_id)

    async def get_state(self, group_id: str) -> str:
        """The token that changes with the member list, and with who of it may speak. Raises redis.RedisError."""
        key = keys.group_state(group_id)
        token: Any = await self._client.get(key)
        if token is None:
            await self._client.set(key, secrets.token_hex(8), nx=True, ex=keys.GROUP_STATE_TTL_SECONDS)
            token = await self._client.get(key)
        return as_text(token or b"")

    async def _set_new_state(self, group_id: str) -> None:
        before: Any = await self._client.set(
            keys.group_state(group_id), secrets.token_hex(8), ex=keys.GROUP_STATE_TTL_SECONDS, get=True
        )
        if before is not None:
            await self._client.unlink(keys.group_members(group_id, as_text(before)))

    async def _remember_leavers(self, group_id: str, user_ids: list[str]) -> None:
        key, until = keys.group_leavers(group_id), now_ms() + keys.GROUP_LEAVERS_TTL_SECONDS * 1000
        pipe = self._client.pipeline(transaction=False)
        for at in range(0, len(user_ids), CHUNK):
            pipe.hset(key, mapping=dict.fromkeys(user_ids[at : at + CHUNK], until))
        pipe.expire(key, keys.GROUP_LEAVERS_TTL_SECONDS)
        await pipe.execute()


def _with_roles(group_id: str, roles: Sequence[int]) -> Document:
    return {"group_id": group_id, **({"role_level": {"$in": [int(role) for role in roles]}} if roles else {})}


# -- the side of the tasks


class MembersUnknown(PyMongoError):
    """Only MongoDB knows the members, and it is not asked now."""


@dataclass(frozen=True, slots=True)
class _Remembered:
    """Ids, and the token that they were read under."""

    token: str
    ids: list[str]
    read_at: float

    @property
    def is_fresh(self) -> bool:
        """Rows that somebody changed in MongoDB by hand are to be seen some time."""
        return time.monotonic() - self.read_at < keys.GROUP_MEMBERS_TTL_SECONDS

    def for_an_outage(self) -> _Remembered:
        """The same, to be looked up again in a while and not for each message."""
        return replace(self, read_at=time.monotonic() - keys.GROUP_MEMBERS_TTL_SECONDS + OUTAGE_SECONDS)


@one_a_process
def _remembered() -> tuple[LRUCache[str, _Remembered], Lock]:
    """By key of the state."""
    return LRUCache(REMEMBERED_IDS, getsizeof=lambda item: len(item.ids) + 1), Lock()


def member_ids(
    client: redis.Redis, database: Database[Document] | None, group_id: str, *, include_leavers: bool = False
) -> list[str]:
    """User ids of a group's members, in no order; empty when there is no such group.

    Usually one round trip: a process remembers the ids together with the token that they were read under.

    Args:
        database: None: not to be asked now.
        include_leavers: also those who left within the last minute. They hear of it from the notifications 1504, 1508 and
            1511 (LEAVER_NOTIFICATIONS), which are pushed when they are members no more.
    """
    ids = _current_ids(client, database, group_id)
    return list(dict.fromkeys([*ids, *_leavers(client, group_id)])) if include_leavers else list(ids)


def group_status(database: Database[Document], group_id: str) -> int | None:
    """A ``GroupStatus``; None when there is no such group."""
    group = database[GROUPS].find_one({"group_id": group_id}, {"status": 1})
    return None if group is None else int(group["status"])


def _current_ids(client: redis.Redis, database: Database[Document] | None, group_id: str) -> list[str]:
    token = _state(client, group_id)
    remembered, lock = _remembered()
    with lock:
        known = remembered.get(keys.group_state(group_id))
    if known is None or known.token != token:
        return _read_ids(client, database, group_id, token)
    if known.is_fresh:
        return known.ids
    try:
        return _read_ids(client, database, group_id, token)
    except PyMongoError:
        # Nobody has joined or left since: that would have needed MongoDB, and changed the token.
        with lock:
            remembered[keys.group_state(group_id)] = known.for_an_outage()
        return known.ids


def _read_ids(client: redis.Redis, database: Database[Document] | None, group_id: str, token: str) -> list[str]:
    """From the set in Redis, or from MongoDB. Raises PyMongoError."""
    key = keys.group_members(group_id, token)
    found = {as_text(item) for item in client.smembers(key)}
    if COMPLETE in found:
        ids = list(found - {COMPLETE})
    elif database is None:
        raise MembersUnknown(group_id)
    else:
        ids = [row["user_id"] for row in database[MEMBERS].find({"group_id": group_id}, {"user_id": 1, "_id": 0})]
        pipe = client.pipeline(transaction=True)
        for at in range(0, len(ids), CHUNK):
            pipe.sadd(key, *ids[at : at + CHUNK])
        pipe.sadd(key, COMPLETE)
        pipe.expire(key, keys.GROUP_MEMBERS_TTL_SECONDS)
        pipe.execute()
    remembered, lock = _remembered()
    with lock:
        if len(ids) < REMEMBERED_IDS:
            remembered[keys.group_state(group_id)] = _Remembered(token, ids, time.monotonic())
    return ids


def _state(client: redis.Redis, group_id: str) -> str:
    key = keys.group_state(group_id)
    token = client.get(key)
    if token is None:
        client.set(key, secrets.token_hex(8), nx=True, ex=keys.GROUP_STATE_TTL_SECONDS)
        token = client.get(key)
    return as_text(token or b"")


def _leavers(client: redis.Redis, group_id: str) -> list[str]:
    now = now_ms()
    until = client.hgetall(keys.group_leavers(group_id))
    return [as_text(user_id) for user_id, moment in until.items() if int(moment) > now]
