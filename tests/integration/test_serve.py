"""What both servers do with connections, whatever the application is: time-outs, sizes, and an orderly end."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imserver.conf import BASE_DIR
from imserver.devservices.launch import launcher
from imserver.devservices.ports import find_free_ports
from tests.stack import wait_until

SERVERS = ["uvicorn", "daphne"]
BODY_BYTES = 2_000_000

#: Says in a file that it has a request, and answers when there is a second file.
APPLICATION = """
import asyncio, sys
from pathlib import Path
from imserver.serve import serve

folder = Path(sys.argv[2])

async def application(scope, receive, send):
    await receive()
    if scope["path"] == "/slow":
        (folder / "begun").touch()
        while not (folder / "go").exists():
            await asyncio.sleep(0.02)
    headers = [(b"content-length", b"2000000")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"x" * 2000000})

serve(application, int(sys.argv[1]))
"""


class Running:
    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port

    def dial(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def is_listening(self) -> bool:
        try:
            self.dial().close()
        except ConnectionError:
            return False
        return True


@contextmanager
def running(server: str, folder: Path, **settings: str) -> Iterator[Running]:
    (port,) = find_free_ports(1)
    command = launcher([sys.executable, "-c", APPLICATION, str(port), str(folder)])
    environ = {**os.environ, "GATEWAY_SERVER": server, "PYTHONPATH": str(BASE_DIR), **settings}
    process = subprocess.Popen(command, cwd=BASE_DIR, env=environ, stdin=subprocess.DEVNULL)
    try:
        started = Running(process, port)
        wait_until(started.is_listening, "the server to listen")
        yield started
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module", params=SERVERS)
def hasty(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that waits for a request for a second."""
    with running(request.param, tmp_path_factory.mktemp("hasty"), HANDSHAKE_SECONDS="1") as started:
        yield started


def read_all(connection: socket.socket) -> bytes:
    """What comes until the server closes; a reset is an end too."""
    parts = []
    try:
        while part := connection.recv(65_536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


@pytest.mark.parametrize("server", SERVERS)
def test_a_request_that_has_begun_is_finished_after_sigterm_and_nobody_new_is_let_in(
    server: str, tmp_path: Path
) -> None:
    with running(server, tmp_path) as web, web.dial() as connection:
        connection.sendall(b"GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        wait_until((tmp_path / "begun").exists, "the request to begin")

        web.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not web.is_listening(), "the server to stop listening")
        (tmp_path / "go").touch()

        answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b"x" * BODY_BYTES)
        assert web.process.wait(20) in {0, -signal.SIGTERM}


@pytest.mark.parametrize("server", SERVERS)
def test_a_request_that_does_not_end_is_given_up_after_the_grace_time(server: str, tmp_path: Path) -> None:
    with running(server, tmp_path, GRACE_SECONDS="1") as web, web.dial() as connection:
        connection.sendall(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        wait_until((tmp_path / "begun").exists, "the request to begin")

        web.process.send_signal(signal.SIGTERM)

        assert web.process.wait(20) in {0, -signal.SIGTERM}


@pytest.mark.parametrize("begin", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nhost: x\r\n"])
def test_a_client_that_does_not_finish_its_request_is_cut_off(hasty: Running, begin: bytes) -> None:
    with hasty.dial() as connection:
        connection.sendall(begin)

        assert b" 200 " not in read_all(connection)


def test_headers_that_trickle_in_are_cut_off_too(hasty: Running) -> None:
    with hasty.dial() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        deadline = time.monotonic() + 20
        connection.settimeout(0.2)
        is_open = True
        while is_open:
            assert time.monotonic() < deadline, "still open"
            try:
                connection.sendall(b"x-more: and more\r\n")
                is_open = connection.recv(1) != b""
            except TimeoutError:
                pass
            except ConnectionError:
                is_open = False


def test_headers_that_are_too_large_are_refused(hasty: Running) -> None:
    with hasty.dial() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n" + b"x-large: %b\r\n" % (b"x" * 4000) * 5)

        assert read_all(connection)[:12] in {b"", b"HTTP/1.1 400"}


def test_a_connection_stays_open_between_two_requests(hasty: Running) -> None:
    with hasty.dial() as connection, connection.makefile("rb") as lines:
        for idle_seconds in (6, 0):
            connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert lines.readline().startswith(b"HTTP/1.1 200")
            while lines.readline() != b"\r\n":
                pass
            assert len(lines.read(BODY_BYTES)) == BODY_BYTES
            # Longer than a request may take here, and than most HTTP clients keep what is idle.
            readable, _, _ = select.select([connection], [], [], idle_seconds)
            assert not readable, "closed"


def test_a_later_request_of_a_connection_must_be_finished_too(hasty: Running) -> None:
    with hasty.dial() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\n")

        assert read_all(connection).count(b"HTTP/1.1 200") == 1
