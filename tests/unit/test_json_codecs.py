from __future__ import annotations

import base64
import string
from typing import Any

import orjson
import pytest
from google.protobuf.message import Message
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.codecs.base import Codec, CodecError, Request, Response
from gateway.codecs.json_codec import Direction, JsonCodec
from gateway.codecs.plain_codec import PlainCodec
from gateway.codecs.registry import CODECS, get_codec
from imserver.constants import ReqIdentifier
from imserver.protocol.gen import msg_pb2, sdkws_pb2
from imserver.protocol.identifiers import MESSAGE_TYPES

JSON = JsonCodec()
PLAIN = PlainCodec()
BOTH = pytest.mark.parametrize("codec", [JSON, PLAIN], ids=["js", "json"])

int32 = st.integers(-(1 << 31), (1 << 31) - 1)
int64 = st.integers(-(1 << 63), (1 << 63) - 1)
requests = st.builds(Request, int32, st.text(), st.text(), st.text(), st.text(), st.binary(max_size=300))
responses = st.builds(Response, int32, st.text(), st.text(), int64, st.text(), st.binary(max_size=300))

MSG = sdkws_pb2.MsgData(
    sendID="u1",
    recvID="u2",
    clientMsgID="c1",
    sessionType=1,
    contentType=101,
    content=b'{"content":"hi"}',
    sendTime=1_760_000_000_000,
    options={"history": True, "unreadCount": False},
)
MSG_FRAME = PLAIN.encode_request(Request(ReqIdentifier.SEND_MSG, "", "u1", "op1", "1", MSG.SerializeToString()))
JS_FRAME = JSON.encode_request(Request(ReqIdentifier.SEND_MSG, "", "u1", "op1", "1", MSG.SerializeToString()))


def names_in(message_type: type[Message] | None) -> list[str]:
    return [] if message_type is None else [field.name for field in message_type.DESCRIPTOR.fields]


FIELD_NAMES = sorted({name for pair in MESSAGE_TYPES.values() for kind in pair for name in names_in(kind)})

#: Any JSON value, with a liking for the keys, numbers and texts that mean something to our messages.
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["-1", "1e3", "99999999999999999999", "NaN", "QQ==", "Q", "true", "0x1", " 1"])
)
keys = st.sampled_from(FIELD_NAMES) | st.text(string.printable, max_size=8)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=20,
)


def survives(codec: Codec, frame: bytes) -> None:
    """Fails for a decoder that raises anything but CodecError."""
    for decode in (codec.decode_request, codec.decode_response):
        try:
            decode(frame)
        except CodecError:
            continue


@given(requests)
@example(Request())
@example(Request(1, "\x00", "漢字", "😀", '"\\', b"\x00"))
def test_every_request_survives_the_way_to_json_and_back(request_: Request) -> None:
    assert JSON.decode_request(JSON.encode_request(request_)) == request_


@given(responses)
@example(Response())
@example(Response(err_code=-(1 << 63), data=bytes(100_000)))
def test_every_response_survives_the_way_to_json_and_back(response: Response) -> None:
    assert JSON.decode_response(JSON.encode_response(response)) == response


def test_a_success_has_the_number_zero_and_empty_data() -> None:
    frame = JSON.encode_response(Response(ReqIdentifier.SET_BACKGROUND, "x1", "op1"))

    assert frame == b'{"reqIdentifier":2004,"msgIncr":"x1","operationID":"op1","errCode":0,"errMsg":"","data":""}'


def test_a_request_without_a_token_does_not_mention_it() -> None:
    frame = JSON.encode_request(Request(1001, "", "u1", "op1", "x1", b"a"))

    assert frame == b'{"reqIdentifier":1001,"sendID":"u1","operationID":"op1","msgIncr":"x1","data":"YQ=="}'


@pytest.mark.parametrize("data", ["", ',"data":null', ',"data":""'])
def test_absent_null_and_empty_data_are_all_no_data(data: str) -> None:
    frame = f'{{"reqIdentifier":1001,"sendID":"u1"{data},"later":[1,{{}}]}}'.encode()

    assert JSON.decode_request(frame) == Request(1001, send_id="u1")


@BOTH
def test_null_is_the_default_of_any_key(codec: Codec) -> None:
    frame = b'{"reqIdentifier":null,"token":null,"sendID":null,"operationID":null,"msgIncr":null,"data":null}'

    assert codec.decode_request(frame) == Request()


@BOTH
@pytest.mark.parametrize(
    "frame",
    [
        "",
        "null",
        "[]",
        "1",
        '"text"',
        "{",
        "{} {}",
        "{'reqIdentifier':1}",
        '{"reqIdentifier":"1001"}',
        '{"reqIdentifier":1001.0}',
        '{"reqIdentifier":true}',
        '{"reqIdentifier":2147483648}',
        '{"reqIdentifier":-2147483649}',
        '{"reqIdentifier":1e400}',
        '{"reqIdentifier":123456789012345678901234567890}',
        '{"sendID":1}',
        '{"token":[]}',
        '{"operationID":{}}',
        '{"msgIncr":false}',
        '{"sendID":"\\ud800"}',
        '{"data":1}',
        '{"data":[]}',
        '{"data":true}',
        "[" * 50_000,
    ],
)
def test_a_malformed_frame_is_refused(codec: Codec, frame: str) -> None:
    with pytest.raises(CodecError):
        codec.decode_request(frame.encode())


