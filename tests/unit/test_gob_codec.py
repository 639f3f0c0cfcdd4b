from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.codecs import gob_codec
from gateway.codecs.base import CodecError, Request, Response
from gateway.codecs.gob_codec import GobCodec
from imserver.constants import ReqIdentifier

CODEC = GobCodec()

BOOL, INT, UINT, FLOAT, BYTES, STRING, COMPLEX, INTERFACE = range(1, 9)
REQUEST_FIELDS = (
    ("ReqIdentifier", INT),
    ("Token", STRING),
    ("SendID", STRING),
    ("OperationID", STRING),
    ("MsgIncr", STRING),
    ("Data", BYTES),
)
REQUEST = Request(1003, "token", "u1", "op1", "u1_1", b"\x0a\x02u1")
REQUEST_FRAME = CODEC.encode_request(REQUEST)
RESPONSE_FRAME = CODEC.encode_response(Response(1003, "u1_1", "op1", 1302, "BlockedByPeer", b"data" * 50))

int32 = st.integers(-(1 << 31), (1 << 31) - 1)
int64 = st.integers(-(1 << 63), (1 << 63) - 1)
requests = st.builds(Request, int32, st.text(), st.text(), st.text(), st.text(), st.binary(max_size=300))
responses = st.builds(Response, int32, st.text(), st.text(), int64, st.text(), st.binary(max_size=300))


# Hostile frames are put together by these few lines, not by the writer under test.


def encode_uint(number: int) -> bytes:
    digits = number.to_bytes(8, "big").lstrip(b"\0")
    return bytes([number]) if number < 128 else bytes([256 - len(digits)]) + digits


def encode_int(number: int) -> bytes:
    return encode_uint(number * 2 if number >= 0 else -number * 2 - 1)


def blob(data: bytes) -> bytes:
    return encode_uint(len(data)) + data


def message(body: bytes) -> bytes:
    return blob(body)


def common(name: str, type_id: int) -> bytes:
    return b"\x01" + blob(name.encode()) + b"\x01" + encode_int(type_id) + b"\x00"


def struct_type(type_id: int, fields: Sequence[tuple[str, int]]) -> bytes:
    described = b"".join(b"\x01" + blob(name.encode()) + b"\x01" + encode_int(kind) + b"\x00" for name, kind in fields)
    body = b"\x01" + common("Any", type_id) + b"\x01" + encode_uint(len(fields)) + described + b"\x00"
    return message(encode_int(-type_id) + b"\x03" + body + b"\x00")


def slice_type(type_id: int, element: int) -> bytes:
    body = b"\x01" + common("", type_id) + b"\x01" + encode_int(element) + b"\x00"
    return message(encode_int(-type_id) + b"\x02" + body + b"\x00")


def value(type_id: int, fields: bytes) -> bytes:
    return message(encode_int(type_id) + fields)


def refuses(decode: Callable[[bytes], object], frame: bytes) -> None:
    """Fails for a decoder that accepts the frame or raises anything but CodecError."""
    with pytest.raises(CodecError):
        decode(frame)


def survives(frame: bytes) -> None:
    """Fails for a decoder that raises anything but CodecError."""
    for decode in (CODEC.decode_request, CODEC.decode_response):
        try:
            decode(frame)
        except CodecError:
            continue


@given(requests)
@example(Request())
@example(Request(-(1 << 31), "\x00", "漢字", "😀", " ", b"\x00"))
def test_every_request_survives_the_way_to_bytes_and_back(request_: Request) -> None:
    assert CODEC.decode_request(CODEC.encode_request(request_)) == request_


@given(responses)
@example(Response())
@example(Response(err_code=-(1 << 63)))
@example(Response(err_code=(1 << 63) - 1, data=bytes(100_000)))
def test_every_response_survives_the_way_to_bytes_and_back(response: Response) -> None:
    assert CODEC.decode_response(CODEC.encode_response(response)) == response


