"""Gob envelope (``sdkType=go``, the default): one type definition and one value a frame, no state between frames.

Decoding goes in two steps. The type definitions in front of the value are read by a small general gob reader and
turned into a plan (field number -> field of ours, matched by name); plans are remembered by the raw definition
bytes, and every client sends the same ones for ever. The value is then read by the plan in one tight loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from gateway.codecs.base import Codec, CodecError, Request, Response

#: Type ids that gob itself defines.
BOOL, INT, UINT, FLOAT, BYTES, STRING, COMPLEX, INTERFACE = range(1, 9)
WIRE_TYPE, ARRAY_TYPE, COMMON_TYPE, SLICE_TYPE, STRUCT_TYPE, FIELD_TYPE, FIELD_LIST, MAP_TYPE = range(16, 24)
#: Smallest id that a sender may give to a type of its own; also the id that we give to ours.
FIRST_USER_TYPE = 64

#: Type definitions in one frame. Real clients send one.
MAX_DEFINITIONS = 16
#: Fields of one struct. Requests and responses have six.
MAX_FIELDS = 64
#: Types inside types; bounds our recursion.
MAX_DEPTH = 16
#: Values that the general reader touches in one frame, about 1 us each: a frame stuffed with a huge unknown list
#: is refused after a few milliseconds instead of holding the event loop.
MAX_GENERAL_VALUES = 4096
#: Plans remembered, and the longest definition bytes of one: what a hostile client can fill stays at a few MiB.
#: Making a plan costs about 17 us, five times the decoding that it is for.
CACHED_PLANS = 256
MAX_CACHED_BYTES = 1024

TRUNCATED = "gob: the frame ends early, or names a field that its type does not have"


def _read_uint(frame: bytes, at: int) -> tuple[int, int]:
    """The unsigned integer at ``at`` and the position after it. IndexError where the frame has ended."""
    first = frame[at]
    at += 1
    if first < 128:
        return first, at
    stop = at + 256 - first
    if first < 248:
        raise CodecError("gob: integer of more than eight bytes")
    if stop > len(frame):
        raise CodecError(TRUNCATED)
    return int.from_bytes(frame[at:stop], "big"), stop


def _signed(number: int) -> int:
    return ~(number >> 1) if number & 1 else number >> 1


# -- general reader: type definitions, and values of fields that we do not know


class _Type(Protocol):
    def read(self, reader: _Reader, depth: int) -> Any:
        """Consume one value of this type."""


@dataclass(frozen=True, slots=True)
class _Struct:
    fields: tuple[tuple[bytes, int], ...]

    def read(self, reader: _Reader, depth: int) -> dict[bytes, Any]:
        values: dict[bytes, Any] = {}
        number = -1
        while delta := reader.uint():
            number += delta
            if number >= len(self.fields):
                raise CodecError(TRUNCATED)
            name, type_id = self.fields[number]
            values[name] = reader.value(type_id, depth + 1)
        return values


@dataclass(frozen=True, slots=True)
class _List:
    """Array or slice: the same bytes."""

    element: int

    def read(self, reader: _Reader, depth: int) -> list[Any]:
        # The count is only a claim: memory grows with what was really read, never with the claim.
        return [reader.value(self.element, depth + 1) for _ in range(reader.uint())]


@dataclass(frozen=True, slots=True)
class _Map:
    key: int
    element: int

    def read(self, reader: _Reader, depth: int) -> None:
        for _ in range(reader.uint()):
            reader.value(self.key, depth + 1)
            reader.value(self.element, depth + 1)


@dataclass(frozen=True, slots=True)
class _Opaque:
    """A type with its own encoder on the sender's side (such as a time): a byte string to everybody else."""

    def read(self, reader: _Reader, depth: int) -> None:
        reader.blob()


