"""Collections and their indexes, in one place. ``manage.py prepare`` ensures them; repeating it is harmless."""

from __future__ import annotations

from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.database import Database

from imserver.storage import (
    conversations,
    friends,
    group_requests,
    groups,
    msg_blocks,
    read_seq,
    seq,
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
    ],
    friends.FRIENDS: [IndexModel([("owner_user_id", ASCENDING), ("friend_user_id", ASCENDING)], unique=True)],
    friends.BLACKS: [IndexModel([("owner_user_id", ASCENDING), ("block_user_id", ASCENDING)], unique=True)],
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
    webhooks.COLLECTION: [IndexModel([("command", ASCENDING)], unique=True)],
    versions.COUNTERS: [IndexModel([("list_id", ASCENDING)], unique=True)],
    versions.LOG: [
        IndexModel([("list_id", ASCENDING), ("item_id", ASCENDING)], unique=True),
        IndexModel([("list_id", ASCENDING), ("version", ASCENDING)]),
    ],
}


def ensure_indexes(database: Database[Document]) -> None:
    """Create what is missing. Raises pymongo.errors.PyMongoError."""
    for name, models in INDEXES.items():
        database[name].create_indexes(models)
