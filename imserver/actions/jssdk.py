"""What OpenIM's JS SDK shows in its list: conversations with their last message, who is in them and how far they are read."""

from __future__ import annotations

from collections.abc import Iterable

from imserver.actions.chats import find_records
from imserver.actions.conversations import show_again, to_conversation
from imserver.actions.groups import get_group_infos
from imserver.actions.pull import SeqBounds, get_bounds, get_last_messages
from imserver.actions.users import to_user_info
from imserver.constants import SessionType
from imserver.errors import ArgsError
from imserver.protocol.gen import jssdk_pb2, msg_pb2
from imserver.protocol.gen.relation_pb2 import FriendInfoOnly
from imserver.protocol.gen.sdkws_pb2 import GroupInfo, MsgData, UserInfo
from imserver.storage.clients import Document, get_async_mongo, get_async_redis
from imserver.storage.conversations import Conversations
from imserver.storage.friends import Friends
from imserver.storage.read_seq import ReadSeqs
from imserver.storage.users import Users

#: Conversations of an answer: when the client says no number, and at most.
USUAL_COUNT, MOST_CONVERSATIONS = 100, 500


async def get_active_conversations(user_id: str, count: int) -> jssdk_pb2.GetActiveConversationsResp:
    """The user's conversations, pinned ones first, then by the time of the newest message. Raises ArgsError."""
    if count < 0:
        raise ArgsError("count must not be negative")
    count = min(count or USUAL_COUNT, MOST_CONVERSATIONS)
    await show_again(user_id)
    bounds = await get_bounds(user_id, sorted(await _store().get_ids(user_id)))
    pinned = set(await _store().list_ids(user_id, {"is_pinned": True}))
    newest = sorted(bounds, key=lambda item: (item in pinned, bounds[item].updated_ms), reverse=True)
    # The whole list counts as unread, also what this answer leaves out.
    read = await ReadSeqs(get_async_redis(), get_async_mongo()).get(user_id, list(bounds))
    unread = sum(max(bound.max_seq - read[item], 0) for item, bound in bounds.items())
    shown = await _describe(user_id, newest[:count], bounds, read)
    return jssdk_pb2.GetActiveConversationsResp(unreadCount=unread, conversations=_sorted(shown))


async def get_conversations(user_id: str, conversation_ids: list[str]) -> jssdk_pb2.GetConversationsResp:
    """Those of the conversations that are the user's. Raises ArgsError."""
    if len(conversation_ids) > MOST_CONVERSATIONS:
        raise ArgsError(f"more than {MOST_CONVERSATIONS} conversations at once")
    await show_again(user_id)
    owned = await _store().get_owned(user_id, conversation_ids)
    wanted = [item for item in dict.fromkeys(conversation_ids) if item in owned]
    bounds = await get_bounds(user_id, wanted)
    read = await ReadSeqs(get_async_redis(), get_async_mongo()).get(user_id, list(bounds))
    unread = sum(max(bound.max_seq - read[item], 0) for item, bound in bounds.items())
    shown = await _describe(user_id, wanted, bounds, read, keeps_empty=True)
    return jssdk_pb2.GetConversationsResp(unreadCount=unread, conversations=_sorted(shown))


def _store() -> Conversations:
    return Conversations(get_async_redis(), get_async_mongo())


def _sorted(shown: list[jssdk_pb2.ConversationMsg]) -> list[jssdk_pb2.ConversationMsg]:
    return sorted(shown, key=lambda item: (item.conversation.isPinned, item.lastMsg.sendTime), reverse=True)


async def _describe(
    user_id: str,
    conversation_ids: list[str],
    bounds: dict[str, SeqBounds],
    read: dict[str, int],
    *,
    keeps_empty: bool = False,
) -> list[jssdk_pb2.ConversationMsg]:
    """Conversations without a message are left out, for there is nothing to show; or they come without one: who asks for a
    conversation by its id takes an empty answer for a failure."""
    rows = await find_records(user_id, [item for item in conversation_ids if keeps_empty or item in bounds])
    if not rows:
        return []
    request = msg_pb2.GetLastMessageReq(userID=user_id, conversationIDs=[row["conversation_id"] for row in rows])
    last = (await get_last_messages(user_id, request)).msgs
    if not keeps_empty:
        rows = [row for row in rows if row["conversation_id"] in last]
    peers = await _users(_peer(row) for row in rows)
    groups = {
        info.groupID: info for info in await get_group_infos([row["group_id"] for row in rows if row["group_id"]])
    }
    friends = await _friends(user_id, list(peers))
    found = []
    for row in rows:
        conversation_id = row["conversation_id"]
        max_seq = bounds[conversation_id].max_seq if conversation_id in bounds else 0
        msg: MsgData | None = last.get(conversation_id)
        user: UserInfo | None = peers.get(_peer(row))
        group: GroupInfo | None = groups.get(row["group_id"])
        found.append(
            jssdk_pb2.ConversationMsg(
                conversation=to_conversation(row),
                lastMsg=msg,
                user=user,
                friend=friends.get(_peer(row)),
                group=group,
                maxSeq=max_seq,
                readSeq=min(read.get(conversation_id, 0), max_seq),
            )
        )
    return found


def _peer(row: Document) -> str:
    """The other user of the conversation, none of a group."""
    return "" if row["conversation_type"] == SessionType.GROUP else str(row["user_id"])


async def _users(user_ids: Iterable[str]) -> dict[str, UserInfo]:
    wanted = [user_id for user_id in user_ids if user_id]
    return {user["user_id"]: to_user_info(user) for user in await Users(get_async_mongo()).find(wanted)}


async def _friends(owner_user_id: str, user_ids: list[str]) -> dict[str, FriendInfoOnly]:
    rows = await Friends(get_async_mongo()).find_friends(owner_user_id, user_ids)
    return {
        row["friend_user_id"]: FriendInfoOnly(
            ownerUserID=owner_user_id,
            friendUserID=row["friend_user_id"],
            remark=row["remark"],
            createTime=row["create_time"],
            addSource=row["add_source"],
            operatorUserID=row["operator_user_id"],
            ex=row["ex"],
            isPinned=row["is_pinned"],
        )
        for row in rows
    }