@pytest.mark.parametrize("data", ["YQ", "YQ=", "YQ===", "=", "Y Q==", "YQ==\n", "YQ==YQ==", "_-8=", "é", "A"])
def test_data_that_is_not_padded_standard_base64_is_refused(data: str) -> None:
    with pytest.raises(CodecError):
        JSON.decode_request(orjson.dumps({"reqIdentifier": 1001, "data": data}))


@BOTH
@pytest.mark.parametrize("field", ["errCode", "errMsg", "msgIncr"])
def test_a_response_with_wrong_types_is_refused(codec: Codec, field: str) -> None:
    with pytest.raises(CodecError):
        codec.decode_response(orjson.dumps({"reqIdentifier": 1001, field: [1]}))


@BOTH
def test_invalid_utf_8_is_refused(codec: Codec) -> None:
    with pytest.raises(CodecError):
        codec.decode_request(b'{"sendID":"\xff"}')


@BOTH
def test_what_json_cannot_hold_is_refused_when_encoding(codec: Codec) -> None:
    with pytest.raises(CodecError):
        codec.encode_response(Response(err_msg="\ud800"))
    with pytest.raises(CodecError):
        codec.encode_response(Response(err_code=1 << 70))


@BOTH
@pytest.mark.parametrize("frame", [JS_FRAME, MSG_FRAME], ids=["js", "json"])
def test_a_frame_cut_off_anywhere_is_refused(codec: Codec, frame: bytes) -> None:
    for length in range(len(frame)):
        with pytest.raises(CodecError):
            codec.decode_request(frame[:length])


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_but_codec_error(frame: bytes) -> None:
    survives(JSON, frame)
    survives(PLAIN, frame)


@given(st.sampled_from([JS_FRAME, MSG_FRAME]), st.integers(0), st.integers(0, 255))
def test_one_changed_byte_raises_nothing_but_codec_error(frame: bytes, position: int, byte: int) -> None:
    index = position % len(frame)
    changed = frame[:index] + bytes((byte,)) + frame[index + 1 :]

    survives(JSON, changed)
    survives(PLAIN, changed)


@given(st.sampled_from(sorted(MESSAGE_TYPES)), json_values, st.dictionaries(keys, json_values, max_size=6))
def test_arbitrary_data_raises_nothing_but_codec_error(req_identifier: int, value: Any, fields: dict[str, Any]) -> None:
    for data in (value, fields):
        frame = orjson.dumps({"reqIdentifier": req_identifier, "data": data})

        survives(JSON, frame)
        survives(PLAIN, frame)


def test_plain_data_is_the_message_under_its_proto_names() -> None:
    envelope = orjson.loads(MSG_FRAME)

    assert envelope["data"] == {
        "sendID": "u1",
        "recvID": "u2",
        "clientMsgID": "c1",
        "sessionType": 1,
        "contentType": 101,
        "content": base64.b64encode(b'{"content":"hi"}').decode(),
        "sendTime": "1760000000000",
        "options": {"history": True, "unreadCount": False},
    }
    assert sdkws_pb2.MsgData.FromString(PLAIN.decode_request(MSG_FRAME).data) == MSG


def test_plain_frames_leave_as_text_and_the_others_as_binary() -> None:
    assert {name for name, codec in CODECS.items() if codec.is_text} == {"json"}


def test_plain_ignores_unknown_fields_and_reads_numbers_as_either() -> None:
    frame = b'{"reqIdentifier":1003,"data":{"sendID":"u1","sendTime":5,"seq":"6","later":{"a":[1]}}}'

    data = PLAIN.decode_request(frame).data

    assert sdkws_pb2.MsgData.FromString(data) == sdkws_pb2.MsgData(sendID="u1", sendTime=5, seq=6)


@pytest.mark.parametrize("data", ["", ',"data":null', ',"data":{}'])
@pytest.mark.parametrize("req_identifier", [0, 1001, 1004, 2002, 9999])
def test_plain_no_data_is_empty_data_for_any_identifier(req_identifier: int, data: str) -> None:
    frame = f'{{"reqIdentifier":{req_identifier},"sendID":"u1"{data}}}'.encode()

    assert PLAIN.decode_request(frame) == Request(req_identifier, send_id="u1")


@pytest.mark.parametrize("req_identifier", [0, 1004, 2001, 2002, 9999])
def test_plain_data_for_an_identifier_without_a_request_message_is_refused(req_identifier: int) -> None:
    with pytest.raises(CodecError, match="no data"):
        PLAIN.decode_request(orjson.dumps({"reqIdentifier": req_identifier, "data": {"sendID": "u1"}}))


