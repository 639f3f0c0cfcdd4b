"""/msg: pulling, read state, revoking, deleting. Sending is in msg_send.py."""

from __future__ import annotations

from imserver.actions import delete, msg_search, physical_delete, pull, read, revoke
from imserver.clock import now_ms
from imserver.protocol.gen import msg_pb2, sdkws_pb2
from imserver.rest.decorators import Answer, Call, Who, route


@route(Who.ANY)
async def get_server_time(call: Call) -> Answer:
    return msg_pb2.GetServerTimeResp(serverTime=now_ms())


@route(Who.ANY)
async def newest_seq(call: Call) -> Answer:
    user_id = call.parse(sdkws_pb2.GetMaxSeqReq).userID
    call.check_self(user_id)
    return await pull.get_max_seqs(user_id)


@route(Who.ANY)
async def pull_msg_by_seq(call: Call) -> Answer:
    request = call.parse(sdkws_pb2.PullMessageBySeqsReq)
    call.check_self(request.userID)
    return pull.PullResp.FromString(await pull.pull_by_ranges(request.userID, request))


@route(Who.ANY)
async def mark_conversation_as_read(call: Call) -> Answer:
    request = call.parse(msg_pb2.MarkConversationAsReadReq)
    call.check_self(request.userID)
    seqs = list(request.seqs)
    chat = await read.check_read(request.userID, request.conversationID, [request.hasReadSeq, *seqs])
    await read.do_mark_conversation_as_read(chat, request.hasReadSeq, seqs, call.operation_id)
    return None


@route(Who.ANY)
async def mark_msgs_as_read(call: Call) -> Answer:
    request = call.parse(msg_pb2.MarkMsgsAsReadReq)
    call.check_self(request.userID)
    seqs = list(request.seqs)
    chat = await read.check_mark_msgs_as_read(request.userID, request.conversationID, seqs)
    await read.do_mark_msgs_as_read(chat, seqs, call.operation_id)
    return None


@route(Who.ANY)
async def set_conversation_has_read_seq(call: Call) -> Answer:
    request = call.parse(msg_pb2.SetConversationHasReadSeqReq)
    call.check_self(request.userID)
    chat = await read.check_read(request.userID, request.conversationID, [request.hasReadSeq])
    await read.do_set_read_seq(chat, request.hasReadSeq, call.operation_id, is_silent=request.noNotification)
    return None


@route(Who.ANY)
async def get_conversations_has_read_and_max_seq(call: Call) -> Answer:
    request = call.parse(msg_pb2.GetConversationsHasReadAndMaxSeqReq)
    call.check_self(request.userID)
    return await pull.get_read_and_max_seqs(request.userID, request)


@route(Who.ANY)
async def revoke_msg(call: Call) -> Answer:
    request = call.parse(msg_pb2.RevokeMsgReq)
    call.check_self(request.userID)
    user_id, conversation_id = request.userID, request.conversationID
    msg, role = await revoke.check_revoke(
        user_id, conversation_id, request.seq, call.operation_id, is_admin=call.is_admin
    )
    await revoke.do_revoke(
        user_id, role, msg, conversation_id, call.operation_id, operator_id=call.user_id, is_admin=call.is_admin
    )
    return None


@route(Who.ANY)
async def delete_msgs(call: Call) -> Answer:
    request = call.parse(msg_pb2.DeleteMsgsReq)
    call.check_self(request.userID)
    seqs, option = list(request.seqs), request.deleteSyncOpt
    chat = await delete.check_delete_msgs(request.userID, request.conversationID, seqs, option, is_admin=call.is_admin)
    await delete.do_delete_msgs(chat, seqs, option, call.operation_id)
    return None


@route(Who.ANY)
async def clear_conversation_msg(call: Call) -> Answer:
    request = call.parse(msg_pb2.ClearConversationsMsgReq)
    call.check_self(request.userID)
    option = request.deleteSyncOpt
    chats = await delete.check_clear(request.userID, list(request.conversationIDs), option, is_admin=call.is_admin)
    await delete.do_clear(request.userID, chats, option, call.operation_id)
    return None


@route(Who.ANY)
async def user_clear_all_msg(call: Call) -> Answer:
    request = call.parse(msg_pb2.UserClearAllMsgReq)
    call.check_self(request.userID)
    await delete.do_clear_all(request.userID, request.deleteSyncOpt, call.operation_id, is_admin=call.is_admin)
    return None


# -- for operators


@route(Who.ADMIN)
async def delete_msg_phsical_by_seq(call: Call) -> Answer:
    request = call.parse(msg_pb2.DeleteMsgPhysicalBySeqReq)
    seqs = list(request.seqs)
    physical_delete.check_delete_seqs(request.conversationID, seqs)
    await physical_delete.do_delete_seqs(request.conversationID, seqs)
    return None


@route(Who.ADMIN)
async def delete_msg_physical(call: Call) -> Answer:
    request = call.parse(msg_pb2.DeleteMsgPhysicalReq)
    ids = list(request.conversationIDs)
    physical_delete.check_delete_before(ids, request.timestamp)
    await physical_delete.do_delete_before(ids, request.timestamp)
    return None


@route(Who.ADMIN)
async def search_msg(call: Call) -> Answer:
    return await msg_search.search(call.parse(msg_pb2.SearchMessageReq))
