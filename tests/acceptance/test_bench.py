"""Every workload of ``manage.py bench`` runs, small and short, and finds nothing wrong. No time is asserted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from imserver.conf import BASE_DIR
from tests.benchmarks.workloads import WORKLOADS

# Every workload, with four sets of processes, beside other tests.
pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]

SMALL = {
    "--seconds": "1",
    "--warmup-seconds": "0.3",
    "--pairs": "3",
    "--rates": "50",
    "--connections": "20",
    "--members": "10",
    "--strangers": "60",
    "--history": "300,400",
    "--nodes": "2",
}


def test_every_workload_runs_and_every_message_arrives(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    options = [word for option in SMALL.items() for word in option]
    # What wants fresh processes comes first, so that they are not started twice.
    names = sorted(WORKLOADS, key=lambda name: not WORKLOADS[name].is_fresh)

    bench = subprocess.run(
        [sys.executable, "manage.py", "bench", *names, "--quick", *options, "--out", str(out)],
        cwd=BASE_DIR,
        # Other tests run beside it: no core is its own.
        env={**os.environ, "CPU_AFFINITY": "0"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert bench.returncode == 0, bench.stdout + bench.stderr
    document = orjson.loads(out.read_bytes())
    runs = {run["workload"]: run for run in document["runs"]}
    assert document["is_good"]
    assert set(runs) == set(WORKLOADS)
    assert all(run["sent"] for run in runs.values())
    # Each frame of the group is encoded once for its ten members: counted over the whole run, however much of it was measured.
    assert runs["w2a"]["figures"]["frames encoded a frame pushed"] == 0.1
    assert set(runs["w5"]["series"]) == {
        f"{what} {size}" for what in ("send", "pull newest", "pull old") for size in (300, 400)
    }
    assert runs["w6"]["figures"]["of them without a receiver there"] == 0
    assert runs["w1c"]["figures"]["connections"] == 20
    assert {path.name for path in tmp_path.glob("*.png")} == {
        f"figures-{name}.png" for name in ("latency", "throughput", "cpu", "history", "nodes-200")
    }
