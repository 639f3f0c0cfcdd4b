"""``manage.py bench``: how fast it is, and what a message costs, on this machine. For developers: lives in ``tests/``."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from imserver.conf import get_config
from imserver.devservices.errors import DevServiceError

#: A text holds at least the message's number.
LEAST = {"seconds": 0.1, "warmup_seconds": 0, "pairs": 1, "window": 1, "text_bytes": 9}
QUICK = {"seconds": 5.0, "warmup_seconds": 1.0, "idle_seconds": 2.0}


class Command(BaseCommand):
    help = "Start the product on stores of its own, put load on it, check every message, print and keep the figures."
    requires_system_checks: list[str] = []  # noqa: RUF012 - Django's own spelling; `prepare` runs them

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help="w1a, w1b …; none: all")
        parser.add_argument("--seconds", type=float, help="measured time of each run (20)")
        parser.add_argument("--warmup-seconds", type=float, help="time before it that does not count (3)")
        parser.add_argument("--quick", action="store_true", help="5 s each, 1 s to warm up: to see that it works")
        parser.add_argument("--pairs", type=int, help="pairs of users that chat (50)")
        parser.add_argument("--window", type=int, help="w1a: messages of a pair on their way at once (20)")
        parser.add_argument("--rates", help="w1b: messages a second in all; several: 200,1000 (200)")
        parser.add_argument("--text-bytes", type=int, help="length of a message's text (100)")
        parser.add_argument("--codec", choices=("js", "go"), help="envelope of the clients (js)")
        parser.add_argument("--out", help="folder or .json file for the figures (bench in the data folder)")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            from tests.benchmarks.load import LoadError  # noqa: PLC0415 - not there where only the product is installed
            from tests.benchmarks.runner import Bench, Options  # noqa: PLC0415
            from tests.benchmarks.workloads import WORKLOADS  # noqa: PLC0415
        except ImportError as error:
            raise CommandError(f"bench needs a checkout with requirements-dev.txt installed: {error}") from error
        unknown = set(options["workloads"]) - set(WORKLOADS)
        if unknown:
            raise CommandError(f"unknown workload {', '.join(sorted(unknown))}: there are {', '.join(WORKLOADS)}")
        given = {name: options[name] for name in Options.__annotations__ if options.get(name) is not None}
        given |= {"workloads": options["workloads"] or list(WORKLOADS)}
        if "rates" in given:
            given["rates"] = _rates(given["rates"])
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


def _rates(text: str) -> tuple[float, ...]:
    try:
        rates = tuple(float(word) for word in text.split(","))
    except ValueError:
        raise CommandError(f"--rates {text}: expected numbers such as 200,1000") from None
    if min(rates) <= 0:
        raise CommandError(f"--rates {text}: must be above 0")
    return rates
