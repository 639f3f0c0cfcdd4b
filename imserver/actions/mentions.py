"""Marks on a group's conversation (groupAtType): for whom a message names, and for everybody after a new announcement.

That happens behind the answer. A message that names nobody costs a look at a field; what fails here is logged, for the message
is in its log by then. A sender's repeat of a message marks again, so a process that died in between is made up for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from imserver.actions.groups import group_store
from imserver.actions.notify import tell_conversations_changed
from imserver.constants import AT_ALL, GroupAtType, SessionType
from imserver.errors import IMError
from imserver.protocol.conversations import group_conversation_id
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.storage.clients import get_async_mongo, get_async_redis
from imserver.storage.conversations import Conversations

logger = logging.getLogger(__name__)

#: Owners whose records are set in one call, and who are then told.
OWNERS_AT_ONCE = 500
#: Before another look for the records of a new group.
PAUSES_SECONDS = (0.1, 0.3, 1, 3)

#: The event loop holds its tasks weakly.
_running: set[asyncio.Task[None]] = set()


def follow(msg: MsgData, operation_id: str, appended: asyncio.Future[bytes]) -> None:
    """Mark the conversation of those whom a message names, once it is in its log."""
    if not msg.atUserIDList or msg.sessionType != SessionType.GROUP:
        return
    group_id, sender_id, named = msg.groupID, msg.sendID, set(msg.atUserIDList)

    def start(done: asyncio.Future[bytes]) -> None:
        if not done.cancelled() and done.exception() is None:
            _start(_mark_named(group_id, sender_id, named, operation_id), group_id, operation_id)

    appended.add_done_callback(start)


def mark_announcement(group_id: str, operation_id: str) -> None:
    """Mark the conversation of all members: there is a new announcement."""
    _start(_mark_all(group_id, operation_id), group_id, operation_id)


async def _mark_named(group_id: str, sender_id: str, named: set[str], operation_id: str) -> None:
    if AT_ALL not in named:
        members = list(await group_store().find_members(group_id, named))
        await _mark(group_id, members, GroupAtType.ME, operation_id)
        return
    members = [user_id for user_id in await group_store().member_ids(group_id) if user_id != sender_id]
    by_name = [user_id for user_id in members if user_id in named]
    await _mark(group_id, by_name, GroupAtType.ALL_AND_ME, operation_id)
    await _mark(group_id, [user_id for user_id in members if user_id not in named], GroupAtType.ALL, operation_id)


async def _mark_all(group_id: str, operation_id: str) -> None:
    await _mark(group_id, await group_store().member_ids(group_id), GroupAtType.GROUP_NOTICE, operation_id)


async def _mark(group_id: str, user_ids: list[str], at_type: GroupAtType, operation_id: str) -> None:
    """Mark the records of these members. Who is marked so already is not told again.

    In a new group the first message makes the records, a moment after it: whoever has none yet is looked at again.
    """
    conversation_id = group_conversation_id(group_id)
    store = Conversations(get_async_redis(), get_async_mongo())
    for at in range(0, len(user_ids), OWNERS_AT_ONCE):
        owners = user_ids[at : at + OWNERS_AT_ONCE]
        for pause in (*PAUSES_SECONDS, None):
            existing = await store.find_owners(conversation_id, owners)
            changed = await store.set_for_owners(conversation_id, list(existing), {"group_at_type": int(at_type)})
            await _tell(changed, conversation_id, operation_id)
            owners = [owner for owner in owners if owner not in existing]
            if not owners or pause is None:
                break
            await asyncio.sleep(pause)


async def _tell(owners: list[str], conversation_id: str, operation_id: str) -> None:
    # One notice each, all in the appender's next call; a log that is full for one may have room for the others.
    notices = (tell_conversations_changed(owner, [conversation_id], operation_id) for owner in owners)
    failures = [item for item in await asyncio.gather(*notices, return_exceptions=True) if item is not None]
    if failures:
        raise failures[0]


def _start(work: Coroutine[Any, Any, None], group_id: str, operation_id: str) -> None:
    task = asyncio.get_running_loop().create_task(_run(work, group_id, operation_id))
    _running.add(task)
    task.add_done_callback(_running.discard)


async def _run(work: Coroutine[Any, Any, None], group_id: str, operation_id: str) -> None:
    try:
        await work
    except (IMError, PyMongoError, RedisError) as error:
        facts = {"action": "mentions", "operation_id": operation_id, "group": group_id, "error": type(error).__name__}
        logger.warning("a group's conversation not marked", extra=facts)
