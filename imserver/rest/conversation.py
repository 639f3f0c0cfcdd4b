"""/conversation: an owner's records of conversations."""

from __future__ import annotations

from imserver.actions import conversations, deleted_conversations, sorted_conversations
from imserver.actions.groups import check_page
from imserver.errors import ArgsError, RecordNotFound
from imserver.protocol.gen import conversation_pb2
from imserver.protocol.json_mapping import to_json
from imserver.rest.decorators import Answer, Call, Who, route


@route(Who.ANY)
async def set_conversations(call: Call) -> Answer:
    request = call.parse(conversation_pb2.SetConversationsReq)
    for user_id in request.userIDs:
        call.check_self(user_id)
    if not request.HasField("conversation"):
        raise ArgsError("conversation is missing")
    chats = await conversations.check_set(list(request.userIDs), request.conversation)
    await conversations.do_set(chats, request.conversation, call.operation_id)
    return None


@route(Who.ANY)
async def get_conversation(call: Call) -> Answer:
    owner_user_id = call.parse(conversation_pb2.GetConversationsReq).ownerUserID
    conversation_id = call.parse(conversation_pb2.Conversation).conversationID
    call.check_self(owner_user_id)
    found = await conversations.get_conversations(owner_user_id, [conversation_id])
    if not found:
        raise RecordNotFound(f"{owner_user_id} has no conversation {conversation_id}")
    return {"conversation": to_json(found[0])}


@route(Who.ANY)
async def get_conversations(call: Call) -> Answer:
    request = call.parse(conversation_pb2.GetConversationsReq)
    call.check_self(request.ownerUserID)
    found = await conversations.get_conversations(request.ownerUserID, list(request.conversationIDs))
    return conversation_pb2.GetConversationsResp(conversations=found)


@route(Who.ANY)
async def get_all_conversations(call: Call) -> Answer:
    request = call.parse(conversation_pb2.GetAllConversationsReq)
    call.check_self(request.ownerUserID)
    return conversation_pb2.GetAllConversationsResp(conversations=await conversations.get_all(request.ownerUserID))


@route(Who.ANY)
async def get_owner_conversation(call: Call) -> Answer:
    request = call.parse(conversation_pb2.GetOwnerConversationReq)
    call.check_self(request.userID)
    total, page = await conversations.get_page(request.userID, *check_page(request.pagination))
    return conversation_pb2.GetOwnerConversationResp(total=total, conversations=page)


@route(Who.ANY)
async def get_incremental_conversations(call: Call) -> Answer:
    request = call.parse(conversation_pb2.GetIncrementalConversationReq)
    call.check_self(request.userID)
    return await conversations.get_incremental(request)


@route(Who.ANY)
async def get_full_conversation_ids(call: Call) -> Answer:
    request = call.parse(conversation_pb2.GetFullOwnerConversationIDsReq)
    call.check_self(request.userID)
    return await conversations.get_full_ids(request)


@route(Who.ANY)
async def get_not_notify_conversation_ids(call: Call) -> Answer:
    request = call.parse(conversation_pb2.GetNotNotifyConversationIDsReq)
    call.check_self(request.userID)
    ids = await conversations.get_not_notify_ids(request.userID)
    return conversation_pb2.GetNotNotifyConversationIDsResp(conversationIDs=ids)


@route(Who.ANY)
async def get_pinned_conversation_ids(call: Call) -> Answer:
    # Request and answer have the shape of the route above.
    request = call.parse(conversation_pb2.GetNotNotifyConversationIDsReq)
    call.check_self(request.userID)
    ids = await conversations.get_pinned_ids(request.userID)
    return conversation_pb2.GetNotNotifyConversationIDsResp(conversationIDs=ids)


@route(Who.ANY)
async def get_sorted_conversation_list(call: Call) -> Answer:
    request = call.parse(conversation_pb2.GetSortedConversationListReq)
    call.check_self(request.userID)
    page = check_page(request.pagination)
    return await sorted_conversations.get_sorted(request.userID, list(request.conversationIDs), *page)


@route(Who.ANY)
async def delete_conversations(call: Call) -> Answer:
    request = call.parse(conversation_pb2.DeleteConversationsReq)
    user_id = request.ownerUserID
    call.check_self(user_id)
    ids = await deleted_conversations.check_delete(user_id, list(request.conversationIDs), request.needDeleteTime)
    await deleted_conversations.do_delete(user_id, ids, call.operation_id)
    return None


@route(Who.ANY)
async def update_conversations_by_user(call: Call) -> Answer:
    request = call.parse(conversation_pb2.UpdateConversationsByUserReq)
    call.check_self(request.userID)
    if request.HasField("ex"):
        await conversations.do_set_ex_of_all(request.userID, request.ex.value, call.operation_id)
    return None
