"""Read state: how far a user has read a conversation, which messages the peer has read, and telling both.

In a single chat the peer is told, through the chat's notification twin, and each message keeps that it was read. In groups and
OA chats only the reader's own devices are told, and nothing is kept but the read seq.
"""

from __future__ import annotations

from collections.abc import Iterable

from imserver.actions import pull
from imserver.actions.chats import Chat, check_chat
from imserver.actions.notify import send_notification
from imserver.constants import ContentType, SessionType
from imserver.errors import ArgsError, RecordNotFound
from imserver.protocol.gen.sdkws_pb2 import MarkAsReadTips, MsgData
from imserver.storage.clients import get_async_mongo, get_async_redis
from imserver.storage.msg_cache import MsgCache
from imserver.storage.msg_states import MsgStates
from imserver.storage.read_seq import ReadSeqs

#: A receipt names the messages it is about; older ones than these are said by hasReadSeq alone.
MOST_SEQS_IN_RECEIPT = 1000


async def check_read(user_id: str, conversation_id: str, seqs: Iterable[int]) -> Chat:
    """Seqs up to which, or of which, a user says that they were read.

    Raises:
        ArgsError: there is no such seq.  NoPermission: not the user's conversation.
        RecordNotFound: the conversation has no messages.
    """
    asked = list(seqs)
    if not asked or min(asked) < 1:
        raise ArgsError("seqs must be at least 1")
    chat = await check_chat(user_id, conversation_id)
    bound = (await pull.get_bounds(user_id, [conversation_id])).get(conversation_id)
    if bound is None:
        raise RecordNotFound(f"conversation {conversation_id} has no messages")
    # Who leaves a group still gets the line that says so, behind the cap. Clients mark it as read, and stop clearing the
    # conversation when that is refused.
    if max(asked) > bound.last_seq:
        raise ArgsError(f"the conversation ends at seq {bound.last_seq}")
    return chat


async def do_mark_conversation_as_read(chat: Chat, has_read_seq: int, seqs: list[int], operation_id: str) -> None:
    """Everything up to a seq was read. May run twice: the second time only the notification repeats.

    Args:
        seqs: in a single chat, messages that were read besides those between the read seq and the new one.
    """
    if chat.session_type != SessionType.SINGLE:
        before = await _read_seqs().forward(chat.user_id, chat.conversation_id, has_read_seq)
        await _tell_oneself(chat, max(before, has_read_seq), operation_id)
        return
    before = (await _read_seqs().get(chat.user_id, [chat.conversation_id]))[chat.conversation_id]
    newly_read = range(max(before + 1, has_read_seq - MOST_SEQS_IN_RECEIPT + 1), has_read_seq + 1)
    told = sorted({*newly_read, *seqs})[-MOST_SEQS_IN_RECEIPT:]
    await _set_read(chat, told)
    before = await _read_seqs().forward(chat.user_id, chat.conversation_id, has_read_seq)
    await _tell_peer(chat, told, max(before, has_read_seq), operation_id)


async def check_mark_msgs_as_read(user_id: str, conversation_id: str, seqs: list[int]) -> Chat:
    """Raises as ``check_read``; ArgsError also where single messages have no read state."""
    chat = await check_read(user_id, conversation_id, seqs)
    if chat.session_type != SessionType.SINGLE:
        raise ArgsError("messages are marked as read one by one in single chats only")
    if len(seqs) > MOST_SEQS_IN_RECEIPT:
        raise ArgsError(f"more than {MOST_SEQS_IN_RECEIPT} messages at once")
    return chat


async def do_mark_msgs_as_read(chat: Chat, seqs: list[int], operation_id: str) -> None:
    """These messages of a single chat were read, and everything up to the last one named. May run twice."""
    await _set_read(chat, list(dict.fromkeys(seqs)))
    await _read_seqs().forward(chat.user_id, chat.conversation_id, seqs[-1])
    await _tell_peer(chat, seqs, seqs[-1], operation_id)


async def do_set_read_seq(chat: Chat, has_read_seq: int, operation_id: str, *, is_silent: bool) -> None:
    """Move the read seq and tell only the reader's own devices. May run twice."""
    before = await _read_seqs().forward(chat.user_id, chat.conversation_id, has_read_seq)
    if not is_silent:
        await _tell_oneself(chat, max(before, has_read_seq), operation_id)


async def _set_read(chat: Chat, seqs: list[int]) -> None:
    """Note on the peer's messages that they were read: in MongoDB, then in the cache."""
    found = (await pull.get_msgs(chat.user_id, {chat.conversation_id: seqs}))[chat.conversation_id]
    unread = []
    for seq, raw in found.items():
        msg = MsgData.FromString(raw)
        if msg.sendID != chat.user_id and not msg.isRead:
            unread.append(seq)
    if unread:
        await MsgStates(get_async_mongo()).set_read(chat.conversation_id, unread)
        await MsgCache(get_async_redis()).set_read(chat.conversation_id, unread)


async def _tell_peer(chat: Chat, seqs: list[int], has_read_seq: int, operation_id: str) -> None:
    await send_notification(
        ContentType.HAS_READ_RECEIPT,
        _tips(chat, has_read_seq, seqs),
        send_id=chat.user_id,
        recv_id=chat.peer_id,
        session_type=SessionType.SINGLE,
        operation_id=operation_id,
        is_stored=True,
    )


async def _tell_oneself(chat: Chat, has_read_seq: int, operation_id: str) -> None:
    await send_notification(
        ContentType.HAS_READ_RECEIPT,
        _tips(chat, has_read_seq),
        send_id=chat.user_id,
        recv_id=chat.user_id,
        session_type=SessionType.SINGLE,
        operation_id=operation_id,
    )


def _tips(chat: Chat, has_read_seq: int, seqs: Iterable[int] = ()) -> MarkAsReadTips:
    return MarkAsReadTips(
        markAsReadUserID=chat.user_id, conversationID=chat.conversation_id, seqs=seqs, hasReadSeq=has_read_seq
    )


def _read_seqs() -> ReadSeqs:
    return ReadSeqs(get_async_redis(), get_async_mongo())
