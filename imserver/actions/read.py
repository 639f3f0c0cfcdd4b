"""Read state: how far a user has read a conversation, and telling the peer."""

from __future__ import annotations

from imserver.actions import pull
from imserver.actions.notify import send_notification
from imserver.constants import ContentType, SessionType
from imserver.errors import ArgsError, NoPermission, RecordNotFound
from imserver.protocol.conversations import SINGLE_PREFIX, conversation_key
from imserver.protocol.gen.sdkws_pb2 import MarkAsReadTips
from imserver.storage.clients import get_async_mongo, get_async_redis
from imserver.storage.read_seq import ReadSeqs

#: A receipt names the messages it is about; more than this many are said by hasReadSeq alone.
MOST_SEQS_IN_RECEIPT = 1000


async def check_mark_as_read(user_id: str, conversation_id: str, has_read_seq: int, seqs: list[int]) -> None:
    """Raises ArgsError, NoPermission, RecordNotFound."""
    if has_read_seq < 1 or any(seq < 1 for seq in seqs):
        raise ArgsError("hasReadSeq and seqs must be at least 1")
    if user_id not in _members(user_id, conversation_id):
        raise NoPermission("not your conversation")
    bounds = await pull.get_bounds(user_id, [conversation_id])
    bound = bounds.get(conversation_id)
    if bound is None:
        raise RecordNotFound(f"conversation {conversation_id} has no messages")
    if has_read_seq > bound.max_seq or any(seq > bound.max_seq for seq in seqs):
        raise ArgsError(f"the conversation ends at seq {bound.max_seq}")


async def do_mark_as_read(
    user_id: str, conversation_id: str, has_read_seq: int, seqs: list[int], operation_id: str
) -> None:
    """Move the read seq forward and tell both sides. May run twice: the second time only the notification repeats."""
    before = await ReadSeqs(get_async_redis(), get_async_mongo()).forward(user_id, conversation_id, has_read_seq)
    newly_read = range(max(before + 1, has_read_seq - MOST_SEQS_IN_RECEIPT + 1), has_read_seq + 1)
    tips = MarkAsReadTips(
        markAsReadUserID=user_id,
        conversationID=conversation_id,
        seqs=sorted({*newly_read, *seqs}),
        hasReadSeq=max(before, has_read_seq),
    )
    peer = next(member for member in reversed(_members(user_id, conversation_id)))
    await send_notification(
        ContentType.HAS_READ_RECEIPT,
        tips,
        send_id=user_id,
        recv_id=peer,
        session_type=SessionType.SINGLE,
        operation_id=operation_id,
        is_stored=True,
    )


def _members(user_id: str, conversation_id: str) -> list[str]:
    """[user, peer] of a single chat that the user belongs to, else nothing."""
    if not conversation_id.startswith(SINGLE_PREFIX):
        return []
    key = conversation_key(conversation_id)
    if key.startswith(f"{user_id}_"):
        return [user_id, key[len(user_id) + 1 :]]
    if key.endswith(f"_{user_id}"):
        return [user_id, key[: -len(user_id) - 1]]
    return []
