"""What the load generator makes of a frame: by its look where it can, and the same as by decoding it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.codecs.base import CodecError, Response
from gateway.codecs.registry import get_codec
from imserver.constants import ReqIdentifier
from imserver.protocol.gen.sdkws_pb2 import PushMessages
from tests.benchmarks.connection import PushReader
from tests.client import text_message

SEND_MSG, PUSH_MSG = int(ReqIdentifier.SEND_MSG), int(ReqIdentifier.PUSH_MSG)
INCR = "0123456789abcdef000000007"


def frame(codec: str, response: Response) -> bytes:
    return get_codec(codec).encode_response(response)


def push(*msgs: tuple[str, int, int]) -> Response:
    """Of messages (conversation, number, seq)."""
    pushed = PushMessages()
    for conversation_id, number, seq in msgs:
        msg = text_message("a", "b", f"{number:09d}....", client_msg_id=f"id{number}")
        msg.seq = seq
        pushed.msgs[conversation_id].Msgs.append(msg)
    return Response(PUSH_MSG, "", "op", data=pushed.SerializeToString())


def test_an_answer_to_a_message_is_told_by_its_msg_incr() -> None:
    assert PushReader("js").read(frame("js", Response(SEND_MSG, INCR, "bench-op", data=b"\x0a\x02ab"))) == INCR


@pytest.mark.parametrize(
    "response",
    [
        Response(SEND_MSG, INCR, "op", 1302, "BlockedByPeer"),
        Response(SEND_MSG, INCR, "op", 0, "strange"),
        Response(SEND_MSG, INCR, 'op"quoted', 0, ""),
        Response(SEND_MSG, "not a word", "op"),
        Response(int(ReqIdentifier.GET_LAST_MESSAGE), INCR, "op", data=b"\x0a\x02ab"),
    ],
)
def test_every_other_response_is_decoded(response: Response) -> None:
    assert PushReader("js").read(frame("js", response)) == response


@given(
    st.lists(
        st.tuples(st.sampled_from(["si_a_b", "si_a_c"]), st.integers(0, 999_999_999), st.integers(1, 1 << 40)),
        max_size=4,
    )
)
def test_a_push_is_the_same_in_both_envelopes(msgs: list[tuple[str, int, int]]) -> None:
    expected: dict[str, list[tuple[int, int]]] = {}
    for conversation_id, number, seq in msgs:
        expected.setdefault(conversation_id, []).append((number, seq))

    for codec in ("js", "go"):
        assert PushReader(codec).read(frame(codec, push(*msgs))) == expected


def test_a_push_that_comes_again_is_remembered() -> None:
    reader, payload = PushReader("js"), frame("js", push(("si_a_b", 7, 8)))

    assert reader.read(payload) is reader.read(bytes(bytearray(payload)))


@pytest.mark.parametrize(
    "payload",
    [
        b'{"reqIdentifier":2001,"msgIncr":"","operationID":"op","data":"!"}',
        b'{"reqIdentifier":2001,"msgIncr":"","operationID":"op',
        b'{"reqIdentifier":1003,"msgIncr":"x"',
        b"",
    ],
)
def test_what_is_no_envelope_is_refused(payload: bytes) -> None:
    with pytest.raises((CodecError, ValueError)):
        PushReader("js").read(payload)
