"""Rows, conversations and versions of users who come into a group or go. What everybody is told is the callers' business."""

from __future__ import annotations

from imserver.actions.group_notices import Version, record_change
from imserver.actions.groups import get_group, group_store
from imserver.conf import get_config
from imserver.constants import GroupStatus, SessionType
from imserver.errors import GroupDismissed
from imserver.protocol.conversations import group_conversation_id
from imserver.storage import conversations, seq, versions
from imserver.storage.clients import Document, get_async_mongo, get_async_redis
from imserver.storage.conversations import NewConversation
from imserver.storage.msg_blocks import MsgBlockReader
from imserver.storage.versions import State, Versions


async def add(group_id: str, rows: list[Document], *, is_new_group: bool = False) -> tuple[list[Document], Version]:
    """Add members; returns the rows of those who were not in the group yet, and the version of the member list.

    They get a record of the conversation, without a cap that an earlier membership left; in a new group the first message
    makes the records. May run twice.

    Raises:
        GroupDismissed: the group ended meanwhile; nobody was added.
    """
    added = await group_store().add_members(group_id, rows)
    user_ids = [row["user_id"] for row in added]
    # A dismissal removes the members it sees. Whoever came after that look finds the mark it set before.
    if (await get_group(group_id))["status"] == GroupStatus.DISMISSED:
        await group_store().remove_members(group_id, user_ids, keep_owner=False)
        raise GroupDismissed(f"group {group_id} was dismissed")
    if not added:
        return [], await Versions(get_async_mongo()).get(versions.members_of(group_id))
    changes = {versions.groups_of(user_id): {group_id: State.INSERT} for user_id in user_ids}
    if not is_new_group:
        changes |= await _open_conversations(group_id, user_ids)
    await Versions(get_async_mongo()).record_many(changes)
    return added, await record_change(group_id, dict.fromkeys(user_ids, State.INSERT))


async def remove(group_id: str, user_ids: list[str], *, is_dismissed: bool = False) -> tuple[list[str], Version]:
    """Remove members; returns who is none now, and the version of the member list. May run twice.

    Their records of the conversation stay, capped at what was said so far. For a minute the news of it still reach them.

    Args:
        is_dismissed: the owner goes too, and nobody is capped: nothing follows that they must not see.
    """
    user_ids = await group_store().remove_members(group_id, user_ids, keep_owner=not is_dismissed)
    changes = {versions.groups_of(user_id): {group_id: State.DELETE} for user_id in user_ids}
    if not is_dismissed:
        conversation_id = group_conversation_id(group_id)
        cap = await get_max_seq(conversation_id)
        await conversations.cap_group_records(get_async_redis(), get_async_mongo(), _records(group_id, user_ids), cap)
        state = State.UPDATE if cap else State.DELETE
        changes |= {versions.conversations_of(user_id): {conversation_id: state} for user_id in user_ids}
    await Versions(get_async_mongo()).record_many(changes)
    return user_ids, await record_change(group_id, dict.fromkeys(user_ids, State.DELETE))


async def _open_conversations(group_id: str, user_ids: list[str]) -> dict[str, dict[str, State]]:
    conversation_id = group_conversation_id(group_id)
    min_seq = None if get_config().new_member_sees_history else await get_max_seq(conversation_id) + 1
    items = _records(group_id, user_ids)
    new = await conversations.add_group_records(get_async_redis(), get_async_mongo(), items, min_seq=min_seq)
    return {
        versions.conversations_of(user_id): {conversation_id: State.INSERT if user_id in new else State.UPDATE}
        for user_id in user_ids
    }


def _records(group_id: str, user_ids: list[str]) -> list[NewConversation]:
    return [
        NewConversation(
            user_id, group_conversation_id(group_id), conversation_type=SessionType.GROUP, group_id=group_id
        )
        for user_id in user_ids
    ]


async def get_max_seq(conversation_id: str) -> int:
    """Last seq of a conversation; what is stored counts when Redis has lost the counter."""
    cached = await seq.get_max_seqs(get_async_redis(), [conversation_id])
    if conversation_id in cached:
        return cached[conversation_id][0]
    return await MsgBlockReader(get_async_mongo()).last_seq(conversation_id)
