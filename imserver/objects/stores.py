"""The store that OBJECT_STORE names."""

from __future__ import annotations

from imserver.conf import get_config
from imserver.objects.base import ObjectStore
from imserver.objects.local import local_store


def get_store() -> ObjectStore:
    if get_config().object_store == "s3":
        # Only where it is used: loading boto3 takes a quarter of a second and 30 MB.
        from imserver.objects.s3 import s3_store  # noqa: PLC0415

        return s3_store()
    return local_store()
