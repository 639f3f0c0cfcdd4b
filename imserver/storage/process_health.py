"""Signs of life of the Celery side, for /healthz.

``WORKER:<name>``: JSON list of the queues it serves, expiring; ``SWEPT_AT``: ms of the last task that went from beat
through the broker to a worker (a worker can be alive and deaf, so a sign of life alone proves little).
"""

from __future__ import annotations

import orjson
import redis
import redis.asyncio

from imserver.clock import now_ms
from imserver.conf import get_config
from imserver.storage import keys

WORKER_BEAT_SECONDS = 3
WORKER_TTL_MS = 10_000
#: The sweep runs every second; older than this, beat, broker or workers do not work.
SWEEP_LATE_MS = 15_000


def beat_worker(client: redis.Redis, name: str, queues: list[str]) -> None:
    client.set(keys.worker(name), orjson.dumps(queues), px=WORKER_TTL_MS)


def remove_worker(client: redis.Redis, name: str) -> None:
    client.delete(keys.worker(name))


def note_sweep(client: redis.Redis) -> None:
    client.set(keys.swept_at(), now_ms())


async def workers_by_queue(client: redis.asyncio.Redis) -> dict[str, list[str]]:
    """Queue -> names of the workers that serve it."""
    found: dict[str, list[str]] = {}
    async for key in client.scan_iter(match=keys.worker("*"), count=1000):
        value = await client.get(key)
        if value is None:
            continue
        name = key.decode().removeprefix(keys.worker(""))
        for queue in orjson.loads(value):
            found.setdefault(queue, []).append(name)
    return found


async def queue_lengths(broker: redis.asyncio.Redis, queues: list[str]) -> list[int]:
    """Tasks that wait in each queue of a Redis broker."""
    pipe = broker.pipeline(transaction=False)
    for queue in queues:
        pipe.llen(get_config().key_prefix + queue)
    return [int(length) for length in await pipe.execute()]


async def sweep_age_ms(client: redis.asyncio.Redis) -> int | None:
    """Time since the last sweep; None when there never was one."""
    value = await client.get(keys.swept_at())
    return None if value is None else now_ms() - int(value)