#: Gob describes types by values of these types, so the general reader needs no special case for definitions.
_BOOTSTRAP: dict[int, _Type] = {
    WIRE_TYPE: _Struct(
        (
            (b"ArrayT", ARRAY_TYPE),
            (b"SliceT", SLICE_TYPE),
            (b"StructT", STRUCT_TYPE),
            (b"MapT", MAP_TYPE),
            # The three kinds with an encoder of their own carry a name and an id, as the start of a slice type does.
            (b"GobEncoderT", SLICE_TYPE),
            (b"BinaryMarshalerT", SLICE_TYPE),
            (b"TextMarshalerT", SLICE_TYPE),
        )
    ),
    ARRAY_TYPE: _Struct(((b"CommonType", COMMON_TYPE), (b"Elem", INT), (b"Len", INT))),
    COMMON_TYPE: _Struct(((b"Name", STRING), (b"Id", INT))),
    SLICE_TYPE: _Struct(((b"CommonType", COMMON_TYPE), (b"Elem", INT))),
    STRUCT_TYPE: _Struct(((b"CommonType", COMMON_TYPE), (b"Field", FIELD_LIST))),
    FIELD_TYPE: _Struct(((b"Name", STRING), (b"Id", INT))),
    FIELD_LIST: _List(FIELD_TYPE),
    MAP_TYPE: _Struct(((b"CommonType", COMMON_TYPE), (b"Key", INT), (b"Elem", INT))),
}


class _Reader:
    """Reads values of any type from ``at`` on. Raises CodecError, or IndexError where the frame has ended."""

    __slots__ = ("at", "frame", "left", "types")

    def __init__(self, frame: bytes, at: int, types: dict[int, _Type]) -> None:
        self.frame = frame
        self.at = at
        self.types = types
        self.left = MAX_GENERAL_VALUES

    def uint(self) -> int:
        number, self.at = _read_uint(self.frame, self.at)
        return number

    def sint(self) -> int:
        return _signed(self.uint())

    def blob(self) -> bytes:
        size = self.uint()
        stop = self.at + size
        if stop > len(self.frame):
            raise CodecError(TRUNCATED)
        data = self.frame[self.at : stop]
        self.at = stop
        return data

    def complex(self) -> None:
        self.uint()
        self.uint()

    def interface(self) -> None:
        """The name of the concrete type (empty: nil), its id, then a value with its length in front."""
        if not self.blob():
            return
        if self.sint() < 0:
            raise CodecError("gob: an interface value that brings its own type definition is not supported")
        self.blob()

    def value(self, type_id: int, depth: int = 0) -> Any:
        self.left -= 1
        if self.left < 0 or depth > MAX_DEPTH:
            raise CodecError("gob: too many values, or nested too deeply")
        builtin = _BUILTIN_READERS.get(type_id)
        if builtin is not None:
            return builtin(self)
        user_type = self.types.get(type_id)
        if user_type is None:
            raise CodecError("gob: value of a type that was not defined")
        return user_type.read(self, depth)


_BUILTIN_READERS: dict[int, Callable[[_Reader], Any]] = {
    BOOL: _Reader.uint,
    INT: _Reader.sint,
    UINT: _Reader.uint,
    FLOAT: _Reader.uint,
    BYTES: _Reader.blob,
    STRING: _Reader.blob,
    COMPLEX: _Reader.complex,
    INTERFACE: _Reader.interface,
}


def _build_type(wire: dict[bytes, Any]) -> _Type:
    if len(wire) != 1:
        raise CodecError("gob: a type definition must be of exactly one kind")
    ((kind, body),) = wire.items()
    if kind == b"StructT":
        fields = tuple((field.get(b"Name", b""), field.get(b"Id", 0)) for field in body.get(b"Field", ()))
        if len(fields) > MAX_FIELDS or len({name for name, _ in fields}) != len(fields):
            raise CodecError("gob: struct type with too many fields, or with one name twice")
        return _Struct(fields)
    if kind == b"MapT":
        return _Map(body.get(b"Key", 0), body.get(b"Elem", 0))
    if kind in {b"ArrayT", b"SliceT"}:
        return _List(body.get(b"Elem", 0))
    return _Opaque()


def _read_definitions(definitions: bytes) -> dict[int, _Type]:
    """The types that the messages in ``definitions`` define. They may refer to each other in any order."""
    types: dict[int, _Type] = {}
    reader = _Reader(definitions, 0, _BOOTSTRAP)
    while reader.at < len(definitions):
        size = reader.uint()
        stop = reader.at + size
        type_id = -reader.sint()
        if type_id < FIRST_USER_TYPE or type_id in types:
            raise CodecError("gob: a type is defined twice, or has a reserved id")
        types[type_id] = _build_type(reader.value(WIRE_TYPE))
        if reader.at != stop:
            raise CodecError("gob: a type definition is shorter or longer than its length says")
    return types


