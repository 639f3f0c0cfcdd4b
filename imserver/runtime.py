"""How the interpreter of a long-running process is set, and what there is one of in it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from threading import Condition
from typing import ParamSpec, TypeVar

from cachetools import cached

P = ParamSpec("P")
T = TypeVar("T")

#: Containers made before the youngest are looked through; the interpreter's own 700 come with every second message.
COLLECT_AFTER = 20_000


def one_a_process(make: Callable[P, T]) -> Callable[P, T]:
    """Decorator: made at the first call and kept. Threads whose first calls come at the same time get the same one, which
    ``functools.cache`` does not promise."""
    return cached({}, condition=Condition())(make)


def settle() -> None:
    """Called once a process is up: what it has loaded stays, so garbage collection need not look at it again and again.

    Messages themselves make no cycles; what does (exceptions, finished tasks) is still found, later.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 20)
