"""Steps 1 to 3 of the transfer: pipeline.md section 3."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imserver.constants import Option
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.protocol.options import is_notification, is_stored
from imserver.storage.logs import Entry
from tasks.sorting import ReadReceipt, sort_batch
from tests.factories import entry_fields, make_entries, make_msg, make_notification, make_receipt

PEOPLE = ["a", "b", "c", "a_1"]
people = st.sampled_from(PEOPLE)


@st.composite
def kinds_of_msgs(draw: st.DrawFn) -> MsgData:
    send_id, recv_id, stored = draw(people), draw(people), draw(st.booleans())
    if draw(st.booleans()):
        options = {Option.IS_SEND_MSG: draw(st.booleans())}
        return make_notification(send_id, recv_id, stored=stored, options=options)
    return make_msg(send_id, recv_id, options={} if stored else {Option.HISTORY: False})


def receipt_of(tips: Any, send_id: str = "a", recv_id: str = "b") -> list[ReadReceipt]:
    return sort_batch(make_entries([make_receipt(send_id, recv_id, tips)]), "trigger").receipts


@given(st.lists(kinds_of_msgs(), max_size=25))
def test_every_message_is_in_one_list_of_its_conversation_and_kind_in_order(msgs: list[MsgData]) -> None:
    expected: dict[tuple[str, bool, bool], list[str]] = defaultdict(list)
    for msg in msgs:
        key = "_".join(sorted((msg.sendID, msg.recvID)))
        notification = is_notification(msg)
        if notification and msg.options[Option.IS_SEND_MSG]:
            expected["si_" + key, True, False].append(msg.clientMsgID)
        expected[("n_" if notification else "si_") + key, is_stored(msg), notification].append(msg.clientMsgID)

    batch = sort_batch(make_entries(msgs), "trigger")

    found = {
        (item.conversation_id, item.is_stored, item.conversation_id.startswith("n_")): [
            msg.clientMsgID for msg in item.msgs
        ]
        for item in batch.lists
    }
    assert found == expected
    assert len(batch.lists) == len(expected)
    assert batch.dead == []
    assert batch.trigger_id == "trigger"


@given(st.lists(kinds_of_msgs(), max_size=25))
def test_transient_messages_go_before_stored_ones_of_their_conversation(msgs: list[MsgData]) -> None:
    batch = sort_batch(make_entries(msgs), "trigger")

    kinds: dict[str, list[bool]] = defaultdict(list)
    for item in batch.lists:
        kinds[item.conversation_id].append(item.is_stored)
    assert all(order in ([False], [True], [False, True]) for order in kinds.values())


@given(st.lists(kinds_of_msgs(), max_size=25))
def test_bytes_and_operation_ids_stay_with_their_messages(msgs: list[MsgData]) -> None:
    entries = make_entries(msgs)
    operations = {msg.clientMsgID: fields[b"o"].decode() for msg, (_, fields) in zip(msgs, entries, strict=True)}

    batch = sort_batch(entries, "trigger")

    for item in batch.lists:
        assert [MsgData.FromString(raw) for raw in item.raw] == item.msgs
        assert item.operation_ids == [operations[msg.clientMsgID] for msg in item.msgs]


def test_the_four_kinds_are_told_by_two_options() -> None:
    chat, transient = make_msg("a", "b"), make_msg("b", "a", options={Option.HISTORY: False})
    stored_notice = make_notification("a", "b", stored=True)
    transient_notice = make_notification("b", "a", stored=False)

    batch = sort_batch(make_entries([stored_notice, chat, transient_notice, transient]), "trigger")

    found = {(item.conversation_id, item.is_stored): [msg.clientMsgID for msg in item.msgs] for item in batch.lists}
    assert found == {
        ("si_a_b", True): [chat.clientMsgID],
        ("si_a_b", False): [transient.clientMsgID],
        ("n_a_b", True): [stored_notice.clientMsgID],
        ("n_a_b", False): [transient_notice.clientMsgID],
    }


def test_a_notification_sent_as_a_message_is_in_both_conversations() -> None:
    options = {Option.IS_SEND_MSG: True, Option.OFFLINE_PUSH: True, Option.UNREAD_COUNT: True}
    notification = make_notification("a", "b", stored=False, options=options)

    chat, notice = sort_batch(make_entries([notification]), "trigger").lists

    assert (chat.conversation_id, chat.is_stored) == ("si_a_b", True)
    assert (notice.conversation_id, notice.is_stored) == ("n_a_b", False)
    assert dict(MsgData.FromString(chat.raw[0]).options) == {"offlinePush": True, "unreadCount": True}
    sent = MsgData.FromString(notice.raw[0])
    assert sent.options["offlinePush"] is False
    assert sent.options["unreadCount"] is False
    assert sent.options["isNotNotification"] is False


def test_the_last_message_of_each_sender_is_known_by_its_place() -> None:
    msgs = [make_msg("a", "b"), make_msg("b", "a"), make_msg("a", "b"), make_msg("a", "b")]

    (item,) = sort_batch(make_entries(msgs), "trigger").lists

    assert item.last_index_by_sender() == {"a": 4, "b": 2}


@given(st.lists(st.tuples(st.integers(-5, 50), st.lists(st.integers(-5, 50), max_size=4)), min_size=1, max_size=6))
def test_the_greatest_read_seq_of_a_user_wins(told: list[tuple[int, list[int]]]) -> None:
    msgs = [
        make_receipt("a", "b", {"markAsReadUserID": "a", "conversationID": "si_a_b", "hasReadSeq": read, "seqs": seqs})
        for read, seqs in told
    ]

    batch = sort_batch(make_entries(msgs), "trigger")

    greatest = max(max([read, *seqs]) for read, seqs in told)
    assert batch.receipts == ([ReadReceipt("a", "si_a_b", greatest)] if greatest > 0 else [])
    assert sum(len(item.msgs) for item in batch.lists) == len(msgs), "a receipt is delivered like any notification"


@pytest.mark.parametrize(
    "tips",
    [
        {"markAsReadUserID": "b", "conversationID": "si_a_b", "hasReadSeq": 5},
        {"markAsReadUserID": "a", "conversationID": "si_a_c", "hasReadSeq": 5},
        {"markAsReadUserID": "a", "conversationID": f"{'x' * 1000}_a_b", "hasReadSeq": 5},
        {"markAsReadUserID": "a", "conversationID": "si_a_b", "hasReadSeq": -5},
        {"markAsReadUserID": "a", "conversationID": "si_a_b", "hasReadSeq": "many"},
        {"markAsReadUserID": "a", "conversationID": ["si_a_b"], "hasReadSeq": 5},
        {"markAsReadUserID": "a", "hasReadSeq": 5},
        {},
        [],
        None,
        5,
        "text",
    ],
)
def test_a_receipt_that_is_not_the_senders_own_or_makes_no_sense_counts_for_nothing(tips: Any) -> None:
    assert receipt_of(tips) == []


@given(st.binary(max_size=20) | st.sampled_from([b"{}", b'{"detail":5}', b'{"detail":"{"}', b"[]", b"null", b'""']))
def test_no_content_of_a_receipt_stops_the_batch(content: bytes) -> None:
    msg = make_receipt("a", "b", {})
    msg.content = content

    batch = sort_batch(make_entries([msg, make_msg("a", "b")]), "trigger")

    assert batch.receipts == []
    assert {item.conversation_id for item in batch.lists} == {"n_a_b", "si_a_b"}


def test_seqs_may_stand_alone_in_a_receipt() -> None:
    tips = {"markAsReadUserID": "a", "conversationID": "si_a_b", "seqs": [3, 9, 4]}

    assert receipt_of(tips) == [ReadReceipt("a", "si_a_b", 9)]


@pytest.mark.parametrize(
    "fields",
    [
        {b"k": b"a_b", b"m": b"\xff\xff\xff", b"o": b"op"},
        {b"k": b"a_b", b"m": MsgData(sendID="a", sessionType=2).SerializeToString(), b"o": b"op"},
        {b"k": b"a_b", b"m": MsgData(sendID="a", sessionType=77).SerializeToString(), b"o": b"op"},
        {b"k": b"a_b", b"m": b"\x0a\x02\xff\xfe", b"o": b"op"},
    ],
)
def test_what_cannot_be_parsed_is_set_aside_and_the_rest_goes_on(fields: dict[bytes, bytes]) -> None:
    before, after = make_msg("a", "b"), make_msg("a", "b")
    entries: list[Entry] = [(b"1-1", entry_fields(before)), (b"1-2", fields), (b"1-3", entry_fields(after))]

    batch = sort_batch(entries, "trigger")

    assert [letter.fields for letter in batch.dead] == [fields]
    assert all(letter.reason for letter in batch.dead)
    assert [msg.clientMsgID for item in batch.lists for msg in item.msgs] == [before.clientMsgID, after.clientMsgID]


@given(st.lists(st.dictionaries(st.sampled_from([b"k", b"m", b"o"]), st.binary(max_size=30)), max_size=5))
def test_no_entry_stops_a_batch(junk: list[dict[bytes, bytes]]) -> None:
    entries: list[Entry] = [(b"2-%d" % at, fields) for at, fields in enumerate(junk)]

    batch = sort_batch([*entries, *make_entries([make_msg("a", "b")])], "trigger")

    assert [item.conversation_id for item in batch.lists if item.msgs[-1].sendID == "a"] == ["si_a_b"]


def test_the_detail_of_a_receipt_is_json_inside_json() -> None:
    msg = make_receipt("a", "b", {"hasReadSeq": 1})

    assert orjson.loads(orjson.loads(msg.content)["detail"]) == {"hasReadSeq": 1}