# -- fast path: the value of a request or a response

#: What a plan does with a field. A skipped one is left to the general reader.
_TEXT, _BLOB, _NUMBER, _SKIP = range(4)


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    #: Gob type id; one of INT, STRING, BYTES.
    type_id: int
    #: Width of an INT in bits.
    bits: int = 64


@dataclass(frozen=True, slots=True)
class _Plan:
    #: By field number of the sender's type: what to do, and which value of ours it becomes (or, skipping, its type).
    steps: tuple[tuple[int, int], ...]
    types: dict[int, _Type]


class _StructCodec:
    """Both directions for one struct whose fields are ints, strings and byte strings."""

    def __init__(self, name: str, fields: tuple[_Field, ...]) -> None:
        self._by_name = {field.name.encode(): (slot, field) for slot, field in enumerate(fields)}
        self._limits = tuple(1 << (field.bits - 1) for field in fields)
        self._defaults = [{INT: 0, STRING: "", BYTES: b""}[field.type_id] for field in fields]
        # Least recently used: a client that keeps inventing definitions cannot push out those in use.
        self._cached_plan = lru_cache(maxsize=CACHED_PLANS)(self._make_plan)
        #: Constant first message of every frame that we write, and the type id in front of the value.
        self.definition = _write_definition(FIRST_USER_TYPE, name, fields)
        self._type_id = _write_int(FIRST_USER_TYPE)

    def decode(self, frame: bytes) -> list[Any]:
        """The field values in our order, defaults where the frame has none.

        1. Walk over the type definitions by their lengths. 2. Look up or make the plan. 3. Read the value by it.
        """
        try:
            start, type_id, at = _find_value(frame)
            definitions = frame[:start]
            find_plan = self._cached_plan if start <= MAX_CACHED_BYTES else self._make_plan
            return self._read_value(frame, at, find_plan(definitions, type_id))
        except IndexError:
            raise CodecError(TRUNCATED) from None
        except UnicodeDecodeError:
            raise CodecError("gob: a string is not UTF-8") from None

    def _make_plan(self, definitions: bytes, type_id: int) -> _Plan:
        types = _read_definitions(definitions)
        struct = types.get(type_id)
        if not isinstance(struct, _Struct):
            raise CodecError("gob: the value is not of a struct type defined in this frame")
        steps: list[tuple[int, int]] = []
        for name, field_type in struct.fields:
            slot, field = self._by_name.get(name, (-1, None))
            if field is None:
                steps.append((_SKIP, field_type))
            elif field.type_id != field_type:
                raise CodecError(f"gob: field {field.name} has the wrong type")
            else:
                steps.append(({INT: _NUMBER, STRING: _TEXT, BYTES: _BLOB}[field_type], slot))
        if all(action == _SKIP for action, _ in steps):
            raise CodecError("gob: no field of the value is known here")
        return _Plan(tuple(steps), types)

    def _read_value(self, frame: bytes, at: int, plan: _Plan) -> list[Any]:
        values = self._defaults.copy()
        steps = plan.steps
        end = len(frame)
        # One budget for all skipped fields of the frame.
        reader: _Reader | None = None
        number = -1
        # Single bytes are read in place: a call of _read_uint for each would double the time of a decode.
        while delta := frame[at]:
            at += 1
            if delta > MAX_FIELDS:
                raise CodecError(TRUNCATED)
            number += delta
            action, slot = steps[number]
            if action == _SKIP:
                reader = reader or _Reader(frame, at, plan.types)
                reader.at = at
                reader.value(slot)
                at = reader.at
                continue
            size = frame[at]
            at += 1
            if size > 127:
                size, at = _read_uint(frame, at - 1)
            if action == _NUMBER:
                value = _signed(size)
                limit = self._limits[slot]
                if not -limit <= value < limit:
                    raise CodecError("gob: a number is out of range")
                values[slot] = value
                continue
            stop = at + size
            if stop > end:
                raise CodecError(TRUNCATED)
            values[slot] = str(frame[at:stop], "utf-8") if action == _TEXT else frame[at:stop]
            at = stop
        if at + 1 != end:
            raise CodecError("gob: bytes after the end of the value")
        return values

    def encode(self, *values: Any) -> bytes:
        """The frame with these field values, given in the order of the fields."""
        parts: list[bytes] = []
        for value, limit in zip(values, self._limits, strict=True):
            if not value:
                parts.append(b"")
            elif isinstance(value, bytes):
                parts.append(_write_blob(value))
            elif isinstance(value, str):
                try:
                    parts.append(_write_blob(value.encode()))
                except UnicodeEncodeError:
                    raise CodecError("gob: a string cannot be written as UTF-8") from None
            elif -limit <= value < limit:
                parts.append(_write_int(value))
            else:
                raise CodecError("gob: a number is out of range")
        body = _write_struct(*parts)
        return b"".join((self.definition, _write_uint(len(self._type_id) + len(body)), self._type_id, body))


