"""JSON envelope (``sdkType=js``): one object a frame, the protobuf data as base64 text inside it."""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from enum import IntEnum
from typing import Any

import orjson

from gateway.codecs.base import Codec, CodecError, Request, Response

INT32_LIMIT = 1 << 31
INT64_LIMIT = 1 << 63


class Direction(IntEnum):
    """Which message of a request identifier is meant; the index into ``MESSAGE_TYPES``."""

    REQUEST = 0
    RESPONSE = 1


def _load(frame: bytes) -> dict[str, Any]:
    try:
        envelope = orjson.loads(frame)
    except orjson.JSONDecodeError:
        # The parser's error keeps the whole document; it is dropped so that no log shows content.
        raise CodecError("json: the frame is not JSON") from None
    if not isinstance(envelope, dict):
        raise CodecError("json: the frame is not an object")
    return envelope


def _dump(envelope: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(envelope)
    except TypeError as error:
        raise CodecError(f"json: {error}") from None


def _text(envelope: dict[str, Any], key: str) -> str:
    value = envelope.get(key)
    if value is None:
        return ""
    if type(value) is not str:
        raise CodecError(f"json: {key} is not a string")
    return value


def _number(envelope: dict[str, Any], key: str, limit: int) -> int:
    value = envelope.get(key)
    if value is None:
        return 0
    # Not isinstance: true and false are ints to Python but not to the wire.
    if type(value) is not int or not -limit <= value < limit:
        raise CodecError(f"json: {key} is not a whole number, or out of range")
    return value


class JsonCodec(Codec):
    """The JavaScript client's envelope. Keys that are absent or null take their default, unknown keys are ignored.

    Encoding raises CodecError for a number beyond 64 bits and for a lone surrogate in a string.
    """

    name = "js"

    def decode_request(self, frame: bytes) -> Request:
        envelope = _load(frame)
        req_identifier = _number(envelope, "reqIdentifier", INT32_LIMIT)
        return Request(
            req_identifier,
            _text(envelope, "token"),
            _text(envelope, "sendID"),
            _text(envelope, "operationID"),
            _text(envelope, "msgIncr"),
            self._load_data(envelope.get("data"), req_identifier, Direction.REQUEST),
        )

    def encode_response(self, response: Response) -> bytes:
        return _dump(
            {
                "reqIdentifier": response.req_identifier,
                "msgIncr": response.msg_incr,
                "operationID": response.operation_id,
                "errCode": response.err_code,
                "errMsg": response.err_msg,
                "data": self._dump_data(response.data, response.req_identifier, Direction.RESPONSE),
            }
        )

    def encode_request(self, request: Request) -> bytes:
        envelope = {
            "reqIdentifier": request.req_identifier,
            "sendID": request.send_id,
            "operationID": request.operation_id,
            "msgIncr": request.msg_incr,
            "data": self._dump_data(request.data, request.req_identifier, Direction.REQUEST),
        }
        if request.token:
            # The real client never sends it.
            envelope["token"] = request.token
        return _dump(envelope)

    def decode_response(self, frame: bytes) -> Response:
        envelope = _load(frame)
        req_identifier = _number(envelope, "reqIdentifier", INT32_LIMIT)
        return Response(
            req_identifier,
            _text(envelope, "msgIncr"),
            _text(envelope, "operationID"),
            _number(envelope, "errCode", INT64_LIMIT),
            _text(envelope, "errMsg"),
            self._load_data(envelope.get("data"), req_identifier, Direction.RESPONSE),
        )

    def _load_data(self, value: object, req_identifier: int, direction: Direction) -> bytes:
        """Serialized protobuf from the JSON value of ``data``. Raises CodecError."""
        if value is None or value == "":
            return b""
        if not isinstance(value, str):
            raise CodecError("json: data is not a string")
        try:
            return a2b_base64(value, strict_mode=True)
        except ValueError:
            raise CodecError("json: data is not padded base64") from None

    def _dump_data(self, data: bytes, req_identifier: int, direction: Direction) -> object:
        """The JSON value of ``data``. Raises CodecError."""
        return b2a_base64(data, newline=False).decode("ascii")
