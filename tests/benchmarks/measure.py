"""One case, measured once: users, generator, samples before and after, checks."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

from tests.benchmarks import counters
from tests.benchmarks.cases import Case, Options
from tests.benchmarks.counters import GatewayFootprint, figures_of, read_counters
from tests.benchmarks.node_events import NodeListener
from tests.benchmarks.people import Cast, Registry, make_cast
from tests.benchmarks.plan import Plan
from tests.benchmarks.processes import CpuMeter, CpuSample, Generator, Product
from tests.benchmarks.progress import Bar
from tests.benchmarks.report import GENERATOR, NOT_STORED, Latency, Run, by_kind
from tests.benchmarks.stored import wait_until_stored

SETTLE_SECONDS = 2.0  # connecting is over, but its wake-ups and heartbeats are not
#: A node tells how many connections it has with each heartbeat, every 2 s.
COUNTED_SECONDS, COUNTED_POLL_SECONDS = 10.0, 0.2
ASTRAY = "sent to nodes without a receiver"
#: What a baseline lets happen by design is told and not held against the run.
UNORDERED_STACKS = frozenset({"chain"})
UNORDERED = ("disordered", "disordered to the sender")


class Measurement:
    """``take`` may be called once."""

    def __init__(self, case: Case, options: Options, product: Product, bar: Bar, number: int) -> None:
        self.idle_percent: dict[str, float] = {}
        self._case = case
        self._options = options
        self._product = product
        self._bar = bar
        self._number = number
        self._figures: dict[str, float] = {}
        self._notes: list[str] = []
        self._faults: dict[str, int] = {}

    def take(self, *, wants_idle: bool) -> Run:
        """Raises LoadError, DevServiceError, AssertionError."""
        case, product = self._case, self._product
        cast = self._make_cast()
        is_crowd = case.workload.cast == "crowd"
        self._notes += cast.notes
        footprint = GatewayFootprint(product)
        alone = self._measure_idle(CpuMeter(product.pids), self._options.crowd_idle_seconds) if is_crowd else {}
        listener = NodeListener(product, cast.users) if case.workload.cast == "spread_pairs" else None
        counted = read_counters(product.web_url)
        with Generator(self._plan(cast), self._on_progress) as generator:
            self._bar.begin(f"{case.name}: connecting {len(cast.users):,} users")
            generator.wait_for("connected")
            meter = CpuMeter({**product.pids, GENERATOR: generator.pid})
            if is_crowd:
                self._note_crowd(meter, footprint, alone, len(cast.users))
            elif wants_idle or listener:
                self.idle_percent = self._measure_idle(meter, self._options.idle_seconds)
            if listener:
                listener.start()
            self._bar.begin(f"{case.name}: {case.workload.title}")
            generator.begin()
            generator.wait_for("measuring")
            if listener:
                self._note_events(listener)
            before = meter.sample()
            measured = generator.wait_for("measured")
            after = meter.sample()
            missing = wait_until_stored(product.database, measured["stored"])
            caught_up = meter.sample()
            result = generator.wait_for("result")
        self._figures |= figures_of(counted, read_counters(product.web_url), result["sent"])
        return self._make_run(measured, result, (before, after, caught_up), missing)

    # -- steps

    def _make_cast(self) -> Cast:
        self._bar.begin(f"{self._case.name}: registering users")
        # No user of another case, and an id holds letters, digits and underscores only.
        prefix = re.sub(r"\W", "_", f"{self._case.name} {self._number} ")
        registry = Registry(self._product, prefix, self._bar.advance)
        return asyncio.run(make_cast(registry, self._case, self._options))

    def _plan(self, cast: Cast) -> Plan:
        options = self._options
        return Plan(
            workload=self._case.workload.name,
            gateway_urls=self._product.gateway_urls,
            codec=options.codec,
            users=cast.users,
            chats=cast.chats,
            seconds=options.seconds,
            warmup_seconds=options.warmup_seconds,
            window=self._case.window,
            rate=self._case.rate,
            text_bytes=options.text_bytes,
        )

    def _on_progress(self, facts: dict[str, Any]) -> None:
        passed = facts["share"] * self._options.seconds
        speed = f"{facts['arrived'] / passed:,.0f}/s" if facts.get("arrived") and passed else ""
        self._bar.advance(facts["share"], speed)

    def _measure_idle(self, meter: CpuMeter, seconds: float) -> dict[str, float]:
        self._bar.begin(f"{self._case.name}: idle, nobody writes")
        time.sleep(min(SETTLE_SECONDS, seconds))
        before = meter.sample()
        time.sleep(seconds)
        after = meter.sample()
        used = after.since(before)
        used.pop(GENERATOR, None)
        return {kind: round(100 * share / (after.at - before.at), 2) for kind, share in by_kind(used).items()}

    def _note_crowd(self, meter: CpuMeter, footprint: GatewayFootprint, alone: dict[str, float], count: int) -> None:
        idle = self._measure_idle(meter, self._options.crowd_idle_seconds)
        self._figures |= {
            "connections": count,
            "gateway KiB a connection": round(footprint.kib_per(count), 2),
            "gateway CPU % while idle": idle["gateway"],
            "gateway CPU % without connections": alone["gateway"],
            "gateway CPU µs a second and connection": round((idle["gateway"] - alone["gateway"]) * 1e4 / count, 3),
        }

    def _note_events(self, listener: NodeListener) -> None:
        """The routing as seen in the warm-up, and the nodes' own word on how many connections they hold."""
        seen = listener.stop()
        self._figures |= {
            "messages to nodes looked at": seen.events,
            "of them without a receiver there": seen.astray,
            "messages to nodes a message if every node got each": self._case.gateways,
        }
        self._faults[ASTRAY] = seen.astray
        self._faults["nodes that tell another number of connections"] = self._nodes_that_tell_wrong(listener)

    def _nodes_that_tell_wrong(self, listener: NodeListener) -> int:
        """Nodes tell their number with their heartbeat: each has some time for the one that is true now."""
        deadline = time.monotonic() + COUNTED_SECONDS
        while True:
            told = read_counters(self._product.web_url)
            wrong = sum(
                told.get(f"{counters.CONNECTIONS}{{{node}}}", 0) != len(users) for node, users in listener.users.items()
            )
            if not wrong or time.monotonic() > deadline:
                return wrong
            time.sleep(COUNTED_POLL_SECONDS)

    def _make_run(
        self,
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
        workload = self._case.workload
        faults: dict[str, int] = {**result["faults"], NOT_STORED: missing, **self._faults}
        if workload.stack in UNORDERED_STACKS:
            self._figures["messages out of order"] = sum(faults.pop(name) for name in UNORDERED)
        if workload.cast == "spread_pairs":
            idle_percent = sum(self.idle_percent.values())
            above = sum(used.values()) - measured["seconds"] * idle_percent / 100
            self._figures |= {
                "server CPU % while idle": round(idle_percent, 2),
                "server CPU ms a message above idle": round(1000 * above / max(result["delivered"], 1), 3),
            }
        return Run(
            workload=workload.name,
            title=workload.title,
            rate=self._case.rate,
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
            faults=faults,
            refused=result["refused"],
            gateways=self._case.gateways,
            is_per_msg=workload.is_per_msg,
            arrived=result["arrived"],
            series={name: Latency(**latency) for name, latency in result["series"].items()},
            figures=self._figures,
            notes=self._notes,
            curve=[(percent, ms) for percent, ms in result["curve"]],
            steps=result["steps"],
        )