@pytest.mark.parametrize(
    "data",
    [
        "",
        "text",
        [],
        {"sendID": 5},
        {"sessionType": "one"},
        {"seq": "1.5"},
        {"seq": 1 << 63},
        {"content": "not base64!"},
        {"content": 5},
        {"options": []},
        {"options": {"history": "yes"}},
        {"atUserIDList": "u1"},
        {"offlinePushInfo": "text"},
        {"offlinePushInfo": ["title"]},
        {"offlinePushInfo": [["title"]]},
        {"offlinePushInfo": []},
        {"offlinePushInfo": 0},
    ],
)
def test_plain_data_that_does_not_fit_its_message_is_refused(data: object) -> None:
    with pytest.raises(CodecError):
        PLAIN.decode_request(orjson.dumps({"reqIdentifier": 1003, "data": data}))


@pytest.mark.parametrize("seq_ranges", ["text", ["text"], [[]], {"conversationID": "c1"}, [{"num": 1}, "text"]])
def test_plain_lists_of_messages_hold_objects_only(seq_ranges: object) -> None:
    frame = orjson.dumps({"reqIdentifier": 1002, "data": {"userID": "u1", "seqRanges": seq_ranges}})

    with pytest.raises(CodecError):
        PLAIN.decode_request(frame)


@pytest.mark.parametrize("msgs", ["text", ["c1"], {"c1": "text"}, {"c1": {"Msgs": ["text"]}}])
def test_plain_maps_of_messages_hold_objects_only(msgs: object) -> None:
    with pytest.raises(CodecError):
        PLAIN.decode_response(orjson.dumps({"reqIdentifier": 2001, "data": {"msgs": msgs}}))


def test_plain_reads_lists_and_maps_of_messages() -> None:
    ranges = sdkws_pb2.PullMessageBySeqsReq(
        userID="u1",
        seqRanges=[sdkws_pb2.SeqRange(conversationID="c1", end=5), sdkws_pb2.SeqRange(num=1)],
        order="PullOrderDesc",
    ).SerializeToString()
    push = sdkws_pb2.PushMessages(msgs={"c1": sdkws_pb2.PullMsgs(Msgs=[MSG], isEnd=True)}).SerializeToString()

    assert PLAIN.decode_request(PLAIN.encode_request(Request(1002, data=ranges))).data == ranges
    assert sdkws_pb2.PushMessages.FromString(
        PLAIN.decode_response(PLAIN.encode_response(Response(2001, data=push))).data
    ) == sdkws_pb2.PushMessages.FromString(push)


def test_plain_error_texts_do_not_quote_the_content() -> None:
    with pytest.raises(CodecError) as caught:
        PLAIN.decode_request(b'{"reqIdentifier":1003,"data":{"seq":"my secret"}}')

    assert "secret" not in str(caught.value)


def test_plain_response_shows_its_message_and_null_when_empty() -> None:
    answer = msg_pb2.SendMsgResp(serverMsgID="s1", clientMsgID="c1", sendTime=7).SerializeToString()

    full = PLAIN.encode_response(Response(1003, "x1", "op1", data=answer))
    empty = PLAIN.encode_response(Response(1003, "x1", "op1", 1302, "BlockedByPeer"))

    assert orjson.loads(full)["data"] == {"serverMsgID": "s1", "clientMsgID": "c1", "sendTime": "7"}
    assert orjson.loads(empty)["data"] is None
    assert PLAIN.decode_response(full) == Response(1003, "x1", "op1", data=answer)
    assert PLAIN.decode_response(empty) == Response(1003, "x1", "op1", 1302, "BlockedByPeer")


@pytest.mark.parametrize(
    ("req_identifier", "data"),
    [(1003, b"\xff\xff"), (1003, b"\x0a\x02\xff\xff"), (2002, b"\x0a\x00"), (9999, b"\x0a\x00")],
)
def test_plain_refuses_to_encode_data_that_is_not_the_message(req_identifier: int, data: bytes) -> None:
    with pytest.raises(CodecError):
        PLAIN.encode_response(Response(req_identifier, data=data))


@pytest.mark.parametrize("req_identifier", sorted(MESSAGE_TYPES))
def test_plain_knows_the_messages_of_every_identifier_and_direction(req_identifier: int) -> None:
    for direction, kind in enumerate(MESSAGE_TYPES[req_identifier]):
        data = {} if kind is None else {"unknownField": 1}

        assert PLAIN._load_data(data, req_identifier, Direction(direction)) == b""


def test_codecs_are_found_by_the_name_that_clients_send() -> None:
    assert {name: codec.name for name, codec in CODECS.items()} == {"go": "go", "js": "js", "json": "json"}
    assert isinstance(get_codec("js"), JsonCodec)


@pytest.mark.parametrize("name", ["", "GO", "gob"])
def test_an_unknown_codec_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(CodecError, match="expected one of go, js, json"):
        get_codec(name)
