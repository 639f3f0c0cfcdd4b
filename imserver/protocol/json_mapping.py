"""OpenIM's JSON of protobuf messages, which is Go's and not protobuf's: field names as written, zero values present,
64-bit numbers as numbers, bytes as base64, wrapper messages as bare values or null, absent messages as null."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_WRAPPERS = "google.protobuf."

# Descriptors are Any below: the compiled runtime has classes of its own that only look like descriptor.FieldDescriptor.


class JsonMismatch(ValueError):
    """A JSON value does not fit the message; the text names the field."""


def to_json(message: Message) -> dict[str, Any]:
    """A message as plain JSON values."""
    values: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        values[field.name] = _field_to_json(message, field)
    return values


def _is_map(field: Any) -> bool:
    return bool(field.message_type is not None and field.message_type.GetOptions().map_entry)


def _is_wrapper(descriptor: Any) -> bool:
    return bool(descriptor is not None and descriptor.full_name.startswith(_WRAPPERS))


def _field_to_json(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if _is_map(field):
        kind = field.message_type.fields_by_name["value"]
        return {str(key): _value_to_json(kind, item) for key, item in value.items()}
    if field.is_repeated:
        return [_value_to_json(field, item) for item in value]
    if field.message_type is not None and not message.HasField(field.name):
        return None
    return _value_to_json(field, value)


def _value_to_json(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return value.value if _is_wrapper(field.message_type) else to_json(value)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return base64.b64encode(value).decode()
    return value


def from_json(message: Message, values: Any) -> None:
    """Fill a message from plain JSON values. Keys match without regard to case; unknown keys are ignored.

    Raises:
        JsonMismatch: a value has the wrong type or range.
    """
    if not isinstance(values, dict):
        raise JsonMismatch(f"{message.DESCRIPTOR.name}: expected an object")
    by_name = {field.name.lower(): field for field in message.DESCRIPTOR.fields}
    for key, value in values.items():
        field = by_name.get(key.lower())
        if field is not None and value is not None:
            try:
                _set_field(message, field, value)
            except (TypeError, ValueError, AttributeError, binascii.Error) as error:
                if isinstance(error, JsonMismatch):
                    raise
                raise JsonMismatch(f"{field.name}: value has the wrong type or range") from error


def _set_field(message: Message, field: Any, value: Any) -> None:
    if _is_map(field):
        _set_map(getattr(message, field.name), field, value)
    elif field.is_repeated:
        target = getattr(message, field.name)
        for item in _expect(list, value, field):
            if field.message_type is not None:
                from_json(target.add(), item)
            else:
                target.append(_scalar(field, item))
    elif field.message_type is not None:
        target = getattr(message, field.name)
        target.SetInParent()
        if _is_wrapper(field.message_type):
            target.value = _scalar(field.message_type.fields_by_name["value"], value)
        else:
            from_json(target, value)
    else:
        setattr(message, field.name, _scalar(field, value))


def _set_map(target: Any, field: Any, value: Any) -> None:
    kind = field.message_type.fields_by_name["value"]
    for key, item in _expect(dict, value, field).items():
        if kind.message_type is not None:
            from_json(target[key], item)
        else:
            target[key] = _scalar(kind, item)


def _expect(kind: type, value: Any, field: Any) -> Any:
    if not isinstance(value, kind):
        raise JsonMismatch(f"{field.name}: expected {'a list' if kind is list else 'an object'}")
    return value


def _scalar(field: Any, value: Any) -> Any:
    if field.type == FieldDescriptor.TYPE_BYTES:
        if not isinstance(value, str):
            raise JsonMismatch(f"{field.name}: expected base64 text")
        return base64.b64decode(value, validate=True)
    wanted = {bool: bool, str: str}.get(type(value))
    if field.type == FieldDescriptor.TYPE_BOOL and wanted is not bool:
        raise JsonMismatch(f"{field.name}: expected true or false")
    if wanted is bool and field.type != FieldDescriptor.TYPE_BOOL:
        raise JsonMismatch(f"{field.name}: did not expect true or false")
    if isinstance(value, float):
        if not value.is_integer():
            raise JsonMismatch(f"{field.name}: expected a whole number")
        value = int(value)
    return value
