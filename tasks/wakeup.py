"""Wake-ups: a Celery message that carries a shard number. Only a hint: losing, doubling or delaying one costs nothing.

Who publishes was told to by a script that set the wake-up key, so at most one waits for each shard and stage.
"""

from __future__ import annotations

import asyncio
import logging

import redis
from kombu.exceptions import OperationalError

from imserver import metrics
from tasks import names
from tasks.celery import app

logger = logging.getLogger(__name__)

_background: set[asyncio.Task[None]] = set()


def wake(stage: str, shard: int) -> None:
    """Publish the wake-up of a shard. A broker that is away is logged: the sweep repeats the wake-up."""
    try:
        app.send_task(names.DRAIN_TASKS[stage], args=[shard], queue=names.queue_of(stage, shard))
    except (OperationalError, redis.RedisError, OSError) as error:
        logger.warning(
            "wake-up not published", extra={"action": "wake", "stage": stage, "shard": shard, "error": repr(error)}
        )
        return
    metrics.WAKEUPS.labels(stage).inc()


def wake_soon(stage: str, shard: int) -> None:
    """The same from an event loop, without waiting: publishing blocks, so it runs on a thread."""
    task = asyncio.get_running_loop().create_task(asyncio.to_thread(wake, stage, shard))
    _background.add(task)
    task.add_done_callback(_background.discard)
