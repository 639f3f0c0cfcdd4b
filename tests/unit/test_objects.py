"""Parts of a file, signed URLs, and what a browser may open."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imserver.conf import ConfigError, load_config
from imserver.objects.base import MIN_PART_BYTES, PartsMissing, Upload
from imserver.objects.local import LocalStore, PartRefused, UploadGone
from imserver.objects.presentation import shown
from imserver.objects.signing import SignatureRefused, check_path, sign_path
from tests.uploads import md5


@given(size=st.integers(1, 1 << 40), part_size=st.integers(1, 1 << 26))
def test_parts_together_are_the_file(size: int, part_size: int) -> None:
    upload = Upload("u", "k", size, part_size)
    count = upload.part_count

    assert (count - 1) * part_size + upload.bytes_of(count) == size
    assert 1 <= upload.bytes_of(count) <= part_size


def query_of(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))


def test_a_signature_covers_path_parameters_and_time() -> None:
    url = sign_path("/stored/file/ä b", 60, name="a&b=c?ü", inline="")
    query = query_of(url)

    check_path("/stored/file/ä b", query)
    for path, changed in (
        ("/stored/file/other", query),
        ("/stored/file/ä b", {**query, "name": "x"}),
        ("/stored/file/ä b", {**query, "more": "x"}),
        ("/stored/file/ä b", {**query, "expires": str(int(query["expires"]) + 1)}),
        ("/stored/file/ä b", {**query, "signature": "ünsigned"}),
        ("/stored/file/ä b", {}),
    ):
        with pytest.raises(SignatureRefused):
            check_path(path, changed)
    with pytest.raises(SignatureRefused, match="expired"):
        check_path("/x", query_of(sign_path("/x", -1)))


@pytest.mark.parametrize(
    ("content_type", "is_inline", "given_as"),
    [
        ("image/png", True, "image/png"),
        ("IMAGE/JPEG", True, "IMAGE/JPEG"),
        ("video/mp4; codecs=avc1", True, "video/mp4; codecs=avc1"),
        ("text/plain", True, "text/plain"),
        ("application/pdf", False, "application/pdf"),
        ("image/svg+xml", False, "application/octet-stream"),
        ("text/html; charset=utf-8", False, "application/octet-stream"),
        ("application/xhtml+xml", False, "application/octet-stream"),
        ("video/svg+xml", False, "application/octet-stream"),
        ("TEXT/JavaScript", False, "application/octet-stream"),
        ("multipart/x-mixed-replace", False, "application/octet-stream"),
    ],
)
def test_only_what_runs_nothing_is_opened(content_type: str, is_inline: bool, given_as: str) -> None:
    found = shown("alice/x.y", content_type)

    assert (found.is_inline, found.content_type, found.file_name) == (is_inline, given_as, "x.y")


def test_a_local_store_takes_no_names_that_mean_something_in_a_path(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)

    for name in ("..", "a/b", "", "a.b", "x" * 200, "a\0b"):
        with pytest.raises(ValueError, match="not a name"):
            store.path_of(name)


def test_a_part_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    store, upload = LocalStore(tmp_path), Upload("u1", md5(b"key"), 6, MIN_PART_BYTES)
    with pytest.raises(UploadGone), store.receive_part("u1", 1, 6):
        pass
    store.begin("u1", upload.key, "")

    with pytest.raises(PartRefused), store.receive_part("u1", 1, 6) as writer:
        writer.write(b"seven b")
    with store.receive_part("u1", 1, 6) as writer:
        writer.write(b"five!")
        with pytest.raises(PartRefused):
            writer.finish()
    with pytest.raises(PartsMissing):
        store.complete(upload, [md5(b"sixsix")])
    for content in (b"first!", b"sixsix"):
        with store.receive_part("u1", 1, 6) as writer:
            writer.write(content)
            writer.finish()
    assert [path.name for path in (tmp_path / "parts/u1").iterdir()] == [f"1.{md5(b'sixsix')}"]
    store.complete(upload, [md5(b"sixsix")])
    store.complete(upload, [md5(b"sixsix")])

    assert store.path_of(upload.key).read_bytes() == b"sixsix"
    assert not (tmp_path / "parts/u1").exists()
    store.abort(upload)
    store.remove(upload.key)
    store.remove(upload.key)
    assert store.find_size(upload.key) is None


def test_the_s3_store_needs_a_bucket() -> None:
    with pytest.raises(ConfigError, match="S3_BUCKET"):
        load_config({"OBJECT_STORE": "s3"})
    assert load_config({"OBJECT_STORE": "s3", "S3_BUCKET": "files"}).s3_bucket == "files"
