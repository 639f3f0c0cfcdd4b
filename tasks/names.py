"""Task and queue names, written out so that moving a module keeps queued work valid."""

from __future__ import annotations

#: Stages in the order of the flow.
STAGES = ("transfer", "persist", "push", "webhook", "offline_push")

#: Stage -> name of its Celery task. The task takes a shard number and nothing else.
DRAIN_TASKS = {
    "transfer": "msg.transfer",
    "persist": "msg.persist",
    "push": "msg.push",
    "webhook": "msg.webhook",
    "offline_push": "msg.offline_push",
}

SWEEP = "maintenance.sweep"
FLUSH_READ_SEQS = "maintenance.flush_read_seqs"
FORGET_DEAD_NODES = "maintenance.forget_dead_nodes"
REMOVE_EXPIRED_UPLOADS = "maintenance.remove_expired_uploads"

#: Channel-layer event that carries a node's results back.
RESULTS_EVENT = "push.results"

MAINTENANCE_QUEUE = "maintenance"


def queue_of(stage: str, shard: int) -> str:
    """The queue of a shard of a stage; always the same one."""
    return f"{stage}.{shard:02d}"


def all_queues(shards: int) -> list[str]:
    return [queue_of(stage, shard) for stage in STAGES for shard in range(shards)] + [MAINTENANCE_QUEUE]
