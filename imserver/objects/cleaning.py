"""Gives up uploads whose time is over."""

from __future__ import annotations

import logging

from pymongo.database import Database

from imserver.objects.base import ObjectStore, StoreUnavailable, Upload
from imserver.storage import objects
from imserver.storage.clients import Document

logger = logging.getLogger(__name__)


def to_upload(document: Document) -> Upload:
    return Upload(
        document["upload_id"], document["key"], document["size"], document["part_size"], document.get("store_id", "")
    )


def remove_expired(database: Database[Document], store: ObjectStore) -> int:
    """Returns how many uploads were forgotten. May run twice; what the store refuses is tried again next time."""
    count = 0
    for document in objects.expired_uploads(database):
        if document["store"] == store.name and not document["is_done"]:
            try:
                if document["part_size"]:
                    store.abort(to_upload(document))
                else:
                    store.remove(document["key"])
            except StoreUnavailable as error:
                logger.warning("expired upload cannot be removed", extra={"action": "objects", "reason": str(error)})
                continue
        objects.forget_upload(database, document["upload_id"])
        count += 1
    return count
