"""Figures, the table for people and the JSON for later. No input or output but what ``describe_*`` reads of the system."""

from __future__ import annotations

import dataclasses
import math
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from imserver.conf import BASE_DIR, Config

SCHEMA = 1
GENERATOR = "generator"
#: The fault of messages that MongoDB does not hold in the end.
NOT_STORED = "not in MongoDB"
#: Columns in this order; processes that are not named here follow.
PROCESS_ORDER = ("gateway", "web", "worker", "beat", "valkey", "mongod")
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


def by_kind(figures: Mapping[str, float]) -> dict[str, float]:
    """``worker0`` and ``worker1`` together are ``worker``; in the order of the columns."""
    sums: dict[str, float] = {}
    for name, figure in figures.items():
        kind = name.rstrip("0123456789")
        sums[kind] = sums.get(kind, 0.0) + figure
    known = [name for name in PROCESS_ORDER if name in sums]
    return {name: sums[name] for name in (*known, *(name for name in sums if name not in PROCESS_ORDER))}


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
    #: Within the measured time.
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

    @property
    def name(self) -> str:
        return f"{self.workload} {self.rate:g}/s" if self.rate else self.workload

    @property
    def delivered_per_second(self) -> float:
        return self.delivered / self.seconds if self.seconds else 0.0

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
        return not any(self.faults.values()) and not self.refused and self.delivered > 0


@dataclass(frozen=True)
class Report:
    taken_at: str
    commit: str
    machine: dict[str, Any]
    settings: dict[str, Any]
    #: Percent of one processor, by kind of process, with everybody connected and nobody writing.
    idle_percent: dict[str, float]
    runs: list[Run] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return bool(self.runs) and all(run.is_good for run in self.runs)


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
        entry["delivered_per_second"] = round(run.delivered_per_second, 1)
        entry["cpu_ms_per_msg"] = {name: round(figure, 4) for name, figure in run.cpu_ms_per_msg.items()}
        entry["server_cpu_ms_per_msg"] = round(run.server_cpu_ms_per_msg, 4)
        entry["generator_cpu_ms_per_msg"] = round(run.generator_cpu_ms_per_msg, 4)
    return document


# -- table


def render(report: Report) -> str:
    machine, settings = report.machine, report.settings
    hardware = f"{machine['processors']} x {machine['model']}, {machine['memory_gib']} GiB"
    parts = [
        f"{report.taken_at}, commit {report.commit}, Python {machine['python']}",
        f"{hardware}, load average before: {machine['load_before']}",
        "  ".join(f"{name}={value}" for name, value in settings.items() if name in SHOWN_SETTINGS),
        "",
        f"Idle, everybody connected, % of a processor: {_listed(report.idle_percent, 1)}",
        "",
        *_table(
            ["", "msg/s", "delivered", "p50 ms", "p95 ms", "p99 ms", "max ms", "in MongoDB after"], _speeds(report)
        ),
        "",
        "CPU ms a message:",
        *_table(["", *_kinds(report), "server", GENERATOR, "others %"], _costs(report)),
        "",
        *(_verdict(run) for run in report.runs),
    ]
    return "\n".join(line.rstrip() for line in parts)


SHOWN_SETTINGS = frozenset(
    {"codec", "pairs", "window", "text_bytes", "gateway_server", "worker_processes", "worker_threads", "shards"}
)


def _speeds(report: Report) -> list[list[str]]:
    return [
        [
            run.name,
            f"{run.delivered_per_second:,.0f}",
            f"{run.delivered:,}",
            *(f"{figure:,.1f}" for figure in (run.latency.p50, run.latency.p95, run.latency.p99, run.latency.max)),
            "never" if run.faults.get(NOT_STORED) else f"{run.catch_up_seconds:.2f} s",
        ]
        for run in report.runs
    ]


def _kinds(report: Report) -> list[str]:
    return list(by_kind({name: 0.0 for run in report.runs for name in run.cpu_seconds}))


def _costs(report: Report) -> list[list[str]]:
    kinds = _kinds(report)
    return [
        [
            run.name,
            *(f"{run.cpu_ms_per_msg.get(kind, 0.0):.3f}" for kind in kinds),
            f"{run.server_cpu_ms_per_msg:.3f}",
            f"{run.generator_cpu_ms_per_msg:.3f}",
            f"{100 * run.foreign_cpu_seconds / run.seconds:.0f}" if run.seconds else "",
        ]
        for run in report.runs
    ]


def _verdict(run: Run) -> str:
    if run.is_good:
        return f"{run.name}: {run.sent:,} sent; each answered, delivered once and in order, and stored."
    faults = [f"{count:,} {name}" for name, count in run.faults.items() if count]
    faults += [f"{count:,} refused with {reason}" for reason, count in run.refused.items()]
    return f"{run.name}: FAULTS of {run.sent:,} sent: {', '.join(faults) or 'nothing was delivered'}."


def _listed(figures: Mapping[str, float], digits: int) -> str:
    total = sum(figures.values())
    return ", ".join([*(f"{name} {figure:.{digits}f}" for name, figure in figures.items()), f"all {total:.{digits}f}"])


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    """First column left, figures right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    return ["  ".join([row[0].ljust(widths[0]), *(map(str.rjust, row[1:], widths[1:]))]) for row in (head, *rows)]
