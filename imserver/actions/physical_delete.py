"""Deleting what was said for good and for everybody, for operators. Nobody is told: clients keep what they have pulled."""

from __future__ import annotations

from imserver.actions.stored import wait_until_stored
from imserver.errors import ArgsError
from imserver.storage.clients import get_async_mongo, get_async_redis
from imserver.storage.msg_blocks import MsgBlockReader
from imserver.storage.msg_cache import MsgCache
from imserver.storage.msg_history import MsgHistory
from imserver.storage.msg_states import MsgStates
from imserver.storage.seq_limits import SeqLimits

MOST_SEQS_PER_REQUEST = 1000
MOST_CONVERSATIONS_PER_REQUEST = 1000


def check_delete_seqs(conversation_id: str, seqs: list[int]) -> None:
    """Raises ArgsError."""
    if not conversation_id:
        raise ArgsError("conversationID is empty")
    if not seqs or min(seqs) < 1 or len(seqs) > MOST_SEQS_PER_REQUEST:
        raise ArgsError(f"seqs must be 1 to {MOST_SEQS_PER_REQUEST} numbers from 1")


async def do_delete_seqs(conversation_id: str, seqs: list[int]) -> None:
    """May run twice. Seqs that the conversation does not have are left out.

    Raises:
        DatabaseUnavailable: not stored in time; nothing was changed.
    """
    await wait_until_stored(conversation_id, seqs)
    stored = (await MsgBlockReader(get_async_mongo()).get_slots({conversation_id: seqs}))[conversation_id]
    await _delete(conversation_id, list(stored))


def check_delete_before(conversation_ids: list[str], time_ms: int) -> None:
    """Raises ArgsError."""
    if not 1 <= len(conversation_ids) <= MOST_CONVERSATIONS_PER_REQUEST or "" in conversation_ids:
        raise ArgsError(f"conversationIDs must be 1 to {MOST_CONVERSATIONS_PER_REQUEST}")
    if time_ms < 1:
        raise ArgsError("timestamp must be a time in milliseconds")


async def do_delete_before(conversation_ids: list[str], time_ms: int) -> None:
    """What was sent before a time; the conversations begin after that. May run twice, and goes on where it was broken off."""
    history = MsgHistory(get_async_mongo())
    for conversation_id in dict.fromkeys(conversation_ids):
        begin, last = 0, 0
        async for seqs, first_kept in history.blocks_before(conversation_id, time_ms):
            await _delete(conversation_id, seqs)
            # Senders may give a time of their own, so an old message can stand behind a new one.
            begin, last = begin or first_kept, max([last, *seqs])
        if last:
            min_seqs = {conversation_id: begin or last + 1}
            await SeqLimits(get_async_redis(), get_async_mongo()).raise_for_all(min_seqs)


async def _delete(conversation_id: str, seqs: list[int]) -> None:
    if seqs:
        # First the cache: from now on these are looked up in the store (see storage/msg_cache.py).
        await MsgCache(get_async_redis()).mark(conversation_id, seqs)
        await MsgStates(get_async_mongo()).delete(conversation_id, seqs)
