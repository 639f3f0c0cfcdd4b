"""Recorded envelopes, byte for byte: the protocol's worked examples, frames written by Go's encoding/gob, and the
codec of the Python SDK as a second opinion. The Go frames were captured once, with Go 1.26; no Go is needed here.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.codecs.base import CodecError, Request, Response
from gateway.codecs.gob_codec import GobCodec
from gateway.codecs.json_codec import JsonCodec
from imserver.protocol.gen import sdkws_pb2

GOB = GobCodec()
JSON = JsonCodec()


def load_sdk_codec() -> ModuleType:
    """The SDK's codec module alone.

    Importing the package would register its copy of the protobuf schema, and protobuf refuses a second
    ``openim.sdkws`` beside ours in one process.
    """
    package = importlib.util.find_spec("openim_sdk")
    assert package is not None
    assert package.origin is not None
    spec = importlib.util.spec_from_file_location("sdk_gob_codec", Path(package.origin).with_name("gob_codec.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its dataclasses look their module up by name while it is still being executed.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


sdk = load_sdk_codec()

# -- the worked examples

PREFIX = bytes.fromhex(
    "5f7f030101045265737001ff80000106"
    "010d5265714964656e746966696572010400"
    "01074d7367496e6372010c00"
    "010b4f7065726174696f6e4944010c00"
    "0107457272436f6465010400"
    "01064572724d7367010c00"
    "010444617461010a00"
    "0000"
)
SEQS_REQUEST_FRAME = bytes.fromhex(
    "657f0301010c47656e6572616c577352657101ff80000106010d5265714964656e7469666965720104000105546f6b656e"
    "010c00010653656e644944010c00010b4f7065726174696f6e4944010c0001074d7367496e6372010c00010444617461010a"
    "000000 1e ff80 01fe07d2 02027531 01036f7031 010675315f6f7031 01040a027531 00"
)
SEQS_REQUEST = Request(1001, "", "u1", "op1", "u1_op1", bytes.fromhex("0a027531"))
SEQS_RESPONSE_DATA = bytes.fromhex("0a0c0a0873695f75315f75321005")

RESPONSES = [
    pytest.param(
        Response(1001, "u1_op1", "op1", data=SEQS_RESPONSE_DATA),
        "24 ff80 01fe07d2 010675315f6f7031 01036f7031 030e0a0c0a0873695f75315f75321005 00",
        id="newest seqs",
    ),
    pytest.param(
        Response(1003, "u1_op2", "op1", 1302, "BlockedByPeer"),
        "27 ff80 01fe07d6 010675315f6f7032 01036f7031 01fe0a2c 010d426c6f636b656442795065657200",
        id="error",
    ),
    pytest.param(Response(2002), "07 ff80 01fe0fa4 00", id="kick"),
]


def test_the_constant_prefix_has_the_96_bytes_of_the_protocol() -> None:
    assert len(PREFIX) == 96
    assert GOB.encode_response(Response()) == PREFIX + bytes.fromhex("03ff8000")


def test_the_request_example_is_read_and_written_byte_for_byte() -> None:
    assert GOB.decode_request(SEQS_REQUEST_FRAME) == SEQS_REQUEST
    assert GOB.encode_request(SEQS_REQUEST) == SEQS_REQUEST_FRAME


def test_the_request_example_with_type_65_is_read() -> None:
    definition, value = SEQS_REQUEST_FRAME[2:102], SEQS_REQUEST_FRAME[105:]
    frame = bytes.fromhex("66ff81") + definition.replace(b"\xff\x80", b"\xff\x82") + bytes.fromhex("1eff82") + value

    assert GOB.decode_request(frame) == SEQS_REQUEST


@pytest.mark.parametrize(("response", "value"), RESPONSES)
def test_the_response_examples_are_read_and_written_byte_for_byte(response: Response, value: str) -> None:
    frame = PREFIX + bytes.fromhex(value)

    assert GOB.encode_response(response) == frame
    assert GOB.decode_response(frame) == response


def test_the_json_example_is_read_and_written_byte_for_byte() -> None:
    frame = (
        b'{"reqIdentifier":1001,"msgIncr":"x1","operationID":"op1",'
        b'"errCode":0,"errMsg":"","data":"CgwKCHNpX3UxX3UyEAU="}'
    )
    response = Response(1001, "x1", "op1", data=SEQS_RESPONSE_DATA)

    assert JSON.decode_response(frame) == response
    assert JSON.encode_response(response) == frame


def test_the_data_of_the_examples_is_the_protobuf_that_it_is_said_to_be() -> None:
    assert sdkws_pb2.GetMaxSeqReq.FromString(SEQS_REQUEST.data) == sdkws_pb2.GetMaxSeqReq(userID="u1")
    assert sdkws_pb2.GetMaxSeqResp.FromString(SEQS_RESPONSE_DATA) == sdkws_pb2.GetMaxSeqResp(maxSeqs={"si_u1_u2": 5})


# -- frames written by Go

#: struct Req with an int32 identifier, as the server declares it.
GO_INT32 = bytes.fromhex(
    "5dff810301010352657101ff82000106010d5265714964656e7469666965720104000105546f6b656e010c00010653656e644944010c"
    "00010b4f7065726174696f6e4944010c0001074d7367496e6372010c00010444617461010a0000001eff8201fe07d20202753101036f"
    "7031010675315f6f703101040a02753100"
)
GO_EMPTY = bytes.fromhex(
    "5dff810301010352657101ff82000106010d5265714964656e7469666965720104000105546f6b656e010c00010653656e644944010c"
    "00010b4f7065726174696f6e4944010c0001074d7367496e6372010c00010444617461010a00000003ff8200"
)
#: Data []byte; MsgIncr string; ReqIdentifier int64; SendID string
GO_SHUFFLED = bytes.fromhex(
    "48ff830301010853687566666c656401ff84000104010444617461010a0001074d7367496e6372010c00010d5265714964656e746966"
    "696572010400010653656e644944010c00000017ff8401040a027531010675315f6f703101090102753100"
)
#: Seventeen fields: ours in between a bool, uint, float, complex, map, array, struct, time, interface, a second byte
#: string, a pointer to a struct; seven further type definitions follow the first.
GO_EXTRA = bytes.fromhex(
    "ffc9ff8503010105457874726101ff860001110104466c61670102000105436f756e740106000105526174696f010800010457617665"
    "010e00010d5265714964656e74696669657201040001064c6162656c7301ff8800010653656e644944010c00010553697a657301ff8a"
    "000105496e6e657201ff8c00010b4f7065726174696f6e4944010c000102417401ff94000103416e7901100001074d7367496e637201"
    "0c000104426c6f62010a0001044e6f7465010c00010444617461010a0001044c61737401ff8c0000001eff870401010e6d61705b7374"
    "72696e675d696e7401ff8800010c0104000016ff89010101065b335d696e7401ff8a0001040106000031ff8b030101064e6573746564"
    "01ff8c00010301044e616d65010c0001045461677301ff8e0001044465657001ff9200000016ff8d020101085b5d737472696e6701ff"
    "8e00010c000025ff91040101146d61705b737472696e675d5b5d666c6f6174363401ff9200010c01ff9000000cff8f020102ff900001"
    "08000010ff930501010454696d6501ff94000000ff8eff86010101fe012c01fee03f01fef03f4001fe07d20101016102010275310103"
    "0200060101016e0102016101620101017802fef83fffc00001036f7031010f010000000ee0796f0000000000ffff0106737472696e67"
    "0c06000474657874010675315f6f70310104626c6f6201046e6f746501040a0275310101016e0102016101620101017802fef83fffc0"
    "0000"
)
#: ReqIdentifier string
GO_WRONG_KIND = bytes.fromhex(
    "34ff950301010957726f6e674b696e6401ff96000102010d5265714964656e746966696572010c00010653656e644944010c0000000a"
    "ff960101780102753100"
)
#: ReqIdentifier int64 of 2**31
GO_WIDE = bytes.fromhex(
    "2fff97030101045769646501ff98000102010d5265714964656e746966696572010400010653656e644944010c0000000eff9801fb01"
    "000000000102753100"
)
GO_LIST = bytes.fromhex("16ff8d020101085b5d737472696e6701ff8e00010c000006ff8e00010161")
GO_NUMBER = bytes.fromhex("0304000e")
#: The server's own struct order, and an older one.
GO_RESPONSE = bytes.fromhex(
    "63ff99030101075372765265737001ff9a000106010d5265714964656e74696669657201040001074d7367496e6372010c00010b4f70"
    "65726174696f6e4944010c000107457272436f646501040001064572724d7367010c00010444617461010a00000027ff9a01fe07d601"
    "0675315f6f703201036f703101fe0a2c010d426c6f636b656442795065657200"
)
GO_OLD_RESPONSE = bytes.fromhex(
    "60ff9b030101045265737001ff9c000106010d5265714964656e7469666965720104000107457272436f646501040001064572724d73"
    "67010c0001074d7367496e6372010c00010b4f7065726174696f6e4944010c00010444617461010a0000002dff9c01fe07d601fe0a2c"
    "010d426c6f636b6564427950656572010675315f6f703201036f703101040a02753100"
)


@pytest.mark.parametrize(
    ("frame", "request_"),
    [
        pytest.param(SEQS_REQUEST_FRAME, SEQS_REQUEST, id="int"),
        pytest.param(GO_INT32, SEQS_REQUEST, id="int32"),
        pytest.param(GO_EMPTY, Request(), id="empty"),
        pytest.param(
            GO_SHUFFLED, Request(-5, "", "u1", "", "u1_op1", SEQS_REQUEST.data), id="other order, fewer fields"
        ),
        pytest.param(GO_EXTRA, SEQS_REQUEST, id="unknown fields of every kind"),
    ],
)
def test_requests_written_by_go_are_read(frame: bytes, request_: Request) -> None:
    assert GOB.decode_request(frame) == request_


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(GO_WRONG_KIND, id="identifier is a string"),
        pytest.param(GO_WIDE, id="identifier beyond 32 bits"),
        pytest.param(GO_LIST, id="a list"),
        pytest.param(GO_NUMBER, id="a number"),
    ],
)
def test_values_written_by_go_that_are_no_request_are_refused(frame: bytes) -> None:
    with pytest.raises(CodecError):
        GOB.decode_request(frame)


@pytest.mark.parametrize("frame", [GO_EXTRA, GO_SHUFFLED], ids=["unknown fields", "other order"])
def test_a_frame_of_go_cut_off_or_changed_raises_nothing_but_codec_error(frame: bytes) -> None:
    for index in range(len(frame)):
        with pytest.raises(CodecError):
            GOB.decode_request(frame[:index])
        for bit in range(8):
            changed = frame[:index] + bytes((frame[index] ^ (1 << bit),)) + frame[index + 1 :]
            try:
                GOB.decode_request(changed)
            except CodecError:
                continue


def test_responses_written_by_go_are_read_in_either_field_order() -> None:
    expected = Response(1003, "u1_op2", "op1", 1302, "BlockedByPeer")

    assert GOB.decode_response(GO_RESPONSE) == expected
    expected.data = SEQS_REQUEST.data
    assert GOB.decode_response(GO_OLD_RESPONSE) == expected


# -- the Python SDK


@given(
    st.builds(
        Request,
        st.integers(-(1 << 31), (1 << 31) - 1),
        st.text(),
        st.text(),
        st.text(),
        st.text(),
        st.binary(max_size=300),
    )
)
def test_requests_of_the_python_sdk_are_read_and_ours_are_the_same_bytes(request_: Request) -> None:
    fields = {
        "ReqIdentifier": request_.req_identifier,
        "Token": request_.token,
        "SendID": request_.send_id,
        "OperationID": request_.operation_id,
        "MsgIncr": request_.msg_incr,
        "Data": request_.data,
    }

    frame = sdk.encode_general_ws_req_stream(fields, include_type_def=True)

    assert GOB.decode_request(frame) == request_
    assert GOB.encode_request(request_) == frame


def read_by_sdk(frame: bytes) -> dict[str, Any]:
    """What the SDK's receive loop does with a frame."""
    definition, value = sdk.parse_gob_frames(frame)
    assert definition.is_type_def
    assert not value.is_type_def
    assert definition.type_id == value.type_id
    order = sdk.extract_general_ws_resp_field_order(definition.payload)
    assert order == sdk.RESP_FIELD_ORDER_OBSERVED
    fields: dict[str, Any] = sdk.decode_general_ws_resp_payload(value.payload, order)
    return fields


@given(
    st.builds(
        Response,
        st.integers(-(1 << 31), (1 << 31) - 1),
        st.text(),
        st.text(),
        st.integers(-(1 << 63), (1 << 63) - 1),
        st.text(),
        st.binary(max_size=300),
    )
)
def test_our_responses_are_read_by_the_python_sdk(response: Response) -> None:
    fields = read_by_sdk(GOB.encode_response(response))

    assert fields == {
        "ReqIdentifier": response.req_identifier,
        "MsgIncr": response.msg_incr,
        "OperationID": response.operation_id,
        "ErrCode": response.err_code,
        "ErrMsg": response.err_msg,
        "Data": response.data,
    }
