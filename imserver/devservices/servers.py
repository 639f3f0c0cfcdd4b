"""The embedded Valkey and MongoDB as a pair of child processes, for tests and benchmarks.

``up`` runs the same commands under its supervisor instead. Nothing here survives the process that started it.
"""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from imserver.devservices import mongod, valkey
from imserver.devservices.errors import DevServiceError, ServerBroken
from imserver.devservices.folder import DataFolder
from imserver.devservices.launch import launcher
from imserver.devservices.ports import find_free_ports

HOST = "127.0.0.1"
READY_SECONDS = 30.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.02
TAIL_LINES = 12


@dataclass(frozen=True)
class Kind:
    """What differs between the two servers."""

    name: str
    setting: str
    command: Callable[[Path, str, int], list[str]]
    url: Callable[[str, int], str]
    is_ready: Callable[[str, int], bool]
    render: Callable[[str], str | None]
    explain: Callable[[list[str]], DevServiceError | None]


VALKEY = Kind(valkey.NAME, valkey.SETTING, valkey.command, valkey.url, valkey.is_ready, valkey.render, valkey.explain)
MONGOD = Kind(mongod.NAME, mongod.SETTING, mongod.command, mongod.url, mongod.is_ready, mongod.render, mongod.explain)


def describe_failure(kind: Kind, folder: Path, returncode: int | None, lines: list[str]) -> DevServiceError:
    """Why ``kind`` did not start, from its exit code (None: it lives, but does not answer) and its last lines."""
    if known := kind.explain(lines):
        return known
    if returncode == -signal.SIGILL:
        return ServerBroken(
            f"The embedded {kind.name} cannot run on this processor (MongoDB 5 and newer need AVX):"
            f" run one elsewhere and set {kind.setting}."
        )
    # A dying mongod says one line of sense and fifty of its stack.
    shown = [text for line in lines if (text := kind.render(line))] or lines
    tail = "\n".join(f"    {line}" for line in shown[-TAIL_LINES:]) or "    (nothing)"
    happened = "does not answer" if returncode is None else f"ended at once with code {returncode}"
    return ServerBroken(
        f"The embedded {kind.name} {happened}. Its last lines:\n{tail}\n"
        f"If they speak of damaged files, move the folder {folder} away and start again: it will be made anew, empty."
    )


class EmbeddedServer:
    """One server on a fixed port and folder; may be stopped, killed and started again as often as one likes."""

    def __init__(
        self, kind: Kind, folder: Path, port: int, host: str = HOST, *, cores: frozenset[int] = frozenset()
    ) -> None:
        self.kind = kind
        self.cores = cores
        self.folder = folder
        self.host = host
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None
        self._log = folder.parent / f"{kind.name}.log"

    @property
    def url(self) -> str:
        return self.kind.url(self.host, self.port)

    def start(self, *, wait: bool = True) -> None:
        """Raises ``DevServiceError``, and then nothing runs. Call it from a thread that lives on: see ``launch``."""
        if self.process is not None and self.process.poll() is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        command = launcher(self.kind.command(self.folder, self.host, self.port), self.cores)
        with self._log.open("wb") as log:
            # A session of its own: Ctrl-C in a test run must not take the servers away before the tests clean up.
            self.process = subprocess.Popen(  # noqa: S603 - our own command line
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        if wait:
            self.wait_until_ready(time.monotonic() + READY_SECONDS)

    def wait_until_ready(self, deadline: float) -> None:
        """``deadline`` is a ``time.monotonic()`` moment. Raises ``DevServiceError`` and stops the server on failure."""
        while not self.kind.is_ready(self.host, self.port):
            returncode = self.process.poll() if self.process else 0
            if returncode is None and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
                continue
            self.kill()
            raise describe_failure(self.kind, self.folder, returncode, self.log_lines())

    def stop(self) -> None:
        """Lets it write what it has; after ``STOP_SECONDS`` it is killed."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self.process = None

    def kill(self) -> None:
        """As a crash does it: SIGKILL, nothing is tidied."""
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        self.process = None

    def log_lines(self) -> list[str]:
        try:
            return self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []


class EmbeddedServers:
    """Both servers, in ``folder`` or in one that is removed at the end. Ports stay the same until ``stop()``."""

    def __init__(self, folder: Path | None = None, *, redis_cores: frozenset[int] = frozenset()) -> None:
        self._temporary = None if folder else tempfile.TemporaryDirectory(prefix="imserver-")
        self.folder = DataFolder(folder or Path(self._temporary.name if self._temporary else ""))
        redis_port, mongo_port = find_free_ports(2)
        self.redis = EmbeddedServer(VALKEY, self.folder.path / VALKEY.name, redis_port, cores=redis_cores)
        self.mongo = EmbeddedServer(MONGOD, self.folder.path / MONGOD.name, mongo_port)

    @property
    def redis_url(self) -> str:
        return self.redis.url

    @property
    def mongo_url(self) -> str:
        return self.mongo.url

    def start(self) -> EmbeddedServers:
        """Starts both side by side. Raises ``DevServiceError``, and then neither runs."""
        self.folder.open()
        try:
            deadline = time.monotonic() + READY_SECONDS
            for server in (self.mongo, self.redis):
                server.start(wait=False)
            for server in (self.redis, self.mongo):
                server.wait_until_ready(deadline)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        self.mongo.stop()
        self.redis.stop()
        self.folder.close()
        if self._temporary:
            self._temporary.cleanup()

    def start_redis(self) -> None:
        self.redis.start()

    def stop_redis(self) -> None:
        self.redis.stop()

    def kill_redis(self) -> None:
        self.redis.kill()

    def restart_redis(self) -> None:
        self.redis.stop()
        self.redis.start()

    def start_mongo(self) -> None:
        self.mongo.start()

    def stop_mongo(self) -> None:
        self.mongo.stop()

    def kill_mongo(self) -> None:
        self.mongo.kill()

    def __enter__(self) -> EmbeddedServers:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
