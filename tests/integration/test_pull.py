"""Pulling seqs and messages: websocket.md sections 5.1 to 5.4. Messages come through the real stages."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo.database import Database

from imserver.actions import pull
from imserver.errors import ArgsError
from imserver.protocol.conversations import shard_of
from imserver.protocol.gen import msg_pb2, sdkws_pb2
from imserver.protocol.gen.sdkws_pb2 import PullMessageBySeqsResp
from imserver.storage import keys
from imserver.storage.clients import Document, close_async_clients
from tests.factories import make_msg, make_notification, persist, transfer

ASC, DESC = sdkws_pb2.PullOrderAsc, sdkws_pb2.PullOrderDesc
#: Seqs of si_a_b and of its notification twin in most tests here.
LENGTH = 12
orders = st.sampled_from([ASC, DESC])
OPTIONS = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.fixture(autouse=True)
async def closed_clients(database: Database[Document]) -> AsyncIterator[None]:
    yield
    await close_async_clients()


@pytest.fixture
def chat(database: Database[Document]) -> None:
    """``LENGTH`` messages and ``LENGTH`` notifications between a and b."""
    transfer([make_msg("a", "b", f"m{seq}") for seq in range(1, LENGTH + 1)])
    transfer([make_notification("a", "b", stored=True) for _ in range(LENGTH)])


def forget_cache(client: redis.Redis, conversation_id: str, *seqs: int) -> None:
    prefix = keys.msg_cache_prefix(shard_of(conversation_id, 16), conversation_id)
    for seq in seqs:
        client.hdel(f"{prefix}{(seq - 1) // 100}", str(seq))


def forget_counters(client: redis.Redis, *conversation_ids: str) -> None:
    client.delete(*(keys.malloc_seq(shard_of(item, 16), item) for item in conversation_ids))


def seq_range(conversation_id: str, begin: int, end: int, num: int = 100) -> sdkws_pb2.SeqRange:
    return sdkws_pb2.SeqRange(conversationID=conversation_id, begin=begin, end=end, num=num)


async def by_ranges(user: str, *ranges: sdkws_pb2.SeqRange, order: int = ASC) -> PullMessageBySeqsResp:
    request = sdkws_pb2.PullMessageBySeqsReq(userID=user, seqRanges=ranges, order=order)  # type: ignore[arg-type]
    return PullMessageBySeqsResp.FromString(await pull.pull_by_ranges(user, request))


async def by_seqs(user: str, asked: dict[str, list[int]], order: int = ASC) -> msg_pb2.GetSeqMessageResp:
    request = msg_pb2.GetSeqMessageReq(userID=user, order=order)  # type: ignore[arg-type]
    for conversation_id, seqs in asked.items():
        request.conversations.add(conversationID=conversation_id, seqs=seqs)
    return msg_pb2.GetSeqMessageResp.FromString(await pull.pull_by_seq_lists(user, request))


def seqs_of(entry: sdkws_pb2.PullMsgs) -> list[int]:
    return [msg.seq for msg in entry.Msgs]


# -- 1002, by range


@OPTIONS
@given(begin=st.integers(-3, 16), end=st.integers(-3, 16), num=st.integers(1, 15), order=orders)
@pytest.mark.usefixtures("chat")
async def test_a_chats_range_is_clamped_and_its_last_num_seqs_are_given(
    begin: int, end: int, num: int, order: int
) -> None:
    answer = await by_ranges("a", seq_range("si_a_b", begin, end, num), order=order)

    expected = list(range(max(begin, 1), min(end, LENGTH) + 1))[-num:]
    assert not answer.notificationMsgs
    if not expected:
        assert not answer.msgs
        return
    entry = answer.msgs["si_a_b"]
    assert seqs_of(entry) == expected
    assert entry.isEnd == (end >= LENGTH if order == ASC else begin <= 1)


@OPTIONS
@given(begin=st.integers(-3, 16), end=st.integers(-3, 16), num=st.integers(0, 15), order=orders)
@pytest.mark.usefixtures("chat")
async def test_a_notification_range_is_given_whole(begin: int, end: int, num: int, order: int) -> None:
    answer = await by_ranges("b", seq_range("n_a_b", begin, end, num), order=order)

    expected = list(range(max(begin, 1), min(end, LENGTH) + 1))
    assert not answer.msgs
    assert seqs_of(answer.notificationMsgs["n_a_b"]) == expected
    if expected:
        assert answer.notificationMsgs["n_a_b"].isEnd == (end >= LENGTH if order == ASC else begin <= 1)


@pytest.mark.usefixtures("chat")
async def test_several_ranges_are_answered_together() -> None:
    answer = await by_ranges("a", seq_range("si_a_b", 2, 3), seq_range("n_a_b", 0, 2), seq_range("si_a_x", 1, 9))

    assert {name: seqs_of(entry) for name, entry in answer.msgs.items()} == {"si_a_b": [2, 3]}
    assert {name: seqs_of(entry) for name, entry in answer.notificationMsgs.items()} == {"n_a_b": [1, 2]}


@pytest.mark.usefixtures("chat")
async def test_messages_are_those_that_were_sent() -> None:
    answer = await by_ranges("b", seq_range("si_a_b", 1, LENGTH))

    assert [msg.content for msg in answer.msgs["si_a_b"].Msgs] == [
        b'{"content":"m%d"}' % seq for seq in range(1, LENGTH + 1)
    ]
    assert all(msg.status == 2 and msg.sendID == "a" for msg in answer.msgs["si_a_b"].Msgs)


@pytest.mark.usefixtures("chat")
async def test_a_seq_without_a_message_is_answered_with_a_placeholder(redis_client: redis.Redis) -> None:
    forget_cache(redis_client, "si_a_b", 3, 5)

    by_range = await by_ranges("a", seq_range("si_a_b", 2, 6))
    by_list = await by_seqs("a", {"si_a_b": [5, 4, 3]})

    placeholders = {seq: sdkws_pb2.MsgData(seq=seq, status=4) for seq in (3, 5)}
    assert seqs_of(by_range.msgs["si_a_b"]) == [2, 3, 4, 5, 6]
    assert seqs_of(by_list.msgs["si_a_b"]) == [5, 4, 3]
    for entry in (by_range.msgs["si_a_b"], by_list.msgs["si_a_b"]):
        assert {msg.seq: msg for msg in entry.Msgs if msg.status == 4} == placeholders


@pytest.mark.usefixtures("chat")
async def test_what_the_cache_does_not_hold_comes_from_mongodb_just_the_same(redis_client: redis.Redis) -> None:
    persist()
    before = await by_ranges("a", seq_range("si_a_b", 1, LENGTH))

    forget_cache(redis_client, "si_a_b", *range(1, LENGTH + 1, 2))
    after = await by_ranges("a", seq_range("si_a_b", 1, LENGTH))
    again = await by_ranges("a", seq_range("si_a_b", 1, LENGTH))

    assert before == after == again
    assert all(msg.status == 2 for msg in after.msgs["si_a_b"].Msgs)


@pytest.mark.usefixtures("chat")
async def test_what_is_stored_can_be_pulled_when_redis_lost_everything(redis_client: redis.Redis) -> None:
    persist()
    forget_counters(redis_client, "si_a_b", "n_a_b")
    forget_cache(redis_client, "si_a_b", *range(1, LENGTH + 1))

    answer = await by_ranges("a", seq_range("si_a_b", 0, 1 << 40, 5))

    assert seqs_of(answer.msgs["si_a_b"]) == list(range(LENGTH - 4, LENGTH + 1))


@pytest.mark.usefixtures("chat")
async def test_too_much_at_once_is_refused() -> None:
    fitting = [seq_range("si_a_b", 1, 10)] * (pull.MOST_MSGS_PER_PULL // 10)

    assert len((await by_ranges("a", *fitting)).msgs["si_a_b"].Msgs) == pull.MOST_MSGS_PER_PULL
    with pytest.raises(ArgsError, match="more than"):
        await by_ranges("a", *fitting, seq_range("si_a_b", 1, 1))
    with pytest.raises(ArgsError, match="more than"):
        await by_seqs("a", {"si_a_b": [1] * (pull.MOST_MSGS_PER_PULL + 1)})


@pytest.mark.usefixtures("chat")
async def test_of_long_ranges_notifications_are_given_whole_as_far_as_an_answer_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    transfer([make_notification("a", "a", stored=True) for _ in range(2)])
    monkeypatch.setattr(pull, "MOST_MSGS_PER_RANGE", 4)
    monkeypatch.setattr(pull, "MOST_MSGS_PER_PULL", 13)

    whole = await by_ranges("a", seq_range("n_a_b", 0, LENGTH))
    chat = await by_ranges("a", seq_range("si_a_b", 0, LENGTH, num=0))
    rest = await by_ranges("a", seq_range("si_a_b", 0, LENGTH, num=9), seq_range("n_a_b", 0, LENGTH))
    shared = await by_ranges("a", seq_range("n_a_b", 0, LENGTH), seq_range("n_a_a", 0, 2))

    assert seqs_of(whole.notificationMsgs["n_a_b"]) == list(range(1, LENGTH + 1))
    assert seqs_of(chat.msgs["si_a_b"]) == seqs_of(rest.msgs["si_a_b"]) == list(range(LENGTH - 3, LENGTH + 1))
    assert seqs_of(rest.notificationMsgs["n_a_b"]) == list(range(LENGTH - 8, LENGTH + 1))
    assert {name: len(entry.Msgs) for name, entry in shared.notificationMsgs.items()} == {"n_a_b": 11, "n_a_a": 2}


# -- 1005, by seq list


@OPTIONS
@given(
    seqs=st.lists(st.integers(-3, 16), max_size=12), order=orders, conversation_id=st.sampled_from(["si_a_b", "n_a_b"])
)
@pytest.mark.usefixtures("chat")
async def test_seqs_are_answered_in_the_order_asked(seqs: list[int], order: int, conversation_id: str) -> None:
    answer = await by_seqs("b", {conversation_id: seqs}, order)

    by_kind = answer.notificationMsgs if conversation_id.startswith("n_") else answer.msgs
    assert list(by_kind) == [conversation_id]
    entry = by_kind[conversation_id]
    assert seqs_of(entry) == [seq for seq in seqs if 1 <= seq <= LENGTH]
    is_beyond = order == ASC and any(seq > LENGTH for seq in seqs)
    assert (entry.isEnd, entry.endSeq) == ((True, LENGTH) if is_beyond else (False, 0))


@pytest.mark.usefixtures("chat")
async def test_every_conversation_that_was_asked_for_has_an_entry() -> None:
    answer = await by_seqs(
        "a", {"si_a_b": [2], "si_a_nobody": [1], "n_a_nobody": [], "n_a_b": [0], "junk": [1], "": []}
    )

    assert {name: seqs_of(entry) for name, entry in answer.msgs.items()} == {
        "si_a_b": [2],
        "si_a_nobody": [],
        "junk": [],
        "": [],
    }
    assert {name: seqs_of(entry) for name, entry in answer.notificationMsgs.items()} == {
        "n_a_nobody": [],
        "n_a_b": [],
    }


# -- whose conversations


@pytest.mark.parametrize("stranger", ["c", "si", "aa", "b_", "_a", ""])
@pytest.mark.usefixtures("chat")
async def test_other_users_conversations_give_nothing(stranger: str) -> None:
    by_range = await by_ranges(stranger, seq_range("si_a_b", 1, 9), seq_range("n_a_b", 1, 9), seq_range("sn_a_b", 1, 9))
    by_list = await by_seqs(stranger, {"si_a_b": [1, 2], "n_a_b": [1]})
    request = msg_pb2.GetLastMessageReq(userID=stranger, conversationIDs=["si_a_b"])
    read_request = msg_pb2.GetConversationsHasReadAndMaxSeqReq(userID=stranger, conversationIDs=["si_a_b"])

    assert not by_range.msgs
    assert not by_range.notificationMsgs
    assert seqs_of(by_list.msgs["si_a_b"]) == seqs_of(by_list.notificationMsgs["n_a_b"]) == []
    assert by_list.msgs["si_a_b"].endSeq == 0
    assert not (await pull.get_last_messages(stranger, request)).msgs
    assert not (await pull.get_read_and_max_seqs(stranger, read_request)).seqs


# -- 1001, 1006, 1007


@pytest.mark.usefixtures("chat")
async def test_max_seqs_cover_chats_twins_and_the_users_own_notifications() -> None:
    transfer([make_msg("c", "a"), make_notification("a", "a", stored=True), make_msg("b", "c")])
    transfer([make_msg("a", "d", options={"history": False})])

    mine, theirs, nobodys = [await pull.get_max_seqs(user) for user in ("a", "b", "nobody")]

    assert dict(mine.maxSeqs) == {"si_a_b": LENGTH, "n_a_b": LENGTH, "si_a_c": 1, "n_a_a": 1}
    assert dict(theirs.maxSeqs) == {"si_a_b": LENGTH, "n_a_b": LENGTH, "si_b_c": 1}
    assert not nobodys.maxSeqs
    assert not mine.minSeqs


@pytest.mark.usefixtures("chat")
async def test_max_seqs_of_chats_survive_the_loss_of_redis(redis_client: redis.Redis) -> None:
    persist()
    forget_counters(redis_client, "si_a_b")
    redis_client.delete(keys.conversations("a"))

    assert (await pull.get_max_seqs("a")).maxSeqs["si_a_b"] == LENGTH


@pytest.mark.usefixtures("chat")
async def test_read_and_max_seqs_leave_notifications_out_unless_asked_for() -> None:
    every = await pull.get_read_and_max_seqs("a", msg_pb2.GetConversationsHasReadAndMaxSeqReq(userID="a"))
    asked = await pull.get_read_and_max_seqs(
        "b", msg_pb2.GetConversationsHasReadAndMaxSeqReq(userID="b", conversationIDs=["si_a_b", "n_a_b", "si_b_x"])
    )

    assert {name: (item.maxSeq, item.hasReadSeq) for name, item in every.seqs.items()} == {"si_a_b": (LENGTH, LENGTH)}
    assert all(item.maxSeqTime > 0 for item in every.seqs.values())
    assert {name: (item.maxSeq, item.hasReadSeq) for name, item in asked.seqs.items()} == {
        "si_a_b": (LENGTH, 0),
        "n_a_b": (LENGTH, 0),
    }


async def test_the_last_message_is_found_below_many_that_are_deleted(
    database: Database[Document], redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull, "LAST_MESSAGE_STEPS", (2, 3, 4))
    for peer, count in (("b", 3), ("c", 9), ("d", 10), ("e", 1)):
        transfer([make_msg("a", peer, f"m{seq}") for seq in range(1, count + 1)])
        # All but the first.
        forget_cache(redis_client, f"si_a_{peer}", *range(2, count + 1))
    forget_cache(redis_client, "si_a_e", 1)
    request = msg_pb2.GetLastMessageReq(userID="a", conversationIDs=[f"si_a_{peer}" for peer in "bcde"])

    found = await pull.get_last_messages("a", request)

    # In d nothing is found among as many as are looked at, and e has none.
    assert {name: msg.seq for name, msg in found.msgs.items()} == {"si_a_b": 1, "si_a_c": 1}


@pytest.mark.usefixtures("chat")
async def test_the_last_message_is_the_newest_that_is_there(redis_client: redis.Redis) -> None:
    request = msg_pb2.GetLastMessageReq(userID="a", conversationIDs=["si_a_b", "si_a_x"])
    newest = await pull.get_last_messages("a", request)
    forget_cache(redis_client, "si_a_b", LENGTH)
    older = await pull.get_last_messages("a", request)

    assert {name: (msg.seq, msg.content) for name, msg in newest.msgs.items()} == {
        "si_a_b": (LENGTH, b'{"content":"m12"}')
    }
    assert {name: msg.seq for name, msg in older.msgs.items()} == {"si_a_b": LENGTH - 1}
