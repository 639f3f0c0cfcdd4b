"""Small things that users keep on the server: favourites mostly. Each has a type and, within it, an id of the client's."""

from __future__ import annotations

from imserver.errors import ArgsError, RecordNotFound
from imserver.protocol.gen import user_pb2
from imserver.storage.clients import Document, get_async_mongo
from imserver.storage.user_commands import UserCommands

MAX_UUID_CHARS = 256
MAX_VALUE_CHARS = 16_384
MOST_OF_USER = 10_000

Change = user_pb2.processUserCommandAddReq | user_pb2.processUserCommandUpdateReq


async def check_add(request: user_pb2.processUserCommandAddReq) -> None:
    """Raises ArgsError."""
    _check_uuid(request.uuid)
    _changes(request)
    if await _store().count(request.userID) >= MOST_OF_USER:
        raise ArgsError(f"a user keeps at most {MOST_OF_USER} of these")


async def do_add(request: user_pb2.processUserCommandAddReq) -> None:
    """Raises DuplicateKey."""
    await _store().add(request.userID, request.type, request.uuid, request.value.value, request.ex.value)


async def do_update(request: user_pb2.processUserCommandUpdateReq) -> None:
    """Set value, extra, both or nothing. May run twice. Raises ArgsError, RecordNotFound."""
    _check_uuid(request.uuid)
    changes = _changes(request)
    if changes and not await _store().update(request.userID, request.type, request.uuid, changes):
        raise _missing(request.type, request.uuid)


async def do_delete(user_id: str, kind: int, uuid: str) -> None:
    """Raises ArgsError, RecordNotFound."""
    _check_uuid(uuid)
    if not await _store().delete(user_id, kind, uuid):
        raise _missing(kind, uuid)


async def get(user_id: str, kind: int | None = None) -> user_pb2.processUserCommandGetResp:
    """Of a type or of all, the oldest first. Their times are seconds on the wire."""
    return user_pb2.processUserCommandGetResp(
        CommandResp=[
            user_pb2.CommandInfoResp(
                type=row["type"],
                createTime=row["create_time"] // 1000,
                uuid=row["uuid"],
                value=row["value"],
                ex=row["ex"],
            )
            for row in await _store().find(user_id, kind)
        ]
    )


def _changes(request: Change) -> Document:
    changes: Document = {name: getattr(request, name).value for name in ("value", "ex") if request.HasField(name)}
    for name, text in changes.items():
        if len(text) > MAX_VALUE_CHARS:
            raise ArgsError(f"{name} is longer than {MAX_VALUE_CHARS} characters")
    return changes


def _check_uuid(uuid: str) -> None:
    if not 1 <= len(uuid) <= MAX_UUID_CHARS:
        raise ArgsError(f"uuid must be 1 to {MAX_UUID_CHARS} characters")


def _missing(kind: int, uuid: str) -> RecordNotFound:
    return RecordNotFound(f"there is no command {uuid!r} of type {kind}")


def _store() -> UserCommands:
    return UserCommands(get_async_mongo())
