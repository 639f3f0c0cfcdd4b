"""Which processor cores the processes of one machine stay on.

A message goes gateway, Valkey, worker, Valkey, gateway, each of which sleeps in between. Left alone, the system wakes each on
whichever core is idle, with cold caches and an interrupt to the other core; at 200 messages a second that is a sixth of
all processor time (docs/performance.md). Valkey and the worker answer each other in turns and never both have work then,
so they share a core.
"""

from __future__ import annotations

import os
import sys

from imserver.conf import Config

#: With more cores there is something to lose: two processes that could run side by side at full load.
CORES = 2


def home_cores(config: Config, name: str, *, gateways: int = 1) -> frozenset[int]:
    """The cores for a process of ``up``, by its name; empty: any.

    Args:
        gateways: how many nodes run on this machine. Several share the load best if nobody ties them down.
    """
    if not config.cpu_affinity or sys.platform != "linux" or config.worker_processes > 1:
        return frozenset()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) != CORES:
        return frozenset()
    first, second = cores
    if name == "valkey" or name.startswith("worker"):
        return frozenset({second})
    if name.startswith("gateway") and gateways == 1:
        return frozenset({first})
    return frozenset()
