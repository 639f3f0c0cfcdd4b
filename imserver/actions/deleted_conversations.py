"""Deleting conversations from a user's list. What was said there stays; a newer message brings the conversation back."""

from __future__ import annotations

from imserver.actions import pull
from imserver.actions.chats import check_chats
from imserver.actions.conversations import MOST_PER_REQUEST
from imserver.actions.notify import tell_conversations_changed
from imserver.clock import now_ms
from imserver.errors import ArgsError
from imserver.protocol.gen.msg_pb2 import GetLastMessageReq
from imserver.storage.clients import get_async_mongo, get_async_redis
from imserver.storage.conversations import Conversations

MS_PER_DAY = 86_400_000
MOST_DAYS = 36_500


async def check_delete(user_id: str, conversation_ids: list[str], days: int) -> list[str]:
    """The conversations to delete: those named, or those in which nothing was said for so many days.

    Raises:
        ArgsError: neither or both are given.  NoPermission: others' conversation.  RecordNotFound: nothing was said in one.
    """
    if bool(conversation_ids) == bool(days):
        raise ArgsError("give conversationIDs or needDeleteTime, and not both")
    if len(conversation_ids) > MOST_PER_REQUEST:
        raise ArgsError(f"more than {MOST_PER_REQUEST} conversations at once")
    if not 0 <= days <= MOST_DAYS:
        raise ArgsError(f"needDeleteTime must be 1 to {MOST_DAYS} days")
    if not days:
        return [chat.conversation_id for chat in await check_chats(user_id, conversation_ids)]
    ids = await _store().list_ids(user_id)
    last = (await pull.get_last_messages(user_id, GetLastMessageReq(userID=user_id, conversationIDs=ids))).msgs
    oldest = now_ms() - days * MS_PER_DAY
    return [item for item in ids if item not in last or last[item].sendTime < oldest]


async def do_delete(user_id: str, conversation_ids: list[str], operation_id: str) -> None:
    """May run twice: the second time nothing changes."""
    bounds = await pull.get_bounds(user_id, conversation_ids)
    last_seqs = {item: bounds[item].max_seq if item in bounds else 0 for item in conversation_ids}
    deleted = await _store().delete(user_id, last_seqs)
    for at in range(0, len(deleted), MOST_PER_REQUEST):
        await tell_conversations_changed(user_id, deleted[at : at + MOST_PER_REQUEST], operation_id)


def _store() -> Conversations:
    return Conversations(get_async_redis(), get_async_mongo())
