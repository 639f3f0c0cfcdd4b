"""``manage.py bench``: start everything, run the workloads one after the other, report, stop everything."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import orjson

from imserver.conf import BASE_DIR, Config
from imserver.devservices.servers import EmbeddedServers
from tests.benchmarks import report as reports
from tests.benchmarks.load import Plan
from tests.benchmarks.processes import CpuMeter, CpuSample, Generator, Product, count_missing, wait_until_stored
from tests.benchmarks.report import GENERATOR, NOT_STORED, Latency, Report, Run, by_kind
from tests.benchmarks.workloads import WORKLOADS, Workload
from tests.client import Api

SETTLE_SECONDS = 2.0  # connecting is over, but its wake-ups and heartbeats are not
USERS_AT_ONCE = 20
BAR_CELLS = 24


@dataclass(frozen=True)
class Options:
    workloads: list[str]
    pairs: int = 50
    window: int = 20
    rates: tuple[float, ...] = (200.0,)
    seconds: float = 20.0
    warmup_seconds: float = 3.0
    idle_seconds: float = 5.0
    text_bytes: int = 100
    codec: str = "js"
    #: A folder, or a file that ends in ``.json``; nothing: ``bench`` in the data folder.
    out: str = ""


class Progress:
    """One line that is written over on a terminal; elsewhere only what begins."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._width = 0

    def begin(self, text: str) -> None:
        if self._is_terminal:
            self._show(text)
        else:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()

    def advance(self, text: str, share: float) -> None:
        if self._is_terminal:
            cells = round(min(share, 1.0) * BAR_CELLS)
            self._show(f"[{'#' * cells}{'.' * (BAR_CELLS - cells)}] {text}")

    def end(self) -> None:
        if self._is_terminal:
            self._show("")
            sys.stdout.write("\r")

    def _show(self, text: str) -> None:
        shown = text[: shutil.get_terminal_size().columns - 1]
        sys.stdout.write(f"\r{shown.ljust(self._width)}")
        sys.stdout.flush()
        self._width = len(shown)


class Bench:
    """One call of the command."""

    def __init__(self, options: Options, config: Config) -> None:
        self._options = options
        self._config = config
        self._progress = Progress()
        self._taken_at = datetime.now(UTC)
        self._idle: dict[str, float] = {}

    def run(self) -> bool:
        """Whether there was no fault. Raises LoadError, DevServiceError, AssertionError; nothing runs on then either."""
        scratch = self._config.data_path / "bench"  # the disk that `up` would use
        scratch.mkdir(parents=True, exist_ok=True)
        machine = reports.describe_machine()
        with ExitStack() as cleanup:
            cleanup.callback(self._progress.end)
            folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="run-", dir=scratch)))
            cleanup.enter_context(_orderly_interrupt())
            self._progress.begin("starting the product")
            servers = cleanup.enter_context(EmbeddedServers(folder / "stores"))
            product = Product(servers, folder / "processes", self._config)
            cleanup.callback(product.stop)
            try:
                product.start()
                runs = [self._measure(product, workload, rate) for workload, rate in self._selection()]
            except Exception:
                self._save_logs(product)
                raise
            report = Report(
                taken_at=self._taken_at.strftime("%Y-%m-%d %H:%M UTC"),
                commit=reports.describe_commit(),
                machine=machine,
                settings=self._settings(),
                idle_percent=self._idle,
                runs=runs,
            )
            self._progress.end()
            sys.stdout.write(f"{reports.render(report)}\n\n")
            self._write(report)
            if not report.is_good:
                self._save_logs(product)
            self._progress.begin("stopping")
        return report.is_good

    def _selection(self) -> Iterator[tuple[Workload, float]]:
        for name in self._options.workloads:
            workload = WORKLOADS[name]
            for rate in self._options.rates if workload.is_open_loop else (0.0,):
                yield workload, rate

    def _settings(self) -> dict[str, Any]:
        options = self._options
        own = ("codec", "pairs", "window", "text_bytes", "seconds", "warmup_seconds")
        return {**{name: getattr(options, name) for name in own}, **reports.describe_settings(self._config)}

    # -- one run

    def _measure(self, product: Product, workload: Workload, rate: float) -> Run:
        options = self._options
        name = f"{workload.name} {rate:g}/s" if rate else workload.name
        self._progress.begin(f"{name}: connecting {2 * options.pairs} users")
        plan = Plan(
            workload=workload.name,
            gateway_url=product.gateway_url,
            codec=options.codec,
            pairs=asyncio.run(_make_pairs(product, f"{workload.name}x{rate:g}", options.pairs)),
            seconds=options.seconds,
            warmup_seconds=options.warmup_seconds,
            window=options.window,
            rate=rate,
            text_bytes=options.text_bytes,
        )
        began = time.monotonic()

        def on_progress(facts: dict[str, Any]) -> None:
            passed = time.monotonic() - began - options.warmup_seconds
            rate = facts["delivered"] / max(time.monotonic() - began, 0.1)
            self._progress.advance(f"{name}: {rate:,.0f} msg/s", passed / options.seconds)

        with Generator(plan, on_progress) as generator:
            generator.wait_for("connected")
            meter = CpuMeter({**product.pids, GENERATOR: generator.pid})
            if not self._idle:
                self._idle = self._measure_idle(meter)
            self._progress.begin(f"{name}: {workload.title}")
            began = time.monotonic()
            generator.begin()
            generator.wait_for("measuring")
            before = meter.sample()
            measured = generator.wait_for("measured")
            after = meter.sample()
            is_stored = wait_until_stored(product.database, measured["sent"])
            caught_up = meter.sample()
            result = generator.wait_for("result")
        missing = 0 if is_stored else count_missing(product.database, measured["sent"])
        return _make_run(workload, rate, measured, result, (before, after, caught_up), missing)

    def _measure_idle(self, meter: CpuMeter) -> dict[str, float]:
        self._progress.begin("idle: everybody is connected, nobody writes")
        time.sleep(min(SETTLE_SECONDS, self._options.idle_seconds))
        before = meter.sample()
        time.sleep(self._options.idle_seconds)
        after = meter.sample()
        used = after.since(before)
        del used[GENERATOR]
        return {kind: round(100 * seconds / (after.at - before.at), 2) for kind, seconds in by_kind(used).items()}

    # -- afterwards

    def _write(self, report: Report) -> None:
        path = Path(self._options.out) if self._options.out else self._config.data_path / "bench"
        if path.suffix != ".json":
            path /= f"{self._taken_at:%Y%m%d-%H%M%S}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(orjson.dumps(reports.to_json(report), option=orjson.OPT_INDENT_2) + b"\n")
        sys.stdout.write(f"Written to {_shown(path)}\n")

    def _save_logs(self, product: Product) -> None:
        folder = self._config.data_path / "bench" / f"{self._taken_at:%Y%m%d-%H%M%S}-logs"
        product.save_logs(folder)
        sys.stdout.write(f"\nThe processes' logs are in {_shown(folder)}\n")


