"""Searching stored messages, for operators."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pymongo

from imserver.actions.groups import get_group_infos
from imserver.actions.users import get_users_info
from imserver.constants import SessionType
from imserver.errors import ArgsError
from imserver.protocol.documents import from_document
from imserver.protocol.gen.msg_pb2 import ChatLog, SearchChatLog, SearchMessageReq, SearchMessageResp
from imserver.protocol.gen.sdkws_pb2 import GroupInfo, MsgData
from imserver.storage.clients import Document, get_async_mongo
from imserver.storage.msg_history import MsgHistory

MOST_PER_PAGE = 100
#: A search looks through everything that was ever said.
SEARCH_SECONDS = 20


async def search(request: SearchMessageReq) -> SearchMessageResp:
    """A page of the messages that match all that is given, the newest first.

    Raises:
        ArgsError.  pymongo.errors.PyMongoError: away, or it took too long.
    """
    page = request.pagination
    if page.pageNumber < 1 or not 1 <= page.showNumber <= MOST_PER_PAGE:
        raise ArgsError(f"pageNumber must be at least 1, showNumber 1 to {MOST_PER_PAGE}")
    where = _conditions(request)
    with pymongo.timeout(SEARCH_SECONDS):
        total, slots = await MsgHistory(get_async_mongo()).search(
            where, skip=(page.pageNumber - 1) * page.showNumber, limit=page.showNumber
        )
    msgs = [from_document(slot["msg"]) for slot in slots]
    user_ids = {msg.recvID for msg in msgs} | {msg.sendID for msg in msgs if not msg.senderNickname}
    names = {user.userID: user.nickname for user in await get_users_info(list(user_ids))}
    group_ids = list({msg.groupID for msg in msgs if msg.groupID})
    groups = {group.groupID: group for group in await get_group_infos(group_ids)}
    logs = [
        SearchChatLog(
            chatLog=_to_log(msg, names, groups.get(msg.groupID, GroupInfo())),
            isRevoked=bool(slot.get("revoke")),
        )
        for msg, slot in zip(msgs, slots, strict=True)
    ]
    return SearchMessageResp(chatLogs=logs, chatLogsNum=total)


def _conditions(request: SearchMessageReq) -> Document:
    """Raises ArgsError."""
    where: Document = {}
    if request.sendID:
        where["msg.send_id"] = request.sendID
    if request.recvID:
        where["$or"] = [{"msg.recv_id": request.recvID}, {"msg.group_id": request.recvID}]
    if request.contentType:
        where["msg.content_type"] = request.contentType
    if request.sessionType:
        where["msg.session_type"] = request.sessionType
    if request.sendTime:
        try:
            day = datetime.strptime(request.sendTime, "%Y-%m-%d").replace(tzinfo=UTC)
            end = day + timedelta(days=1)
        except (ValueError, OverflowError) as error:
            raise ArgsError("sendTime must be a day, as 2026-07-31") from error
        where["msg.send_time"] = {"$gte": int(day.timestamp() * 1000), "$lt": int(end.timestamp() * 1000)}
    return where


def _to_log(msg: MsgData, names: dict[str, str], group: GroupInfo) -> ChatLog:
    is_group = msg.sessionType == SessionType.GROUP
    return ChatLog(
        serverMsgID=msg.serverMsgID,
        clientMsgID=msg.clientMsgID,
        sendID=msg.sendID,
        # Some clients leave it empty in a group, others name the group.
        recvID=msg.groupID if is_group else msg.recvID,
        groupID=msg.groupID,
        recvNickname="" if is_group else names.get(msg.recvID, ""),
        senderPlatformID=msg.senderPlatformID,
        senderNickname=msg.senderNickname or names.get(msg.sendID, ""),
        senderFaceURL=msg.senderFaceURL,
        groupName=group.groupName,
        sessionType=msg.sessionType,
        msgFrom=msg.msgFrom,
        contentType=msg.contentType,
        content=msg.content.decode(errors="replace"),
        status=msg.status,
        sendTime=msg.sendTime,
        createTime=msg.createTime,
        ex=msg.ex,
        groupFaceURL=group.faceURL,
        groupMemberCount=group.memberCount,
        seq=msg.seq,
        groupOwner=group.ownerUserID,
        groupType=group.groupType,
    )
