"""Offline push: toOfflinePush log -> a vendor's notice on devices that are not connected.

An entry is one message for the users that no connection of a phone took. What the vendor does not take now waits apart
from the log (storage/offline_waits.py), so one message holds up no other. Each user (and device) gets a message's push
at most once, also when a batch runs twice or a worker is killed: imserver/vendors/base.py says which failures are tried
again, docs/offline-push.md what that means for users.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future
from concurrent.futures import wait as wait_for

from google.protobuf.message import DecodeError

from imserver import metrics
from imserver.conf import get_config
from imserver.errors import ArgsError
from imserver.protocol.conversations import chat_conversation_id
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.runtime import one_a_process
from imserver.storage import offline_waits, webhooks
from imserver.storage.clients import close_async_clients, get_mongo, get_redis
from imserver.storage.logs import DeadLetter, Entry, Lease
from imserver.storage.offline_waits import Job, Settlement
from imserver.vendors.registry import create_vendor
from imserver.webhooks.client import close_client
from tasks.drain import Stage
from tasks.push.delivery import Delivery, Progress, Slice

#: No new call of a batch begins after this: other shards wait for the runner too.
SLICE_SECONDS = 1.0


@one_a_process
def get_loop() -> asyncio.AbstractEventLoop:
    """The event loop of the process that all vendor calls run on."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="offline-push", daemon=True).start()
    return loop


class OfflinePush(Stage):
    name = "offline_push"

    def __init__(self) -> None:
        """Raises ConfigError when the vendor's credentials cannot be used."""
        self._redis = get_redis()
        vendor = create_vendor(get_config())
        self._delivery = Delivery(vendor) if vendor is not None else None

    def process(self, lease: Lease, entries: list[Entry]) -> None:
        """1. What is there. 2. Push. 3. Apply what came of it."""
        settlement = Settlement()
        fresh = _collect(entries, settlement)
        due = offline_waits.read_due(self._redis, lease.shard)
        if self._delivery is None:
            # Left from when there was a vendor.
            settlement.handled += [job.id.encode() for job in fresh]
            settlement.done += [job.id for job in due]
        elif fresh or due:
            for progress in self._push_all(self._delivery, lease, [*due, *fresh]):
                _conclude(progress, {job.id for job in due}, settlement)
        offline_waits.settle(self._redis, lease, settlement)
        if settlement.dead:
            metrics.DEAD_LETTERS.labels(self.name).inc(len(settlement.dead))

    def close(self) -> None:
        """Close the connections of the event loop; the next batch opens new ones."""
        asyncio.run_coroutine_threadsafe(self._close(), get_loop()).result()

    async def _close(self) -> None:
        if self._delivery is not None:
            await self._delivery.vendor.close()
        await close_client()
        await close_async_clients()

    def _push_all(self, delivery: Delivery, lease: Lease, jobs: list[Job]) -> list[Progress]:
        """Runs on the event loop's thread; this one keeps the lease meanwhile. Raises LeaseLost."""
        hooks = webhooks.get_cache(get_mongo()).get()
        time_slice = Slice(time.monotonic() + SLICE_SECONDS)
        future: Future[list[Progress]] = asyncio.run_coroutine_threadsafe(
            delivery.run(jobs, lease.shard, hooks, time_slice), get_loop()
        )
        try:
            while not wait_for([future], get_config().lease_ms / 4000).done:
                lease.renew(self._redis)
        except BaseException:
            # Calls that have begun end by themselves; their marks keep the next owner from repeating them.
            time_slice.ends_at = 0.0
            raise
        return future.result()


def _collect(entries: list[Entry], settlement: Settlement) -> list[Job]:
    """The jobs of a batch; what is none goes into the settlement."""
    jobs = []
    for entry_id, fields in entries:
        if offline_waits.is_tick(fields):
            settlement.handled.append(entry_id)
            continue
        try:
            job = Job.from_entry(entry_id, fields)
            chat_conversation_id(MsgData.FromString(job.msg))
        except (KeyError, ValueError, DecodeError, ArgsError) as error:
            settlement.handled.append(entry_id)
            settlement.dead.append(DeadLetter(f"not an offline push: {error!r}"[:200], fields))
            continue
        jobs.append(job)
    return jobs


def _conclude(progress: Progress, waiting_ids: set[str], settlement: Settlement) -> None:
    """What becomes of a job, after its calls. One that did not get its turn stays where it is."""
    job = progress.job
    if not progress.is_begun:
        return
    if job.id not in waiting_ids:
        settlement.handled.append(job.id.encode())
    elif progress.due_ms is None:
        settlement.done.append(job.id)
    if progress.due_ms is not None:
        settlement.waiting.append((job, progress.due_ms))
