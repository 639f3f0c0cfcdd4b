"""Keeps processes alive with circus, and ends them in order. Only ``up`` imports this module.

circus brings the watching, the respawn (looked at every ``CHECK_SECONDS``), the pipes and "SIGTERM, wait, SIGKILL".
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from circus import logger as circus_logger
from circus.arbiter import Arbiter
from circus.watcher import Watcher
from tornado.ioloop import IOLoop

from imserver.devservices.launch import adopt_orphans, launcher
from imserver.devservices.logstream import KEPT_LINES, Console, LogStream, Render, as_is

CHECK_SECONDS = 0.5
LAST_READ_BYTES = 1 << 20
SWEEP_SECONDS = 5.0


@dataclass(frozen=True)
class ProcessSpec:
    """One process to keep. ``graceful_seconds`` pass between SIGTERM and SIGKILL; ``cores`` as of ``launcher``."""

    name: str
    command: list[str]
    graceful_seconds: float
    render: Render = field(default=as_is)
    cores: frozenset[int] = frozenset()


class _Arbiter(Arbiter):  # type: ignore[misc]  # circus has no types
    """An arbiter that waits only for its own processes, and tells when one ended.

    The original reaps every child of the process, and with it the exit code of children that others wait for.
    """

    def __init__(self, supervisor: Supervisor, watchers: list[Watcher]) -> None:
        # In-process endpoints: nothing listens on a port (the default is Flower's), and circusctl is not used.
        super().__init__(
            watchers,
            endpoint="inproc://up-control",
            pubsub_endpoint="inproc://up-events",
            check_delay=CHECK_SECONDS,
            loop=IOLoop.current(),
        )
        # circus would answer signals by a stop in its own order: `up` has installed handlers already.
        self.ctrl.sys_hdl.stop()
        self._supervisor = supervisor
        self._unreaped: dict[int, Watcher] = {}

    def reap_processes(self) -> None:
        for watcher in self.watchers:
            for pid in watcher.processes:
                self._unreaped[pid] = watcher
        for pid, watcher in list(self._unreaped.items()):
            try:
                reaped, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:  # circus itself polled it while stopping
                del self._unreaped[pid]
                continue
            if not reaped:
                continue
            del self._unreaped[pid]
            process = watcher.processes.get(pid)
            if process is not None:
                self._read_last_words(watcher, process)
                watcher.reap_process(pid, status)
            self._supervisor.on_exit(watcher.name, os.waitstatus_to_exitcode(status))

    @staticmethod
    def _read_last_words(watcher: Watcher, process: object) -> None:
        """circus closes the pipe of a dead process at once: take what is in it, and take it off the event loop.

        A closed descriptor that stayed registered there would collide with the next pipe that gets its number.
        """
        stdout = process.stdout  # type: ignore[attr-defined]
        if stdout is not None and not stdout.closed:
            os.set_blocking(stdout.fileno(), False)
            with contextlib.suppress(OSError):
                watcher.stdout_stream({"data": os.read(stdout.fileno(), LAST_READ_BYTES)})
        if watcher.stream_redirector:
            watcher.stream_redirector.remove_redirections(process)


class Supervisor:
    """Starts processes one by one, restarts those that end, stops them in the order it is told.

    Lives in a running event loop. After ``close()`` no process that it started is left.
    """

    def __init__(self, console: Console, working_dir: Path) -> None:
        self._console = console
        self._working_dir = working_dir
        self._streams: dict[str, LogStream] = {}
        self._watchers: dict[str, Watcher] = {}
        self._starting: list[asyncio.Future[None]] = []
        self._exit_codes: dict[str, list[int]] = {}
        self._is_stopping = False
        circus_logger.setLevel("WARNING")
        self._arbiter = _Arbiter(self, [])

    async def open(self) -> None:
        adopt_orphans()
        await self._arbiter.start()

    async def start(self, spec: ProcessSpec, env: Mapping[str, str]) -> None:
        """Starts one process; it is watched from now on. May be cancelled: ``stop`` knows of it all the same."""
        program, *arguments = launcher(spec.command, spec.cores)
        stream = LogStream(spec.name, self._console, spec.render)
        watcher = Watcher(
            spec.name,
            shlex.quote(program),
            args=arguments,
            env=dict(env),
            working_dir=str(self._working_dir),
            graceful_timeout=spec.graceful_seconds,
            stdout_stream={"stream": stream},
            loop=self._arbiter.loop,
            # The arbiter's public add and start refuse to work while its periodic look is under way.
            autostart=False,
        )
        watcher.initialize(self._arbiter.evpub_socket, self._arbiter.sockets, self._arbiter)
        self._arbiter.watchers.append(watcher)
        self._streams[spec.name] = stream
        self._watchers[spec.name] = watcher
        started = asyncio.ensure_future(watcher._start())
        self._starting.append(started)
        await asyncio.shield(started)

    def on_exit(self, name: str, code: int) -> None:
        self._exit_codes.setdefault(name, []).append(code)
        self._streams[name].close()
        if not self._is_stopping:
            self._streams[name].notice(f"{name} {describe_exit(code)}; starting it again")

    def exit_codes(self, name: str) -> list[int]:
        """With which codes the process has ended so far; negative ones are signals."""
        return self._exit_codes.get(name, [])

    def is_running(self, name: str) -> bool:
        return bool(self._watchers[name].get_active_processes())

    def tail(self, name: str, count: int = KEPT_LINES) -> list[str]:
        return self._streams[name].tail(count)

    def begin_stop(self) -> None:
        """From here on nothing is restarted."""
        self._is_stopping = True
        self._arbiter._stopping = True

    async def stop(self, names: Iterable[str]) -> None:
        """Ends these processes side by side: SIGTERM, the graceful time, SIGKILL. Unknown names are skipped."""
        await asyncio.gather(*self._starting, return_exceptions=True)
        await asyncio.gather(*(self._stop_one(self._watchers[name]) for name in names if name in self._watchers))

    async def _stop_one(self, watcher: Watcher) -> None:
        began = time.monotonic()
        await watcher._stop(True)
        if time.monotonic() - began > watcher.graceful_timeout:
            self._streams[watcher.name].notice(f"did not end within {watcher.graceful_timeout:.0f} s and was killed")

    def kill(self, names: Iterable[str]) -> None:
        """For people in a hurry: the ``stop`` that is under way sees them dead and goes on."""
        for name in names:
            if name in self._watchers:
                for process in self._watchers[name].get_active_processes():
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.send_signal(signal.SIGKILL)

    def close(self) -> None:
        self._arbiter.stop_controller_and_close_sockets()
        kill_children()


def kill_children() -> None:
    """The last broom: whatever is still below this process, for instance children of children."""
    children = psutil.Process().children(recursive=True)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(children, timeout=SWEEP_SECONDS)


def describe_exit(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with code {code}"
