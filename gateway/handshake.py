"""The connection's query: parsing, checks in the protocol's order, and the refusal in the form each client reads."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import orjson

from gateway.codecs.base import Codec, CodecError
from gateway.codecs.registry import get_codec
from imserver.actions import auth
from imserver.constants import PLATFORM_CLASS
from imserver.errors import ConnectionArgsError, IMError, InternalError, TooManyConnections

#: Go's strconv.ParseBool.
_BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "true", "True", "TRUE"), True),
    **dict.fromkeys(("0", "f", "F", "false", "False", "FALSE"), False),
}

#: How the SDKs name themselves: one by its envelope, one by its version.
JS_SDK = "js"
PYTHON_SDK = "python"


class HandshakeRefused(Exception):
    """Carries the error and whether the client asked to be told in a text frame."""

    def __init__(self, error: IMError, *, in_frame: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.in_frame = in_frame


@dataclass(frozen=True, slots=True)
class Handshake:
    user_id: str
    token: str
    platform_id: int
    operation_id: str
    codec: Codec
    is_compressed: bool
    wants_result: bool
    sdk_version: str

    @property
    def shows_repeats(self) -> bool:
        """OpenIM's JavaScript and Python SDKs show whatever is pushed, also what they have."""
        return self.codec.name == JS_SDK or self.sdk_version.startswith(PYTHON_SDK)


def result_json(error: IMError | None = None) -> str:
    """The handshake's outcome as clients read it."""
    if error is None:
        return '{"errCode":0,"errMsg":"","errDlt":""}'
    return orjson.dumps({"errCode": error.code, "errMsg": error.name, "errDlt": error.detail}).decode()


async def accept_handshake(scope: dict[str, Any], connections: int, limit: int) -> Handshake:
    """Check a connection request.

    Raises:
        HandshakeRefused: with the code of the first check that failed.
    """
    check_node_connections(connections, limit)
    try:
        handshake = _parse(scope)
    except IMError as error:
        raise HandshakeRefused(error, in_frame=False) from error
    try:
        await auth.check_token(handshake.token, handshake.user_id, handshake.platform_id)
    except IMError as error:
        raise HandshakeRefused(error, in_frame=handshake.wants_result) from error
    return handshake


def check_node_connections(connections: int, limit: int) -> None:
    """Refuse one connection more than the node may have.

    Raises:
        HandshakeRefused: 1601, over HTTP: at first what the client asks for is not known yet.
    """
    if connections >= limit:
        error = TooManyConnections(f"this node has its {limit} connections; try another or later")
        raise HandshakeRefused(error, in_frame=False)


def check_user_connections(handshake: Handshake, connections: int, limit: int) -> None:
    """Refuse one connection more than a user may have on all nodes.

    Raises:
        HandshakeRefused: 1601.
    """
    if connections >= limit:
        error = TooManyConnections(f"the user has {connections} connections already, {limit} are allowed")
        raise HandshakeRefused(error, in_frame=handshake.wants_result)


def _parse(scope: dict[str, Any]) -> Handshake:
    query = {
        name: values[0]
        for name, values in parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True).items()
    }
    return _parse_packed(query["v"]) if query.get("v") else _parse_query(query, scope)


def _parse_query(query: dict[str, str], scope: dict[str, Any]) -> Handshake:
    if query.get("isBackground") not in _BOOLEANS:
        raise InternalError("isBackground must be true or false")
    compression = query.get("compression", "")
    if not compression:
        compression = dict(scope["headers"]).get(b"compression", b"").decode("latin-1")
    return _build(
        user_id=query.get("sendID", ""),
        token=query.get("token", ""),
        platform_id=query.get("platformID", ""),
        operation_id=query.get("operationID", ""),
        compression=compression,
        sdk_type=query.get("sdkType", ""),
        wants_result=_BOOLEANS.get(query.get("isMsgResp", ""), False),
        sdk_version=query.get("sdkVersion", ""),
    )


def _parse_packed(text: str) -> Handshake:
    """The ``v`` form: everything in one URL-safe base64 JSON object."""
    try:
        values = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError) as error:
        raise ConnectionArgsError("v is not base64 of a JSON object") from error
    if not isinstance(values, dict):
        raise ConnectionArgsError("v is not a JSON object")
    texts = {
        name: value if isinstance(value := values.get(name, ""), str) else ""
        for name in ("userID", "token", "operationID", "compression", "sdkType", "sdkVersion")
    }
    return _build(
        user_id=texts["userID"],
        token=texts["token"],
        platform_id=str(values.get("platformID", "")),
        operation_id=texts["operationID"],
        compression=texts["compression"],
        sdk_type=texts["sdkType"],
        wants_result=values.get("sendResponse") is True,
        sdk_version=texts["sdkVersion"],
    )


def _build(
    *,
    user_id: str,
    token: str,
    platform_id: str,
    operation_id: str,
    compression: str,
    sdk_type: str,
    wants_result: bool,
    sdk_version: str,
) -> Handshake:
    for name, value in (("operationID", operation_id), ("token", token), ("sendID", user_id)):
        if not value:
            raise ConnectionArgsError(f"{name} is missing")
    if (
        len(platform_id) > 2
        or not platform_id.isascii()
        or not platform_id.isdigit()
        or int(platform_id) not in PLATFORM_CLASS
    ):
        raise ConnectionArgsError("platformID must be 1 to 11")
    try:
        codec = get_codec(sdk_type or "go")
    except CodecError as error:
        raise ConnectionArgsError(str(error)) from error
    return Handshake(
        user_id=user_id,
        token=token,
        platform_id=int(platform_id),
        operation_id=operation_id,
        codec=codec,
        is_compressed=compression == "gzip",
        wants_result=wants_result,
        sdk_version=sdk_version,
    )
