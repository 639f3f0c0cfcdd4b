"""The report as text for people. A figure of several runs is its median and, in brackets, the least and the greatest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tests.benchmarks.report import COUNTED, GENERATOR, NOT_STORED, Report, Run, Spread, by_kind, compare

SHOWN_SETTINGS = frozenset(
    {
        "codec",
        "pairs",
        "window",
        "text_bytes",
        "runs",
        "seconds",
        "gateway_server",
        "worker_processes",
        "worker_threads",
        "shards",
    }
)

Figure = Callable[[Run], float]
Groups = Mapping[str, Sequence[Run]]


def render(report: Report) -> str:
    machine, settings = report.machine, report.settings
    hardware = f"{machine['processors']} x {machine['model']}, {machine['memory_gib']} GiB"
    groups = report.by_name()
    parts = [
        f"{report.taken_at}, commit {report.commit}, Python {machine['python']}",
        f"{hardware}, load average before: {machine['load_before']}",
        "  ".join(f"{name}={value}" for name, value in settings.items() if name in SHOWN_SETTINGS),
        *(
            ["", f"Idle, everybody connected, % of a processor: {_listed(report.idle_percent, 1)}"]
            * bool(report.idle_percent)
        ),
        *_section("", _speeds({name: runs for name, runs in groups.items() if not runs[0].series})),
        *_section("Milliseconds by what was done:", _series(groups)),
        *_section("CPU ms a message:", _costs({name: runs for name, runs in groups.items() if runs[0].is_per_msg})),
        *_section("Counted besides, from the first message to the last:", _counted(groups)),
        *_section("", _special(groups)),
        *_section("Compared with:", _compared(report)),
        "",
        *dict.fromkeys(f"{run.name}: {note}" for run in report.runs for note in run.notes),
        *(_verdict(run) for run in report.runs),
    ]
    return "\n".join(line.rstrip() for line in parts)


def show(values: Sequence[float], digits: int) -> str:
    """One value as it is; several as their median and spread."""
    spread = Spread.of(values)
    text, least, most = (f"{value:,.{digits}f}" for value in (spread.median, spread.least, spread.most))
    return text if least == most else f"{text} ({least}–{most})"  # noqa: RUF001


def _section(title: str, rows: list[list[str]]) -> list[str]:
    """The first row is the head; a table without any other is left out."""
    return ["", *([title] if title else []), *_table(rows)] if len(rows) > 1 else []


def _speeds(groups: Groups) -> list[list[str]]:
    def row(name: str, runs: Sequence[Run]) -> list[str]:
        of_runs: list[tuple[Figure, int]] = [
            (lambda run: run.delivered_per_second, 0),
            (lambda run: run.arrived_per_second, 0),
            (lambda run: run.latency.p50, 1),
            (lambda run: run.latency.p95, 1),
            (lambda run: run.latency.p99, 1),
            (lambda run: run.latency.max, 1),
        ]
        is_stored = not any(run.faults.get(NOT_STORED) for run in runs)
        return [
            name,
            *(show([figure(run) for run in runs], digits) for figure, digits in of_runs),
            show([run.catch_up_seconds for run in runs], 2) if is_stored else "never",
        ]

    head = ["", "msg/s", "arrivals/s", "p50 ms", "p95 ms", "p99 ms", "max ms", "in MongoDB after s"]
    return [head, *(row(name, runs) for name, runs in groups.items())]


def _series(groups: Groups) -> list[list[str]]:
    rows = [["", "count", "p50 ms", "p95 ms", "p99 ms", "max ms"]]
    for name, runs in groups.items():
        for what in runs[0].series:
            latencies = [run.series[what] for run in runs if what in run.series]
            rows.append(
                [
                    f"{name} {what}",
                    show([item.count for item in latencies], 0),
                    show([item.p50 for item in latencies], 1),
                    show([item.p95 for item in latencies], 1),
                    show([item.p99 for item in latencies], 1),
                    show([item.max for item in latencies], 1),
                ]
            )
    return rows


def _costs(groups: Groups) -> list[list[str]]:
    kinds = list(by_kind({name: 0.0 for runs in groups.values() for run in runs for name in run.cpu_seconds}))
    rows = [["", *kinds, "server", GENERATOR, "others %"]]
    for name, runs in groups.items():
        foreign = [100 * run.foreign_cpu_seconds / run.seconds for run in runs if run.seconds]
        rows.append(
            [
                name,
                *(show([run.cpu_ms_per_msg.get(kind, 0.0) for run in runs], 3) for kind in kinds),
                show([run.server_cpu_ms_per_msg for run in runs], 3),
                show([run.generator_cpu_ms_per_msg for run in runs], 3),
                show(foreign, 0) if foreign else "",
            ]
        )
    return rows


def _counted(groups: Groups) -> list[list[str]]:
    """What every workload counts, as columns."""
    rows = [["", *COUNTED]]
    for name, runs in groups.items():
        if runs[0].figures:
            rows.append([name, *(show([run.figures.get(what, 0.0) for run in runs], 3) for what in COUNTED)])
    return rows


def _special(groups: Groups) -> list[list[str]]:
    """What only some count, one a line."""
    rows = [["", "", ""]]
    for name, runs in groups.items():
        for what in (item for item in runs[0].figures if item not in COUNTED):
            values = [run.figures[what] for run in runs if what in run.figures]
            rows.append([name, what, show(values, 0 if all(value == int(value) for value in values) else 3)])
    return rows


def _compared(report: Report) -> list[list[str]]:
    rows = [["", "ours", "theirs", "times"]]
    rows += [[item.text, f"{item.ours:,g}", f"{item.theirs:,g}", f"{item.ratio:,g}"] for item in compare(report)]
    return rows


def _verdict(run: Run) -> str:
    if run.is_good:
        text = f"{run.name}: {run.sent:,} sent; each answered, delivered once and in order, and stored."
        return text if run.delivered or run.series else f"{text} None of it within the measured time: measure longer."
    faults = [f"{count:,} {name}" for name, count in run.faults.items() if count]
    faults += [f"{count:,} refused with {reason}" for reason, count in run.refused.items()]
    return f"{run.name}: FAULTS of {run.sent:,} sent: {', '.join(faults) or 'nothing was sent'}."


def _listed(figures: Mapping[str, float], digits: int) -> str:
    total = sum(figures.values())
    return ", ".join([*(f"{name} {figure:.{digits}f}" for name, figure in figures.items()), f"all {total:.{digits}f}"])


def _table(rows: list[list[str]]) -> list[str]:
    """First column left, figures right. An empty head is left out."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    shown = rows if any(rows[0]) else rows[1:]
    return ["  ".join([row[0].ljust(widths[0]), *(map(str.rjust, row[1:], widths[1:]))]) for row in shown]
