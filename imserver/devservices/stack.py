"""``up`` from the first check to the last process: one object, one life.

1. Checks: data folder, ports, the embedded servers' programs.
2. Stores, those whose address is not configured.
3. ``prepare``.
4. Gateway, web, workers, beat, Flower; until each is healthy.
5. Wait for a signal.
6. Stop everything, the stores last. Whatever happens in 1 to 5, this runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from imserver.conf import BASE_DIR, TRUE_WORDS, Config
from imserver.devservices import mongod, processes, summary, valkey
from imserver.devservices.cores import home_cores
from imserver.devservices.errors import NotHealthy, PortTaken
from imserver.devservices.external import EXTERNAL_CHECKS
from imserver.devservices.folder import DataFolder
from imserver.devservices.launch import launcher
from imserver.devservices.logstream import Console, LogStream
from imserver.devservices.ports import check_port, find_free_ports
from imserver.devservices.servers import HOST, MONGOD, VALKEY, Kind, describe_failure
from imserver.devservices.supervisor import ProcessSpec, Supervisor

STORE_SECONDS = 60.0  # mongod may have to replay its journal first
PREPARE_SECONDS = 120.0
HEALTHY_SECONDS = 120.0
POLL_SECONDS = 0.1
HEALTH_POLL_SECONDS = 0.25
STORE_STOP_SECONDS = 20.0
PREPARE_STOP_SECONDS = 5.0
# One crash while starting may be chance, three are a fault that waiting does not mend.
DEATHS_TO_GIVE_UP = 3
TAIL_LINES = 15
HURRY_AFTER_SECONDS = 1.0  # a second Ctrl-C this soon is the same key press, seen twice (terminal and make)

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
METRICS_FOLDER = "metrics"
PASSWORD_LINE = "admin password:"  # noqa: S105 - the words before one
PORTS = {"GATEWAY_PORT": "gateway_port", "WEB_PORT": "web_port", "FLOWER_PORT": "flower_port"}


class Stack:
    """Everything that ``up`` runs. ``environ`` is what the user configured; ``run`` may be called once."""

    def __init__(self, config: Config, environ: Mapping[str, str], console: Console) -> None:
        self._config = config
        self._configured = dict(environ)
        self._env = {**environ, "PYTHONUNBUFFERED": "1"}
        self._env.setdefault("DEMO", "1")
        self._console = console
        self._up = LogStream("up", console)
        self._folder = DataFolder(config.data_path)
        self._supervisor: Supervisor | None = None
        self._stop_asked = asyncio.Event()
        self._stop_asked_at = 0.0
        self._password_line = ""
        self._began = time.monotonic()

    async def run(self) -> None:
        """Returns after an orderly end. Raises ``DevServiceError`` if it did not come up; nothing runs then either."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._on_signal)
        starting = asyncio.create_task(self._start())
        asked = asyncio.create_task(self._stop_asked.wait())
        try:
            await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                await asked
        finally:
            asked.cancel()
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await self._stop()
            for number in SIGNALS:
                # What is left is to exit: one more Ctrl-C must not turn that into a failure.
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)

    def _on_signal(self) -> None:
        if not self._stop_asked.is_set():
            self._stop_asked.set()
            self._stop_asked_at = time.monotonic()
            self._up.notice("stopping; once more to kill what does not stop by itself")
        elif self._supervisor and time.monotonic() - self._stop_asked_at > HURRY_AFTER_SECONDS:
            # Not the stores: they need a moment to write, and they get it.
            self._supervisor.kill(name for group in processes.stop_order(self._config) for name in group)

    # -- starting

    async def _start(self) -> None:
        self._folder.open()
        self._settle_ports()
        self._settle_metrics()
        embedded = self._embedded_kinds()
        if VALKEY not in embedded:
            # The worker would keep a core for taking turns with a server that is elsewhere.
            self._config = dataclasses.replace(self._config, cpu_affinity=False)
        for kind in embedded:
            kind.command(self._folder.path, HOST, 0)  # raises when its program cannot run here
        specs = processes.product_processes(self._config, self._folder.path)
        self._console.reserve(["up", *(kind.name for kind in embedded), "prepare", *(spec.name for spec in specs)])
        supervisor = self._supervisor = Supervisor(self._console, BASE_DIR)
        await supervisor.open()
        await self._start_stores(supervisor, embedded)
        self._write_env()
        await self._prepare()
        for spec in specs:
            await supervisor.start(spec, self._env)
        self._up.notice(f"started {', '.join(spec.name for spec in specs)}; waiting until all are healthy")
        await self._wait_until_healthy(supervisor, specs)
        self._console.write_plain(
            summary.render(
                self._config,
                embedded={kind.name: self._folder.path / kind.name for kind in embedded},
                seconds=time.monotonic() - self._began,
                password_line=self._password_line,
            )
        )

    def _settle_ports(self) -> None:
        """Checks the configured ports; 0 becomes a free one."""
        free = find_free_ports(len(PORTS), self._config.bind_host)
        chosen: dict[str, Any] = {}
        taken: dict[int, str] = {}
        for setting, field_name in PORTS.items():
            port = getattr(self._config, field_name) or free.pop()
            if port in taken:
                raise PortTaken(f"{taken[port]} and {setting} are both {port}: give each a port of its own.")
            check_port(self._config.bind_host, port, setting)
            taken[port] = setting
            chosen[field_name] = port
        is_demo = self._env["DEMO"].strip().lower() in TRUE_WORDS
        self._config = dataclasses.replace(self._config, demo=is_demo, **chosen)
        self._env.update({name: str(getattr(self._config, field_name)) for name, field_name in PORTS.items()})

    def _settle_metrics(self) -> None:
        """All processes count into one folder, so that web's /metrics tells of all. Counts of an earlier run go."""
        if "METRICS_DIR" in self._configured:
            return
        folder = self._folder.make_subfolder(METRICS_FOLDER)
        for file in folder.glob("*.db"):
            file.unlink()
        self._env["METRICS_DIR"] = str(folder)

    def _embedded_kinds(self) -> list[Kind]:
        return [kind for kind in (VALKEY, MONGOD) if kind.setting not in self._configured]

    async def _start_stores(self, supervisor: Supervisor, embedded: list[Kind]) -> None:
        ports = dict(zip((kind.name for kind in embedded), find_free_ports(len(embedded)), strict=True))
        for kind in embedded:
            port = ports[kind.name]
            folder = self._folder.make_subfolder(kind.name)
            url = kind.url(HOST, port)
            self._env[kind.setting] = url
            changed: dict[str, Any] = {kind.setting.lower(): url}
            self._config = dataclasses.replace(self._config, **changed)
            command = kind.command(folder, HOST, port)
            cores = home_cores(self._config, kind.name)
            await supervisor.start(ProcessSpec(kind.name, command, STORE_STOP_SECONDS, kind.render, cores), self._env)
        for kind in (VALKEY, MONGOD):
            if kind in embedded:
                await self._wait_for_store(supervisor, kind, ports[kind.name])
            else:
                await asyncio.to_thread(EXTERNAL_CHECKS[kind.name], getattr(self._config, kind.setting.lower()))

    async def _wait_for_store(self, supervisor: Supervisor, kind: Kind, port: int) -> None:
        deadline = time.monotonic() + STORE_SECONDS
        while not await asyncio.to_thread(kind.is_ready, HOST, port):
            deaths = supervisor.exit_codes(kind.name)
            if deaths or time.monotonic() > deadline:
                raise describe_failure(
                    kind,
                    self._folder.path / kind.name,
                    deaths[-1] if deaths else None,
                    supervisor.tail(kind.name),
                )
            await asyncio.sleep(POLL_SECONDS)

    def _write_env(self) -> None:
        """For other commands: what the user configured, and what was chosen here."""
        names = {option.name.upper() for option in dataclasses.fields(Config)}
        self._folder.write_env({name: value for name, value in self._env.items() if name in names})

    async def _prepare(self) -> None:
        """Indexes, migrations, first users. Shows its lines; the one with the password is kept for the summary."""
        stream = LogStream("prepare", self._console, self._keep_password)
        command = launcher([sys.executable, str(BASE_DIR / "manage.py"), "prepare"])
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            env=self._env,
            cwd=BASE_DIR,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(PREPARE_SECONDS):
                while process.stdout and (data := await process.stdout.read(1 << 16)):
                    stream.feed(data)
                code = await process.wait()
        except TimeoutError:
            raise NotHealthy(
                f"`manage.py prepare` took longer than {PREPARE_SECONDS:.0f} s."
                + _quote("prepare", stream.tail(TAIL_LINES))
            ) from None
        finally:
            stream.close()
            await _end(process)
        if code != 0:
            raise NotHealthy(
                f"`manage.py prepare` ended with code {code}." + _quote("prepare", stream.tail(TAIL_LINES))
            )

    def _keep_password(self, line: str) -> str | None:
        if line.startswith(PASSWORD_LINE):
            self._password_line = line
            return None
        return line

    async def _wait_until_healthy(self, supervisor: Supervisor, specs: list[ProcessSpec]) -> None:
        checks = processes.health_checks(self._config)
        waiting = {spec.name: checks.get(spec.name, _running(supervisor, spec.name)) for spec in specs}
        deadline = time.monotonic() + HEALTHY_SECONDS
        while waiting:
            reasons = dict(zip(waiting, await asyncio.gather(*(check() for check in waiting.values())), strict=True))
            waiting = {name: check for name, check in waiting.items() if reasons[name]}
            for spec in specs:
                if len(deaths := supervisor.exit_codes(spec.name)) >= DEATHS_TO_GIVE_UP:
                    raise NotHealthy(
                        f"{spec.name} ended {len(deaths)} times while starting, last with code {deaths[-1]}."
                        + _quote(spec.name, supervisor.tail(spec.name, TAIL_LINES))
                    )
            if waiting and time.monotonic() > deadline:
                sentences = "; ".join(f"{name}: {reasons[name]}" for name in waiting)
                quotes = (_quote(name, supervisor.tail(name, TAIL_LINES)) for name in waiting)
                raise NotHealthy(f"Not healthy after {HEALTHY_SECONDS:.0f} s: {sentences}." + "".join(quotes))
            await asyncio.sleep(HEALTH_POLL_SECONDS)

    # -- stopping

    async def _stop(self) -> None:
        supervisor = self._supervisor
        if supervisor is not None:
            supervisor.begin_stop()
            for group in [*processes.stop_order(self._config), [mongod.NAME], [valkey.NAME]]:
                await supervisor.stop(group)
            supervisor.close()
            self._folder.remove_env()
            self._up.notice("all stopped")
        self._folder.close()


def _running(supervisor: Supervisor, name: str) -> Callable[[], Awaitable[str]]:
    async def check() -> str:
        return "" if supervisor.is_running(name) else "does not run"

    return check


def _quote(name: str, lines: list[str]) -> str:
    return f"\nLast lines of {name}:\n" + "\n".join(f"    {line}" for line in lines) if lines else ""


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), PREPARE_STOP_SECONDS)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def run_stack(config: Config, environ: Mapping[str, str], console: Console) -> None:
    await Stack(config, environ, console).run()