@given(
    fields=st.permutations([*REQUEST_FIELDS, ("Flag", BOOL), ("Ratio", FLOAT), ("Wave", COMPLEX), ("Count", UINT)]),
    type_id=st.integers(64, (1 << 62)),
)
def test_any_type_id_any_field_order_and_unknown_fields_are_read(fields: list[tuple[str, int]], type_id: int) -> None:
    encoded = {
        "ReqIdentifier": encode_int(REQUEST.req_identifier),
        "Token": blob(REQUEST.token.encode()),
        "SendID": blob(REQUEST.send_id.encode()),
        "OperationID": blob(REQUEST.operation_id.encode()),
        "MsgIncr": blob(REQUEST.msg_incr.encode()),
        "Data": blob(REQUEST.data),
        "Flag": b"\x01",
        "Ratio": b"\xfe\xe0\x3f",
        "Wave": b"\xfe\xf0\x3f\x40",
        "Count": encode_uint(70_000),
    }
    body = b"".join(b"\x01" + encoded[name] for name, _ in fields)

    request = CODEC.decode_request(struct_type(type_id, fields) + value(type_id, body + b"\x00"))

    assert request == REQUEST


def test_fields_that_the_type_lacks_take_their_defaults() -> None:
    frame = struct_type(70, [("SendID", STRING)]) + value(70, b"\x01" + blob(b"u1") + b"\x00")

    assert CODEC.decode_request(frame) == Request(send_id="u1")


def test_an_unknown_field_of_a_type_defined_after_the_struct_is_skipped() -> None:
    definitions = struct_type(70, [("Tags", 71), ("SendID", STRING)]) + slice_type(71, STRING)
    body = b"\x01" + b"\x02" + blob(b"a") + blob(b"b") + b"\x01" + blob(b"u1") + b"\x00"

    assert CODEC.decode_request(definitions + value(70, body)) == Request(send_id="u1")


def test_a_nil_interface_is_skipped_and_so_is_a_named_one() -> None:
    definition = struct_type(70, [("Nil", INTERFACE), ("Named", INTERFACE), ("SendID", STRING)])
    named = blob(b"string") + encode_int(STRING) + blob(b"\x00\x04text")
    body = b"\x01\x00" + b"\x01" + named + b"\x01" + blob(b"u1") + b"\x00"

    assert CODEC.decode_request(definition + value(70, body)) == Request(send_id="u1")


def test_an_interface_that_brings_its_own_definition_is_refused() -> None:
    definition = struct_type(70, [("Odd", INTERFACE), ("SendID", STRING)])
    body = b"\x01" + blob(b"main.T") + encode_int(-71) + b"\x00\x00"

    refuses(CODEC.decode_request, definition + value(70, body))


def test_zero_values_are_left_out() -> None:
    frame = CODEC.encode_response(Response(ReqIdentifier.KICK_ONLINE))

    assert frame.endswith(bytes.fromhex("07 ff80 01fe0fa4 00"))


def test_every_frame_carries_its_definition() -> None:
    first, second = (CODEC.encode_response(Response(1001, msg_incr=text)) for text in ("a", "b"))

    assert first[:96] == second[:96]
    assert CODEC.decode_response(second) == Response(1001, msg_incr="b")


@given(st.binary(max_size=400))
def test_arbitrary_bytes_raise_nothing_but_codec_error(frame: bytes) -> None:
    survives(frame)


@given(st.binary(max_size=100))
def test_arbitrary_bytes_after_a_good_definition_raise_nothing_but_codec_error(tail: bytes) -> None:
    definition = REQUEST_FRAME[: 1 + REQUEST_FRAME[0]]

    survives(definition + tail)
    survives(definition + value(64, tail))


@given(st.binary(max_size=100))
def test_arbitrary_type_definitions_raise_nothing_but_codec_error(body: bytes) -> None:
    survives(message(encode_int(-64) + body) + value(64, b"\x00"))
    survives(message(encode_int(-64) + b"\x03" + body) + value(64, b"\x00"))


@pytest.mark.parametrize(
    ("decode", "frame"),
    [(CODEC.decode_request, REQUEST_FRAME), (CODEC.decode_response, RESPONSE_FRAME)],
    ids=["request", "response"],
)
def test_a_frame_cut_off_anywhere_is_refused(decode: Callable[[bytes], object], frame: bytes) -> None:
    for length in range(len(frame)):
        refuses(decode, frame[:length])


