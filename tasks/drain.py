"""Draining: one runner a stage and process takes what the shards' logs hold, in order, until they are empty.

A wake-up brings a shard. Its lease makes one process the only drainer. The first wake-up's task becomes the stage's
runner in this process; tasks of further shards only hand their lease over and end, so one blocking read waits for all
of them and an idle shard costs no thread. A runner that finds its logs empty lingers, lease in hand: while it is there,
appending needs no wake-up (the scripts look at the lease), so a busy system pays the Celery hop once and not per message.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from contextlib import closing
from dataclasses import dataclass, field

import redis
from google.protobuf.message import DecodeError

from imserver import metrics
from imserver.clock import now_ms
from imserver.conf import Config, get_config
from imserver.protocol.gen.log_pb2 import LogBatch
from imserver.storage import keys, logs
from imserver.storage.clients import get_redis
from imserver.storage.lean_redis import Command, LeanRedis
from imserver.storage.logs import Entry, Lease, LeaseLost
from tasks.wakeup import wake

logger = logging.getLogger(__name__)

#: How often a handing-over task knocks at the runner, and how many times: then the runner is busy and will see it.
KNOCK_SECONDS = 0.002
MOST_KNOCKS = 10
#: A runner that has been at one batch for so long is taken for hung, and its leases are left to expire.
HUNG_SECONDS = 60
#: Longest blocking read: a fraction of the clients' socket time-out.
LONGEST_READ_SECONDS = 2.0
#: Ids that one log line names.
MOST_TRACED = 500
#: A pause that is long among messages that keep coming, and short for what waits to be written.
QUIET_SECONDS = 0.03
#: Entries of the feeder that make a write worth its while: more would only make it longer.
ENOUGH_ENTRIES = 500
#: Between two tries to give leases back whose shards still hold entries.
SHORTEST_WAIT_SECONDS = 0.1
#: A failing shard is tried again after 0.1, 0.2, 0.4 … seconds.
BACKOFF_FIRST_SECONDS = 0.1
BACKOFF_MOST_SECONDS = 5.0


#: Redis cannot be reached. Its other errors are about the data of one shard.
AWAY = (redis.ConnectionError, redis.TimeoutError)


class Stage(ABC):
    """One step of the pipeline.

    ``process`` applies a batch of one shard and removes its entries in one script that checks the lease. Until that
    script ran nothing has happened, so it may be called again with the same entries at any time.
    """

    name: str

    #: How long to let entries gather before a batch is read. Only for a stage that nobody waits for.
    gather_ms = 0
    #: Whether a drainer waits on empty logs before it gives its leases back.
    lingers = True
    #: Whether ``process_many`` is quicker than one shard after the other, and takes no longer than a batch may.
    shares_round_trips = False

    @abstractmethod
    def process(self, lease: Lease, entries: list[Entry]) -> None:
        """Raises LeaseLost when somebody else drains the shard now; any other exception means "try again later"."""

    def process_many(self, batches: list[tuple[Lease, list[Entry]]]) -> list[Exception | None]:
        """Apply what one read brought, a batch a shard; for each None, or what ``process`` would have raised.

        For a stage that shares round trips. Raises an exception of AWAY when Redis is away.
        """
        return [self.outcome_of(lease, entries) for lease, entries in batches]

    def take_deferred(self) -> list[Command]:
        """Commands whose replies nobody needs: the runner sends them ahead of its next read, in the same round trip."""
        return []

    def outcome_of(self, lease: Lease, entries: list[Entry]) -> Exception | None:
        """What ``process`` raised; only a Redis that is away is everybody's trouble."""
        try:
            self.process(lease, entries)
        except AWAY:
            raise
        except Exception as error:  # noqa: BLE001  (one shard's trouble is handed to the runner, the others go on)
            return error
        return None


def trace_of(entries: list[Entry]) -> dict[str, list[str]]:
    """Operation and trigger ids of entries, for log lines: what leads from a request to what became of it."""
    operation_ids: list[str] = []
    trigger_ids: list[str] = []
    for _entry_id, fields in entries:
        if b"o" in fields:
            operation_ids.append(fields[b"o"].decode(errors="replace"))
        try:
            batch = LogBatch.FromString(fields.get(b"b", b""))
        except DecodeError:
            continue
        operation_ids += batch.operation_ids
        trigger_ids += [batch.trigger_id] if batch.trigger_id else []
    return {"operation_ids": operation_ids[:MOST_TRACED], "trigger_ids": trigger_ids[:MOST_TRACED]}


