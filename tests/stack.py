"""The product's real processes for acceptance tests: gateway, web, workers, beat, on free ports and keys of their own."""

from __future__ import annotations

import copy
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import httpx
import pytest
import redis
from pymongo import MongoClient
from pymongo.database import Database

from imserver.conf import BASE_DIR
from imserver.devservices.launch import launcher
from imserver.devservices.ports import find_free_ports
from imserver.devservices.servers import EmbeddedServers
from imserver.storage.clients import Document

HEALTHY_SECONDS = 150
STOP_SECONDS = 20
POLL_SECONDS = 0.05


#: For tests of what the gateway shows to clients: they run on every server that GATEWAY_SERVER knows.
on_both_servers = pytest.mark.parametrize("gateway_server", ["uvicorn", "daphne"], indirect=True, scope="module")


class Stack:
    """Processes are started with ``start()``; each may be killed and started again."""

    def __init__(self, servers: EmbeddedServers, folder: Path, gateways: int = 1, **settings: str) -> None:
        self.servers = servers
        self.folder = folder
        self.prefix = f"t{secrets.token_hex(4)}:"
        self.database_name = f"test_{secrets.token_hex(6)}"
        self._web_port, *self._gateway_ports = find_free_ports(1 + gateways)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._logs: dict[str, IO[bytes]] = {}
        self._settings = settings
        self._gateway_name = "gateway"
        self._mongo: MongoClient[Document] = MongoClient(servers.mongo_url)
        self.database: Database[Document] = self._mongo[self.database_name]
        self.redis = redis.Redis.from_url(servers.redis_url, protocol=2)

    # -- where things are

    @property
    def web_url(self) -> str:
        return f"http://127.0.0.1:{self._web_port}"

    @property
    def gateway_url(self) -> str:
        return self.gateway_urls[0]

    @property
    def gateway_urls(self) -> list[str]:
        return [f"ws://127.0.0.1:{port}" for port in self._gateway_ports]

    @property
    def gateway_name(self) -> str:
        """Of the first gateway, as its log is called."""
        return f"{self._gateway_name}0"

    @property
    def environ(self) -> dict[str, str]:
        """Settings of the processes; also what a test that runs project code in a process of its own needs."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST")},
            "REDIS_URL": f"{self.servers.redis_url}",
            "MONGO_URL": self.servers.mongo_url,
            "MONGO_DATABASE": self.database_name,
            "KEY_PREFIX": self.prefix,
            "GATEWAY_PORT": str(self._gateway_ports[0]),
            "WEB_PORT": str(self._web_port),
            "METRICS_DIR": str(self.folder / "metrics"),
            "DEMO": "1",
            "DRAIN_SECONDS": "0",
            # Tests and benchmarks send as fast as they can; those of the limit set it.
            "PYTHONUNBUFFERED": "1",
            **self._settings,
        }

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of what runs now, the stores included, by name."""
        stores = {server.kind.name: server.process for server in (self.servers.redis, self.servers.mongo)}
        return {name: process.pid for name, process in {**self._processes, **stores}.items() if process is not None}

    # -- processes

    def start(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        prepare = [sys.executable, "manage.py", "prepare"]
        subprocess.run(prepare, env=self.environ, cwd=BASE_DIR, check=True, capture_output=True)
        for number in range(len(self._gateway_ports)):
            self.start_gateway(number)
        self._spawn("web", [sys.executable, "-m", "imserver"])
        self.start_worker()
        schedule = str(self.folder / "beat-schedule")
        self._spawn("beat", [sys.executable, "-m", "celery", "-A", "tasks", "beat", "-s", schedule, "--pidfile="])
        self.wait_healthy()
        return self

    def start_gateway(self, number: int = 0) -> None:
        command = [sys.executable, "-m", "gateway"]
        self._spawn(f"{self._gateway_name}{number}", command, GATEWAY_PORT=str(self._gateway_ports[number]))

    @contextmanager
    def with_gateway(self, name: str, **settings: str) -> Iterator[Stack]:
        """Start a further gateway with settings of its own; what is given out is the same stack with that gateway only."""
        view = copy.copy(self)
        view._gateway_name = name
        view._gateway_ports = find_free_ports(1)
        view._settings = {**self._settings, **settings}
        view.start_gateway()
        view.wait_gateway()
        try:
            yield view
        finally:
            view.stop_gateway()

    def stop_gateway(self, number: int = 0) -> None:
        """SIGTERM, and wait; nothing when it has ended already."""
        if f"{self._gateway_name}{number}" in self._processes:
            self._end(f"{self._gateway_name}{number}", signal.SIGTERM)

    def tell_gateway_to_end(self, number: int = 0) -> None:
        """SIGTERM, without waiting."""
        self._processes[f"{self._gateway_name}{number}"].send_signal(signal.SIGTERM)

    def start_worker(self, number: int = 0) -> None:
        command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "--pool", "threads", "--concurrency", "12"]
        command += ["--hostname", f"worker{number}@%h", "--without-gossip", "--without-mingle", "-E"]
        self._spawn(f"worker{number}", command)

    def kill_gateway(self, number: int = 0) -> None:
        """SIGKILL."""
        self._end(f"{self._gateway_name}{number}", signal.SIGKILL)

    def restart_gateway(self, number: int = 0) -> None:
        """SIGTERM, then a new one on the same port."""
        self._end(f"{self._gateway_name}{number}", signal.SIGTERM)
        self.start_gateway(number)
        self.wait_gateway(number)

    def kill_worker(self, number: int = 0) -> None:
        """SIGKILL."""
        self._end(f"worker{number}", signal.SIGKILL)

    def pause(self, name: str) -> None:
        """SIGSTOP, by the name of the process's log: ``worker0``."""
        self._processes[name].send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        self._processes[name].send_signal(signal.SIGCONT)

    def mend(self) -> None:
        """One gateway and one worker again, whatever was killed or started besides."""
        extra = [name for name in self._processes if name.startswith("worker") and name != "worker0"]
        for name in extra:
            self._end(name, signal.SIGKILL)
        for name, start in ((self.gateway_name, self.start_gateway), ("worker0", self.start_worker)):
            process = self._processes.get(name)
            if process is None or process.poll() is not None:
                start()
        # The signs of life of those that were killed say that all is well for some seconds yet.
        for key in self.redis.scan_iter(match=f"{self.prefix}WORKER:*", count=1000):
            self.redis.delete(key)
        self.wait_gateway()
        self.wait_healthy()

    def returncode(self, name: str) -> int | None:
        """None while the process runs."""
        return self._processes[name].poll()

    def cores_of(self, _name: str) -> frozenset[int]:
        """As of ``launcher``: tests run side by side, and none has a core for itself."""
        return frozenset()

    def _spawn(self, name: str, command: list[str], **settings: str) -> None:
        if name not in self._logs:
            self._logs[name] = (self.folder / f"{name}.log").open("ab")
        log = self._logs[name]
        self._processes[name] = subprocess.Popen(
            launcher(command, self.cores_of(name)),
            cwd=BASE_DIR,
            env={**self.environ, **settings},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def _end(self, name: str, how: signal.Signals) -> None:
        process = self._processes.pop(name)
        process.send_signal(how)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(
                f"{name} did not end within {STOP_SECONDS} s after {how.name}\n{self.log(name)}"
            ) from None

    def stop(self) -> None:
        for name in reversed(list(self._processes)):
            self._end(name, signal.SIGTERM)
        for log in self._logs.values():
            log.close()
        self._mongo.drop_database(self.database_name)
        self._mongo.close()
        for key in self.redis.scan_iter(match=f"{self.prefix}*", count=1000):
            self.redis.delete(key)
        self.redis.close()

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    # -- waiting

    def wait_healthy(self) -> None:
        def healthy() -> bool:
            return httpx.get(f"{self.web_url}/healthz").status_code == 200

        self._wait("the stack to be healthy", healthy)

    def wait_gateway(self, number: int = 0) -> None:
        url = f"http://127.0.0.1:{self._gateway_ports[number]}/healthz"
        self._wait(f"gateway {number}", lambda: httpx.get(url).status_code == 200)

    def _wait(self, what: str, condition: object) -> None:
        deadline = time.monotonic() + HEALTHY_SECONDS
        while time.monotonic() < deadline:
            try:
                if condition():  # type: ignore[operator]
                    return
            except httpx.HTTPError:
                pass
            for name, process in self._processes.items():
                assert process.poll() is None, f"{name} ended with {process.returncode}\n{self.log(name)[-3000:]}"
            time.sleep(POLL_SECONDS)
        logs = "\n".join(f"--- {name}\n{self.log(name)[-1500:]}" for name in self._processes)
        raise AssertionError(f"waited {HEALTHY_SECONDS} s for {what}\n{logs}")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def wait_until(condition: object, what: str, seconds: float = HEALTHY_SECONDS) -> None:
    """Wait for a condition of a synchronous test."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(POLL_SECONDS)
