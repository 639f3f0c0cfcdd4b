"""Readable envelope (``sdkType=json``), ours: for scripts and browsers without protobuf. Frames are TEXT.

The keys are those of the JSON envelope, but ``data`` is an object: protobuf's JSON mapping of the message that the
request identifier carries, with the field names of the ``.proto`` files. As that mapping says, 64-bit numbers are
written as strings (and read as either), bytes fields such as ``content`` are base64, and fields with their default
are left out. Unknown fields are ignored. ``data`` is null where there is none. There is no further convenience.

The mapping makes the decoding of a chat message cost about 30 us, ten times the other codecs: not for load.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from gateway.codecs.base import CodecError
from gateway.codecs.json_codec import Direction, JsonCodec
from imserver.protocol.identifiers import MESSAGE_TYPES


def _find_message_type(req_identifier: int, direction: Direction) -> type[Message] | None:
    """None for an identifier without data and for an unknown one: refusing that is the gateway's business."""
    return MESSAGE_TYPES.get(req_identifier, (None, None))[direction]


def _check_object(value: Any, descriptor: Descriptor) -> None:
    """Refuse what is no object where a message belongs.

    protobuf's parser does not when it ignores unknown fields: it goes through a string or a list as if it held field
    names, finds none that it knows and leaves an empty message. To be called after it, as it has bounded the depth.
    """
    if not isinstance(value, dict):
        raise CodecError("json: a message inside data is not an object")
    for field in descriptor.fields:
        if field.message_type is None:
            continue
        for key in {field.name, field.json_name}:
            if value.get(key) is not None:
                _check_field(value[key], field, field.message_type)


def _check_field(value: Any, field: FieldDescriptor, inner: Descriptor) -> None:
    items: Iterable[Any] = value if field.is_repeated else (value,)
    if inner.GetOptions().map_entry:
        map_value = inner.fields_by_name["value"].message_type
        if map_value is None:
            return
        inner, items = map_value, value.values()
    for item in items:
        _check_object(item, inner)


class PlainCodec(JsonCodec):
    """Encoding raises CodecError also for data that is not the message of its identifier."""

    name = "json"
    is_text = True

    def _load_data(self, value: object, req_identifier: int, direction: Direction) -> bytes:
        if value is None or value == {}:
            return b""
        if not isinstance(value, dict):
            raise CodecError("json: data is not an object")
        message_type = _find_message_type(req_identifier, direction)
        if message_type is None:
            raise CodecError("json: this request identifier carries no data")
        try:
            message = json_format.ParseDict(value, message_type(), ignore_unknown_fields=True)
        except json_format.ParseError:
            # Its text may quote values, which are content and belong in no log.
            raise CodecError("json: data does not fit the message of its request identifier") from None
        _check_object(value, cast("Descriptor", message_type.DESCRIPTOR))
        return message.SerializeToString()

    def _dump_data(self, data: bytes, req_identifier: int, direction: Direction) -> object:
        if not data:
            return None
        message_type = _find_message_type(req_identifier, direction)
        if message_type is None:
            raise CodecError("json: this request identifier carries no data")
        try:
            return json_format.MessageToDict(message_type.FromString(data), preserving_proto_field_name=True)
        except (DecodeError, json_format.SerializeToJsonError):
            raise CodecError("json: data is not the message of its request identifier") from None
