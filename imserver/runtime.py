"""How the interpreter of a long-running process is set."""

from __future__ import annotations

import gc

#: Containers made before the youngest are looked through; the interpreter's own 700 come with every second message.
COLLECT_AFTER = 20_000


def settle() -> None:
    """Called once a process is up: what it has loaded stays, so garbage collection need not look at it again and again.

    Messages themselves make no cycles; what does (exceptions, finished tasks) is still found, later.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 20)
