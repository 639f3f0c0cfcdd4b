"""Deleting messages and clearing conversations: for oneself, or for everybody.

What a user deletes for itself changes no seq: its pulls get a placeholder. A cleared conversation begins after what it held.
"""

from __future__ import annotations

from imserver.actions import pull
from imserver.actions.chats import Chat, check_chats, find_chat
from imserver.actions.groups import group_store
from imserver.actions.notify import send_notification
from imserver.actions.revoke import NOBODY, check_may_take_back
from imserver.actions.stored import wait_until_stored
from imserver.constants import ContentType, RoleLevel, SessionType
from imserver.errors import ArgsError, NoPermission
from imserver.protocol.gen.msg_pb2 import DeleteSyncOpt
from imserver.protocol.gen.sdkws_pb2 import ClearConversationTips, DeleteMsgsTips, MsgData
from imserver.storage.clients import get_async_mongo, get_async_redis
from imserver.storage.conversations import Conversations
from imserver.storage.msg_cache import MsgCache
from imserver.storage.msg_states import MsgStates
from imserver.storage.read_seq import ReadSeqs
from imserver.storage.seq_limits import SeqLimits

MOST_MSGS_PER_REQUEST = 1000
MOST_CONVERSATIONS_PER_REQUEST = 1000


async def check_delete_msgs(
    user_id: str, conversation_id: str, seqs: list[int], option: DeleteSyncOpt, *, is_admin: bool
) -> Chat:
    """Raises ArgsError; NoPermission: not the user's conversation, or in a group another's message for everybody."""
    if not seqs or min(seqs) < 1 or len(seqs) > MOST_MSGS_PER_REQUEST:
        raise ArgsError(f"seqs must be 1 to {MOST_MSGS_PER_REQUEST} numbers from 1")
    (chat,) = await check_chats(user_id, [conversation_id])
    if option.IsSyncOther and chat.group_id and not is_admin:
        # Also those that the user has hidden from itself.
        msgs = (await pull.get_msgs(NOBODY, {conversation_id: seqs}))[conversation_id]
        for raw in msgs.values():
            await check_may_take_back(user_id, MsgData.FromString(raw), is_admin=False)
    return chat


async def do_delete_msgs(chat: Chat, seqs: list[int], option: DeleteSyncOpt, operation_id: str) -> None:
    """May run twice; the notification repeats then. Seqs that the conversation does not have are left out.

    Raises:
        DatabaseUnavailable: not stored in time; nothing was changed.
    """
    bound = (await pull.get_bounds(chat.user_id, [chat.conversation_id])).get(chat.conversation_id)
    seqs = [seq for seq in dict.fromkeys(seqs) if bound is not None and seq <= bound.max_seq]
    if not seqs:
        return
    await wait_until_stored(chat.conversation_id, seqs)
    # First the cache: from now on these are looked up in the store (see storage/msg_cache.py).
    await MsgCache(get_async_redis()).mark(chat.conversation_id, seqs)
    states = MsgStates(get_async_mongo())
    if option.IsSyncOther:
        await states.delete(chat.conversation_id, seqs)
    else:
        await states.delete_for(chat.user_id, chat.conversation_id, seqs)
    if not (option.IsSyncOther or option.IsSyncSelf):
        return
    await send_notification(
        ContentType.DELETE_MSGS,
        DeleteMsgsTips(userID=chat.user_id, conversationID=chat.conversation_id, seqs=seqs),
        send_id=chat.user_id,
        recv_id=chat.other_side if option.IsSyncOther else chat.user_id,
        session_type=chat.session_type if option.IsSyncOther else SessionType.SINGLE,
        operation_id=operation_id,
        is_stored=True,
    )


async def check_clear(
    user_id: str, conversation_ids: list[str], option: DeleteSyncOpt, *, is_admin: bool
) -> list[Chat]:
    """The conversations in which there is something to clear. In one that a client has opened, but nobody has written in, there
    is nothing, and clients delete their own record of it when this succeeds.

    Raises ArgsError; NoPermission: not the user's conversation, or a group for everybody by who does not manage it.
    """
    if not conversation_ids or len(conversation_ids) > MOST_CONVERSATIONS_PER_REQUEST:
        raise ArgsError(f"conversationIDs must be 1 to {MOST_CONVERSATIONS_PER_REQUEST}")
    chats = await check_chats(user_id, conversation_ids, may_be_unborn=True)
    if option.IsSyncOther and not is_admin:
        for chat in chats:
            if chat.group_id and not await _manages(chat):
                raise NoPermission(f"only owner and admins clear {chat.conversation_id} for everybody")
    return chats


async def find_all_chats(user_id: str) -> list[Chat]:
    ids = await Conversations(get_async_redis(), get_async_mongo()).get_ids(user_id)
    found = (find_chat(user_id, conversation_id) for conversation_id in sorted(ids))
    return [chat for chat in found if chat is not None]


async def do_clear_all(user_id: str, option: DeleteSyncOpt, operation_id: str, *, is_admin: bool) -> None:
    """All conversations of a user; for everybody only those that it may clear so, the others for the user alone."""
    chats = await find_all_chats(user_id)
    for_all: list[Chat] = []
    if option.IsSyncOther:
        for_all = [chat for chat in chats if is_admin or not chat.group_id or await _manages(chat)]
        await do_clear(user_id, for_all, option, operation_id)
    ids = {chat.conversation_id for chat in for_all}
    for_oneself = [chat for chat in chats if chat.conversation_id not in ids]
    await do_clear(user_id, for_oneself, DeleteSyncOpt(IsSyncSelf=option.IsSyncSelf), operation_id)


async def do_clear(user_id: str, chats: list[Chat], option: DeleteSyncOpt, operation_id: str) -> None:
    """The conversations begin after their last message, and count as read up to there. May run twice."""
    bounds = await pull.get_bounds(user_id, [chat.conversation_id for chat in chats])
    chats = [chat for chat in chats if chat.conversation_id in bounds]
    if not chats:
        return
    client, database = get_async_redis(), get_async_mongo()
    ends = {conversation_id: bound.max_seq for conversation_id, bound in bounds.items()}
    if option.IsSyncOther:
        await SeqLimits(client, database).raise_for_all({item: end + 1 for item, end in ends.items()})
    else:
        records = {chat.record(): ends[chat.conversation_id] + 1 for chat in chats}
        await Conversations(client, database).raise_min_seqs(records)
    read_seqs = ReadSeqs(client, database)
    for conversation_id, end in ends.items():
        await read_seqs.forward(user_id, conversation_id, end)
    if option.IsSyncOther:
        for chat in chats:
            await _tell_cleared(user_id, [chat], chat.other_side, chat.session_type, operation_id)
    elif option.IsSyncSelf:
        await _tell_cleared(user_id, chats, user_id, SessionType.SINGLE, operation_id)


async def _tell_cleared(
    user_id: str, chats: list[Chat], recv_id: str, session_type: SessionType, operation_id: str
) -> None:
    tips = ClearConversationTips(userID=user_id, conversationIDs=[chat.conversation_id for chat in chats])
    await send_notification(
        ContentType.CLEAR_CONVERSATION,
        tips,
        send_id=user_id,
        recv_id=recv_id,
        session_type=session_type,
        operation_id=operation_id,
    )


async def _manages(chat: Chat) -> bool:
    member = await group_store().find_member(chat.group_id, chat.user_id)
    return member is not None and member["role_level"] in (RoleLevel.OWNER, RoleLevel.ADMIN)
