"""``python -m tests.benchmarks.loadgen``: the load generator, a process of its own so that its CPU is told apart.

stdin: the plan, a JSON line; later an empty line: begin. stdout: one JSON line an event, in this order: ``connecting`` …,
``connected``, ``measuring``, ``progress`` …, ``measured``, ``result``; or ``failed``, at any time, and exit code 1.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import sys
from typing import Any

import orjson
import uvloop

from tests.benchmarks.load import Load
from tests.benchmarks.plan import LoadError, Plan
from tests.benchmarks.workloads import WORKLOADS


def notify(event: str, facts: dict[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps({"event": event, **facts}) + b"\n")
    sys.stdout.buffer.flush()


async def run(plan: Plan) -> None:
    load = Load(plan, notify)
    try:
        await load.connect()
        notify("connected", {})
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        # Nothing here makes cycles, and a collection is a pause that would be counted as the server's.
        gc.collect()
        gc.disable()
        await WORKLOADS[plan.workload].drive(load)
        await load.settle()
        notify("result", load.result())
    finally:
        load.close()


def main() -> None:
    plan = Plan.from_json(sys.stdin.readline())
    # A connection is a file.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(plan))
    except (LoadError, OSError, TimeoutError) as error:
        notify("failed", {"reason": str(error) or type(error).__name__})
        sys.exit(1)


if __name__ == "__main__":
    main()
