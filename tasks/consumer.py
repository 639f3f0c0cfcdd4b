"""Celery's consumer, which survives a broker connection that breaks while it is being closed."""

from __future__ import annotations

import logging

from celery.worker.consumer import Consumer

logger = logging.getLogger(__name__)


class ResilientConsumer(Consumer):
    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Celery 5.7 closes the broken connection here and lets only connection errors pass.

        When Redis goes away during an acknowledgement, kombu fails with an AttributeError instead, which ended the worker.
        """
        try:
            super().on_connection_error_after_connected(exc)
        except AttributeError as error:
            logger.warning("broken broker connection not closed", extra={"action": "broker", "error": repr(error)})
