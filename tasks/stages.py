"""The Celery tasks of the pipeline: one a stage, drained by this process's runner of the stage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.signals import worker_shutting_down

from imserver.runtime import one_a_process
from tasks import names
from tasks.celery import app
from tasks.drain import Runner, Stage
from tasks.persist import Persist
from tasks.push.offline import OfflinePush
from tasks.push.online import OnlinePush
from tasks.transfer import Transfer
from tasks.webhooks import Webhooks

STAGE_CLASSES: dict[str, Callable[[], Stage]] = {
    "transfer": lambda: Transfer(pushes=True),
    "persist": Persist,
    "push": OnlinePush,
    "webhook": Webhooks,
    "offline_push": OfflinePush,
}
#: Of a stage that lets its entries gather, the one that makes them.
FEEDERS = {"persist": "transfer"}


@one_a_process
def get_runner(stage: str) -> Runner:
    """This process's runner of a stage."""
    feeder = FEEDERS.get(stage)
    return Runner(STAGE_CLASSES[stage](), get_runner(feeder) if feeder else None)


@app.task(name=names.DRAIN_TASKS["transfer"])
def transfer(shard: int) -> str:
    """Number, cache and hand on the messages of a shard."""
    return get_runner("transfer").drain(shard)


@app.task(name=names.DRAIN_TASKS["persist"])
def persist(shard: int) -> str:
    """Write the messages of a shard to MongoDB."""
    return get_runner("persist").drain(shard)


@app.task(name=names.DRAIN_TASKS["push"])
def push(shard: int) -> str:
    """Push the messages of a shard to connected receivers."""
    return get_runner("push").drain(shard)


@app.task(name=names.DRAIN_TASKS["webhook"])
def webhook(shard: int) -> str:
    """Call the after hooks for the messages of a shard."""
    return get_runner("webhook").drain(shard)


@app.task(name=names.DRAIN_TASKS["offline_push"])
def offline_push(shard: int) -> str:
    """Push the messages of a shard to devices that are not connected."""
    return get_runner("offline_push").drain(shard)


@worker_shutting_down.connect
def stop_runners(**_: Any) -> None:
    """A lingering runner would hold up a warm shutdown for its whole slice."""
    for stage in STAGE_CLASSES:
        get_runner(stage).stop()
