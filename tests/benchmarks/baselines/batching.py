"""The product's Celery app with OpenIM's batching rule: messages gather for 100 ms before they are handled.

Its consumer hands a batch on when 500 messages are there or a ticker of 100 ms strikes. Here the ticker alone does; a
rate that would fill 500 sooner is not what this is for.
``celery -A tests.benchmarks.baselines.batching worker`` runs it; nothing else differs.
"""

from __future__ import annotations

from tasks.celery import app
from tasks.transfer import Transfer

GATHER_MS = 100

Transfer.gather_ms = GATHER_MS

__all__ = ["app"]
