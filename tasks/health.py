"""A worker's signs of life: which queues it serves, written every few seconds while its consumer runs."""

from __future__ import annotations

import logging
import threading
from typing import Any

import redis
from celery.signals import worker_ready, worker_shutdown

from imserver.storage import process_health
from imserver.storage.clients import get_redis

logger = logging.getLogger(__name__)

_stop = threading.Event()


def _beat(name: str, queues: list[str]) -> None:
    while True:
        try:
            process_health.beat_worker(get_redis(), name, queues)
        except redis.RedisError as error:
            logger.warning("sign of life not written", extra={"action": "worker_beat", "error": repr(error)})
        if _stop.wait(process_health.WORKER_BEAT_SECONDS):
            return


@worker_ready.connect
def start_beating(sender: Any, **_: Any) -> None:
    queues = [queue.name for queue in sender.task_consumer.queues]
    threading.Thread(target=_beat, args=(sender.hostname, queues), name="worker-beat", daemon=True).start()


@worker_shutdown.connect
def stop_beating(sender: Any, **_: Any) -> None:
    _stop.set()
    try:
        process_health.remove_worker(get_redis(), sender.hostname)
    except redis.RedisError as error:
        logger.warning("sign of life not removed; it expires", extra={"action": "worker_beat", "error": repr(error)})
