"""``manage.py bench``: how fast it is, and what a message costs, on this machine. For developers: lives in ``tests/``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from imserver.conf import get_config
from imserver.devservices.errors import DevServiceError

#: A text holds at least the message's number.
LEAST = {
    "seconds": 0.1,
    "warmup_seconds": 0,
    "runs": 1,
    "pairs": 1,
    "window": 1,
    "text_bytes": 9,
    "connections": 2,
    "members": 2,
    "strangers": 3,
    "chain_window": 1,
    "per_node": 0,
}
QUICK: dict[str, Any] = {
    "seconds": 3.0,
    "warmup_seconds": 1.0,
    "idle_seconds": 1.0,
    "crowd_idle_seconds": 1.0,
    "pairs": 10,
    "connections": 200,
    "members": 50,
    "strangers": 100,
    "history": (1000, 2000),
    "nodes": (1, 2),
    "node_rates": (200.0,),
    "per_node": 0.0,
}
#: Options that are several numbers, and what one of them may be.
LISTS: dict[str, Callable[[str], float]] = {"rates": float, "history": int, "nodes": int, "node_rates": float}
#: The least history is one that w5 can pull old messages of.
LEAST_OF_LISTS = {"rates": 0.001, "history": 300, "nodes": 1, "node_rates": 0.001}


class Command(BaseCommand):
    help = "Start the product on stores of its own, put load on it, check every message, print and keep the figures."
    requires_system_checks: list[str] = []  # noqa: RUF012 - Django's own spelling; `prepare` runs them

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "workloads",
            nargs="*",
            metavar="WORKLOAD",
            help="w1a, w1b …; w1: all of w1; all; none: w1, w2 and baselines",
        )
        parser.add_argument("--runs", type=int, help="measure each so often; shows median and spread (1)")
        parser.add_argument("--seconds", type=float, help="measured time of each run (20)")
        parser.add_argument("--warmup-seconds", type=float, help="time before it that does not count (3)")
        parser.add_argument("--quick", action="store_true", help="small and 3 s each: to see that it works")
        parser.add_argument("--pairs", type=int, help="pairs of users that chat (50)")
        parser.add_argument("--window", type=int, help="w1a: messages of a pair on their way at once (20)")
        parser.add_argument("--rates", help="w1b: messages a second in all (200,1000)")
        parser.add_argument("--text-bytes", type=int, help="length of a message's text (100)")
        parser.add_argument("--codec", choices=("js", "go"), help="envelope of the clients (js)")
        parser.add_argument("--connections", type=int, help="w1c: users who are connected (10000)")
        parser.add_argument("--members", type=int, help="w2: members of the group (500)")
        parser.add_argument("--strangers", type=int, help="w4: users, each two of whom can meet once (400)")
        parser.add_argument("--chain-window", type=int, help="chain: as --window, for the chain of tasks (2)")
        parser.add_argument("--history", help="w5: messages in a conversation (10000,100000,1000000)")
        parser.add_argument("--nodes", help="w6: gateway processes (1,2,5,10,20)")
        parser.add_argument("--node-rates", help="w6: messages a second in all (200,3000)")
        parser.add_argument("--per-node", type=float, help="w6: and so many for each node (10); 0: leave that out")
        parser.add_argument("--spread", type=int, help="w6: put users on so many of the nodes only (all)")
        parser.add_argument("--out", help="folder or .json file for figures and pictures (bench in the data folder)")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            from tests.benchmarks.cases import Options, pick_workloads  # noqa: PLC0415 - only where there is a checkout
            from tests.benchmarks.plan import LoadError  # noqa: PLC0415
            from tests.benchmarks.runner import Bench  # noqa: PLC0415
        except ImportError as error:
            raise CommandError(f"bench needs a checkout with requirements-dev.txt installed: {error}") from error
        given = {name: options[name] for name in Options.__annotations__ if options.get(name) is not None}
        try:
            given["workloads"] = pick_workloads(options["workloads"])
        except ValueError as error:
            raise CommandError(str(error)) from error
        given |= {name: _numbers(name, given[name]) for name in LISTS if name in given}
        for name, least in LEAST.items():
            if given.get(name, least) < least:
                raise CommandError(f"--{name.replace('_', '-')} {given[name]}: must be at least {least:g}")
        try:
            bench = Bench(Options(**{**(QUICK if options["quick"] else {}), **given}), get_config())
            is_good = bench.run()
        except KeyboardInterrupt:
            sys.exit(130)
        except (LoadError, DevServiceError, AssertionError) as error:
            raise CommandError(str(error)) from error
        if not is_good:
            sys.exit(1)


def _numbers(name: str, text: str) -> tuple[float, ...]:
    option = name.replace("_", "-")
    try:
        numbers = tuple(LISTS[name](word) for word in text.split(","))
    except ValueError:
        raise CommandError(f"--{option} {text}: expected numbers such as 200,1000") from None
    if min(numbers) <= 0:
        raise CommandError(f"--{option} {text}: must be above 0")
    if min(numbers) < LEAST_OF_LISTS[name]:
        raise CommandError(f"--{option} {text}: must be at least {LEAST_OF_LISTS[name]:g}")
    return numbers