@pytest.mark.parametrize("frame", [REQUEST_FRAME, RESPONSE_FRAME], ids=["request", "response"])
def test_one_changed_byte_raises_nothing_but_codec_error(frame: bytes) -> None:
    for index in range(len(frame)):
        for byte in range(256):
            survives(frame[:index] + bytes((byte,)) + frame[index + 1 :])


@given(st.data())
def test_several_changed_bytes_raise_nothing_but_codec_error(data: st.DataObject) -> None:
    frame = bytearray(data.draw(st.sampled_from([REQUEST_FRAME, RESPONSE_FRAME])))
    for index in data.draw(st.lists(st.integers(0, len(frame) - 1), max_size=6)):
        frame[index] = data.draw(st.integers(0, 255))

    survives(bytes(frame))


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(REQUEST_FRAME[: 1 + REQUEST_FRAME[0]], id="definition without a value"),
        pytest.param(REQUEST_FRAME[1 + REQUEST_FRAME[0] :], id="value without a definition"),
        pytest.param(REQUEST_FRAME + b"\x00", id="one byte after the value"),
        pytest.param(REQUEST_FRAME * 2, id="a second envelope after the first"),
        pytest.param(struct_type(64, REQUEST_FIELDS) * 2 + value(64, b"\x00"), id="a type defined twice"),
        pytest.param(struct_type(6, REQUEST_FIELDS) + value(6, b"\x00"), id="a built-in type redefined"),
        pytest.param(struct_type(64, [("SendID", STRING)] * 2) + value(64, b"\x00"), id="a field name twice"),
        pytest.param(struct_type(64, REQUEST_FIELDS) + value(65, b"\x00"), id="a value of an undefined type"),
        pytest.param(struct_type(64, REQUEST_FIELDS) + value(6, b"\x00\x01a"), id="a value that is a bare string"),
        pytest.param(slice_type(64, STRING) + value(64, b"\x00\x00"), id="a value that is a list"),
        pytest.param(struct_type(64, []) + value(64, b"\x00"), id="a struct without fields"),
        pytest.param(struct_type(64, [("Other", INT)]) + value(64, b"\x00"), id="a struct of something else"),
        pytest.param(struct_type(64, [("SendID", BYTES)]) + value(64, b"\x00"), id="text declared as bytes"),
        pytest.param(struct_type(64, [("ReqIdentifier", UINT)]) + value(64, b"\x00"), id="an int declared unsigned"),
        pytest.param(struct_type(64, REQUEST_FIELDS) + value(64, b"\x07\x02\x00"), id="a field number too high"),
        pytest.param(struct_type(64, REQUEST_FIELDS) + value(64, b"\x41\x02\x00"), id="a field step too large"),
        pytest.param(
            struct_type(64, REQUEST_FIELDS) + value(64, b"\xff\x00\x00\x00"), id="a step of zero written long"
        ),
        pytest.param(struct_type(64, REQUEST_FIELDS) + value(64, b"\x03\x02\xff\xfe\x00"), id="text that is not UTF-8"),
        pytest.param(struct_type(64, REQUEST_FIELDS) + value(64, b"\x01\xf7" + b"\x01" * 9 + b"\x00"), id="nine bytes"),
        pytest.param(struct_type(64, REQUEST_FIELDS) + value(64, b"\x03\xf8" + b"\xff" * 8), id="text of 2**64 bytes"),
        pytest.param(struct_type(64, REQUEST_FIELDS) + b"\xf8" + b"\xff" * 8, id="a value of 2**64 bytes"),
        pytest.param(b"\xf8" + b"\xff" * 8 + REQUEST_FRAME[1:], id="a definition of 2**64 bytes"),
        pytest.param(message(encode_int(-64) + b"\x00") + value(64, b"\x00"), id="a definition of no kind"),
        pytest.param(struct_type(64, [("A", 99), ("SendID", STRING)]) + value(64, b"\x01\x00"), id="unknown type"),
        pytest.param(b"\x02\x7f\x00" * 100_000, id="definitions without end"),
    ],
)
def test_a_malformed_frame_is_refused(frame: bytes) -> None:
    refuses(CODEC.decode_request, frame)


