"""``manage.py up`` as a user runs it: real processes, free ports, a data folder of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from imserver.conf import BASE_DIR
from imserver.devservices.folder import read_up_env
from imserver.devservices.ports import find_free_ports

pytestmark = pytest.mark.acceptance

UP_SECONDS = 120.0
STOP_SECONDS = 90.0
POLL_SECONDS = 0.05
HEALTHY = "Everything is up and healthy"
OWN_SETTINGS = ("REDIS_URL", "MONGO_URL", "BROKER_URL", "CHANNEL_LAYER_URLS", "DEMO")


def wait_for(condition: Callable[[], bool], seconds: float, what: Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(POLL_SECONDS)


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:  # gone between the two questions
        return False


class Up:
    """One run of ``up``; remembers every process it ever saw below it."""

    def __init__(self, data: Path, ports: list[int], changes: Mapping[str, str]) -> None:
        environ = {name: value for name, value in os.environ.items() if name not in OWN_SETTINGS}
        self.gateway_port, self.web_port, self.flower_port = ports
        environ |= {
            "GATEWAY_PORT": str(self.gateway_port),
            "WEB_PORT": str(self.web_port),
            "FLOWER_PORT": str(self.flower_port),
            "DATA_DIR": str(data),
            "DRAIN_SECONDS": "0",
            **changes,
        }
        self.data = data
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, str(BASE_DIR / "manage.py"), "up"],
            env=environ,
            cwd=BASE_DIR,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._seen: set[psutil.Process] = set()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    def text(self) -> str:
        return "\n".join(self.lines)

    def children(self) -> list[psutil.Process]:
        try:
            found = list(psutil.Process(self.process.pid).children(recursive=True))
        except psutil.NoSuchProcess:
            found = []
        self._seen.update(found)
        return found

    def find(self, *words: str) -> list[psutil.Process]:
        """Its processes whose command line holds all ``words``."""
        found = []
        for child in self.children():
            try:
                line = " ".join(child.cmdline())
            except psutil.Error:
                continue
            if all(word in line for word in words):
                found.append(child)
        return found

    def get_pid(self, *words: str) -> int:
        (process,) = self.find(*words)
        return int(process.pid)

    def health(self) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.web_port}/healthz", timeout=5) as answer:
                return str(json.load(answer)["status"])
        except urllib.error.HTTPError as error:
            return f"HTTP {error.code}"
        except OSError as error:
            return str(error)

    def wait_until_healthy(self) -> None:
        wait_for(lambda: HEALTHY in self.text() or self.process.poll() is not None, UP_SECONDS, self.text)
        assert self.process.poll() is None, self.text()
        self.children()

    def wait_until_replaced(self, old: int, *words: str) -> None:
        wait_for(lambda: [p.pid for p in self.find(*words)] not in ([], [old]), UP_SECONDS, self.text)
        wait_for(lambda: self.health() == "ok", UP_SECONDS, lambda: f"{self.health()}\n{self.text()}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.children()
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pytest.fail(f"up did not end:\n{self.text()}")
        self._reader.join(timeout=5)
        return code

    def leftovers(self) -> list[str]:
        return [str(process) for process in self._seen if is_alive(process)]

    def clean_up(self) -> None:
        self.children()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for process in self._seen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._reader.join()
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def start_up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    runs: list[Up] = []
    ports = find_free_ports(3)

    def start(**changes: str) -> Up:
        runs.append(Up(tmp_path / "data", ports, changes))
        return runs[-1]

    yield start
    for run in runs:
        run.clean_up()


def test_up_becomes_healthy_says_what_is_where_and_ends_without_a_trace(start_up: Callable[..., Up]) -> None:
    up = start_up()
    up.wait_until_healthy()

    assert up.health() == "ok"
    assert f"ws://127.0.0.1:{up.gateway_port}/" in up.text()
    assert f"http://127.0.0.1:{up.flower_port}/" in up.text()
    assert up.text().count("admin password:") == 1
    environ = read_up_env(up.data)
    assert environ["REDIS_URL"] in up.text()
    assert environ["DEMO"] == "1"

    assert up.stop() == 0
    assert up.leftovers() == []
    assert read_up_env(up.data) == {}
    assert not (up.data / "up.env").exists()

    # The second start finds the data of the first: there is no new password to show.
    again = start_up()
    again.wait_until_healthy()

    assert "admin password:" not in again.text()
    assert again.stop(signal.SIGINT) == 0
    assert again.leftovers() == []


def test_killed_processes_are_started_again(start_up: Callable[..., Up]) -> None:
    up = start_up()
    up.wait_until_healthy()
    redis_url = read_up_env(up.data)["REDIS_URL"]

    for words in (("worker1@",), ("-m gateway",), ("valkey-server",), ("mongod", "--dbpath")):
        pid = up.get_pid(*words)
        os.kill(pid, signal.SIGKILL)
        up.wait_until_replaced(pid, *words)

    assert read_up_env(up.data)["REDIS_URL"] == redis_url
    assert up.stop() == 0
    assert up.leftovers() == []


@pytest.mark.parametrize("moment", ["MongoDB", "processes"])
def test_ctrl_c_twice_while_starting_leaves_nothing(start_up: Callable[..., Up], moment: str) -> None:
    up = start_up()
    words = ("mongod", "--dbpath") if moment == "MongoDB" else ("-m gateway",)
    wait_for(lambda: bool(up.find(*words)), UP_SECONDS, up.text)

    # As a terminal does it: to the whole foreground group, and again.
    os.killpg(up.process.pid, signal.SIGINT)
    os.killpg(up.process.pid, signal.SIGINT)

    assert up.wait() == 0
    assert up.leftovers() == []


def test_the_processes_die_when_up_is_killed(start_up: Callable[..., Up]) -> None:
    up = start_up()
    wait_for(lambda: bool(up.find("-m gateway")), UP_SECONDS, up.text)

    up.stop(signal.SIGKILL)

    wait_for(lambda: not up.leftovers(), STOP_SECONDS, lambda: str(up.leftovers()))


def test_a_taken_port_is_told_in_a_sentence(start_up: Callable[..., Up]) -> None:
    (port,) = find_free_ports(1)
    with socket.create_server(("127.0.0.1", port)):
        up = start_up(WEB_PORT=str(port))

        assert up.wait() == 1

    assert f"Port {port} on 127.0.0.1 is taken by process {os.getpid()}" in up.text()
    assert "set WEB_PORT to another port" in up.text()
    assert "Traceback" not in up.text()


def test_a_second_up_on_the_same_folder_is_told_who_has_it(start_up: Callable[..., Up]) -> None:
    first = start_up()
    wait_for(lambda: bool(first.find("valkey-server")), UP_SECONDS, first.text)
    gateway, web, flower = map(str, find_free_ports(3))

    second = start_up(GATEWAY_PORT=gateway, WEB_PORT=web, FLOWER_PORT=flower)

    assert second.wait() == 1
    assert f"is in use by process {first.process.pid}" in second.text()
    assert first.stop() == 0
    assert first.leftovers() == []


def test_a_wrong_setting_is_told_by_name(start_up: Callable[..., Up]) -> None:
    up = start_up(SHARDS="many")

    assert up.wait() == 1
    assert "SHARDS='many'" in up.text()
    assert "Traceback" not in up.text()