def _shown(path: Path) -> str:
    path = path.resolve()
    return str(path.relative_to(BASE_DIR)) if path.is_relative_to(BASE_DIR) else str(path)


def _make_run(
    workload: Workload,
    rate: float,
    measured: dict[str, Any],
    result: dict[str, Any],
    samples: tuple[CpuSample, CpuSample, CpuSample],
    missing: int,
) -> Run:
    before, after, caught_up = samples
    used, later = after.since(before), caught_up.since(after)
    foreign = after.machine - before.machine - sum(used.values())
    generator_seconds = used.pop(GENERATOR)
    del later[GENERATOR]
    return Run(
        workload=workload.name,
        title=workload.title,
        rate=rate,
        seconds=round(measured["seconds"], 3),
        sent=result["sent"],
        delivered=result["delivered"],
        latency=Latency(**result["latency"]),
        cpu_seconds={kind: round(seconds, 3) for kind, seconds in by_kind(used).items()},
        generator_cpu_seconds=round(generator_seconds, 3),
        foreign_cpu_seconds=round(max(foreign, 0.0), 3),
        catch_up_seconds=round(caught_up.at - measured["at"], 3),
        catch_up_cpu_seconds=round(sum(later.values()), 3),
        started_late_p99_ms=result["started_late_p99_ms"],
        faults={**result["faults"], NOT_STORED: missing},
        refused=result["refused"],
    )


async def _make_pairs(product: Product, prefix: str, count: int) -> list[list[list[str]]]:
    """Registers two new users a pair, so that every conversation begins at seq 1; each as [user id, token]."""
    names = [f"{prefix.replace('.', '_')}_{number:05d}" for number in range(2 * count)]
    users: list[list[str]] = []
    async with Api(product.web_url, product.secret) as api:
        for start in range(0, len(names), USERS_AT_ONCE):
            some = names[start : start + USERS_AT_ONCE]
            await api.register(*some)
            tokens = await asyncio.gather(*(api.token(name) for name in some))
            users += [[name, token] for name, token in zip(some, tokens, strict=True)]
    return [users[start : start + 2] for start in range(0, len(users), 2)]


@contextmanager
def _orderly_interrupt() -> Iterator[None]:
    """The first SIGINT, SIGTERM or SIGHUP raises KeyboardInterrupt; further ones do not disturb the stopping."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    ours = True

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        nonlocal ours
        if ours:
            ours = False
            raise KeyboardInterrupt

    earlier = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
