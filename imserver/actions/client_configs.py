"""Settings that the app server gives to clients: for all, under the empty user id, or for one user."""

from __future__ import annotations

import re

from imserver.actions.users import check_exists
from imserver.actions.words import check_word
from imserver.errors import ArgsError
from imserver.protocol.gen import user_pb2
from imserver.storage.client_configs import FOR_ALL, ClientConfigs
from imserver.storage.clients import Document, get_async_mongo

MAX_KEY_CHARS = 256
MAX_VALUE_CHARS = 16_384
MOST_PER_REQUEST = 1000


async def get(user_id: str) -> dict[str, str]:
    """What is set for all, where the user has no setting of its own. Raises RecordNotFound."""
    await _check_user(user_id)
    return await _store().get_merged(user_id)


async def check_set(user_id: str, values: dict[str, str]) -> None:
    """Raises ArgsError, RecordNotFound."""
    _check_keys(list(values), "configs")
    if any(len(value) > MAX_VALUE_CHARS for value in values.values()):
        raise ArgsError(f"a value is longer than {MAX_VALUE_CHARS} characters")
    await _check_user(user_id)


async def do_set(user_id: str, values: dict[str, str]) -> None:
    """May run twice."""
    await _store().set(user_id, values)


async def do_delete(user_id: str, keys: list[str]) -> None:
    """What is not there is as deleted. Raises ArgsError."""
    _check_keys(keys, "keys")
    await _store().delete(user_id, keys)


async def get_page(
    request: user_pb2.pageUserClientConfigReq, skip: int, limit: int
) -> user_pb2.pageUserClientConfigResp:
    """Of a user, when one is given; with keys that contain the given one. Raises ArgsError."""
    check_word("key", request.key)
    where: Document = {"user_id": request.userID} if request.userID else {}
    if request.key:
        where["key"] = {"$regex": re.escape(request.key)}
    total, rows = await _store().page(where, skip=skip, limit=limit)
    configs = [user_pb2.clientConfig(userID=row["user_id"], key=row["key"], value=row["value"]) for row in rows]
    return user_pb2.pageUserClientConfigResp(total=total, configs=configs)


def _check_keys(keys: list[str], name: str) -> None:
    if not 1 <= len(keys) <= MOST_PER_REQUEST:
        raise ArgsError(f"{name} must be 1 to {MOST_PER_REQUEST}")
    if not all(1 <= len(key) <= MAX_KEY_CHARS for key in keys):
        raise ArgsError(f"keys are 1 to {MAX_KEY_CHARS} characters")


async def _check_user(user_id: str) -> None:
    if user_id != FOR_ALL:
        await check_exists(user_id)


def _store() -> ClientConfigs:
    return ClientConfigs(get_async_mongo())
