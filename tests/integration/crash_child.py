"""Runs the stages once in a process of its own and dies by SIGKILL at a named step: ``python -m … <step> <call number>``.

Only the test's process is patched: the product knows nothing of it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from pymongo.collection import Collection

from imserver.conf import get_config
from imserver.storage import clients, logs, read_seq, seq
from imserver.storage.clients import get_redis
from imserver.storage.lean_redis import LeanRedis
from imserver.storage.logs import Lease
from imserver.storage.scripts import Script
from tasks import persist, transfer
from tasks.drain import Stage
from tasks.persist import Persist
from tasks.transfer import Transfer


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def crash_around(
    owner: Any, name: str, *, after: bool, nth: int, applies: Callable[..., bool] = lambda *_: True
) -> None:
    """Make the nth matching call of a function deadly, before or after it did its work."""
    original = getattr(owner, name)
    seen = 0

    def deadly(*args: Any, **kwargs: Any) -> Any:
        nonlocal seen
        if not applies(*args):
            return original(*args, **kwargs)
        seen += 1
        if seen == nth and not after:
            die()
        result = original(*args, **kwargs)
        if seen == nth:
            die()
        return result

    setattr(owner, name, deadly)


def of_script(name: str) -> Callable[..., bool]:
    return lambda script, *_: script.name == name


def of_collection(name: str) -> Callable[..., bool]:
    return lambda collection, *_: collection.name == name


#: Step -> what to patch. "…/after" dies when the step is done but nobody has heard of it.
STEPS: dict[str, tuple[Any, str, Callable[..., bool]]] = {
    "read": (logs, "read_after", lambda *_: True),
    "lock for a refill": (Script, "run", of_script("malloc")),
    "reserve": (Collection, "find_one_and_update", of_collection("seq")),
    "store the range": (Script, "run", of_script("refill")),
    "commit": (Script, "run", of_script("commit")),
    "wake the next stage": (transfer, "wake", lambda *_: True),
    "insert or update blocks": (Collection, "bulk_write", of_collection("msg")),
    "create conversations": (Collection, "bulk_write", of_collection("conversation")),
    "trim": (Script, "run", of_script("trim")),
}


def main(step: str, nth: int) -> None:
    name, _, moment = step.partition("/")
    owner, function, applies = STEPS[name]
    # A slow MongoDB would count as away, and what waits for it is not looked at again here.
    seq.RESERVE_SECONDS = read_seq.SEED_SECONDS = 20
    clients._MONGO_OPTIONS.update(serverSelectionTimeoutMS=20_000, connectTimeoutMS=20_000)
    crash_around(owner, function, after=moment == "after", nth=nth, applies=applies)
    transfer_stage, persist_stage = Transfer(), Persist()
    for stage in (transfer_stage, persist_stage):
        for shard in range(get_config().shards):
            run(stage, shard)


def run(stage: Stage, shard: int) -> None:
    client = get_redis()
    lease = Lease.acquire(client, stage.name, shard)
    assert lease is not None
    lean = LeanRedis(repeats=True)
    while heads := logs.read_after(lean, {lease.log: logs.HEAD}, 20, None):
        for _log, entries in heads:
            stage.process(lease, entries)
    lease.release(client)


if __name__ == "__main__":
    assert persist
    main(sys.argv[1], int(sys.argv[2]))
