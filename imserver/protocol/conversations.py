"""Conversation ids, conversation keys, shards."""

from __future__ import annotations

from zlib import crc32

from imserver.constants import Option, SessionType
from imserver.errors import ArgsError
from imserver.protocol.gen.sdkws_pb2 import MsgData

SINGLE_PREFIX = "si_"
GROUP_PREFIX = "sg_"
OA_PREFIX = "sn_"
NOTIFICATION_PREFIX = "n_"


def single_conversation_id(user_a: str, user_b: str) -> str:
    first, second = sorted((user_a, user_b))
    return f"{SINGLE_PREFIX}{first}_{second}"


def group_conversation_id(group_id: str) -> str:
    return GROUP_PREFIX + group_id


def notification_twin(conversation_id: str) -> str:
    """The conversation that holds the notifications of a chat: ``si_a_b`` -> ``n_a_b``."""
    return NOTIFICATION_PREFIX + conversation_key(conversation_id)


def is_notification_conversation(conversation_id: str) -> bool:
    return conversation_id.startswith(NOTIFICATION_PREFIX)


def conversation_key(conversation_id: str) -> str:
    """What orders a chat together with its notifications: everything after the first underscore."""
    return conversation_id.partition("_")[2]


def conversations_of_key(key: str) -> list[str]:
    """All conversations that a key may name."""
    return [prefix + key for prefix in (SINGLE_PREFIX, GROUP_PREFIX, OA_PREFIX, NOTIFICATION_PREFIX)]


def conversation_key_of(msg: MsgData) -> str:
    """The key of the logs' entries: the sorted user ids, or the group id.

    Raises:
        ArgsError: a session type that the server refuses.
    """
    if msg.sessionType == SessionType.GROUP:
        return msg.groupID
    if msg.sessionType in (SessionType.SINGLE, SessionType.NOTIFICATION):
        first, second = sorted((msg.sendID, msg.recvID))
        return f"{first}_{second}"
    raise ArgsError(f"unknown sessionType {msg.sessionType}; use 1 (single), 3 (group) or 4 (notification)")


_CHAT_PREFIX = {
    SessionType.SINGLE: SINGLE_PREFIX,
    SessionType.GROUP: GROUP_PREFIX,
    SessionType.NOTIFICATION: OA_PREFIX,
}


def chat_conversation_id(msg: MsgData) -> str:
    """Conversation id of a chat message, whatever its options say."""
    key = conversation_key_of(msg)
    return _CHAT_PREFIX[SessionType(msg.sessionType)] + key


def conversation_id_of(msg: MsgData) -> str:
    """Where the message belongs: the chat, or its notification twin when it is a notification."""
    if msg.options.get(Option.IS_NOT_NOTIFICATION, True):
        return chat_conversation_id(msg)
    return NOTIFICATION_PREFIX + conversation_key_of(msg)


def shard_of_key(key: str, shards: int) -> int:
    """The shard that handles a conversation key, in order."""
    return crc32(key.encode()) % shards


def shard_of(conversation_id: str, shards: int) -> int:
    return shard_of_key(conversation_key(conversation_id), shards)