@pytest.mark.parametrize("number", [1 << 31, -(1 << 31) - 1, (1 << 63) - 1])
def test_a_request_identifier_beyond_32_bits_is_refused_both_ways(number: int) -> None:
    frame = struct_type(64, REQUEST_FIELDS) + value(64, b"\x01" + encode_int(number) + b"\x00")

    refuses(CODEC.decode_request, frame)
    with pytest.raises(CodecError, match="out of range"):
        CODEC.encode_response(Response(number))


def test_an_error_code_beyond_64_bits_cannot_be_encoded() -> None:
    with pytest.raises(CodecError, match="out of range"):
        CODEC.encode_response(Response(err_code=1 << 63))


def test_a_lone_surrogate_cannot_be_encoded() -> None:
    with pytest.raises(CodecError, match="UTF-8"):
        CODEC.encode_response(Response(err_msg="\ud800"))


def test_too_many_fields_are_refused() -> None:
    fields = [("SendID", STRING), *((f"F{number}", INT) for number in range(gob_codec.MAX_FIELDS))]

    refuses(CODEC.decode_request, struct_type(64, fields) + value(64, b"\x00"))
    assert CODEC.decode_request(struct_type(64, fields[:-1]) + value(64, b"\x00")) == Request()


def test_too_many_definitions_are_refused() -> None:
    extra = [slice_type(65 + number, INT) for number in range(gob_codec.MAX_DEFINITIONS)]
    first = struct_type(64, REQUEST_FIELDS)

    refuses(CODEC.decode_request, first + b"".join(extra) + value(64, b"\x00"))
    assert CODEC.decode_request(first + b"".join(extra[:-1]) + value(64, b"\x00")) == Request()


def test_a_list_of_itself_cannot_nest_without_end() -> None:
    definitions = struct_type(64, [("Deep", 65), ("SendID", STRING)]) + slice_type(65, 65)
    body = b"\x01" + b"\x01" * 5000 + b"\x00\x00"

    refuses(CODEC.decode_request, definitions + value(64, body))


def test_an_unknown_list_is_skipped_up_to_a_limit() -> None:
    definitions = struct_type(64, [("List", 65), ("SendID", STRING)]) + slice_type(65, INT)

    def frame(count: int) -> bytes:
        return definitions + value(64, b"\x01" + encode_uint(count) + b"\x02" * count + b"\x01\x02u1\x00")

    assert CODEC.decode_request(frame(1000)) == Request(send_id="u1")
    refuses(CODEC.decode_request, frame(gob_codec.MAX_GENERAL_VALUES))


@pytest.mark.parametrize("claim", [1 << 20, 1 << 40, (1 << 64) - 1])
def test_memory_follows_the_input_and_not_its_claims(claim: int) -> None:
    definitions = struct_type(64, [("List", 65), ("SendID", STRING)]) + slice_type(65, INT)
    frames = [
        definitions + value(64, b"\x01" + encode_uint(claim) + b"\x02" * 8),
        definitions + value(64, b"\x02" + encode_uint(claim) + b"u1"),
        encode_uint(claim) + REQUEST_FRAME[1:],
    ]

    tracemalloc.start()
    for frame in frames:
        refuses(CODEC.decode_request, frame)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 100_000


def test_remembered_plans_are_bounded_in_number_and_in_size() -> None:
    cache = gob_codec._REQUEST._cached_plan
    for number in range(2 * gob_codec.CACHED_PLANS):
        CODEC.decode_request(struct_type(64 + number, REQUEST_FIELDS) + value(64 + number, b"\x00"))
    misses = cache.cache_info().misses
    long_fields = [("SendID", STRING), ("F" * gob_codec.MAX_CACHED_BYTES, INT)]

    assert CODEC.decode_request(struct_type(64, long_fields) + value(64, b"\x00")) == Request()

    assert cache.cache_info().currsize == gob_codec.CACHED_PLANS
    assert cache.cache_info().misses == misses


def test_a_repeated_definition_is_parsed_once() -> None:
    CODEC.decode_request(REQUEST_FRAME)
    before = gob_codec._REQUEST._cached_plan.cache_info()

    CODEC.decode_request(CODEC.encode_request(Request(1001, send_id="somebody else")))

    after = gob_codec._REQUEST._cached_plan.cache_info()
    assert (after.hits, after.misses) == (before.hits + 1, before.misses)
