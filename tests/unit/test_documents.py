"""A message as MongoDB document and back: pipeline.md section 6."""

from __future__ import annotations

import bson
from hypothesis import assume, example, given
from hypothesis import strategies as st

from imserver.protocol.documents import from_document, to_document
from imserver.protocol.gen.sdkws_pb2 import MsgData, OfflinePushInfo
from tests.factories import any_msgs, make_msg

FIELDS = {
    *("send_id", "recv_id", "group_id", "client_msg_id", "server_msg_id", "sender_platform_id", "sender_nickname"),
    *("sender_face_url", "session_type", "msg_from", "content_type", "content", "seq", "send_time", "create_time"),
    *("status", "is_read", "options", "offline_push", "at_user_id_list", "attached_info", "ex"),
}


@given(any_msgs())
@example(MsgData())
@example(make_msg("a", "b", content=b"\xff\xfe\x00"))
@example(MsgData(offlinePushInfo=OfflinePushInfo()))
def test_a_message_comes_back_from_its_document(msg: MsgData) -> None:
    assert from_document(to_document(msg, msg.seq)) == msg


@given(any_msgs())
def test_a_message_comes_back_from_what_mongodb_keeps_of_its_document(msg: MsgData) -> None:
    assume(not any("\x00" in name for name in msg.options))

    stored = bson.decode(bson.encode(to_document(msg, msg.seq)))

    assert from_document(stored) == msg


@given(any_msgs())
def test_a_document_has_the_fields_of_the_contract_and_no_others(msg: MsgData) -> None:
    document = to_document(msg, 1)

    assert set(document) == FIELDS
    if document["offline_push"] is not None:
        assert set(document["offline_push"]) == {"title", "desc", "ex", "ios_push_sound", "ios_badge_count"}


@given(any_msgs(), st.integers(1, 1 << 40))
def test_the_seq_that_is_told_stands_over_the_messages_own(msg: MsgData, seq: int) -> None:
    document = to_document(msg, seq)

    assert document["seq"] == seq
    assert from_document(document).seq == seq


def test_content_is_text_in_mongodb_where_it_is_text() -> None:
    assert to_document(make_msg("a", "b", content='{"content":"漢字"}'.encode()), 1)["content"] == '{"content":"漢字"}'
    assert to_document(make_msg("a", "b", content=b"\x80"), 1)["content"] == b"\x80"


def test_no_push_info_and_an_empty_one_are_told_apart() -> None:
    without = from_document(to_document(make_msg("a", "b"), 1))
    empty = from_document(to_document(make_msg("a", "b", offlinePushInfo=OfflinePushInfo()), 1))

    assert not without.HasField("offlinePushInfo")
    assert empty.HasField("offlinePushInfo")
