"""Waiting for persist: a message can be revoked or deleted only where it is kept for good."""

from __future__ import annotations

import asyncio
import time

from imserver.errors import DatabaseUnavailable
from imserver.storage.clients import get_async_mongo, get_async_redis
from imserver.storage.msg_blocks import MsgBlockReader
from imserver.storage.msg_cache import MsgCache

#: Persist is some 50 ms behind; much more only when MongoDB or the workers are in trouble.
STORED_SECONDS = 5.0
POLL_SECONDS = 0.02


async def wait_until_stored(conversation_id: str, seqs: list[int]) -> None:
    """Return when everything of these that was said is in MongoDB. A seq that neither cache nor store has is not waited for.

    From the change on such a message is looked up in the store: were it not there yet, its readers would take it for deleted.

    Raises:
        DatabaseUnavailable: it is not there in time; nothing was changed.
    """
    waiting = set((await MsgCache(get_async_redis()).get({conversation_id: seqs}))[conversation_id])
    blocks, deadline = MsgBlockReader(get_async_mongo()), time.monotonic() + STORED_SECONDS
    while waiting:
        waiting -= (await blocks.get_slots({conversation_id: list(waiting)}))[conversation_id].keys()
        if not waiting:
            return
        if time.monotonic() > deadline:
            raise DatabaseUnavailable("the message is not stored yet; try again")
        await asyncio.sleep(POLL_SECONDS)
