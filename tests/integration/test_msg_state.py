"""Revoked, deleted, read: what is kept of it, and that no cache and no race brings back what is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import redis
from pymongo.database import Database

from imserver import conf
from imserver.actions import delete, pull, read, revoke, stored
from imserver.actions.chats import find_pullable
from imserver.constants import SessionType
from imserver.errors import DatabaseUnavailable, MsgAlreadyRevoked, NoPermission, RecordNotFound
from imserver.protocol.conversations import shard_of
from imserver.protocol.documents import to_document
from imserver.protocol.gen import msg_pb2
from imserver.protocol.gen.msg_pb2 import DeleteSyncOpt
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.storage import keys
from imserver.storage.clients import Document, close_async_clients, get_async_mongo, get_async_redis
from imserver.storage.conversations import Conversations, NewConversation, cap_group_records
from imserver.storage.msg_blocks import MsgBlockReader, MsgBlockWriter, StoredMsgs
from imserver.storage.msg_cache import MsgCache
from imserver.storage.seq_limits import Limits, SeqLimits
from imserver.storage.users import new_user
from tasks.transfer import Transfer
from tests.factories import make_msg, persist, run_stage, transfer

CHAT = "si_a_b"
LENGTH = 5
FOR_ONESELF, FOR_ALL = DeleteSyncOpt(), DeleteSyncOpt(IsSyncOther=True)


@pytest.fixture(autouse=True)
async def chat(database: Database[Document], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """``LENGTH`` messages from a to b, cached and stored. What is sent stays in its log: no worker is woken."""
    monkeypatch.setattr("imserver.actions.append.wake_soon", lambda *_: None)
    database["user"].insert_many([new_user(user_id, user_id.upper()) for user_id in ("a", "b")])
    transfer([make_msg("a", "b", f"m{seq}") for seq in range(1, LENGTH + 1)])
    persist()
    yield
    await close_async_clients()


async def shown(user_id: str, *seqs: int, conversation_id: str = CHAT) -> dict[int, MsgData]:
    """What the user pulls."""
    wanted = {conversation_id: list(seqs) or list(range(1, LENGTH + 1))}
    found = (await pull.get_msgs(user_id, wanted))[conversation_id]
    return {seq: MsgData.FromString(raw) for seq, raw in found.items()}


async def revoke_msg(user_id: str, seq: int, *, is_admin: bool = False, conversation_id: str = CHAT) -> None:
    msg, role = await revoke.check_revoke(user_id, conversation_id, seq, "op", is_admin=is_admin)
    await revoke.do_revoke(user_id, role, msg, conversation_id, "op", operator_id=user_id, is_admin=is_admin)


async def delete_msgs(user_id: str, *seqs: int, option: DeleteSyncOpt = FOR_ONESELF) -> None:
    chat = await delete.check_delete_msgs(user_id, CHAT, list(seqs), option, is_admin=False)
    await delete.do_delete_msgs(chat, list(seqs), option, "op")


async def mark_as_read(user_id: str, has_read_seq: int, *seqs: int) -> None:
    chat = await read.check_read(user_id, CHAT, [has_read_seq, *seqs])
    await read.do_mark_conversation_as_read(chat, has_read_seq, list(seqs), "op")


async def clear(user_id: str, option: DeleteSyncOpt = FOR_ONESELF, conversation_id: str = CHAT) -> None:
    chats = await delete.check_clear(user_id, [conversation_id], option, is_admin=False)
    await delete.do_clear(user_id, chats, option, "op")


def handle_sent(client: redis.Redis) -> None:
    """Notifications that were sent, through the transfer stage."""
    for shard in range(conf.get_config().shards):
        run_stage(client, Transfer(), shard)


def cached(client: redis.Redis, seq: int) -> bytes | None:
    value: Any = client.hget(f"{keys.msg_cache_prefix(shard_of(CHAT, 16), CHAT)}0", str(seq))
    return None if value is None else bytes(value)


def forget_cache(client: redis.Redis) -> None:
    client.delete(f"{keys.msg_cache_prefix(shard_of(CHAT, 16), CHAT)}0")


def slot(database: Database[Document], seq: int) -> Document:
    block = database["msg"].find_one({"doc_id": f"{CHAT}:0"}) or {}
    found: Document = block["msgs"][seq - 1]
    return found


# -- revoke


async def test_a_revoked_message_says_who_took_it_back_and_nothing_else() -> None:
    await revoke_msg("a", 2)

    for user_id in ("a", "b"):
        msg = (await shown(user_id))[2]
        assert (msg.contentType, msg.seq, msg.sendID, msg.status) == (2101, 2, "a", 2)
        content = orjson.loads(orjson.loads(msg.content)["detail"])
        assert (content["revokerID"], content["revokerNickname"], content["revokerRole"]) == ("a", "A", 1)
        assert (content["seq"], content["clientMsgID"], content["sessionType"]) == (2, msg.clientMsgID, 1)
        assert content["sourceMessageSendID"] == "a"
        assert b"m2" not in msg.content
    assert [msg.contentType for msg in (await shown("b")).values()].count(101) == LENGTH - 1


async def test_a_message_that_is_not_stored_yet_is_waited_for(redis_client: redis.Redis) -> None:
    transfer([make_msg("a", "b", "just said")])
    revoking = asyncio.create_task(revoke_msg("a", LENGTH + 1))
    await asyncio.sleep(stored.POLL_SECONDS)
    assert cached(redis_client, LENGTH + 1)

    await asyncio.to_thread(persist)
    await revoking

    assert (await shown("b", LENGTH + 1))[LENGTH + 1].contentType == 2101


async def test_a_message_that_is_not_stored_in_time_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "STORED_SECONDS", 0.0)
    transfer([make_msg("a", "b", "just said")])

    with pytest.raises(DatabaseUnavailable):
        await revoke_msg("a", LENGTH + 1)
    with pytest.raises(DatabaseUnavailable):
        await delete_msgs("b", 1, LENGTH + 1)

    assert {msg.contentType for msg in (await shown("b", 1, LENGTH + 1)).values()} == {101}


async def test_persist_that_runs_again_does_not_bring_a_revoked_message_back(
    database: Database[Document], redis_client: redis.Redis
) -> None:
    await revoke_msg("a", 2)

    MsgBlockWriter(database).write([StoredMsgs(CHAT, 2, [to_document(make_msg("a", "b", "m2"), 2)])])
    forget_cache(redis_client)

    assert (await shown("b"))[2].contentType == 2101
    # Now it was put back into the cache as it is shown.
    assert b"m2" not in (cached(redis_client, 2) or b"m2")
    assert (await shown("b"))[2].contentType == 2101


async def test_a_block_made_for_a_read_mark_is_no_message(database: Database[Document]) -> None:
    transfer([make_msg("a", "b", "just said") for _ in range(LENGTH + 1, 102)])

    await mark_as_read("b", 101)

    assert database["msg"].count_documents({"doc_id": f"{CHAT}:1"}) == 1
    assert MsgBlockWriter(database).last_seq(CHAT) == await MsgBlockReader(get_async_mongo()).last_seq(CHAT) == LENGTH
    persist()
    assert MsgBlockWriter(database).last_seq(CHAT) == 101
    block = database["msg"].find_one({"doc_id": f"{CHAT}:1"}) or {}
    assert (block["msgs"][0]["msg"]["seq"], block["msgs"][0]["is_read"], block["msgs"][1]["msg"]) == (101, True, None)


async def test_the_original_is_out_of_the_cache_before_mongodb_is_asked(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(*_: Any) -> bool:
        raise RuntimeError("killed")

    monkeypatch.setattr("imserver.storage.msg_states.MsgStates.revoke", die)

    with pytest.raises(RuntimeError):
        await revoke_msg("a", 2)

    assert cached(redis_client, 2) == b""


async def test_two_who_revoke_at_once_are_told_which_of_them_did() -> None:
    msg, role = await revoke.check_revoke("a", CHAT, 2, "op", is_admin=False)
    await revoke.do_revoke("a", role, msg, CHAT, "op", operator_id="a", is_admin=False)

    with pytest.raises(MsgAlreadyRevoked):
        await revoke.do_revoke("a", role, msg, CHAT, "op", operator_id="a", is_admin=False)
    with pytest.raises(MsgAlreadyRevoked):
        await revoke_msg("a", 2)


async def test_the_notification_of_a_revocation_is_made_up_for_once(redis_client: redis.Redis) -> None:
    await revoke_msg("a", 2)
    for _ in range(2):
        with pytest.raises(MsgAlreadyRevoked):
            await revoke_msg("a", 2)
    handle_sent(redis_client)

    (msg,) = (await shown("b", 1, 2, 3, conversation_id="n_a_b")).values()
    assert (msg.contentType, msg.sendID, msg.recvID) == (2101, "a", "b")


async def test_only_the_sender_or_an_app_admin_revokes_in_a_single_chat() -> None:
    database = get_async_mongo()
    await database["user"].insert_one(new_user("imAdmin", "root", level=2))

    with pytest.raises(NoPermission):
        await revoke_msg("b", 1)
    with pytest.raises(NoPermission):
        await revoke_msg("c", 1)
    with pytest.raises(RecordNotFound):
        await revoke_msg("a", LENGTH + 1)
    await revoke_msg("imAdmin", 1, is_admin=True)

    assert (await shown("a"))[1].contentType == 2101


# -- delete


async def test_a_message_deleted_for_oneself_is_there_for_the_others(
    database: Database[Document], redis_client: redis.Redis
) -> None:
    await delete_msgs("b", 2, 3)

    assert sorted(await shown("b")) == [1, 4, 5]
    assert sorted(await shown("a")) == [1, 2, 3, 4, 5]
    # What a sees is not put where b would find it.
    assert cached(redis_client, 2) == b""
    forget_cache(redis_client)
    assert sorted(await shown("a")) == [1, 2, 3, 4, 5]
    assert sorted(await shown("b")) == [1, 4, 5]
    assert slot(database, 2)["del_list"] == ["b"]


async def test_a_message_deleted_for_all_stays_away_when_persist_brings_it_again(
    database: Database[Document], redis_client: redis.Redis
) -> None:
    await delete_msgs("a", 2, option=FOR_ALL)

    MsgBlockWriter(database).write([StoredMsgs(CHAT, 2, [to_document(make_msg("a", "b", "m2"), 2)])])
    forget_cache(redis_client)

    assert sorted(await shown("a")) == sorted(await shown("b")) == [1, 3, 4, 5]


async def test_the_text_of_a_message_deleted_for_all_is_gone(database: Database[Document]) -> None:
    await delete_msgs("a", 2, option=FOR_ALL)

    assert slot(database, 2)["msg"]["content"] == ""
    assert slot(database, 3)["msg"]["content"] != ""


async def test_a_message_that_was_revoked_and_deleted_is_both(redis_client: redis.Redis) -> None:
    await delete_msgs("b", 2)
    await revoke_msg("a", 2)
    await revoke_msg("a", 3)
    await delete_msgs("b", 3)

    assert sorted(await shown("b")) == [1, 4, 5]
    assert [seq for seq, msg in (await shown("a")).items() if msg.contentType == 2101] == [2, 3]


async def test_the_last_message_is_not_one_that_is_deleted() -> None:
    await delete_msgs("b", 5, 4)
    await revoke_msg("a", 3)
    request = msg_pb2.GetLastMessageReq(conversationIDs=[CHAT])

    assert (await pull.get_last_messages("a", request)).msgs[CHAT].seq == 5
    assert (await pull.get_last_messages("b", request)).msgs[CHAT].seq == 3


# -- a reader that is under way


@pytest.mark.parametrize("is_cached", [True, False])
async def test_a_reader_that_looked_before_the_change_puts_nothing_back(
    redis_client: redis.Redis, is_cached: bool
) -> None:
    if not is_cached:
        forget_cache(redis_client)
    cache, wanted = MsgCache(get_async_redis()), {CHAT: [1, 2, 3, 4]}
    look = await cache.look(wanted)
    before = {seq: msg.SerializeToString() for seq, msg in (await _as_stored(wanted)).items()}

    await revoke_msg("a", 1)
    await delete_msgs("b", 2)
    await mark_as_read("b", 3)
    await cache.put(CHAT, before, look)

    msgs = await shown("b")
    assert msgs[1].contentType == 2101
    assert 2 not in msgs
    assert msgs[3].isRead
    assert not msgs[4].isRead


async def _as_stored(wanted: dict[str, list[int]]) -> dict[int, MsgData]:
    from_store = await MsgBlockReader(get_async_mongo()).get_slots(wanted)
    return {seq: make_msg("a", "b", found["msg"]["content"], seq=0) for seq, found in from_store[CHAT].items()}


async def test_a_reader_that_looked_after_the_change_puts_back_what_it_saw(redis_client: redis.Redis) -> None:
    await mark_as_read("b", 1)
    forget_cache(redis_client)

    await shown("b")

    assert cached(redis_client, 1)
    assert (await shown("b"))[1].isRead


# -- read


async def test_messages_of_the_peer_are_read_from_the_cache_and_from_the_store(
    database: Database[Document], redis_client: redis.Redis
) -> None:
    await mark_as_read("b", 3)
    transfer([make_msg("b", "a", "answer")])  # which moves the read seq of b, and marks nothing

    await mark_as_read("b", 6, 5)

    expected = {1: True, 2: True, 3: True, 4: False, 5: True, 6: False}
    assert {seq: msg.isRead for seq, msg in (await shown("a", *range(1, 7))).items()} == expected
    persist()
    forget_cache(redis_client)
    assert {seq: msg.isRead for seq, msg in (await shown("a", *range(1, 7))).items()} == expected
    assert [slot(database, seq)["is_read"] for seq in range(1, 7)] == list(expected.values())


async def test_marking_twice_does_not_let_the_cache_grow(redis_client: redis.Redis) -> None:
    await mark_as_read("b", 2)
    before = cached(redis_client, 2)
    await MsgCache(get_async_redis()).set_read(CHAT, [1, 2])

    assert cached(redis_client, 2) == before


# -- limits


async def bounds(user_id: str, conversation_id: str = CHAT) -> tuple[int, int]:
    found = (await pull.get_bounds(user_id, [conversation_id]))[conversation_id]
    return found.min_seq, found.max_seq


async def test_a_cleared_conversation_begins_after_its_last_message(database: Database[Document]) -> None:
    assert await bounds("b") == (1, 5)

    await clear("b")
    transfer([make_msg("a", "b", "new")])

    assert await bounds("b") == (6, 6)
    assert await bounds("a") == (1, 6)
    record = database["conversation"].find_one({"owner_user_id": "b", "conversation_id": CHAT}) or {}
    assert (record["min_seq"], record["user_id"]) == (6, "a")
    request = msg_pb2.GetConversationsHasReadAndMaxSeqReq(conversationIDs=[CHAT])
    seqs = (await pull.get_read_and_max_seqs("b", request)).seqs[CHAT]
    assert (seqs.maxSeq, seqs.hasReadSeq) == (6, 5)


async def test_a_conversation_cleared_for_all_is_empty_for_both() -> None:
    assert await bounds("a") == (1, 5)

    await clear("a", FOR_ALL)

    assert await bounds("a") == await bounds("b") == (6, 5)
    request = msg_pb2.GetLastMessageReq(conversationIDs=[CHAT])
    assert not (await pull.get_last_messages("b", request)).msgs


async def test_limits_are_read_from_mongodb_once(database: Database[Document]) -> None:
    limits = SeqLimits(get_async_redis(), get_async_mongo())
    await Conversations(get_async_redis(), get_async_mongo()).set(NewConversation("b", CHAT, 1, "a"), {"min_seq": 2})
    assert await limits.get("b", [CHAT]) == {CHAT: Limits(2, 0)}

    database["conversation"].delete_many({})

    assert await limits.get("b", [CHAT]) == {CHAT: Limits(2, 0)}


async def test_a_limit_that_changes_while_it_is_read_is_not_kept_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = SeqLimits(get_async_redis(), get_async_mongo())
    conversations = Conversations(get_async_redis(), get_async_mongo())
    load = limits._load

    async def slow_load(user_id: str, conversation_ids: list[str]) -> dict[str, Limits]:
        found = await load(user_id, conversation_ids)
        await conversations.set(NewConversation("b", CHAT, 1, "a"), {"min_seq": 4})
        return found

    with monkeypatch.context() as patched:
        patched.setattr(limits, "_load", slow_load)
        assert await limits.get("b", [CHAT]) == {CHAT: Limits(0, 0)}

    assert await limits.get("b", [CHAT]) == {CHAT: Limits(4, 0)}


async def test_what_is_cleared_for_all_is_known_when_redis_lost_its_copy(redis_client: redis.Redis) -> None:
    await clear("a", FOR_ALL)
    redis_client.delete(keys.seq_min(), keys.seq_limits("b"))

    assert await bounds("b") == await bounds("b") == (6, 5)
    await SeqLimits(get_async_redis(), get_async_mongo()).raise_for_all({CHAT: 3, "si_x_y": 2})
    assert await bounds("b") == (6, 5)


async def test_a_cap_bounds_what_may_be_pulled_and_read_but_not_what_is_announced(database: Database[Document]) -> None:
    database["group_member"].insert_one({"group_id": "g", "user_id": "b", "role_level": 20})
    transfer([make_msg("a", "", sessionType=SessionType.GROUP, groupID="g") for _ in range(4)])
    persist()
    await pull.get_bounds("b", ["sg_g"])

    await cap_group_records(get_async_redis(), get_async_mongo(), [NewConversation("b", "sg_g", 3)], 3)

    assert await bounds("b", "sg_g") == (1, 3)
    assert (await pull.get_max_seqs("b")).maxSeqs["sg_g"] == 4
    request = msg_pb2.GetConversationsHasReadAndMaxSeqReq(conversationIDs=["sg_g"])
    assert (await pull.get_read_and_max_seqs("b", request)).seqs["sg_g"].maxSeq == 3
    assert await find_pullable("b", ["sg_g", "n_g", CHAT]) == ["sg_g", CHAT]
