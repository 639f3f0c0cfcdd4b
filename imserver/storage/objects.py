"""Uploaded files by name, and uploads under way: MongoDB ``object`` and ``object_upload``.

The bytes are elsewhere (imserver/objects). An upload's document outlives a restart, and lets a repeated completion be answered.
"""

from __future__ import annotations

from pymongo.asynchronous.database import AsyncDatabase
from pymongo.database import Database

from imserver.clock import now_ms
from imserver.storage.clients import Document

OBJECTS = "object"
UPLOADS = "object_upload"

#: Expired uploads of one round of cleaning.
EXPIRED_AT_ONCE = 500
#: Who completed an upload at the last moment has finished by then.
GRACE_MS = 3_600_000


class Objects:
    """The side of the actions."""

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._objects = database[OBJECTS]
        self._uploads = database[UPLOADS]

    async def put(
        self, name: str, *, user_id: str, file_hash: str, key: str, store: str, size: int, content_type: str, cause: str
    ) -> None:
        """Give content a name; a name that is taken leads to the new content. May run twice."""
        row = {
            "user_id": user_id,
            "hash": file_hash,
            "key": key,
            "store": store,
            "size": size,
            "content_type": content_type,
            "cause": cause,
            "create_time": now_ms(),
        }
        await self._objects.update_one({"name": name}, {"$set": row}, upsert=True)

    async def find(self, name: str) -> Document | None:
        return await self._objects.find_one({"name": name}, {"_id": 0})

    async def add_upload(self, upload: Document) -> None:
        await self._uploads.insert_one(dict(upload))

    async def find_upload(self, upload_id: str) -> Document | None:
        return await self._uploads.find_one({"upload_id": upload_id}, {"_id": 0})

    async def set_store_id(self, upload_id: str, store_id: str) -> None:
        await self._uploads.update_one({"upload_id": upload_id}, {"$set": {"store_id": store_id}})

    async def set_done(self, upload_id: str) -> None:
        await self._uploads.update_one({"upload_id": upload_id}, {"$set": {"is_done": True}})


def expired_uploads(database: Database[Document]) -> list[Document]:
    """Uploads whose time has been over for a while, for the tasks; finished ones as well."""
    cursor = database[UPLOADS].find({"expire_time": {"$lt": now_ms() - GRACE_MS}}, {"_id": 0}).limit(EXPIRED_AT_ONCE)
    return list(cursor)


def forget_upload(database: Database[Document], upload_id: str) -> None:
    database[UPLOADS].delete_one({"upload_id": upload_id})
