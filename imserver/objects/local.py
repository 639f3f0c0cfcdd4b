"""Files on this host's disk, under DATA_DIR/objects; the web process takes and serves them (rest/stored.py).

    files/<two letters>/<name>       finished files, never changed
    parts/<upload id>/<number>.<md5> parts of an upload

A part's name says its content, so what a reader finds is whole and what it says; two uploads of one file write the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

from imserver.conf import get_config
from imserver.objects.base import MAX_PART_BYTES, Form, ObjectStore, PartsMissing, Shown, StoreUnavailable, Upload
from imserver.objects.signing import sign_path

PART_PATH, FORM_PATH, FILE_PATH = "/stored/part", "/stored/form", "/stored/file"
#: What keys and upload ids are made of: nothing that means something in a path.
SAFE_NAME = re.compile(r"[0-9A-Za-z_-]{1,128}")
_COPY_BYTES = 1024 * 1024


class PartRefused(Exception):
    """What came is not the part that the URL was signed for."""


class UploadGone(Exception):
    """The upload is finished, was given up or never was."""


class LocalStore(ObjectStore):
    name = "local"
    most_form_bytes = MAX_PART_BYTES

    def __init__(self, root: Path) -> None:
        self._root = root

    # -- the contract

    def begin(self, upload_id: str, key: str, content_type: str) -> str:
        del key, content_type
        with _as_unavailable():
            self._parts_of(upload_id).mkdir(parents=True, exist_ok=True)
        return ""

    def sign_part(self, upload: Upload, number: int, seconds: int) -> str:
        return sign_path(f"{PART_PATH}/{upload.upload_id}/{number}", seconds, size=str(upload.bytes_of(number)))

    def complete(self, upload: Upload, md5s: list[str]) -> None:
        target = self.path_of(upload.key)
        folder = self._parts_of(upload.upload_id)
        with _as_unavailable():
            parts = [folder / f"{number}.{md5}" for number, md5 in enumerate(md5s, start=1)]
            sizes = [upload.bytes_of(number) for number in range(1, len(parts) + 1)]
            missing = [
                at + 1
                for at, (part, size) in enumerate(zip(parts, sizes, strict=True))
                if not part.is_file() or part.stat().st_size != size
            ]
            if missing and self.find_size(upload.key) == upload.size:
                return  # an earlier call got this far, or the same file came by another upload
            if missing:
                raise PartsMissing(missing)
            whole = folder / f"whole-{secrets.token_hex(8)}"
            with whole.open("xb") as out:
                for part in parts:
                    with part.open("rb") as source:
                        shutil.copyfileobj(source, out, _COPY_BYTES)
                _flush(out)
            _move(whole, target)
            shutil.rmtree(folder, ignore_errors=True)

    def abort(self, upload: Upload) -> None:
        shutil.rmtree(self._parts_of(upload.upload_id), ignore_errors=True)

    def sign_form(self, key: str, size: int, content_type: str, seconds: int) -> Form:
        del content_type
        return Form(sign_path(f"{FORM_PATH}/{key}", seconds, size=str(size)), success_codes=(200,))

    def find_size(self, key: str) -> int | None:
        try:
            return self.path_of(key).stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreUnavailable(f"the disk refuses: {error.strerror}") from error

    def sign_get(self, key: str, shown: Shown, seconds: int) -> str:
        inline = "1" if shown.is_inline else "0"
        return sign_path(f"{FILE_PATH}/{key}", seconds, name=shown.file_name, type=shown.content_type, inline=inline)

    def remove(self, key: str) -> None:
        with _as_unavailable():
            self.path_of(key).unlink(missing_ok=True)

    # -- the side of the web process

    def path_of(self, key: str) -> Path:
        return self._root / "files" / _safe(key)[:2] / _safe(key)

    @contextlib.contextmanager
    def receive_part(self, upload_id: str, number: int, size: int) -> Iterator[PartWriter]:
        """A writer whose ``finish`` keeps the part; what was not finished goes. Raises UploadGone."""
        writer = PartWriter(self._parts_of(upload_id), number, size)
        try:
            yield writer
        finally:
            writer.clean()

    def take_form(self, key: str, source: IO[bytes]) -> None:
        """Keep what a form brought; its size was compared. An earlier one of the same form is replaced."""
        target = self.path_of(key)
        temporary = target.with_name(f"{target.name}.{secrets.token_hex(8)}")
        with _as_unavailable():
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("xb") as out:
                    shutil.copyfileobj(source, out, _COPY_BYTES)
                    _flush(out)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)

    def _parts_of(self, upload_id: str) -> Path:
        return self._root / "parts" / _safe(upload_id)


class PartWriter:
    """Takes a part as it arrives, a chunk at a time: no more of it is ever in memory or beyond its size on disk."""

    def __init__(self, folder: Path, number: int, size: int) -> None:
        self._folder, self._number, self._left = folder, number, size
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._temporary = folder / f"new-{secrets.token_hex(8)}"
        try:
            self._file = self._temporary.open("xb")
        except FileNotFoundError as error:
            raise UploadGone("the upload is finished or was given up") from error

    @property
    def md5(self) -> str:
        return self._md5.hexdigest()

    def write(self, chunk: bytes) -> None:
        """Raises PartRefused."""
        self._left -= len(chunk)
        if self._left < 0:
            raise PartRefused("more came than the part is long")
        self._md5.update(chunk)
        self._file.write(chunk)

    def finish(self) -> None:
        """Keep the part. Blocks for the disk. Raises PartRefused when too little came, UploadGone."""
        if self._left:
            raise PartRefused(f"{self._left} bytes of the part are missing")
        _flush(self._file)
        part = self._folder / f"{self._number}.{self.md5}"
        try:
            self._temporary.replace(part)
            for other in self._folder.glob(f"{self._number}.*"):
                if other != part:
                    other.unlink(missing_ok=True)
        except FileNotFoundError as error:
            raise UploadGone("the upload is finished or was given up") from error

    def clean(self) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)


def local_store() -> LocalStore:
    return LocalStore(get_config().data_path / "objects")


def _safe(name: str) -> str:
    if not SAFE_NAME.fullmatch(name):
        raise ValueError("not a name that this store gives")
    return name


def _move(source: Path, target: Path) -> None:
    """Who was quicker has put the same there, for the name says the content."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _flush(out: BinaryIO) -> None:
    out.flush()
    os.fsync(out.fileno())


@contextlib.contextmanager
def _as_unavailable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(f"the disk refuses: {error.strerror}") from error
