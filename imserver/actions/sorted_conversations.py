"""A user's conversations as a list shows them: pinned ones first, then by their last message."""

from __future__ import annotations

from imserver.actions import pull
from imserver.actions.conversations import MOST_PER_REQUEST, show_again
from imserver.actions.groups import get_group_infos
from imserver.actions.users import get_users_info
from imserver.constants import SessionType
from imserver.errors import ArgsError, RecordNotFound
from imserver.protocol.gen.conversation_pb2 import ConversationElem, GetSortedConversationListResp, MsgInfo
from imserver.protocol.gen.msg_pb2 import GetConversationsHasReadAndMaxSeqReq, GetLastMessageReq
from imserver.protocol.gen.sdkws_pb2 import GroupInfo, MsgData, UserInfo
from imserver.storage.clients import get_async_mongo, get_async_redis
from imserver.storage.conversations import Conversations


async def get_sorted(user_id: str, conversation_ids: list[str], skip: int, limit: int) -> GetSortedConversationListResp:
    """A page of the conversations that have a message; no ids: of all.

    Raises:
        ArgsError: too many ids.  RecordNotFound: the user has none of them.
    """
    if len(conversation_ids) > MOST_PER_REQUEST:
        raise ArgsError(f"more than {MOST_PER_REQUEST} conversations at once")
    await show_again(user_id)
    store = Conversations(get_async_redis(), get_async_mongo())
    rows = await (store.find(user_id, conversation_ids) if conversation_ids else store.find_page(user_id))
    if not rows:
        raise RecordNotFound(f"{user_id} has no such conversation")
    ids = [row["conversation_id"] for row in rows]
    seqs = (
        await pull.get_read_and_max_seqs(
            user_id, GetConversationsHasReadAndMaxSeqReq(userID=user_id, conversationIDs=ids)
        )
    ).seqs
    last = (await pull.get_last_messages(user_id, GetLastMessageReq(userID=user_id, conversationIDs=ids))).msgs
    elems = [
        ConversationElem(
            conversationID=row["conversation_id"],
            recvMsgOpt=row["recv_msg_opt"],
            unreadCount=seqs[row["conversation_id"]].maxSeq - seqs[row["conversation_id"]].hasReadSeq,
            IsPinned=row["is_pinned"],
        )
        for row in rows
        if row["conversation_id"] in last
    ]
    elems.sort(key=lambda elem: (not elem.IsPinned, -last[elem.conversationID].sendTime))
    page = elems[skip : skip + limit]
    await _describe(user_id, page, {elem.conversationID: last[elem.conversationID] for elem in page})
    return GetSortedConversationListResp(
        conversationTotal=len(elems),
        unreadTotal=sum(elem.unreadCount for elem in elems),
        conversationElems=page,
    )


async def _describe(user_id: str, page: list[ConversationElem], last: dict[str, MsgData]) -> None:
    """Fill in the last message, with the names that a list shows beside it."""
    shown = {_shown_user(user_id, msg) for msg in last.values()}
    users = {user.userID: user for user in await get_users_info(list(shown))}
    group_ids = list({msg.groupID for msg in last.values() if msg.sessionType == SessionType.GROUP})
    groups = {group.groupID: group for group in await get_group_infos(group_ids)}
    for elem in page:
        msg = last[elem.conversationID]
        user = users.get(_shown_user(user_id, msg), UserInfo())
        group = groups.get(msg.groupID, GroupInfo())
        elem.msgInfo.CopyFrom(
            MsgInfo(
                serverMsgID=msg.serverMsgID,
                clientMsgID=msg.clientMsgID,
                sessionType=msg.sessionType,
                sendID=msg.sendID,
                recvID=msg.recvID,
                senderName=user.nickname,
                faceURL="" if group.groupID else user.faceURL,
                groupID=msg.groupID,
                groupName=group.groupName,
                groupFaceURL=group.faceURL,
                groupType=group.groupType,
                groupMemberCount=group.memberCount,
                LatestMsgRecvTime=msg.sendTime,
                msgFrom=msg.msgFrom,
                contentType=msg.contentType,
                content=msg.content.decode(errors="replace"),
                ex=msg.ex,
            )
        )


def _shown_user(user_id: str, msg: MsgData) -> str:
    """In a chat of two the other one, in a group the sender."""
    return msg.recvID if msg.sendID == user_id and msg.sessionType != SessionType.GROUP else msg.sendID
