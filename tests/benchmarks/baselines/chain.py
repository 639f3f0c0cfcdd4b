"""The literal design: four Celery tasks a message (seq, cache, store, push), one after the other by ``celery.chain``.

Each task is on the queue of its step and of its conversation's shard, always the same one. Seqs, cache, blocks, routes and
the channel layer are the product's own modules, so what differs is that every message travels alone and by the broker.
``celery -A tests.benchmarks.baselines.chain worker`` runs it; ``chain_gateway.py`` starts the chains.

With more than one thread, two messages of a queue may run side by side, so this design keeps no order. That is left as it
is: it is what it is compared for.
"""

from __future__ import annotations

import base64
from functools import cache as once

from celery import chain
from kombu import Exchange, Queue

from imserver.conf import get_config
from imserver.constants import MSGS_PER_BLOCK
from imserver.protocol.conversations import conversation_id_of, shard_of
from imserver.protocol.documents import to_document
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.storage import keys
from imserver.storage.clients import get_mongo, get_redis
from imserver.storage.msg_blocks import MsgBlockWriter, StoredMsgs
from imserver.storage.seq import SeqAllocator
from tasks import names
from tasks.celery import app
from tasks.push.messages import Push
from tasks.push.online import OnlinePusher
from tasks.receivers import Receivers

STEPS = ("seq", "cache", "store", "push")

#: What travels: the serialized message in base64, as JSON holds no bytes; operation id, conversation, seq (0: none yet).
Travelling = tuple[str, str, str, int]


def queue_of(step: str, shard: int) -> str:
    return f"chain.{step}.{shard:02d}"


# The pipeline's own queues would be empty here, and a worker pays for each queue that it waits for.
_queues = [*(queue_of(step, shard) for step in STEPS for shard in range(get_config().shards)), names.MAINTENANCE_QUEUE]
app.conf.task_queues = [Queue(name, Exchange(name), routing_key=name) for name in _queues]


@once
def _allocator() -> SeqAllocator:
    return SeqAllocator(get_redis(), get_mongo())


@once
def _blocks() -> MsgBlockWriter:
    return MsgBlockWriter(get_mongo())


@once
def _pusher() -> OnlinePusher:
    return OnlinePusher(get_redis(), Receivers(get_redis(), get_mongo()))


@app.task(name="chain.seq")
def seq(travelling: Travelling) -> Travelling:
    """Take the message's number."""
    encoded, operation_id, conversation_id, _ = travelling
    return encoded, operation_id, conversation_id, _allocator().allocate(conversation_id, 1) + 1


@app.task(name="chain.cache")
def cache(travelling: Travelling) -> Travelling:
    """Put the message where pulls look first."""
    encoded, _, conversation_id, number = travelling
    config = get_config()
    prefix = keys.msg_cache_prefix(shard_of(conversation_id, config.shards), conversation_id)
    key = f"{prefix}{(number - 1) // MSGS_PER_BLOCK}"
    pipe = get_redis().pipeline(transaction=False)
    pipe.hset(key, str(number), base64.b64decode(encoded))
    pipe.expire(key, config.cache_ttl_seconds)
    pipe.execute()
    return travelling


@app.task(name="chain.store")
def store(travelling: Travelling) -> Travelling:
    """Write the message to MongoDB."""
    encoded, _, conversation_id, number = travelling
    msg = MsgData.FromString(base64.b64decode(encoded))
    _blocks().write([StoredMsgs(conversation_id, number, [to_document(msg, number)])])
    return travelling


@app.task(name="chain.push")
def push(travelling: Travelling) -> None:
    """Hand the message to the nodes of its receivers."""
    encoded, operation_id, conversation_id, number = travelling
    raw = base64.b64decode(encoded)
    msg = MsgData.FromString(raw)
    receivers = _pusher().receivers_of(msg, {})
    whereabouts = _pusher().finder.find(receivers)
    _pusher().push([Push(conversation_id, number, msg, raw, operation_id, receivers)], whereabouts, [])


def publish(raw: bytes, operation_id: str) -> None:
    """Start the chain of a serialized message. Blocks for a call of the broker."""
    conversation_id = conversation_id_of(MsgData.FromString(raw))
    shard = shard_of(conversation_id, get_config().shards)
    first: Travelling = (base64.b64encode(raw).decode(), operation_id, conversation_id, 0)
    chain(
        seq.s(first).set(queue=queue_of("seq", shard)),
        cache.s().set(queue=queue_of("cache", shard)),
        store.s().set(queue=queue_of("store", shard)),
        push.s().set(queue=queue_of("push", shard)),
    ).apply_async()