@dataclass(slots=True)
class _Shard:
    lease: Lease
    #: When a shard that failed, or the entries that were left waiting, are looked at again.
    retry_at: float = 0.0
    failures: int = 0
    #: Entries up to here were left in the log for now.
    position: bytes = logs.HEAD
    #: Set once the runner waits for this shard's log too.
    is_seen: threading.Event = field(default_factory=threading.Event)


class Runner:
    """Drains the shards that this process holds leases of, for one stage."""

    def __init__(self, stage: Stage, feeder: Runner | None = None) -> None:
        """
        Args:
            feeder: this process's runner of the stage that fills these logs; where it has nothing more, gathering ends.
        """
        self._stage = stage
        self._feeder = feeder
        self._batch_entries = metrics.BATCH_ENTRIES.labels(stage.name)
        self._batch_seconds = metrics.BATCH_SECONDS.labels(stage.name)
        self._batch_lag = metrics.BATCH_LAG_SECONDS.labels(stage.name)
        self._lock = threading.Lock()
        self._shards: dict[int, _Shard] = {}
        #: The run that waits for the shards, None while nobody does.
        self._active: object | None = None
        self._stop = threading.Event()
        self._blocking_client_id: int | None = None
        self._progress_at = 0.0
        #: When the last batch was done, and the entries of all.
        self.handled_at = 0.0
        self.handled_entries = 0

    def stop(self) -> None:
        """The process is to end: finish the batch in hand, give the leases back."""
        self._stop.set()
        self._interrupt()

    def drain(self, shard: int) -> str:
        """Body of the Celery task; returns what it did, for Flower."""
        client = get_redis()
        # First the key, then the look: who appends after this wakes again.
        client.delete(keys.wake(self._stage.name, shard))
        lease = Lease.acquire(client, self._stage.name, shard)
        if lease is None:
            return "somebody drains this shard"
        run = object()
        held = _Shard(lease)
        with self._lock:
            self._shards[shard] = held
            if self._active is None:
                self._active = run
            active = self._active
        if active is run:
            return self._run(client, run)
        # Unblocking a read that is only about to begin does nothing, so it is repeated until the runner has seen us.
        for _knock in range(MOST_KNOCKS):
            if self._active is not active or held.is_seen.wait(KNOCK_SECONDS):
                break
            self._interrupt()
        return "handed over to this process's runner"

    def is_reading(self, shard: int) -> bool:
        """Whether a run waits for the log of this shard."""
        with self._lock:
            held = self._shards.get(shard)
            return self._active is not None and held is not None and held.is_seen.is_set()

    def _interrupt(self) -> None:
        """End the runner's blocking read, so that it sees what changed."""
        client_id = self._blocking_client_id
        if client_id is not None:
            try:
                get_redis().client_unblock(client_id)
            except redis.RedisError:
                # The read ends by itself after a fraction of the lease.
                logger.debug("blocked read not interrupted", exc_info=True)

    def _run(self, client: redis.Redis, run: object) -> str:
        config = get_config()
        entries = 0
        ended = threading.Event()
        self._progress_at = time.monotonic()
        keeper = threading.Thread(target=self._keep_leases, args=(client, config, ended), daemon=True)
        try:
            keeper.start()
            # Not repeated: on a new connection it would have another id, and nobody could end its wait.
            with closing(LeanRedis(repeats=False)) as blocking:
                self._blocking_client_id = int(blocking.call(("CLIENT", "ID")))
                try:
                    entries = self._loop(client, blocking, config)
                finally:
                    logs.run_deferred(blocking, self._stage.take_deferred())
        except redis.RedisError as error:
            # Redis is away. The leases expire by themselves; the sweep wakes the shards when it is back.
            logger.warning(
                "drain ended by Redis", extra={"action": "drain", "stage": self._stage.name, "error": repr(error)}
            )
            with self._lock:
                self._shards.clear()
        finally:
            leftover: list[_Shard] = []
            with self._lock:
                # After _retire a successor may already run; what is in the table is its own then.
                if self._active is run:
                    self._active = self._blocking_client_id = None
                    leftover, self._shards = list(self._shards.values()), {}
            ended.set()
            for held in leftover:
                self._give_back(client, held.lease)
        return f"{entries} entries"

    def _loop(self, client: redis.Redis, blocking: LeanRedis, config: Config) -> int:
        linger_seconds = config.linger_ms / 1000 if self._stage.lingers else 0.0
        slice_end = time.monotonic() + config.drain_slice_ms / 1000
        linger_end = time.monotonic() + linger_seconds
        handled = 0
        while True:
            now = self._progress_at = time.monotonic()
            ready = self._ready(now)
            if ready is None:
                return handled
            # Shards that failed, or left entries, are looked at again when it is their time.
            wait = min(
                LONGEST_READ_SECONDS,
                max(linger_end - now, 0.001),
                *(max(held.retry_at - now, 0.001) for held in self._failing()),
            )
            batches = self._read(blocking, ready, config, wait)
            if batches:
                handled += self._handle(batches)
            now = self._progress_at = time.monotonic()
            if batches:
                self.handled_at = now
                self.handled_entries += sum(len(entries) for _, entries in batches)
                linger_end = now + linger_seconds
                self._gather(self._stage.gather_ms / 1000)
            if self._stop.is_set() or now >= slice_end:
                return handled
            if not batches and now >= linger_end:
                if self._retire(client):
                    return handled
                linger_end = now + max(linger_seconds, SHORTEST_WAIT_SECONDS)

    def _gather(self, seconds: float) -> None:
        """Let entries come for so long, or until enough came, or their feeder has paused.

        A feeder that has been still for longer than that says nothing: another process fills the logs then.
        """
        end = time.monotonic() + seconds
        enough = self._feeder.handled_entries + ENOUGH_ENTRIES if self._feeder else 0
        while (now := time.monotonic()) < end:
            pause = now - self._feeder.handled_at if self._feeder else seconds
            if QUIET_SECONDS <= pause < seconds:
                return
            if self._feeder and self._feeder.handled_entries >= enough:
                return
            if self._stop.wait(min(end - now, QUIET_SECONDS - pause if pause < QUIET_SECONDS else seconds)):
                return

    def _ready(self, now: float) -> list[_Shard] | None:
        """Shards whose logs are to be read; None when no shard is left, and then the run is over."""
        with self._lock:
            if not self._shards:
                self._active = self._blocking_client_id = None
                return None
            ready = [held for held in self._shards.values() if held.retry_at <= now or held.lease.waiting]
        for held in ready:
            held.is_seen.set()
            if held.lease.waiting and held.retry_at <= now:
                held.lease.waiting.clear()
                held.position = logs.HEAD
        return ready

    def _read(
        self, blocking: LeanRedis, ready: list[_Shard], config: Config, wait: float
    ) -> list[tuple[_Shard, list[Entry]]]:
        deferred = self._stage.take_deferred()
        if not ready:
            logs.run_deferred(blocking, deferred)
            self._stop.wait(wait)
            return []
        by_log = {held.lease.log.encode(): held for held in ready}
        positions = {held.lease.log: held.position for held in ready}
        heads = logs.read_after(blocking, positions, config.batch_size, int(wait * 1000) or 1, deferred)
        return [(by_log[log], entries) for log, entries in heads if entries]

    def _handle(self, batches: list[tuple[_Shard, list[Entry]]]) -> int:
        """Returns how many entries were handled."""
        started = time.perf_counter()
        errors = self._process([(held.lease, entries) for held, entries in batches])
        self._batch_seconds.observe(time.perf_counter() - started)
        handled = 0
        for (held, entries), error in zip(batches, errors, strict=True):
            if error is None:
                self._note_success(held, entries)
                handled += len(entries)
            else:
                self._note_failure(held, entries, error)
        return handled

    def _process(self, batches: list[tuple[Lease, list[Entry]]]) -> list[Exception | None]:
        if self._stage.shares_round_trips:
            try:
                return self._stage.process_many(batches)
            except AWAY:
                raise
            except Exception as error:
                # One shard's trouble must not be that of all: each by itself.
                logger.warning("shards tried one by one", extra={"stage": self._stage.name}, exc_info=error)
        outcomes = []
        for lease, entries in batches:
            outcomes.append(self._stage.outcome_of(lease, entries))
            self._progress_at = time.monotonic()
        return outcomes

    def _note_success(self, held: _Shard, entries: list[Entry]) -> None:
        stage, shard = self._stage.name, held.lease.shard
        if held.lease.waiting:
            if held.retry_at <= time.monotonic():
                self._back_off(held)
            held.position = entries[-1][0]
        else:
            held.failures = 0
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("batch done", extra={"action": "drain", "stage": stage, "shard": shard, **trace_of(entries)})
        oldest_ms = int(entries[0][0].partition(b"-")[0])
        self._batch_entries.observe(len(entries))
        self._batch_lag.observe(max(now_ms() - oldest_ms, 0) / 1000)

    def _note_failure(self, held: _Shard, entries: list[Entry], error: Exception) -> None:
        stage, shard = self._stage.name, held.lease.shard
        if isinstance(error, LeaseLost):
            metrics.LEASES_LOST.labels(stage).inc()
            logger.warning(
                "lease lost, batch left to its new owner",
                extra={"action": "drain", "stage": stage, "shard": shard, **trace_of(entries)},
            )
            self._forget(held)
            return
        delay = self._back_off(held)
        held.lease.waiting.clear()
        held.position = logs.HEAD
        metrics.RETRIES.labels(stage).inc()
        logger.warning(
            "batch failed, tried again later",
            extra={
                "action": "drain",
                "stage": stage,
                "shard": shard,
                "delay": delay,
                "failures": held.failures,
                **trace_of(entries),
            },
            exc_info=error,
        )

    def _failing(self) -> list[_Shard]:
        with self._lock:
            return [held for held in self._shards.values() if held.failures]

    @staticmethod
    def _back_off(held: _Shard) -> float:
        """Put the next try off, twice as long each time; returns the delay in seconds."""
        held.failures += 1
        delay: float = min(BACKOFF_FIRST_SECONDS * 2 ** (held.failures - 1), BACKOFF_MOST_SECONDS)
        held.retry_at = time.monotonic() + delay
        return delay

    def _keep_leases(self, client: redis.Redis, config: Config, ended: threading.Event) -> None:
        """Renew the leases from a thread of its own, so that a store that is slow to answer costs no shard.

        A process that is stopped or hung renews nothing, and somebody else takes over.
        """
        while not ended.wait(config.lease_ms / 4000):
            if time.monotonic() - self._progress_at > HUNG_SECONDS:
                continue
            with self._lock:
                shards = list(self._shards.values())
            try:
                for held in shards:
                    self._renew(client, held)
            except redis.RedisError as error:
                logger.warning(
                    "leases not renewed", extra={"action": "drain", "stage": self._stage.name, "error": repr(error)}
                )

    def _renew(self, client: redis.Redis, held: _Shard) -> None:
        try:
            held.lease.renew(client)
        except LeaseLost:
            if self._forget(held):
                metrics.LEASES_LOST.labels(self._stage.name).inc()

    def _forget(self, held: _Shard) -> bool:
        """Drop a shard that is somebody else's now; False when it was given back meanwhile."""
        with self._lock:
            if self._shards.get(held.lease.shard) is not held:
                return False
            del self._shards[held.lease.shard]
            return True

    def _retire(self, client: redis.Redis) -> bool:
        """Nothing came for a while: give back what is empty. True when nothing is left to wait for."""
        with self._lock:
            for shard, held in list(self._shards.items()):
                if held.lease.release(client):
                    del self._shards[shard]
            if self._shards:
                return False
            # Under the same lock: a task that comes now becomes the next runner.
            self._active = self._blocking_client_id = None
            return True

    def _give_back(self, client: redis.Redis, lease: Lease) -> None:
        """Give a lease back in any case; what is left is for the next wake-up."""
        try:
            if lease.release(client, force=True) == 2:
                wake(lease.stage, lease.shard)
        except redis.RedisError as error:
            logger.warning(
                "lease not given back; it expires",
                extra={"action": "drain", "stage": lease.stage, "error": repr(error)},
            )
