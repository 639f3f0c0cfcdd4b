"""Logging: a fixed sentence, facts in ``extra``. No message content and no token ever goes in."""

from __future__ import annotations

import logging
import logging.config
from typing import Any

import structlog


class NoFailedProbes(logging.Filter):
    """A failing /healthz answers who asked; it is not a fault of the request that belongs in the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        request = getattr(record, "request", None)
        return getattr(request, "path", "") != "/healthz"


def logging_config(level: str, log_format: str) -> dict[str, Any]:
    """A ``dictConfig`` for every process: one line a record on stderr, coloured text or JSON."""
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    )
    shared = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    if log_format == "json":
        shared.append(structlog.processors.format_exc_info)
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {
                "()": structlog.stdlib.ProcessorFormatter,
                "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
                "foreign_pre_chain": shared,
            }
        },
        "filters": {"no_probes": {"()": NoFailedProbes}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["no_probes"]}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            # One line a connection or request says nothing the metrics do not.
            "daphne": {"level": "WARNING"},
            "httpx": {"level": "WARNING"},
            "uvicorn": {"level": "WARNING"},
            "uvicorn.error": {"level": "WARNING"},
            "django.request": {"level": "ERROR"},
            # It says every second that it sent the sweep.
            "celery.beat": {"level": "WARNING"},
            "celery.worker.strategy": {"level": "WARNING"},
            "celery.app.trace": {"level": "WARNING"},
        },
    }


def setup_logging() -> None:
    """Apply the configuration in a process that Django's ``setup()`` does not reach in time."""
    from imserver.conf import get_config  # noqa: PLC0415  (settings imports this module before the config exists)

    config = get_config()
    logging.config.dictConfig(logging_config(config.log_level, config.log_format))
