"""What beat asks for: wake shards that wait, write read seqs, forget dead gateway nodes."""

from __future__ import annotations

import threading

from imserver.conf import get_config
from imserver.objects.cleaning import remove_expired
from imserver.objects.stores import get_store
from imserver.storage import logs, offline_waits, process_health, read_seq, routes, webhook_waits, webhooks
from imserver.storage.clients import get_mongo, get_redis
from tasks import names
from tasks.celery import app
from tasks.wakeup import wake

_flushing = threading.Lock()


@app.task(name=names.SWEEP)
def sweep() -> int:
    """Repeat wake-ups that got lost: a shard whose log is not empty and that nobody drains. Returns how many."""
    client = get_redis()
    webhook_waits.add_ticks(client, get_config().shards)
    offline_waits.add_ticks(client, get_config().shards)
    count = 0
    for stage in names.STAGES:
        for shard in logs.sweep(client, stage, get_config().shards):
            wake(stage, shard)
            count += 1
    # This task went from beat through the broker to a worker: all three live.
    process_health.note_sweep(client)
    return count


@app.task(name=names.FLUSH_READ_SEQS)
def flush_read_seqs() -> int:
    """Write the read seqs that changed to MongoDB, the last value each."""
    if not _flushing.acquire(blocking=False):
        return 0  # the one before still waits for MongoDB
    try:
        return read_seq.flush(get_redis(), get_mongo())
    finally:
        _flushing.release()


@app.task(name=names.FORGET_DEAD_NODES)
def forget_dead_nodes() -> int:
    """Remove gateway nodes whose heartbeat ran out, and the routes to them: their users' new status is published."""
    if not routes.dead_nodes(get_redis()):
        return 0  # as nearly always: the database need not be asked for the webhooks
    is_hooked = webhooks.AFTER_PRESENCE in webhooks.enabled_after_kinds(get_mongo())
    count, shards = routes.forget_dead_nodes(get_redis(), is_hooked=is_hooked)
    for shard in shards:
        wake("webhook", shard)
    return count


@app.task(name=names.REMOVE_EXPIRED_UPLOADS)
def remove_expired_uploads() -> int:
    """Give up uploads of files that nobody finished. Returns how many. May run twice."""
    return remove_expired(get_mongo(), get_store())
