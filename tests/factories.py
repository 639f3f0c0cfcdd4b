"""Makes what tests need: messages, user ids, log entries, and the pipeline's stages run by hand in this process."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

import orjson
import pytest
import redis
from hypothesis import strategies as st

from imserver import conf
from imserver.constants import ContentType, Option, SessionType
from imserver.protocol.conversations import conversation_key_of, shard_of_key
from imserver.protocol.gen.log_pb2 import LogBatch
from imserver.protocol.gen.sdkws_pb2 import MsgData, OfflinePushInfo
from imserver.storage import keys, logs
from imserver.storage.clients import get_redis
from imserver.storage.lean_redis import LeanRedis
from imserver.storage.logs import STAGE_LOGS, Entry, Lease
from tasks.drain import Stage
from tasks.persist import Persist
from tasks.transfer import Transfer

_numbers = itertools.count(1)

#: Registered ids: letters and digits of any script, underscores.
user_ids = st.text("abzAZ019_ü户٣", min_size=1, max_size=12)
int32 = st.integers(-(1 << 31), (1 << 31) - 1)
int64 = st.integers(-(1 << 63), (1 << 63) - 1)
#: Any text that protobuf takes, with a liking for what breaks stores: NUL, dots, dollars, newlines.
texts = st.text(max_size=12) | st.sampled_from(["\x00", "a.b", "$x", "\n", "漢字", "😀", "'\"\\"])
options = st.dictionaries(
    st.sampled_from([Option.HISTORY, Option.IS_NOT_NOTIFICATION, Option.SENDER_SYNC, Option.OFFLINE_PUSH]) | texts,
    st.booleans(),
    max_size=6,
)
offline_push_infos = st.builds(
    OfflinePushInfo, title=texts, desc=texts, ex=texts, iOSPushSound=texts, iOSBadgeCount=st.booleans()
)


def any_msgs() -> st.SearchStrategy[MsgData]:
    """Messages with every field that is stored set to anything at all."""
    return st.builds(
        MsgData,
        **dict.fromkeys(
            ("sendID", "recvID", "groupID", "clientMsgID", "serverMsgID", "senderNickname", "senderFaceURL"), texts
        ),
        **dict.fromkeys(("attachedInfo", "ex"), texts),
        **dict.fromkeys(("senderPlatformID", "sessionType", "msgFrom", "contentType", "status"), int32),
        **dict.fromkeys(("seq", "sendTime", "createTime"), int64),
        content=st.binary(max_size=40) | texts.map(str.encode),
        isRead=st.booleans(),
        options=options,
        offlinePushInfo=st.none() | offline_push_infos,
        atUserIDList=st.lists(texts, max_size=3),
    )


def unique(prefix: str = "u") -> str:
    """A name that nothing else in this process has."""
    return f"{prefix}{next(_numbers):05d}"


def make_msg(send_id: str, recv_id: str, text: str = "hi", **fields: Any) -> MsgData:
    """A chat message as the log holds it: complete, and without a seq."""
    defaults: dict[str, Any] = {
        "sessionType": SessionType.SINGLE,
        "contentType": ContentType.TEXT,
        "clientMsgID": unique("c"),
        "serverMsgID": unique("s"),
        "content": orjson.dumps({"content": text}),
        "msgFrom": 100,
        "sendTime": 1_760_000_000_000,
        "createTime": 1_760_000_000_000,
        "status": 2,
    }
    return MsgData(sendID=send_id, recvID=recv_id, **{**defaults, **fields})


def make_notification(send_id: str, recv_id: str, *, stored: bool, **fields: Any) -> MsgData:
    """A notification with the options that the server gives it (schema.md, section 4)."""
    names = (Option.IS_SEND_MSG, Option.OFFLINE_PUSH, Option.UNREAD_COUNT, Option.IS_NOT_NOTIFICATION)
    switched = {**dict.fromkeys(names, False), Option.HISTORY: stored, Option.PERSISTENT: stored}
    switched.update(fields.pop("options", {}))
    return make_msg(send_id, recv_id, **{"contentType": 1201, "msgFrom": 200, "options": switched, **fields})


def make_receipt(send_id: str, recv_id: str, tips: Any, *, stored: bool = True) -> MsgData:
    """A read receipt: a NotificationElem whose detail is MarkAsReadTips JSON."""
    content = orjson.dumps({"detail": orjson.dumps(tips).decode()})
    return make_notification(send_id, recv_id, stored=stored, contentType=ContentType.HAS_READ_RECEIPT, content=content)


def entry_fields(msg: MsgData, operation_id: str = "op") -> dict[bytes, bytes]:
    """The fields that append.lua gives an entry of toRedis."""
    return {b"k": conversation_key_of(msg).encode(), b"m": msg.SerializeToString(), b"o": operation_id.encode()}


def make_entries(msgs: Iterable[MsgData]) -> list[Entry]:
    """Entries of a toRedis log, without a log."""
    return [(b"1-%d" % at, entry_fields(msg, f"op{at}")) for at, msg in enumerate(msgs)]


def shard_of_msg(msg: MsgData) -> int:
    return shard_of_key(conversation_key_of(msg), conf.get_config().shards)


def add_entries(client: redis.Redis, msgs: Iterable[MsgData]) -> set[int]:
    """Put messages into their toRedis logs, without any wake-up; returns the shards."""
    shards = set()
    for at, msg in enumerate(msgs):
        shard = shard_of_msg(msg)
        client.xadd(keys.log(keys.TO_REDIS, shard), entry_fields(msg, f"op{at}"))  # type: ignore[arg-type]
        shards.add(shard)
    return shards


def read_log(client: redis.Redis, name: str, shard: int) -> list[Entry]:
    found: Any = client.xrange(keys.log(name, shard))
    return list(found)


def send_deferred(stage: Stage) -> None:
    """What a runner does with its next read."""
    with closing(LeanRedis(repeats=False)) as lean:
        logs.run_deferred(lean, stage.take_deferred())


def run_stage(client: redis.Redis, stage: Stage, shard: int) -> int:
    """One batch of a stage, all that its log holds; returns the number of entries."""
    entries = read_log(client, STAGE_LOGS[stage.name], shard)
    lease = Lease.acquire(client, stage.name, shard)
    assert lease is not None, "somebody else drains the shard"
    if entries:
        stage.process(lease, entries)
    lease.release(client, force=True)
    return len(entries)


def transfer(msgs: Iterable[MsgData]) -> None:
    """Messages through the transfer stage: numbered, cached, handed on."""
    client = get_redis()
    for shard in add_entries(client, msgs):
        run_stage(client, Transfer(), shard)


def persist() -> None:
    """What was handed on to toMongo, into MongoDB."""
    client = get_redis()
    for shard in range(conf.get_config().shards):
        run_stage(client, Persist(), shard)


@dataclasses.dataclass(frozen=True)
class Handed:
    """One entry of toMongo or toPush, taken apart."""

    conversation_id: str
    first_seq: int
    msgs: tuple[bytes, ...]
    operation_ids: tuple[str, ...]

    def numbered(self) -> list[tuple[str, int, bytes]]:
        return [
            (self.conversation_id, self.first_seq + at if self.first_seq else 0, msg)
            for at, msg in enumerate(self.msgs)
        ]


def read_handed(client: redis.Redis, name: str, shard: int) -> list[Handed]:
    found = []
    for _, fields in read_log(client, name, shard):
        batch = LogBatch.FromString(fields[b"b"])
        found.append(Handed(fields[b"c"].decode(), int(fields[b"s"]), tuple(batch.msgs), tuple(batch.operation_ids)))
    return found


def snapshot(client: redis.Redis) -> dict[bytes, bytes | None]:
    """Everything that the test's keys hold, to show that nothing changed."""
    names: Any = client.scan_iter(match=f"{conf.get_config().key_prefix}*", count=1000)
    dump: Any = client.dump
    return {name: dump(name) for name in names}


def reconfigure(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> conf.Config:
    """The running test's configuration with some settings changed."""
    changed = dataclasses.replace(conf.get_config(), **changes)
    monkeypatch.setattr(conf, "_config", changed)
    return changed


def wait_until(condition: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.002)
