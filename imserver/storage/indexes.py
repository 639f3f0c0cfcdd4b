"""Collections and their indexes, in one place. ``manage.py prepare`` ensures them; repeating it is harmless."""

from __future__ import annotations

from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.database import Database

from imserver.storage import conversations, msg_blocks, read_seq, seq, users
from imserver.storage.clients import Document

INDEXES: dict[str, list[IndexModel]] = {
    msg_blocks.COLLECTION: [
        IndexModel([("doc_id", ASCENDING)], unique=True),
        IndexModel([("conversation_id", ASCENDING), ("block", DESCENDING)]),
    ],
    seq.COLLECTION: [IndexModel([("conversation_id", ASCENDING)], unique=True)],
    read_seq.COLLECTION: [IndexModel([("user_id", ASCENDING), ("conversation_id", ASCENDING)], unique=True)],
    conversations.COLLECTION: [
        IndexModel([("owner_user_id", ASCENDING), ("conversation_id", ASCENDING)], unique=True),
        IndexModel([("conversation_id", ASCENDING)]),
    ],
    users.COLLECTION: [
        IndexModel([("user_id", ASCENDING)], unique=True),
        IndexModel([("create_time", DESCENDING)]),
    ],
}


def ensure_indexes(database: Database[Document]) -> None:
    """Create what is missing. Raises pymongo.errors.PyMongoError."""
    for name, models in INDEXES.items():
        database[name].create_indexes(models)