def _find_value(frame: bytes) -> tuple[int, int, int]:
    """Where the value's message starts, its type id, and where its bytes start."""
    start = 0
    for _ in range(MAX_DEFINITIONS + 1):
        size, body = _read_uint(frame, start)
        type_id, at = _read_uint(frame, body)
        if type_id & 1:
            # Negative: a definition. Here its length is only stepped over; _read_definitions checks it.
            start = body + size
            continue
        if body + size != len(frame):
            raise CodecError("gob: the value is shorter or longer than its length says")
        return start, type_id >> 1, at
    raise CodecError("gob: too many type definitions")


# -- writer

_ONE_BYTE = tuple(bytes((number,)) for number in range(128))


def _write_uint(number: int) -> bytes:
    if number < 128:
        return _ONE_BYTE[number]
    size = (number.bit_length() + 7) // 8
    return bytes((256 - size,)) + number.to_bytes(size, "big")


def _write_int(number: int) -> bytes:
    return _write_uint(~number << 1 | 1 if number < 0 else number << 1)


def _write_blob(data: bytes) -> bytes:
    return _write_uint(len(data)) + data


def _write_struct(*values: bytes) -> bytes:
    """A struct of encoded values; an empty one stands for the zero value, which gob leaves out."""
    parts: list[bytes] = []
    delta = 1
    for value in values:
        if value:
            parts += (_ONE_BYTE[delta], value)
            delta = 1
        else:
            delta += 1
    parts.append(b"\0")
    return b"".join(parts)


def _write_definition(type_id: int, name: str, fields: tuple[_Field, ...]) -> bytes:
    common = _write_struct(_write_blob(name.encode()), _write_int(type_id))
    described = [_write_struct(_write_blob(field.name.encode()), _write_int(field.type_id)) for field in fields]
    struct = _write_struct(common, _write_uint(len(fields)) + b"".join(described))
    # The struct kind is the third field of a wireType, after array and slice.
    return _write_blob(_write_int(-type_id) + _write_struct(b"", b"", struct))


_REQUEST = _StructCodec(
    "GeneralWsReq",
    (
        _Field("ReqIdentifier", INT, bits=32),
        _Field("Token", STRING),
        _Field("SendID", STRING),
        _Field("OperationID", STRING),
        _Field("MsgIncr", STRING),
        _Field("Data", BYTES),
    ),
)
# The Python SDK takes this order for granted and does not read it from the definition.
_RESPONSE = _StructCodec(
    "Resp",
    (
        _Field("ReqIdentifier", INT, bits=32),
        _Field("MsgIncr", STRING),
        _Field("OperationID", STRING),
        _Field("ErrCode", INT),
        _Field("ErrMsg", STRING),
        _Field("Data", BYTES),
    ),
)


class GobCodec(Codec):
    """Go's encoding/gob. Any type id, any field order, unknown fields skipped, absent fields default.

    Encoding raises CodecError for a number that the wire's type cannot hold and for a lone surrogate in a string.
    """

    name = "go"

    def decode_request(self, frame: bytes) -> Request:
        return Request(*_REQUEST.decode(frame))

    def encode_response(self, response: Response) -> bytes:
        return _RESPONSE.encode(
            response.req_identifier,
            response.msg_incr,
            response.operation_id,
            response.err_code,
            response.err_msg,
            response.data,
        )

    def encode_request(self, request: Request) -> bytes:
        return _REQUEST.encode(
            request.req_identifier,
            request.token,
            request.send_id,
            request.operation_id,
            request.msg_incr,
            request.data,
        )

    def decode_response(self, frame: bytes) -> Response:
        return Response(*_RESPONSE.decode(frame))
