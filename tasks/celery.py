"""The Celery app: wiring only. ``celery -A tasks worker`` finds it here."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from functools import partial
from typing import Any

from celery import Celery
from celery.schedules import schedule
from celery.signals import setup_logging as celery_setup_logging
from celery.signals import worker_ready
from kombu import Exchange, Queue

from imserver.conf import get_config
from imserver.log import setup_logging
from imserver.runtime import settle
from tasks import names

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "imserver.settings")

config = get_config()


def every(seconds: float) -> schedule:
    """Beat asks the time some ten times a tick; the app's own clock converts it between time zones, a fifth of beat's work."""
    return schedule(seconds, nowfun=partial(datetime.now, UTC))


# No Django fix-up: the stages use PyMongo and Redis, so there is no ORM connection to look after around each task.
app = Celery("imserver", broker=config.broker, fixups=[])
app.conf.update(
    include=["tasks.stages", "tasks.maintenance", "tasks.health"],
    task_queues=[Queue(name, Exchange(name), routing_key=name) for name in names.all_queues(config.shards)],
    task_default_queue=names.MAINTENANCE_QUEUE,
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    task_track_started=True,
    task_serializer="json",
    accept_content=["json"],
    worker_consumer="tasks.consumer:ResilientConsumer",
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    worker_send_task_events=True,
    # A drain task may run for a slice; fetching ahead would hold wake-ups of idle shards behind it.
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={
        # One list a queue instead of four: a worker blocks on all of them at once.
        "priority_steps": [0],
        "global_keyprefix": config.key_prefix,
        "socket_timeout": 10,
        "socket_connect_timeout": 3,
        "socket_keepalive": True,
        # Tasks are hints that are acknowledged when taken; nothing has to come back late.
        "visibility_timeout": 60,
        "max_retries": 2,
        "interval_start": 0,
        "interval_step": 0.1,
        "interval_max": 0.2,
    },
    task_publish_retry_policy={"max_retries": 1, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.2},
    beat_schedule={
        "wake shards that wait": {"task": names.SWEEP, "schedule": every(1), "options": {"expires": 5}},
        "write read seqs": {"task": names.FLUSH_READ_SEQS, "schedule": every(4), "options": {"expires": 10}},
        "forget dead gateway nodes": {
            "task": names.FORGET_DEAD_NODES,
            "schedule": every(4),
            "options": {"expires": 10},
        },
        "remove expired uploads": {
            "task": names.REMOVE_EXPIRED_UPLOADS,
            "schedule": every(600),
            "options": {"expires": 300},
        },
    },
    beat_scheduler="tasks.scheduler:SleepingScheduler",
    beat_max_loop_interval=1,
)


@worker_ready.connect
def settle_interpreter(**_: Any) -> None:
    settle()


@celery_setup_logging.connect
def configure_logging(**_: Any) -> None:
    setup_logging()
