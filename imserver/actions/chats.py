"""Whose conversation is it? Of who has a record of it, which the first message makes for everybody it concerns.

The id of a chat of two names both users, but an underscore in a user id makes it ambiguous: ``si_a_b_c`` may be of ``a`` and
``b_c``, or of ``a_b`` and ``c``. So the name alone opens nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from imserver.constants import SessionType
from imserver.errors import NoPermission, RecordNotFound
from imserver.protocol.conversations import (
    GROUP_PREFIX,
    NOTIFICATION_PREFIX,
    OA_PREFIX,
    SINGLE_PREFIX,
    conversation_key,
    is_notification_conversation,
)
from imserver.storage.clients import Document, get_async_mongo, get_async_redis
from imserver.storage.conversations import Conversations, NewConversation, is_listed, unborn_record
from imserver.storage.seq_limits import SeqLimits


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat conversation as one of its users sees it: with a peer, or in a group."""

    conversation_id: str
    user_id: str
    session_type: SessionType
    peer_id: str = ""
    group_id: str = ""

    @property
    def other_side(self) -> str:
        """Whom a notification to the others goes to."""
        return self.group_id or self.peer_id

    def record(self, *, of_peer: bool = False) -> NewConversation:
        """What identifies the user's record, or the peer's."""
        owner, other = (self.peer_id, self.user_id) if of_peer else (self.user_id, self.peer_id)
        return NewConversation(owner, self.conversation_id, self.session_type, user_id=other, group_id=self.group_id)


def find_chat(user_id: str, conversation_id: str) -> Chat | None:
    """The chat that an id names; None when it names no chat, or one of others. A group's id says nothing about its members."""
    key = conversation_key(conversation_id)
    if conversation_id.startswith(GROUP_PREFIX) and key:
        return Chat(conversation_id, user_id, SessionType.GROUP, group_id=key)
    peer_id = _peer_of(user_id, key)
    if peer_id and conversation_id.startswith(SINGLE_PREFIX):
        return Chat(conversation_id, user_id, SessionType.SINGLE, peer_id=peer_id)
    if peer_id and conversation_id.startswith(OA_PREFIX):
        return Chat(conversation_id, user_id, SessionType.NOTIFICATION, peer_id=peer_id)
    return None


def _peer_of(user_id: str, key: str) -> str:
    """The other of the two sorted ids of a key; empty when the user is none of them. An id may itself hold underscores."""
    if key.startswith(f"{user_id}_"):
        peer_id = key[len(user_id) + 1 :]
        if user_id <= peer_id:
            return peer_id
    if key.endswith(f"_{user_id}"):
        peer_id = key[: -len(user_id) - 1]
        if peer_id <= user_id:
            return peer_id
    return ""


async def find_records(user_id: str, conversation_ids: Iterable[str]) -> list[Document]:
    """The user's records in the order asked, also those that persist is about to write: clients ask for a conversation
    the moment that its first message reaches them."""
    wanted = list(dict.fromkeys(conversation_ids))
    store = Conversations(get_async_redis(), get_async_mongo())
    # One look at MongoDB: what is born between two would be in neither.
    found = await store.find_any(user_id, wanted)
    for conversation_id in await store.get_owned(user_id, (item for item in wanted if item not in found)):
        chat = find_chat(user_id, conversation_id)
        if chat is not None:
            found[conversation_id] = unborn_record(chat.record())
    return [found[item] for item in wanted if item in found and is_listed(found[item])]


async def check_chat(user_id: str, conversation_id: str) -> Chat:
    """The user's chat of this id. Raises as ``check_chats``."""
    return (await check_chats(user_id, [conversation_id]))[0]


async def check_chats(user_id: str, conversation_ids: Iterable[str], *, may_be_unborn: bool = False) -> list[Chat]:
    """The user's chats of these ids.

    Args:
        may_be_unborn: chats in which nothing was said are left out.

    Raises:
        NoPermission: one of them is others'.  RecordNotFound: a chat in which nothing was said.
    """
    chats = []
    for conversation_id in dict.fromkeys(conversation_ids):
        chat = find_chat(user_id, conversation_id)
        if chat is None:
            raise NoPermission(f"{conversation_id} is not your conversation")
        chats.append(chat)
    owned = await _store().get_owned(user_id, (chat.conversation_id for chat in chats))
    for chat in chats:
        if chat.conversation_id not in owned and chat.group_id:
            raise NoPermission(f"{chat.conversation_id} is not your conversation")
        if chat.conversation_id not in owned and not may_be_unborn:
            raise RecordNotFound(f"conversation {chat.conversation_id} has no messages")
    return [chat for chat in chats if chat.conversation_id in owned]


async def find_pullable(user_id: str, conversation_ids: Iterable[str]) -> list[str]:
    """Those of the ids, notification twins included, that the user may pull from. Of a group that it left, not the twin."""
    ids = list(dict.fromkeys(conversation_ids))
    chats_of = {conversation_id: _chats_of(user_id, conversation_id) for conversation_id in ids}
    owned = await _store().get_owned(user_id, (chat for chats in chats_of.values() for chat in chats))
    own = {item for item, chats in chats_of.items() if not owned.isdisjoint(chats)}
    own |= {item for item in ids if item == f"{NOTIFICATION_PREFIX}{user_id}_{user_id}"}
    twins = {item: GROUP_PREFIX + conversation_key(item) for item in own if is_notification_conversation(item)}
    twins = {item: group for item, group in twins.items() if group in owned}
    if twins:
        limits = await SeqLimits(get_async_redis(), get_async_mongo()).get(user_id, twins.values())
        own -= {item for item, group in twins.items() if limits[group].cap}
    return [conversation_id for conversation_id in ids if conversation_id in own]


def _chats_of(user_id: str, conversation_id: str) -> list[str]:
    """The chats one of which the user must have to pull from a conversation: itself, or what it may be the twin of."""
    if not is_notification_conversation(conversation_id):
        return [conversation_id] if find_chat(user_id, conversation_id) else []
    key = conversation_key(conversation_id)
    of_two = [SINGLE_PREFIX + key, OA_PREFIX + key] if _peer_of(user_id, key) else []
    return [*of_two, GROUP_PREFIX + key]


def _store() -> Conversations:
    return Conversations(get_async_redis(), get_async_mongo())
