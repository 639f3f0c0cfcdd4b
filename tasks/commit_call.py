"""The call of ``commit.lua``: what transfer tells the script of a batch, and what the script answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from imserver.clock import now_ms
from imserver.conf import get_config
from imserver.protocol.gen.log_pb2 import LogBatch
from imserver.storage import keys, read_seq
from imserver.storage.logs import Entry, Lease, ScriptCall, next_entry_id
from tasks.sorting import Batch

#: The script's first word.
COMMITTED, REFILL_FIRST, LEASE_LOST, COMMITTED_BEFORE = 1, 0, -1, -2
#: What it says of the push.
WAKE_PUSH, PUSHES_ITSELF = 1, 2


@dataclass(frozen=True, slots=True)
class CommitAnswer:
    """What the script says when it did it. ``new`` and ``low``: numbers (1…) of lists."""

    persist: bool
    push: int
    webhook: bool
    last_push_id: bytes
    #: Entries that the webhook stage does not get, because its log is full.
    dropped: int
    first_seqs: list[int]
    new: list[int]
    low: list[int]

    @property
    def has_wake_up(self) -> bool:
        """Some stage is to be woken, which takes a call of the broker."""
        return self.persist or self.push == WAKE_PUSH or self.webhook

    @classmethod
    def parse(cls, answer: list[Any], lists: int) -> CommitAnswer:
        _status, persist, push, webhook, last_push_id, dropped, *rest = answer
        flagged = rest[lists:]
        return cls(
            persist=bool(persist),
            push=push,
            webhook=bool(webhook),
            last_push_id=last_push_id,
            dropped=dropped,
            first_seqs=rest[:lists],
            new=[-number for number in flagged if number < 0],
            low=[number for number in flagged if number > 0],
        )


def commit_call(
    lease: Lease,
    batch: Batch,
    entries: list[Entry],
    *,
    overdraft: int = 0,
    leaves_some: bool = False,
    pushes: bool = False,
    is_hooked: bool = False,
) -> ScriptCall:
    """Keys and arguments of the script.

    Args:
        overdraft: seqs beyond its range that a conversation may use.
        leaves_some: other entries of the log stay, so each of ``entries`` is removed by itself.
        pushes: the caller pushes by itself where it gets the push lease.
        is_hooked: hand on to the webhook stage.
    """
    config, shard = get_config(), lease.shard
    script_keys: list[Any] = [
        lease.key,
        lease.log,
        keys.log(keys.TO_MONGO, shard),
        keys.log(keys.TO_PUSH, shard),
        keys.log(keys.DEAD, shard),
        keys.lease("persist", shard),
        keys.wake("persist", shard),
        keys.lease("push", shard),
        keys.wake("push", shard),
        keys.read_dirty(shard),
        keys.log(keys.TO_WEBHOOK, shard),
        keys.lease("webhook", shard),
        keys.wake("webhook", shard),
    ]
    args: list[Any] = [
        lease.token,
        entries[0][0],
        next_entry_id(entries[-1][0]),
        now_ms(),
        config.cache_ttl_seconds,
        keys.WAKE_TTL_MS,
        len(batch.lists),
        len(batch.receipts),
        len(batch.dead),
        overdraft,
        config.seq_key_ttl_days * 86_400,
        config.log_max_entries if is_hooked else 0,
        "1" if pushes else "0",
        config.lease_ms,
    ]
    removed = [entry_id for entry_id, _ in entries] if leaves_some else []
    args += (len(removed), *removed)
    for item in batch.lists:
        conversation_id = item.conversation_id
        script_keys += (
            keys.malloc_seq(shard, conversation_id),
            keys.msg_cache_prefix(shard, conversation_id),
        )
        blob = LogBatch(msgs=item.raw, operation_ids=item.operation_ids, trigger_id=batch.trigger_id)
        args += (conversation_id, blob.SerializeToString())
        if not item.is_stored:
            args += (0, 0)
            continue
        senders = item.last_index_by_sender()
        args += (len(senders), len(item.raw))
        for user_id, index in senders.items():
            args += (keys.read_seq(shard, conversation_id, user_id), user_id, index)
        args += item.raw
    for receipt in batch.receipts:
        args += (
            keys.read_seq(shard, receipt.conversation_id, receipt.user_id),
            read_seq.dirty_field(receipt.conversation_id, receipt.user_id),
            receipt.seq,
            keys.malloc_seq(shard, receipt.conversation_id),
        )
    for letter in batch.dead:
        args += (letter.reason, *(letter.fields.get(name, b"") for name in (b"k", b"m", b"o")))
    return script_keys, args
