"""Frames that are put together from bytes equal those that protobuf builds from objects."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from imserver.protocol.frames import placeholder, push_messages, varint, with_seq
from imserver.protocol.gen.sdkws_pb2 import GetMaxSeqResp, MsgData, PullMsgs, PushMessages
from tests.factories import any_msgs, make_msg

seqs = st.integers(1, (1 << 63) - 1)
conversation_ids = st.builds(
    "{}{}".format, st.sampled_from(["si_", "sg_", "sn_", "n_"]), st.text(max_size=40) | st.just("x" * 300)
)


@given(st.integers(0, (1 << 63) - 1))
@example(0)
@example(127)
@example(128)
@example(16_384)
def test_a_varint_is_protobufs(number: int) -> None:
    answer = GetMaxSeqResp(maxSeqs={"": number})

    # The last field of the one map entry is the number.
    assert answer.SerializeToString().endswith(varint(number))
    assert varint(number)[-1] < 0x80


@given(any_msgs(), seqs)
@example(MsgData(), 1)
def test_a_message_with_a_seq_behind_it_is_that_message_with_that_seq(msg: MsgData, seq: int) -> None:
    raw = msg.SerializeToString()

    msg.seq = seq

    assert MsgData.FromString(with_seq(raw, seq)) == msg


@given(any_msgs())
def test_a_message_that_is_not_stored_stays_without_seq(msg: MsgData) -> None:
    msg.seq = 0

    assert MsgData.FromString(with_seq(msg.SerializeToString(), 0)) == msg


@given(seqs)
def test_a_placeholder_has_only_a_seq_and_the_deleted_status(seq: int) -> None:
    assert placeholder(seq) == MsgData(seq=seq, status=4).SerializeToString()


@given(conversation_ids, any_msgs())
@example("n_", MsgData())
@example("si_a_b", MsgData())
@example("sn_a_b", make_msg("a", "b", "x" * 20_000))
def test_a_push_is_byte_for_byte_protobufs(conversation_id: str, msg: MsgData) -> None:
    raw = msg.SerializeToString()
    pull_msgs = PullMsgs()
    pull_msgs.Msgs.add().MergeFromString(raw)
    expected = PushMessages()
    by_kind = expected.notificationMsgs if conversation_id.startswith("n_") else expected.msgs
    by_kind[conversation_id].CopyFrom(pull_msgs)

    frame = push_messages(conversation_id, raw)

    assert PushMessages.FromString(frame) == expected
    assert len(frame) == expected.ByteSize()


@given(seqs)
def test_a_pushed_message_carries_its_seq(seq: int) -> None:
    msg = make_msg("a", "b")

    frame = push_messages("si_a_b", with_seq(msg.SerializeToString(), seq))

    pushed = PushMessages.FromString(frame)
    assert list(pushed.msgs) == ["si_a_b"]
    assert not pushed.notificationMsgs
    assert [(item.seq, item.content) for item in pushed.msgs["si_a_b"].Msgs] == [(seq, msg.content)]
