"""Collections and their indexes, in one place. ``manage.py prepare`` ensures them; repeating it is harmless."""

from __future__ import annotations

from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.database import Database

from imserver.storage import (
    blacks,
    client_configs,
    client_logs,
    conversations,
    device_tokens,
    friend_requests,
    friends,
    group_requests,
    groups,
    msg_blocks,
    objects,
    read_seq,
    seq,
    user_commands,
    users,
    versions,
    webhooks,
)
from imserver.storage.clients import Document

INDEXES: dict[str, list[IndexModel]] = {
    msg_blocks.COLLECTION: [
        IndexModel([("doc_id", ASCENDING)], unique=True),
        IndexModel([("conversation_id", ASCENDING), ("block", DESCENDING)]),
    ],
    seq.COLLECTION: [
        IndexModel([("conversation_id", ASCENDING)], unique=True),
        IndexModel([("min_seq", ASCENDING)], partialFilterExpression={"min_seq": {"$gt": 0}}),
    ],
    read_seq.COLLECTION: [
        IndexModel([("user_id", ASCENDING), ("conversation_id", ASCENDING)], unique=True),
        IndexModel([("conversation_id", ASCENDING)]),
    ],
    conversations.COLLECTION: [
        IndexModel([("owner_user_id", ASCENDING), ("conversation_id", ASCENDING)], unique=True),
        IndexModel([("conversation_id", ASCENDING)]),
        # Few conversations have an option, and every sender asks for those of the receiver.
        IndexModel([("owner_user_id", ASCENDING)], partialFilterExpression={"recv_msg_opt": {"$gt": 0}}),
        # Fewer still are deleted, and every sync asks for those.
        IndexModel(
            [("owner_user_id", ASCENDING), ("deleted_seq", ASCENDING)],
            partialFilterExpression={"deleted_seq": {"$exists": True}},
        ),
    ],
    friends.FRIENDS: [
        IndexModel([("owner_user_id", ASCENDING), ("friend_user_id", ASCENDING)], unique=True),
        IndexModel([("owner_user_id", ASCENDING), *friends.FRIEND_ORDER]),
        IndexModel([("friend_user_id", ASCENDING), ("owner_user_id", ASCENDING)]),
    ],
    friends.BLACKS: [
        IndexModel([("owner_user_id", ASCENDING), ("block_user_id", ASCENDING)], unique=True),
        IndexModel([("owner_user_id", ASCENDING), *blacks.BLACK_ORDER]),
    ],
    friend_requests.COLLECTION: [
        IndexModel([("from_user_id", ASCENDING), ("to_user_id", ASCENDING)], unique=True),
        IndexModel([("from_user_id", ASCENDING), ("create_time", DESCENDING)]),
        IndexModel([("to_user_id", ASCENDING), ("create_time", DESCENDING)]),
    ],
    users.COLLECTION: [
        IndexModel([("user_id", ASCENDING)], unique=True),
        IndexModel([("create_time", DESCENDING)]),
    ],
    groups.GROUPS: [
        IndexModel([("group_id", ASCENDING)], unique=True),
        IndexModel([("create_time", DESCENDING)]),
    ],
    groups.MEMBERS: [
        IndexModel([("group_id", ASCENDING), ("user_id", ASCENDING)], unique=True),
        IndexModel([("group_id", ASCENDING), *groups.MEMBER_ORDER]),
        IndexModel([("user_id", ASCENDING), *groups.JOIN_ORDER]),
    ],
    group_requests.COLLECTION: [
        IndexModel([("group_id", ASCENDING), ("user_id", ASCENDING)], unique=True),
        IndexModel([("user_id", ASCENDING)]),
    ],
    objects.OBJECTS: [IndexModel([("name", ASCENDING)], unique=True)],
    objects.UPLOADS: [
        IndexModel([("upload_id", ASCENDING)], unique=True),
        IndexModel([("expire_time", ASCENDING)]),
    ],
    client_logs.COLLECTION: [
        IndexModel([("log_id", ASCENDING)], unique=True),
        IndexModel([("create_time", DESCENDING), ("log_id", DESCENDING)]),
    ],
    device_tokens.COLLECTION: [
        IndexModel([("user_id", ASCENDING), ("platform_id", ASCENDING)], unique=True),
        IndexModel([("token", ASCENDING)], unique=True),
        IndexModel([("expires_at", ASCENDING)], expireAfterSeconds=0),
    ],
    webhooks.COLLECTION: [IndexModel([("command", ASCENDING)], unique=True)],
    versions.COLLECTION: [IndexModel([("list_id", ASCENDING)], unique=True)],
    user_commands.COLLECTION: [
        IndexModel([("user_id", ASCENDING), ("type", ASCENDING), ("uuid", ASCENDING)], unique=True)
    ],
    client_configs.COLLECTION: [IndexModel([("user_id", ASCENDING), ("key", ASCENDING)], unique=True)],
}


def ensure_indexes(database: Database[Document]) -> None:
    """Create what is missing. Raises pymongo.errors.PyMongoError."""
    for name, models in INDEXES.items():
        database[name].create_indexes(models)
