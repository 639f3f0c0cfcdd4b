"""``manage.py up``: the whole system on one machine, in one terminal."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from django.core.management.base import BaseCommand

from imserver.conf import get_config
from imserver.devservices.errors import DevServiceError
from imserver.devservices.logstream import Console


class Command(BaseCommand):
    help = "Start stores, gateway, web, workers, beat and Flower; wait until all are healthy; Ctrl-C stops all."
    requires_system_checks: list[str] = []  # noqa: RUF012 - Django's own spelling; `prepare` runs them

    def handle(self, *args: Any, **options: Any) -> None:
        # Until the stack has handlers of its own, there is nothing to stop: just end quietly.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            from imserver.devservices.stack import run_stack  # noqa: PLC0415 - half a second that Ctrl-C may hit

            # .env is in os.environ by now: conf read it.
            asyncio.run(run_stack(get_config(), os.environ, Console(sys.stdout)))
        except KeyboardInterrupt:
            return
        except DevServiceError as error:
            self.stderr.write(str(error))
            sys.exit(1)
