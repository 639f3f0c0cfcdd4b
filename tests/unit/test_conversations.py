"""Conversation ids, keys and shards: schema.md section 2, design.md section 3."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imserver.constants import Option, SessionType
from imserver.errors import ArgsError
from imserver.protocol import conversations
from imserver.protocol.conversations import conversation_key, conversation_key_of, notification_twin, shard_of
from imserver.protocol.gen.sdkws_pb2 import MsgData
from tests.factories import make_msg, make_notification, user_ids

shard_counts = st.integers(1, 256)


@given(user_ids, user_ids)
def test_both_sides_of_a_single_chat_name_it_alike(user: str, peer: str) -> None:
    conversation_id = conversations.single_conversation_id(user, peer)

    assert conversation_id == conversations.single_conversation_id(peer, user)
    assert conversation_id == "si_" + b"_".join(sorted((user.encode(), peer.encode()))).decode()


def test_ids_sort_by_bytes_and_not_by_alphabet() -> None:
    assert conversations.single_conversation_id("a", "Z") == "si_Z_a"
    assert conversations.single_conversation_id("u10", "u9") == "si_u10_u9"
    assert conversations.single_conversation_id("me", "me") == "si_me_me"


@pytest.mark.parametrize(
    ("conversation_id", "twin"),
    [("si_a_b", "n_a_b"), ("sg_G", "n_G"), ("sn_a_b", "n_a_b"), ("g_G", "n_G"), ("si_a_1_b_2", "n_a_1_b_2")],
)
def test_the_twin_replaces_everything_before_the_first_underscore(conversation_id: str, twin: str) -> None:
    assert notification_twin(conversation_id) == twin


@given(user_ids, user_ids, shard_counts)
def test_a_chat_and_its_notifications_share_key_and_shard(user: str, peer: str, shards: int) -> None:
    chat = conversations.chat_conversation_id(make_msg(user, peer))
    twin = conversations.conversation_id_of(make_notification(peer, user, stored=True))
    oa = conversations.chat_conversation_id(
        make_msg(user, peer, sessionType=SessionType.NOTIFICATION, contentType=1400)
    )

    assert twin == notification_twin(chat) == notification_twin(oa)
    assert conversation_key(chat) == conversation_key(twin) == conversation_key(oa)
    assert shard_of(chat, shards) == shard_of(twin, shards) == shard_of(oa, shards)


@given(user_ids, user_ids, shard_counts)
def test_the_logs_key_leads_to_the_same_shard_as_the_conversation_id(user: str, group: str, shards: int) -> None:
    msg = MsgData(sendID=user, groupID=group, sessionType=SessionType.GROUP)

    assert conversation_key_of(msg) == group
    assert conversations.shard_of_key(conversation_key_of(msg), shards) == shard_of(f"sg_{group}", shards)
    assert shard_of(f"sg_{group}", shards) == shard_of(f"n_{group}", shards)
    assert 0 <= shard_of(f"sg_{group}", shards) < shards


def test_many_conversations_spread_over_all_shards() -> None:
    used = {shard_of(f"si_u{number:04d}_v{number:04d}", 16) for number in range(1000)}

    assert used == set(range(16))


@given(user_ids, user_ids, st.sampled_from([None, True, False]))
def test_only_an_explicit_false_makes_a_message_a_notification(user: str, peer: str, flag: bool | None) -> None:
    options = {} if flag is None else {Option.IS_NOT_NOTIFICATION: flag}
    msg = make_msg(user, peer, options=options)

    conversation_id = conversations.conversation_id_of(msg)

    expected = conversations.single_conversation_id(user, peer)
    assert conversation_id == (notification_twin(expected) if flag is False else expected)
    assert conversations.is_notification_conversation(conversation_id) == (flag is False)


@pytest.mark.parametrize(
    ("session_type", "expected"),
    [(SessionType.SINGLE, "si_a_b"), (SessionType.NOTIFICATION, "sn_a_b"), (SessionType.GROUP, "sg_G")],
)
def test_the_session_type_chooses_the_prefix(session_type: int, expected: str) -> None:
    msg = MsgData(sendID="b", recvID="a", groupID="G", sessionType=session_type)

    assert conversations.conversation_id_of(msg) == expected


@pytest.mark.parametrize("session_type", [0, SessionType.WRITE_GROUP, 5, -1, 2_000_000])
def test_other_session_types_are_refused(session_type: int) -> None:
    msg = MsgData(sendID="a", recvID="b", groupID="G", sessionType=session_type)

    with pytest.raises(ArgsError, match="sessionType"):
        conversation_key_of(msg)
