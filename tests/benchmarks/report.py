"""Figures and the JSON of them; ``table.py`` and ``plots.py`` show them. No input or output but what ``describe_*`` reads
of the system."""

from __future__ import annotations

import dataclasses
import math
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import orjson
import psutil

from imserver.conf import BASE_DIR, Config

SCHEMA = 2
GENERATOR = "generator"
#: The fault of messages that MongoDB does not hold in the end.
NOT_STORED = "not in MongoDB"
#: Columns in this order; processes that are not named here follow.
PROCESS_ORDER = ("gateway", "web", "worker", "beat", "valkey", "mongod")
#: What every workload counts of the product's counters, from before the first to after the last message.
NODE_EVENTS, ENCODED, ENCODED_SHARE, WAKEUPS = COUNTED = (
    "messages to nodes a message",
    "frames encoded a message",
    "frames encoded a frame pushed",
    "wake-ups a message",
)
CURVE_PERCENTS = (0.0, *map(float, range(1, 99)), *(99 + step / 10 for step in range(10)), 99.95, 99.99, 100.0)
PROCESSOR_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Latency:
    """Milliseconds from the moment that a message should leave until its receiver has it."""

    count: int
    p50: float
    p95: float
    p99: float
    max: float


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest value that at least ``percent`` of the values do not exceed. 0 when there are none."""
    if not ordered:
        return 0.0
    return ordered[max(math.ceil(len(ordered) * percent / 100), 1) - 1]


def latency_of(seconds: Sequence[float]) -> Latency:
    ordered = sorted(seconds)
    p50, p95, p99, most = (round(percentile(ordered, percent) * 1000, 3) for percent in (50, 95, 99, 100))
    return Latency(len(ordered), p50, p95, p99, most)


def curve_of(seconds: Sequence[float]) -> list[tuple[float, float]]:
    """The distribution as (percent, milliseconds), finer towards the slow end."""
    if not seconds:
        return []
    ordered = sorted(seconds)
    return [(percent, round(percentile(ordered, percent) * 1000, 3)) for percent in CURVE_PERCENTS]


def by_kind(figures: Mapping[str, float]) -> dict[str, float]:
    """``worker0`` and ``worker1`` together are ``worker``; in the order of the columns."""
    sums: dict[str, float] = {}
    for name, figure in figures.items():
        kind = name.rstrip("0123456789")
        sums[kind] = sums.get(kind, 0.0) + figure
    known = [name for name in PROCESS_ORDER if name in sums]
    return {name: sums[name] for name in (*known, *(name for name in sums if name not in PROCESS_ORDER))}


def name_of(workload: str, rate: float, gateways: int = 0) -> str:
    """What tells the cases of a report apart; of one gateway only ``w6`` speaks."""
    words = [workload, *([f"{rate:g}/s"] if rate else [])]
    if workload == "w6":
        words.append("1 node" if gateways == 1 else f"{gateways} nodes")
    return " ".join(words)


@dataclass(frozen=True)
class Run:
    """One workload, measured once."""

    workload: str
    title: str
    #: Messages a second asked for; 0: as many as go through.
    rate: float
    seconds: float
    #: Warm-up included.
    sent: int
    #: Within the measured time: messages that their last receiver got.
    delivered: int
    latency: Latency
    #: CPU seconds within the measured time, by kind of process; the generator is not among them.
    cpu_seconds: dict[str, float]
    generator_cpu_seconds: float
    #: What all other programs of this machine used meanwhile, in CPU seconds.
    foreign_cpu_seconds: float
    #: From the last send until MongoDB held every message, and the servers' CPU seconds in that time.
    catch_up_seconds: float
    catch_up_cpu_seconds: float
    #: Open loop: how late the generator itself was.
    started_late_p99_ms: float
    faults: dict[str, int]
    #: Error answers by text.
    refused: dict[str, int] = field(default_factory=dict)
    #: Processes of the gateway.
    gateways: int = 1
    is_per_msg: bool = True
    #: Messages times receivers, within the measured time.
    arrived: int = 0
    #: Latencies of other things than messages, by name.
    series: dict[str, Latency] = field(default_factory=dict)
    #: What else was counted, by name with its unit.
    figures: dict[str, float] = field(default_factory=dict)
    #: What a reader has to know about this run.
    notes: list[str] = field(default_factory=list)
    #: Distribution of the latency: (percent, milliseconds).
    curve: list[tuple[float, float]] = field(default_factory=list)
    #: Messages a second in each half second of the measured time.
    steps: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        return name_of(self.workload, self.rate, self.gateways)

    @property
    def delivered_per_second(self) -> float:
        return self.delivered / self.seconds if self.seconds else 0.0

    @property
    def arrived_per_second(self) -> float:
        return self.arrived / self.seconds if self.seconds else 0.0

    @property
    def cpu_ms_per_msg(self) -> dict[str, float]:
        return {name: 1000 * seconds / max(self.delivered, 1) for name, seconds in self.cpu_seconds.items()}

    @property
    def server_cpu_ms_per_msg(self) -> float:
        return sum(self.cpu_ms_per_msg.values())

    @property
    def generator_cpu_ms_per_msg(self) -> float:
        return 1000 * self.generator_cpu_seconds / max(self.delivered, 1)

    @property
    def is_good(self) -> bool:
        """Whether messages were sent and all went well with them. How fast is another question: of a machine that was
        busy elsewhere for the whole measured time there may be no figure, and still no fault."""
        return self.sent > 0 and not any(self.faults.values()) and not self.refused


@dataclass(frozen=True)
class Report:
    taken_at: str
    commit: str
    machine: dict[str, Any]
    settings: dict[str, Any]
    #: Percent of one processor, by kind of process, with everybody connected and nobody writing.
    idle_percent: dict[str, float]
    #: Each workload as often as it was measured.
    runs: list[Run] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return bool(self.runs) and all(run.is_good for run in self.runs)

    def by_name(self) -> dict[str, list[Run]]:
        groups: dict[str, list[Run]] = {}
        for run in self.runs:
            groups.setdefault(run.name, []).append(run)
        return groups


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure of several runs: median, least and greatest."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Raises statistics.StatisticsError when there are none."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Comparison:
    """A baseline beside the product; ``ratio`` above 1 says how many times better the product is."""

    text: str
    ours: float
    theirs: float
    ratio: float


def compare(report: Report) -> list[Comparison]:
    """Baselines that were measured, with what they stand beside in the same report."""
    groups = report.by_name()
    found = []
    if "w1a" in groups and "chain" in groups:
        ours, theirs = (
            statistics.median(run.delivered_per_second for run in groups[name]) for name in ("w1a", "chain")
        )
        if theirs:
            text = "msg/s of w1a and of the same pairs on the chain of Celery tasks"
            found.append(Comparison(text, round(ours, 1), round(theirs, 1), round(ours / theirs, 2)))
    for name, runs in groups.items():
        beside = groups.get(name.replace("batching", "w1b"))
        if runs[0].workload == "batching" and beside:
            ours, theirs = (statistics.median(run.latency.p50 for run in item) for item in (beside, runs))
            if ours:
                text = f"p50 ms of {beside[0].name} and of the same load with batches that gather for 100 ms"
                found.append(Comparison(text, round(ours, 2), round(theirs, 2), round(theirs / ours, 2)))
    return found


# -- what it was measured on


def describe_machine() -> dict[str, Any]:
    return {
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "model": processor_model(PROCESSOR_INFO.read_text("utf-8") if PROCESSOR_INFO.exists() else ""),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def processor_model(text: str) -> str:
    """From the text of ``/proc/cpuinfo``."""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return " ".join(found[1].split()) if found else platform.processor() or platform.machine()


def describe_commit(folder: Path = BASE_DIR) -> str:
    """Short hash, with ``+`` when files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + (
            "+" if git("status", "--porcelain", "--untracked-files=no") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def describe_settings(config: Config) -> dict[str, Any]:
    """The product's numbers and choices. No addresses, no folders, no secrets: they differ from machine to machine."""
    settings: dict[str, Any] = {}
    for option in dataclasses.fields(config):
        value = getattr(config, option.name)
        is_place = option.name.endswith("_port")
        if (isinstance(value, int) and not is_place) or (option.metadata["choices"] and not option.metadata["secret"]):
            settings[option.name] = value
    return settings


# -- JSON


def to_json(report: Report) -> dict[str, Any]:
    """With the derived figures beside what they come from."""
    document = {"schema": SCHEMA, **dataclasses.asdict(report), "is_good": report.is_good}
    for run, entry in zip(report.runs, document["runs"], strict=True):
        entry["name"] = run.name
        entry["delivered_per_second"] = round(run.delivered_per_second, 1)
        entry["arrived_per_second"] = round(run.arrived_per_second, 1)
        if run.is_per_msg:
            entry["cpu_ms_per_msg"] = {name: round(figure, 4) for name, figure in run.cpu_ms_per_msg.items()}
            entry["server_cpu_ms_per_msg"] = round(run.server_cpu_ms_per_msg, 4)
            entry["generator_cpu_ms_per_msg"] = round(run.generator_cpu_ms_per_msg, 4)
    document["comparisons"] = [dataclasses.asdict(item) for item in compare(report)]
    return document


def dump(report: Report) -> bytes:
    """The file: one line a run, as its curve would fill pages otherwise."""
    document = to_json(report)
    runs = b",\n".join(orjson.dumps(run) for run in document.pop("runs"))
    head = orjson.dumps(document, option=orjson.OPT_INDENT_2).removesuffix(b"\n}")
    return b"".join((head, b',\n  "runs": [\n', runs, b"\n  ]\n}\n"))
