"""docs/metrics.md says what imserver/metrics.py declares. ``python -m tests.unit.test_docs`` writes it again."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from imserver.conf import BASE_DIR

PAGE = BASE_DIR / "docs" / "metrics.md"
#: Where metrics are declared: the counters and histograms, and the figures that are read from Redis at each scrape.
COUNTED = BASE_DIR / "imserver" / "metrics.py"
READ_AT_SCRAPE = BASE_DIR / "imserver" / "rest" / "health.py"

TYPES = {"Counter": "counter", "Histogram": "histogram", "GaugeMetricFamily": "gauge"}

HEAD = """\
# Metrics

`GET /metrics` of the web process (port `WEB_PORT`) shows them in Prometheus' text format. With `METRICS_DIR` all
processes of a host count into files of that folder, and the page adds them up; without it, it shows the web process
alone. Gauges are read from Redis at each scrape and are the same on every host.

This page is made by `python -m tests.unit.test_docs` from `imserver/metrics.py` and `imserver/rest/health.py`.

| Metric | Type | Labels | Meaning |
|---|---|---|---|
"""


@dataclass(frozen=True)
class Metric:
    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


def declared(path: Path) -> list[Metric]:
    """The metrics a module declares. A ``#:`` comment above says more than the help text, so it is preferred."""
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    found = []
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in TYPES):
            continue
        name, text = (ast.literal_eval(argument) for argument in node.args[:2])
        labels = [*node.args[2:3], *(keyword.value for keyword in node.keywords if keyword.arg == "labels")]
        comment = lines[node.lineno - 2].strip()
        meaning = comment.removeprefix("#:").strip() if comment.startswith("#:") else f"{text}."
        names = tuple(ast.literal_eval(labels[0])) if labels else ()
        found.append((node.lineno, Metric(name, TYPES[node.func.id], names, meaning)))
    return [metric for _, metric in sorted(found, key=lambda item: item[0])]


def markdown() -> str:
    """The whole page."""
    rows = [
        f"| `{metric.name}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels)} | {metric.meaning} |"
        for metric in [*declared(COUNTED), *declared(READ_AT_SCRAPE)]
    ]
    return HEAD + "\n".join(rows) + "\n"


def test_the_metrics_page_is_current() -> None:
    assert PAGE.is_file(), "docs/metrics.md is missing: run python -m tests.unit.test_docs"
    assert PAGE.read_text(encoding="utf-8") == markdown(), "docs/metrics.md is old: run python -m tests.unit.test_docs"


def test_every_declared_metric_is_found() -> None:
    declarations = re.findall(r"^[A-Z_]+ = (?:Counter|Histogram)\(", COUNTED.read_text(encoding="utf-8"), re.MULTILINE)

    assert len(declared(COUNTED)) == len(declarations) > 10
    assert {metric.name for metric in declared(READ_AT_SCRAPE)} == {
        "im_log_entries",
        "im_online_connections",
        "im_online_users",
    }


def test_every_metric_says_its_meaning_in_a_comment() -> None:
    source = COUNTED.read_text(encoding="utf-8").splitlines()

    undocumented = [
        line
        for above, line in pairwise(source)
        if re.match(r"[A-Z_]+ = (Counter|Histogram)\(", line) and not above.startswith("#: ")
    ]

    assert undocumented == []


def test_metric_names_say_part_subject_and_unit() -> None:
    for metric in [*declared(COUNTED), *declared(READ_AT_SCRAPE)]:
        assert re.fullmatch(r"im_[a-z]+(_[a-z]+)+", metric.name), metric.name
        assert metric.kind != "counter" or metric.name.endswith("_total"), metric.name
        assert metric.kind != "histogram" or metric.name.endswith(("_seconds", "_entries", "_bytes")), metric.name


if __name__ == "__main__":
    PAGE.write_text(markdown(), encoding="utf-8")
