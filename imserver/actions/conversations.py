"""Conversation records: an owner's settings, and syncing the list of them."""

from __future__ import annotations

from collections.abc import Callable

from imserver.actions import pull
from imserver.actions.chats import Chat, find_chat, find_records
from imserver.actions.groups import is_member
from imserver.actions.notify import send_notification, tell_conversations_changed
from imserver.actions.single_checks import get_facts
from imserver.constants import ContentType, GroupAtType, RecvMsgOpt, SessionType
from imserver.errors import ArgsError, NoPermission
from imserver.protocol.gen import conversation_pb2
from imserver.protocol.gen.conversation_pb2 import Conversation, ConversationReq
from imserver.protocol.gen.sdkws_pb2 import ConversationSetPrivateTips
from imserver.storage import versions
from imserver.storage.clients import Document, get_async_mongo, get_async_redis
from imserver.storage.conversations import Conversations
from imserver.storage.versions import Versions

MOST_PER_REQUEST = 1000
MAX_EX_CHARS = 4000

#: field of Conversation -> field of the record.
_FIELDS = {
    "ownerUserID": "owner_user_id",
    "conversationID": "conversation_id",
    "recvMsgOpt": "recv_msg_opt",
    "conversationType": "conversation_type",
    "userID": "user_id",
    "groupID": "group_id",
    "isPinned": "is_pinned",
    "attachedInfo": "attached_info",
    "isPrivateChat": "is_private_chat",
    "groupAtType": "group_at_type",
    "ex": "ex",
    "burnDuration": "burn_duration",
    "minSeq": "min_seq",
    "maxSeq": "max_seq",
    "msgDestructTime": "msg_destruct_time",
    "latestMsgDestructTime": "latest_msg_destruct_time",
    "isMsgDestruct": "is_msg_destruct",
}
#: What an owner sets. minSeq and maxSeq are the server's: a cap keeps who left a group from reading on.
_SETTABLE = (
    "recvMsgOpt",
    "isPinned",
    "attachedInfo",
    "isPrivateChat",
    "groupAtType",
    "ex",
    "burnDuration",
    "msgDestructTime",
    "isMsgDestruct",
)
_RANGES: dict[str, Callable[[int], bool]] = {
    "recvMsgOpt": lambda value: value in set(RecvMsgOpt),
    "groupAtType": lambda value: value in set(GroupAtType),
    "burnDuration": lambda value: value >= 0,
    "msgDestructTime": lambda value: value >= 0,
}


# -- settings


async def check_set(user_ids: list[str], request: ConversationReq) -> list[Chat]:
    """The conversation as each of the users sees it.

    Raises:
        ArgsError: a value that no client understands.  NoPermission: not the conversation of one of the users.
        RecordNotFound: a chat with an unknown user.
    """
    if not user_ids or len(user_ids) > MOST_PER_REQUEST:
        raise ArgsError(f"userIDs must be 1 to {MOST_PER_REQUEST}")
    for name, is_valid in _RANGES.items():
        if request.HasField(name) and not is_valid(getattr(request, name).value):
            raise ArgsError(f"{name} has no such value: {getattr(request, name).value}")
    for name in ("ex", "attachedInfo"):
        _check_text(name, getattr(request, name).value)
    chats = []
    for user_id in dict.fromkeys(user_ids):
        chat = find_chat(user_id, request.conversationID)
        if chat is None or (chat.group_id and not await _has_group(chat)):
            raise NoPermission(f"{request.conversationID!r} is not the conversation of {user_id}")
        if chat.peer_id:
            await get_facts(chat.peer_id)
        chats.append(chat)
    return chats


def _check_text(name: str, text: str) -> None:
    if len(text) > MAX_EX_CHARS:
        raise ArgsError(f"{name} is longer than {MAX_EX_CHARS} characters")


async def _has_group(chat: Chat) -> bool:
    owned = await _store().get_owned(chat.user_id, [chat.conversation_id])
    return bool(owned) or await is_member(chat.user_id, chat.group_id)


async def do_set(chats: list[Chat], request: ConversationReq, operation_id: str) -> None:
    """Set what the request holds; owners whose record really changed are told. May run twice."""
    values: Document = {_FIELDS[name]: getattr(request, name).value for name in _SETTABLE if request.HasField(name)}
    if not values:
        return
    for chat in chats:
        if await _store().set(chat.record(), values):
            await tell_conversations_changed(chat.user_id, [chat.conversation_id], operation_id)
        if request.HasField("isPrivateChat") and chat.session_type == SessionType.SINGLE:
            await _set_private_for_peer(chat, request.isPrivateChat.value, operation_id)


