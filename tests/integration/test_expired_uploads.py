"""Uploads that nobody finishes go, with what they brought; finished files stay."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from pymongo.database import Database

from imserver.clock import now_ms
from imserver.objects import cleaning
from imserver.objects.base import StoreUnavailable, Upload
from imserver.objects.local import LocalStore
from imserver.storage.clients import Document
from imserver.storage.objects import GRACE_MS
from tests.uploads import md5


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def add_upload(database: Database[Document], store: LocalStore, *, age_ms: int, **changes: object) -> Document:
    upload_id = secrets.token_hex(16)
    row: Document = {
        "upload_id": upload_id,
        "key": md5(upload_id.encode()),
        "store": store.name,
        "store_id": "",
        "size": 4,
        "part_size": 5_000_000,
        "is_done": False,
        "expire_time": now_ms() - age_ms,
        **changes,
    }
    database["object_upload"].insert_one(dict(row))
    if row["part_size"]:
        store.begin(upload_id, row["key"], "")
        with store.receive_part(upload_id, 1, 4) as writer:
            writer.write(b"part")
            writer.finish()
    return row


def ids(database: Database[Document]) -> set[str]:
    return {row["upload_id"] for row in database["object_upload"].find()}


def test_what_nobody_finished_goes_and_what_is_under_way_stays(
    database: Database[Document], store: LocalStore, tmp_path: Path
) -> None:
    old = add_upload(database, store, age_ms=GRACE_MS + 1000)
    just_now = add_upload(database, store, age_ms=1000)

    assert cleaning.remove_expired(database, store) == 1
    assert cleaning.remove_expired(database, store) == 0

    assert ids(database) == {just_now["upload_id"]}
    assert not (tmp_path / "parts" / old["upload_id"]).exists()
    assert (tmp_path / "parts" / just_now["upload_id"]).exists()


def test_a_finished_file_stays_when_its_upload_is_forgotten(database: Database[Document], store: LocalStore) -> None:
    row = add_upload(database, store, age_ms=GRACE_MS + 1000)
    upload = Upload(row["upload_id"], row["key"], row["size"], row["part_size"])
    store.complete(upload, [md5(b"part")])
    database["object_upload"].update_one({"upload_id": row["upload_id"]}, {"$set": {"is_done": True}})

    assert cleaning.remove_expired(database, store) == 1

    assert ids(database) == set()
    assert store.find_size(row["key"]) == 4


def test_a_form_that_was_sent_and_never_completed_leaves_no_file(
    database: Database[Document], store: LocalStore, tmp_path: Path
) -> None:
    row = add_upload(database, store, age_ms=GRACE_MS + 1000, key="form-abc", part_size=0)
    source = tmp_path / "sent"
    source.write_bytes(b"form")
    with source.open("rb") as sent:
        store.take_form(row["key"], sent)

    assert cleaning.remove_expired(database, store) == 1

    assert store.find_size("form-abc") is None


def test_what_the_store_refuses_is_tried_again(
    database: Database[Document], store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = add_upload(database, store, age_ms=GRACE_MS + 1000)

    def refuse(_upload: Upload) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(store, "abort", refuse)
        assert cleaning.remove_expired(database, store) == 0
    assert ids(database) == {row["upload_id"]}
    assert cleaning.remove_expired(database, store) == 1
