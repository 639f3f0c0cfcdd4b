"""Uploading files and reading them: names, limits, signed URLs. The bytes go straight to the store (imserver/objects)."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import unicodedata
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import TypeVar
from urllib.parse import quote

from imserver.actions.groups import Operator
from imserver.clock import now_ms
from imserver.conf import get_config
from imserver.errors import ArgsError, NoPermission, ObjectStoreUnavailable, RecordNotFound, UploadExpired
from imserver.objects.base import (
    MAX_PART_BYTES,
    MIN_PART_BYTES,
    MOST_PARTS,
    PartsMissing,
    StoreUnavailable,
    Upload,
)
from imserver.objects.cleaning import to_upload
from imserver.objects.presentation import CONTENT_TYPE, guess_type, shown
from imserver.objects.stores import get_store
from imserver.protocol.gen import third_pb2
from imserver.storage.clients import Document, get_async_mongo
from imserver.storage.objects import Objects

#: As much as S3 takes for a key.
MAX_NAME_BYTES = 1024
MAX_CAUSE_CHARS = 255
#: Parts that one request may have signed.
MOST_SIGNED = 1000
#: How long a form works that does not say it itself.
FORM_SECONDS = 600
#: Control characters and halves of surrogate pairs.
_NO_NAME_CATEGORIES = ("Cc", "Cs")
_MD5 = re.compile(r"[0-9a-f]{32}")
_MIB = 1024 * 1024

T = TypeVar("T")


# -- limits


def part_limit() -> third_pb2.PartLimitResp:
    return third_pb2.PartLimitResp(minPartSize=MIN_PART_BYTES, maxPartSize=MAX_PART_BYTES, maxNumSize=MOST_PARTS)


def part_size(size: int) -> int:
    """Bytes of a part that a file of this size is cut into. Raises ArgsError."""
    _check_size(size)
    return max(MIN_PART_BYTES, -(-size // MOST_PARTS))


def _check_size(size: int) -> None:
    if not 1 <= size <= get_config().object_max_mb * _MIB:
        raise ArgsError(f"size must be 1 to {get_config().object_max_mb} MiB")


def _check_part_size(size: int, wanted: int) -> int:
    """The client's part size when it may be, else refused: clients cut the file before they ask."""
    if not wanted:
        return part_size(size)
    if not MIN_PART_BYTES <= wanted <= MAX_PART_BYTES or -(-size // wanted) > MOST_PARTS:
        raise ArgsError(f"partSize must be {MIN_PART_BYTES} to {MAX_PART_BYTES}, with at most {MOST_PARTS} parts")
    return wanted


def _check_name(operator: Operator, name: str) -> None:
    """Raises ArgsError, NoPermission."""
    # People's own file names hold spaces of all kinds and joined emoji.
    if not name or any(unicodedata.category(char) in _NO_NAME_CATEGORIES for char in name) or "\\" in name:
        raise ArgsError("name must be a text without control characters and backslash")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise ArgsError(f"name is longer than {MAX_NAME_BYTES} bytes")
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise ArgsError("name has an empty part, or one of dots")
    if not operator.is_admin and not name.startswith(f"{operator.user_id}/"):
        raise NoPermission("name must start with the user id and a slash")


def _check_type(content_type: str, name: str) -> str:
    """The type, or what the name lets guess: clients also send ``mp3``, or ``image/*``. Raises ArgsError."""
    content_type = content_type.strip()
    if not CONTENT_TYPE.fullmatch(content_type):
        content_type = guess_type(name)
    kind = content_type.partition(";")[0].strip().lower()
    allowed = [item.strip().lower() for item in get_config().object_types.split(",") if item.strip()]
    if allowed and not any(fnmatchcase(kind, item) for item in allowed):
        raise ArgsError(f"files of type {kind} are not taken here")
    return content_type


# -- upload in parts


async def initiate(
    operator: Operator, request: third_pb2.InitiateMultipartUploadReq, api_url: str
) -> third_pb2.InitiateMultipartUploadResp:
    """An upload to fill; or, when the same content is here already, the name leads to that, and no upload.

    Raises:
        ArgsError, NoPermission: nothing is kept.  ObjectStoreUnavailable.
    """
    _check_name(operator, request.name)
    _check_size(request.size)
    content_type = _check_type(request.contentType, request.name)
    size_of_part = _check_part_size(request.size, request.partSize)
    file_hash = _check_hash(request.hash)
    _check_cause(request.cause)
    store = get_store()
    row = _new_upload(operator, file_hash, request.size, size_of_part, content_type, request.cause, file_hash)
    if await _in_thread(store.find_size, file_hash) == request.size:
        await _name_it(row, request.name)
        return third_pb2.InitiateMultipartUploadResp(url=object_url(api_url, request.name))
    row["name"] = request.name
    # Before the store knows of it: what is noted gets cleaned up.
    await _store().add_upload(row)
    store_id = await _in_thread(store.begin, row["upload_id"], row["key"], content_type)
    if store_id:
        row["store_id"] = store_id
        await _store().set_store_id(row["upload_id"], store_id)
    upload = to_upload(row)
    numbers = range(1, _count_to_sign(request.maxParts, upload.part_count) + 1)
    return third_pb2.InitiateMultipartUploadResp(
        upload=third_pb2.UploadInfo(
            uploadID=row["upload_id"],
            partSize=size_of_part,
            sign=third_pb2.AuthSignParts(parts=_sign(row, upload, list(numbers), api_url)),
            expireTime=row["expire_time"],
        )
    )


async def auth_sign(operator: Operator, upload_id: str, numbers: list[int], api_url: str) -> list[third_pb2.SignPart]:
    """URLs to PUT parts to. Raises ArgsError, RecordNotFound, NoPermission, UploadExpired."""
    row = await _get_upload(operator, upload_id)
    upload = _parts_of(row)
    if not numbers or len(numbers) > MOST_SIGNED or len(set(numbers)) != len(numbers):
        raise ArgsError(f"partNumbers must be 1 to {MOST_SIGNED} different numbers")
    if not all(1 <= number <= upload.part_count for number in numbers):
        raise ArgsError(f"this upload has the parts 1 to {upload.part_count}")
    return _sign(row, upload, numbers, api_url)


async def complete(operator: Operator, request: third_pb2.CompleteMultipartUploadReq, api_url: str) -> str:
    """Make the file of its parts; returns its URL. May run twice.

    Raises:
        ArgsError: parts are missing, or not those of the announced hash; they may be sent again.
        RecordNotFound, NoPermission, UploadExpired, ObjectStoreUnavailable.
    """
    row = await _get_upload(operator, request.uploadID)
    upload = _parts_of(row)
    name = request.name or row["name"]
    _check_name(operator, name)
    row["content_type"] = _check_type(request.contentType or row["content_type"], name)
    md5s = [md5.lower() for md5 in request.parts]
    if len(md5s) != upload.part_count or not all(_MD5.fullmatch(md5) for md5 in md5s):
        raise ArgsError(f"parts must be the MD5s of {upload.part_count} parts")
    if hash_of_parts(md5s) != row["hash"]:
        raise ArgsError("the parts are not those of the announced hash")
    if not row["is_done"]:
        await _in_thread(get_store().complete, upload, md5s)
    await _name_it(row, name)
    await _store().set_done(row["upload_id"])
    return object_url(api_url, name)


def _count_to_sign(wanted: int, part_count: int) -> int:
    """How many parts get their URLs at once. A negative number, which the JavaScript SDK sends, means all of them: it asks for
    no more. A file of one part needs no second request in any case."""
    if wanted < 0 or part_count == 1:
        return part_count
    return min(wanted, part_count, MOST_SIGNED)


def hash_of_parts(md5s: list[str]) -> str:
    """What clients call a file's hash."""
    return hashlib.md5(",".join(md5s).encode(), usedforsecurity=False).hexdigest()


def _check_hash(text: str) -> str:
    if not _MD5.fullmatch(text.lower()):
        raise ArgsError("hash must be 32 hexadecimal digits")
    return text.lower()


def _check_cause(cause: str) -> None:
    if len(cause) > MAX_CAUSE_CHARS:
        raise ArgsError(f"at most {MAX_CAUSE_CHARS} characters for what a file is for")


def _sign(row: Document, upload: Upload, numbers: list[int], api_url: str) -> list[third_pb2.SignPart]:
    left = (row["expire_time"] - now_ms()) // 1000
    seconds = max(1, min(get_config().object_url_seconds, left))
    store = get_store()
    return [
        third_pb2.SignPart(
            partNumber=number, url=_absolute(api_url, _call_store(store.sign_part, upload, number, seconds))
        )
        for number in numbers
    ]


# -- upload by a form


async def initiate_form(
    operator: Operator, request: third_pb2.InitiateFormDataReq, api_url: str
) -> third_pb2.InitiateFormDataResp:
    """A form that takes one file of the announced size; for app admins it may work longer. Raises ArgsError, NoPermission."""
    _check_name(operator, request.name)
    _check_size(request.size)
    if request.size > get_store().most_form_bytes:
        raise ArgsError(f"a form takes at most {get_store().most_form_bytes} bytes; upload in parts")
    _check_cause(request.group)
    content_type = _check_type(request.contentType, request.name)
    seconds = FORM_SECONDS
    if operator.is_admin and request.millisecond > 0:
        seconds = max(1, min(request.millisecond // 1000, get_config().object_upload_hours * 3600))
    row = _new_upload(operator, "", request.size, 0, content_type, request.group, "")
    row["key"] = f"form-{row['upload_id']}"
    row["name"] = request.name
    await _store().add_upload(row)
    form = _call_store(get_store().sign_form, row["key"], request.size, content_type, seconds)
    return third_pb2.InitiateFormDataResp(
        id=row["upload_id"],
        url=_absolute(api_url, form.url),
        file=form.file_field,
        formData=form.fields,
        expires=now_ms() + seconds * 1000,
        successCodes=form.success_codes,
    )


async def complete_form(operator: Operator, upload_id: str, api_url: str) -> str:
    """Returns the file's URL. May run twice. Raises ArgsError when the file has not arrived, and as ``complete``."""
    row = await _get_upload(operator, upload_id)
    if row["part_size"]:
        raise ArgsError("this upload is one in parts")
    if await _in_thread(get_store().find_size, row["key"]) != row["size"]:
        raise ArgsError("the file has not arrived, or not with the announced size")
    await _name_it(row, row["name"])
    await _store().set_done(upload_id)
    return object_url(api_url, row["name"])


# -- reading


async def access_url(name: str, api_url: str) -> tuple[str, int]:
    """(signed URL of a file, when it ends in ms). Raises RecordNotFound, ObjectStoreUnavailable."""
    row = await _store().find(name)
    store = get_store()
    if row is None or row["store"] != store.name:
        raise RecordNotFound("there is no such file")
    seconds = get_config().object_url_seconds
    url = _call_store(store.sign_get, row["key"], shown(name, row["content_type"]), seconds)
    return _absolute(api_url, url), now_ms() + seconds * 1000


def object_url(api_url: str, name: str) -> str:
    return f"{api_url}/object/{quote(name)}"


# -- what they share


def _store() -> Objects:
    return Objects(get_async_mongo())


def _new_upload(
    operator: Operator, file_hash: str, size: int, size_of_part: int, content_type: str, cause: str, key: str
) -> Document:
    now = now_ms()
    return {
        "upload_id": secrets.token_hex(16),
        "user_id": operator.user_id,
        "hash": file_hash,
        "key": key,
        "store": get_store().name,
        "store_id": "",
        "size": size,
        "part_size": size_of_part,
        "content_type": content_type,
        "cause": cause,
        "is_done": False,
        "create_time": now,
        "expire_time": now + get_config().object_upload_hours * 3_600_000,
    }


async def _get_upload(operator: Operator, upload_id: str) -> Document:
    row = await _store().find_upload(upload_id)
    if row is None:
        raise RecordNotFound("there is no such upload")
    if not operator.is_admin and row["user_id"] != operator.user_id:
        raise NoPermission("this is another user's upload")
    if row["expire_time"] < now_ms() or row["store"] != get_store().name:
        raise UploadExpired("the upload has expired; begin again")
    return row


def _parts_of(row: Document) -> Upload:
    if not row["part_size"]:
        raise ArgsError("this upload is one by a form")
    return to_upload(row)


async def _name_it(row: Document, name: str) -> None:
    await _store().put(
        name,
        user_id=row["user_id"],
        file_hash=row["hash"],
        key=row["key"],
        store=row["store"],
        size=row["size"],
        content_type=row["content_type"],
        cause=row["cause"],
    )


def _absolute(api_url: str, url: str) -> str:
    return f"{api_url}{url}" if url.startswith("/") else url


async def _in_thread(call: Callable[..., T], *args: object) -> T:
    """A call of the store. Raises ArgsError for missing parts, ObjectStoreUnavailable."""
    return await asyncio.to_thread(_call_store, call, *args)


def _call_store(call: Callable[..., T], *args: object) -> T:
    try:
        return call(*args)
    except PartsMissing as error:
        some = ", ".join(str(number) for number in error.numbers[:20])
        raise ArgsError(f"parts are missing or not as announced: {some}") from error
    except StoreUnavailable as error:
        raise ObjectStoreUnavailable(str(error)) from error
