"""One of several processes that allocate seqs at once, for test_seq_processes.py."""

from __future__ import annotations

import os

from imserver.storage import clients, seq
from imserver.storage.clients import get_mongo, get_redis
from imserver.storage.seq import SeqAllocator


def start(environ: dict[str, str]) -> None:
    """First thing in the process: before the configuration is read."""
    os.environ.update(environ)
    seq.RETRY_WAIT_SECONDS = 0.02
    seq.RETRY_LIMIT = 2000
    seq.RESERVE_SECONDS = 20
    clients._MONGO_OPTIONS.update(serverSelectionTimeoutMS=20_000, connectTimeoutMS=20_000)


def allocate(conversation_id: str, sizes: list[int]) -> list[tuple[int, int]]:
    """(first, last) of each allocation."""
    allocator = SeqAllocator(get_redis(), get_mongo())
    taken = []
    for size in sizes:
        before = allocator.allocate(conversation_id, size)
        taken.append((before + 1, before + size))
    return taken
