"""Django's settings."""

from __future__ import annotations

from django.db import connections
from pymongo import MongoClient

from imserver.storage import clients


def test_the_admin_waits_for_the_disk_as_the_pipeline_does() -> None:
    parameters = connections["default"].get_connection_params()
    with MongoClient[dict[str, object]](**parameters, connect=False) as admin:
        assert admin.write_concern.document == {"w": "majority", "j": True}
        assert admin.write_concern == clients.get_mongo_client().write_concern
