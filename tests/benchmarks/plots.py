"""Pictures of a report. Each answers the question that its title asks."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from tests.benchmarks.load import STEP_SECONDS
from tests.benchmarks.report import NODE_EVENTS, Report, Run, by_kind

DPI = 120
#: Tells lines apart in print too.
MARKERS = "osD^vPX*"
STYLES = ("-", "--", "-.", ":")

Groups = dict[str, list[Run]]


def draw(report: Report, stem: Path) -> list[Path]:
    """Write the pictures that the report has figures for, as ``<stem>-<name>.png``."""
    groups = report.by_name()
    plain = {name: runs for name, runs in groups.items() if not runs[0].series}
    one_node = {name: runs for name, runs in plain.items() if runs[0].workload != "w6"}
    several = {name: runs for name, runs in plain.items() if runs[0].workload == "w6"}
    histories = {name: runs for name, runs in groups.items() if runs[0].series}
    wanted: list[tuple[str, Callable[[Groups], Figure], Groups]] = [
        ("latency", draw_latency, {name: runs for name, runs in one_node.items() if runs[0].curve}),
        ("throughput", draw_throughput, {name: runs for name, runs in one_node.items() if any(runs[0].steps)}),
        ("cpu", draw_cpu, {name: runs for name, runs in plain.items() if runs[0].delivered}),
        ("history", draw_history, histories),
        *((name, draw_nodes, some) for name, some in _node_series(several).items()),
    ]
    written = []
    for name, drawing, some in wanted:
        if some:
            path = stem.with_name(f"{stem.name}-{name}.png")
            drawing(some).savefig(path, dpi=DPI)
            written.append(path)
    return written


def _node_series(groups: Groups) -> dict[str, Groups]:
    """What differs by the number of nodes alone: the same rate in all, or the same for each node."""
    found: dict[str, Groups] = defaultdict(dict)
    for name, (run, *more) in groups.items():
        found[f"nodes-{run.rate:g}"][name] = [run, *more]
        found[f"nodes-{run.rate / run.gateways:g}-each"][name] = [run, *more]
    most = max(map(len, found.values()), default=0)
    return {
        name: series for name, series in found.items() if len(series) == most and not (most == 1 and "each" in name)
    }


def median_run(runs: Sequence[Run]) -> Run:
    """The one in the middle by throughput."""
    return sorted(runs, key=lambda run: run.delivered_per_second)[(len(runs) - 1) // 2]


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def _legend(axes: Axes) -> None:
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)


def _plain(value: float, _position: object) -> str:
    return f"{value:,g}"


def _log(axes: Axes, which: str) -> None:
    """A logarithmic axis with figures that are not powers of ten."""
    if which == "x":
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(_plain))
    else:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    axes.grid(visible=True, which="major", alpha=0.4)
    axes.grid(visible=True, which="minor", alpha=0.12)


def draw_latency(groups: Groups) -> Figure:
    figure = _figure(10, 5.5)
    axes = figure.subplots()
    for number, (name, runs) in enumerate(groups.items()):
        curve = median_run(runs).curve
        axes.plot(
            [ms for _, ms in curve], [percent for percent, _ in curve], STYLES[number // 10 % len(STYLES)], label=name
        )
    _log(axes, "x")
    axes.set_ylim(0, 101)
    axes.set_title("How long until a message is there?")
    axes.set_xlabel("time from a message's moment until its last receiver has it, ms (log)")
    axes.set_ylabel("messages that have arrived by then, %")
    _legend(axes)
    return figure


def draw_throughput(groups: Groups) -> Figure:
    figure = _figure(10, 5.5)
    axes = figure.subplots()
    for number, (name, runs) in enumerate(groups.items()):
        steps = median_run(runs).steps
        times = [(step + 0.5) * STEP_SECONDS for step in range(len(steps))]
        axes.plot(times, [speed or float("nan") for speed in steps], STYLES[number // 10 % len(STYLES)], label=name)
    _log(axes, "y")
    axes.set_xlim(left=0)
    axes.set_title("Is the throughput steady?")
    axes.set_xlabel("time since the measuring began, s")
    axes.set_ylabel(f"messages a second, in steps of {STEP_SECONDS:g} s (log)")
    _legend(axes)
    return figure


def draw_cpu(groups: Groups) -> Figure:
    kinds = list(by_kind({kind: 0.0 for runs in groups.values() for run in runs for kind in run.cpu_seconds}))
    names = list(reversed(groups))
    figure = _figure(10, 2.2 + 0.4 * len(names))
    axes = figure.subplots()
    ends = [0.0] * len(names)
    for kind in kinds:
        widths = [statistics.median(run.cpu_ms_per_msg.get(kind, 0.0) for run in groups[name]) for name in names]
        axes.barh(names, widths, left=ends, label=kind)
        ends = [end + width for end, width in zip(ends, widths, strict=True)]
    for number, end in enumerate(ends):
        axes.annotate(f"{end:.2f}", (end, number), xytext=(4, 0), textcoords="offset points", va="center")
    axes.set_xlim(0, max(ends) * 1.1)
    axes.set_title("Which process uses the CPU, and how much for a message?")
    axes.set_xlabel("CPU time of the servers, ms a message")
    axes.grid(visible=True, axis="x", alpha=0.4)
    axes.set_axisbelow(True)
    _legend(axes)
    return figure


def draw_history(groups: Groups) -> Figure:
    """Names of the series end with the size."""
    figure = _figure(10, 5.5)
    axes = figure.subplots()
    whats: dict[str, dict[int, tuple[float, float]]] = {}
    for runs in groups.values():
        for name in runs[0].series:
            what, _, size = name.rpartition(" ")
            latencies = [run.series[name] for run in runs if name in run.series]
            middle = (
                statistics.median(item.p50 for item in latencies),
                statistics.median(item.p95 for item in latencies),
            )
            whats.setdefault(what, {})[int(size.replace(",", ""))] = middle
    for number, (what, by_size) in enumerate(whats.items()):
        sizes = sorted(by_size)
        for place, (percent, style) in enumerate((("p50", "-"), ("p95", "--"))):
            axes.plot(
                sizes,
                [by_size[size][place] for size in sizes],
                style,
                marker=MARKERS[number],
                color=f"C{number}",
                label=f"{what}, {percent}",
            )
    _log(axes, "x")
    axes.set_xticks(sorted({size for by_size in whats.values() for size in by_size}))
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_title("Does a long history make sending or pulling slower?")
    axes.set_xlabel("messages in the conversation (log)")
    axes.set_ylabel("latency, ms")
    _legend(axes)
    return figure


def draw_nodes(groups: Groups) -> Figure:
    figure = _figure(13, 8)
    (latency, cost), (events, rest) = figure.subplots(2, 2)
    ordered = sorted(groups.values(), key=lambda runs: runs[0].gateways)
    counts = [runs[0].gateways for runs in ordered]
    for name, of_run in (("p50", lambda run: run.latency.p50), ("p95", lambda run: run.latency.p95)):
        latency.plot(counts, [statistics.median(map(of_run, runs)) for runs in ordered], marker="o", label=name)
    latency.set_title("Do messages take longer with more nodes?")
    latency.set_ylabel("time until the receiver has it, ms")
    kinds = list(by_kind({kind: 0.0 for runs in ordered for run in runs for kind in run.cpu_seconds}))
    stacks = [
        [statistics.median(run.cpu_ms_per_msg.get(kind, 0.0) for run in runs) for runs in ordered] for kind in kinds
    ]
    cost.stackplot(counts, stacks, labels=kinds)
    cost.set_title("Does a message cost more with more nodes?")
    cost.set_ylabel("CPU time of the servers, ms a message")
    ours = [statistics.median(run.figures.get(NODE_EVENTS, 0.0) for run in runs) for runs in ordered]
    events.plot(counts, ours, marker="o", label="sent to nodes of the receivers")
    events.plot(counts, counts, "--", marker="s", label="if every node got each")
    events.set_title("How many nodes hear of a message?")
    events.set_ylabel("channel-layer messages a message")
    idle = [statistics.median(run.figures.get("server CPU % while idle", 0.0) for run in runs) for runs in ordered]
    rest.plot(counts, idle, marker="o", label="all servers")
    rest.set_title("What do the nodes cost while nobody writes?")
    rest.set_ylabel("CPU time, % of a processor")
    for axes in (latency, cost, events, rest):
        axes.set_xlabel("gateway nodes")
        axes.set_xticks(counts)
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.4)
        if axes is cost:
            _legend(axes)
        else:
            axes.legend(frameon=False)
    return figure
