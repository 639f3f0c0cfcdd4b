"""``manage.py bench``: start what a case needs, run the cases one after the other, report, stop everything."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from imserver.conf import BASE_DIR, Config
from imserver.devservices.cores import home_cores
from imserver.devservices.servers import EmbeddedServers
from tests.benchmarks import plots, table
from tests.benchmarks import report as reports
from tests.benchmarks.baselines.stacks import STACKS
from tests.benchmarks.cases import Case, Options, cases_of
from tests.benchmarks.measure import Measurement
from tests.benchmarks.plan import LoadError
from tests.benchmarks.processes import Product
from tests.benchmarks.progress import Bar
from tests.benchmarks.report import Report, Run

OWN_SETTINGS = ("codec", "pairs", "window", "text_bytes", "seconds", "warmup_seconds", "runs")


class Stacks:
    """The processes that run now: kept as long as the next case needs the same ones."""

    def __init__(self, servers: EmbeddedServers, folder: Path, config: Config, bar: Bar) -> None:
        self._servers = servers
        self._folder = folder
        self._config = config
        self._bar = bar
        self._kind: tuple[str, int] | None = None
        self._number = 0
        self.current: Product | None = None

    def get(self, case: Case) -> Product:
        kind = (case.workload.stack, case.gateways)
        if self.current is not None and self._kind == kind and not case.workload.is_fresh:
            return self.current
        self.stop()
        nodes = f" with {case.gateways} nodes" if case.gateways > 1 else ""
        self._bar.begin(f"starting: {case.workload.stack}{nodes}")
        self._number += 1
        folder = self._folder / f"processes{self._number}"
        self._kind = kind
        self.current = STACKS[case.workload.stack](self._servers, folder, self._config, case.gateways)
        try:
            return self.current.start()
        except subprocess.CalledProcessError as error:
            text = error.stderr.decode(errors="replace")[-3000:]
            raise LoadError(f"`manage.py prepare` ended with {error.returncode}\n{text}") from error

    def stop(self) -> None:
        stack, self.current = self.current, None
        if stack is not None:
            self._bar.begin("stopping")
            stack.stop()


class Bench:
    """One call of the command."""

    def __init__(self, options: Options, config: Config) -> None:
        self._options = options
        self._config = config
        self._taken_at = datetime.now(UTC)
        self._is_logged = False

    def run(self) -> bool:
        """Whether there was no fault. Raises LoadError, DevServiceError, AssertionError; nothing runs on then either."""
        scratch = self._config.data_path / "bench"  # the disk that `up` would use
        scratch.mkdir(parents=True, exist_ok=True)
        machine = reports.describe_machine()
        with ExitStack() as cleanup:
            bar = Bar()
            cleanup.callback(bar.end)
            folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="run-", dir=scratch)))
            cleanup.enter_context(_orderly_interrupt())
            bar.begin("starting the stores")
            servers = cleanup.enter_context(
                EmbeddedServers(folder / "stores", redis_cores=home_cores(self._config, "valkey"))
            )
            stacks = Stacks(servers, folder, self._config, bar)
            cleanup.callback(stacks.stop)
            try:
                runs, idle = self._run_all(stacks, bar)
            except Exception:
                self._save_logs(stacks.current)
                raise
        report = Report(
            taken_at=self._taken_at.strftime("%Y-%m-%d %H:%M UTC"),
            commit=reports.describe_commit(),
            machine=machine,
            settings=self._settings(),
            idle_percent=idle,
            runs=runs,
        )
        sys.stdout.write(f"{table.render(report)}\n\n")
        self._write(report)
        return report.is_good

    def _run_all(self, stacks: Stacks, bar: Bar) -> tuple[list[Run], dict[str, float]]:
        """Round by round, so that a machine that changes with time changes all workloads alike."""
        cases = list(cases_of(self._options))
        total = len(cases) * self._options.runs
        bar.count(0, total)
        runs: list[Run] = []
        idle: dict[str, float] = {}
        for number in range(self._options.runs):
            for case in cases:
                product = stacks.get(case)
                measurement = Measurement(case, self._options, product, bar, number)
                run = measurement.take(wants_idle=not idle)
                idle = idle or measurement.idle_percent
                runs.append(run)
                bar.count(len(runs), total)
                if not run.is_good:
                    self._save_logs(product)
        return runs, idle

    def _settings(self) -> dict[str, Any]:
        return {
            **{name: getattr(self._options, name) for name in OWN_SETTINGS},
            **reports.describe_settings(self._config),
        }

    # -- afterwards

    def _write(self, report: Report) -> None:
        path = Path(self._options.out) if self._options.out else self._config.data_path / "bench"
        if path.suffix != ".json":
            path /= f"{self._taken_at:%Y%m%d-%H%M%S}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(reports.dump(report))
        sys.stdout.write(f"Written to {_shown(path)}\n")
        for plot in plots.draw(report, path.with_suffix("")):
            sys.stdout.write(f"Written to {_shown(plot)}\n")

    def _save_logs(self, product: Product | None) -> None:
        if product is None or self._is_logged:
            return
        self._is_logged = True
        folder = self._config.data_path / "bench" / f"{self._taken_at:%Y%m%d-%H%M%S}-logs"
        product.save_logs(folder)
        sys.stdout.write(f"\nThe processes' logs are in {_shown(folder)}\n")


def _shown(path: Path) -> str:
    path = path.resolve()
    return str(path.relative_to(BASE_DIR)) if path.is_relative_to(BASE_DIR) else str(path)


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
