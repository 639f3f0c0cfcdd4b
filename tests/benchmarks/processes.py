"""The processes of a benchmark: the product as `make up` runs it, the load generator, and what CPU each has used."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
import psutil

from imserver.conf import BASE_DIR, Config
from imserver.devservices.cores import home_cores
from imserver.devservices.launch import launcher
from imserver.devservices.processes import product_processes, worker_names
from imserver.devservices.servers import EmbeddedServers
from tests.benchmarks.plan import LoadError, Plan
from tests.stack import Stack

#: Of the user's environment these would lead away from the benchmark's own servers, or change who may write to whom.
PINNED_SETTINGS = {
    "BROKER_URL": "",
    "CHANNEL_LAYER_URLS": "",
    "BIND_HOST": "127.0.0.1",
    "AUTH_SECRET": "benchmark",
    "ADMIN_USER_IDS": "imAdmin",
    "FRIEND_CHECK": "0",
    # A sender here stands for many: what is measured is the server, not its patience with one client.
}
GENERATOR_STOP_SECONDS = 5.0
#: Events that may come any number of times, with the share that is done.
PROGRESS_EVENTS = ("connecting", "progress")


class Product(Stack):
    """The product with the workers that ``up`` starts: number of processes, pool and threads are the configuration's.

    Baselines differ in the class attributes.
    """

    gateway_module = "gateway"
    celery_app = "tasks"

    def __init__(self, servers: EmbeddedServers, folder: Path, config: Config, gateways: int = 1) -> None:
        super().__init__(servers, folder, gateways=gateways, **PINNED_SETTINGS)
        self._config = config
        self.gateways = gateways

    @property
    def secret(self) -> str:
        return PINNED_SETTINGS["AUTH_SECRET"]

    def start(self) -> Self:
        super().start()
        for number in range(1, self._config.worker_processes):
            self.start_worker(number)
        for number in range(self.gateways):
            self.wait_gateway(number)
        self.wait_healthy()
        return self

    def start_gateway(self, number: int = 0) -> None:
        command = [sys.executable, "-m", self.gateway_module]
        self._spawn(f"gateway{number}", command, GATEWAY_PORT=str(self._gateway_ports[number]))

    def start_worker(self, number: int = 0) -> None:
        commands = {spec.name: spec.command for spec in product_processes(self._config, self.folder)}
        command = list(commands[worker_names(self._config)[number]])
        command[command.index("-A") + 1] = self.celery_app
        self._spawn(f"worker{number}", command)

    def cores_of(self, name: str) -> frozenset[int]:
        return home_cores(self._config, name, gateways=self.gateways)

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
        self._tell(plan.to_json())

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
            if facts["event"] in PROGRESS_EVENTS:
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