async def do_set_ex_of_all(user_id: str, ex: str, operation_id: str) -> None:
    """Set the extra of all conversations of a user. May run twice: the second time nothing changes."""
    _check_text("ex", ex)
    changed = await _store().set_all(user_id, {"ex": ex})
    for at in range(0, len(changed), MOST_PER_REQUEST):
        await tell_conversations_changed(user_id, changed[at : at + MOST_PER_REQUEST], operation_id)


async def _set_private_for_peer(chat: Chat, is_private: bool, operation_id: str) -> None:
    """Whether a chat is private is one thing for both."""
    if chat.peer_id == chat.user_id:
        return
    await _store().set(chat.record(of_peer=True), {"is_private_chat": is_private})
    tips = ConversationSetPrivateTips(
        recvID=chat.peer_id, sendID=chat.user_id, isPrivate=is_private, conversationID=chat.conversation_id
    )
    await send_notification(
        ContentType.CONVERSATION_PRIVATE_CHAT,
        tips,
        send_id=chat.user_id,
        recv_id=chat.peer_id,
        session_type=SessionType.SINGLE,
        operation_id=operation_id,
        is_send_msg=True,
    )


# -- reading and syncing


async def show_again(user_id: str) -> None:
    """List the deleted conversations again in which something was said since. Of who has deleted none: one look."""
    deleted = await _store().find_deleted(user_id)
    if not deleted:
        return
    bounds = await pull.get_bounds(user_id, list(deleted))
    shown = [item for item, bound in bounds.items() if bound.max_seq > deleted[item]]
    if shown:
        await _store().show(user_id, shown)


async def get_conversations(owner_user_id: str, conversation_ids: list[str]) -> list[Conversation]:
    """The records that exist, in the order asked. Raises ArgsError."""
    if len(conversation_ids) > MOST_PER_REQUEST:
        raise ArgsError(f"more than {MOST_PER_REQUEST} conversations at once")
    await show_again(owner_user_id)
    return [to_conversation(document) for document in await find_records(owner_user_id, conversation_ids)]


async def get_page(owner_user_id: str, skip: int, limit: int) -> tuple[int, list[Conversation]]:
    """(how many there are, those of the page), in the order of ``get_full_ids``."""
    await show_again(owner_user_id)
    total = await _store().count(owner_user_id)
    page = await _store().find_page(owner_user_id, skip=skip, limit=limit)
    return total, [to_conversation(document) for document in page]


async def get_all(owner_user_id: str) -> list[Conversation]:
    await show_again(owner_user_id)
    return [to_conversation(document) for document in await _store().find_page(owner_user_id)]


async def get_not_notify_ids(user_id: str) -> list[str]:
    return await _store().list_ids(user_id, {"recv_msg_opt": {"$gt": int(RecvMsgOpt.RECEIVE)}})


async def get_pinned_ids(user_id: str) -> list[str]:
    return await _store().list_ids(user_id, {"is_pinned": True})


async def get_incremental(
    request: conversation_pb2.GetIncrementalConversationReq,
) -> conversation_pb2.GetIncrementalConversationResp:
    """What changed since the client's version."""
    user_id = request.userID
    await show_again(user_id)
    changes = await Versions(get_async_mongo()).changes_since(
        versions.conversations_of(user_id), request.versionID, request.version
    )
    rows = {row["conversation_id"]: row for row in await _store().find(user_id, changes.items)} if changes.items else {}
    changes = changes.settle(rows)
    return conversation_pb2.GetIncrementalConversationResp(
        version=changes.version,
        versionID=changes.version_id,
        full=changes.is_full,
        delete=changes.deleted,
        insert=[to_conversation(rows[item]) for item in changes.inserted],
        update=[to_conversation(rows[item]) for item in changes.updated],
    )


async def get_full_ids(
    request: conversation_pb2.GetFullOwnerConversationIDsReq,
) -> conversation_pb2.GetFullOwnerConversationIDsResp:
    """All ids, unless the client's hash says that it has them."""
    await show_again(request.userID)
    # The version first: what changes between the two is told again, not missed.
    version_id, version = await Versions(get_async_mongo()).get(versions.conversations_of(request.userID))
    ids = await _store().list_ids(request.userID)
    is_equal = request.idHash == versions.id_hash(ids)
    return conversation_pb2.GetFullOwnerConversationIDsResp(
        version=version, versionID=version_id, equal=is_equal, conversationIDs=() if is_equal else ids
    )


def to_conversation(document: Document) -> Conversation:
    return Conversation(**{field: document[name] for field, name in _FIELDS.items() if name in document})


def _store() -> Conversations:
    return Conversations(get_async_redis(), get_async_mongo())
