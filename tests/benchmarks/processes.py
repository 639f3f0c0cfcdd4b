"""The processes of a benchmark: the product as `make up` runs it, the load generator, and what CPU each has used."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
import psutil
from pymongo.database import Database

from imserver.conf import BASE_DIR, Config
from imserver.constants import MSGS_PER_BLOCK
from imserver.devservices.launch import launcher
from imserver.devservices.processes import product_processes, worker_names
from imserver.devservices.servers import EmbeddedServers
from imserver.storage import msg_blocks
from imserver.storage.clients import Document
from tests.benchmarks.load import LoadError, Plan
from tests.stack import Stack

#: Of the user's environment these would lead away from the benchmark's own servers, or change who may write to whom.
PINNED_SETTINGS = {
    "BROKER_URL": "",
    "CHANNEL_LAYER_URLS": "",
    "BIND_HOST": "127.0.0.1",
    "AUTH_SECRET": "benchmark",
    "ADMIN_USER_IDS": "imAdmin",
    "FRIEND_CHECK": "0",
}
STORED_POLL_SECONDS = 0.02
STORED_SECONDS = 120.0
GENERATOR_STOP_SECONDS = 5.0


class Product(Stack):
    """The product with the workers that ``up`` starts: number of processes, pool and threads are the configuration's."""

    def __init__(self, servers: EmbeddedServers, folder: Path, config: Config) -> None:
        super().__init__(servers, folder, gateways=1, **PINNED_SETTINGS)
        self._config = config

    @property
    def secret(self) -> str:
        return PINNED_SETTINGS["AUTH_SECRET"]

    def start(self) -> Self:
        super().start()
        for number in range(1, self._config.worker_processes):
            self.start_worker(number)
        self.wait_healthy()
        return self

    def start_worker(self, number: int = 0) -> None:
        commands = {spec.name: spec.command for spec in product_processes(self._config, self.folder)}
        self._spawn(f"worker{number}", commands[worker_names(self._config)[number]])

    def save_logs(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in self._logs:
            (folder / f"{name}.log").write_text(self.log(name), encoding="utf-8")


# -- CPU


@dataclass(frozen=True, slots=True)
class CpuSample:
    """CPU seconds used so far, by process; ``machine`` is all that this machine ever used."""

    at: float
    by_name: dict[str, float]
    machine: float

    def since(self, earlier: CpuSample) -> dict[str, float]:
        return {name: used - earlier.by_name[name] for name, used in self.by_name.items()}


class CpuMeter:
    """Reads the CPU time of processes and of the children that they have now or have waited for."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._processes = {
            name: [parent, *parent.children(recursive=True)]
            for name, parent in ((name, psutil.Process(pid)) for name, pid in pids.items())
        }

    def sample(self) -> CpuSample:
        """Raises LoadError when one has ended."""
        by_name = {}
        for name, family in self._processes.items():
            try:
                times = [process.cpu_times() for process in family]
            except psutil.NoSuchProcess:
                raise LoadError(f"{name} ended while it was measured") from None
            by_name[name] = sum(item.user + item.system for item in times)
            by_name[name] += times[0].children_user + times[0].children_system
        system = psutil.cpu_times()
        # guest is part of user already; idle, iowait and steal are nobody's work here.
        machine = system.user + system.nice + system.system + system.irq + system.softirq
        return CpuSample(time.monotonic(), by_name, machine)


# -- MongoDB


def wait_until_stored(database: Database[Document], sent: Mapping[str, int]) -> bool:
    """Wait until MongoDB holds as many messages of each conversation as were sent; false when it does not come to that.

    Blocks are written in order, so the last slots are looked at (which costs little); then all are counted.
    """
    collection = database[msg_blocks.COLLECTION]
    last_slots = [
        {
            "doc_id": msg_blocks.doc_id(conversation_id, seq),
            f"msgs.{(seq - 1) % MSGS_PER_BLOCK}.msg.seq": seq,
        }
        for conversation_id, seq in sent.items()
        if seq
    ]
    deadline = time.monotonic() + STORED_SECONDS
    while last_slots and collection.count_documents({"$or": last_slots}) < len(last_slots):
        if time.monotonic() > deadline:
            break
        time.sleep(STORED_POLL_SECONDS)
    return not count_missing(database, sent)


def count_missing(database: Database[Document], sent: Mapping[str, int]) -> int:
    """Messages that MongoDB does not hold, or holds too many of."""
    full = {"$filter": {"input": "$msgs", "as": "slot", "cond": {"$gt": ["$$slot.msg", None]}}}
    rows = database[msg_blocks.COLLECTION].aggregate(
        [
            {"$match": {"conversation_id": {"$in": list(sent)}}},
            {"$group": {"_id": "$conversation_id", "count": {"$sum": {"$size": full}}}},
        ]
    )
    stored: dict[str, int] = {row["_id"]: row["count"] for row in rows}
    return sum(abs(count - stored.get(conversation_id, 0)) for conversation_id, count in sent.items())


# -- the load generator


class Generator:
    """The generator's process. Gone after the ``with`` block, whatever happened in it."""

    def __init__(self, plan: Plan, on_progress: Callable[[dict[str, Any]], None]) -> None:
        self._on_progress = on_progress
        self._noise: list[str] = []
        # A session of its own: Ctrl-C is answered by the parent, which ends it.
        self._process = subprocess.Popen(
            launcher([sys.executable, "-m", "tests.benchmarks.loadgen"]),
            cwd=BASE_DIR,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._tell(orjson.dumps(asdict(plan)))

    @property
    def pid(self) -> int:
        return self._process.pid

    def begin(self) -> None:
        self._tell(b"")

    def _tell(self, line: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it ended: the next wait_for tells why

    def wait_for(self, event: str) -> dict[str, Any]:
        """The facts of the event. Raises LoadError when the generator fails instead."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                facts: dict[str, Any] = orjson.loads(line)
            except orjson.JSONDecodeError:
                self._noise.append(line.decode(errors="replace"))
                continue
            if facts["event"] == event:
                return facts
            if facts["event"] == "failed":
                raise LoadError(facts["reason"] + "".join(f"\n{line.rstrip()}" for line in self._noise))
            if facts["event"] == "progress":
                self._on_progress(facts)
        raise LoadError("".join(["the load generator ended without a result\n", *self._noise]))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._process.wait(0 if error else GENERATOR_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
