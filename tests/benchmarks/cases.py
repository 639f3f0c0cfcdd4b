"""What a call of the command measures: options, and the cases that they come to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.benchmarks.report import name_of
from tests.benchmarks.workloads import WORKLOADS, Workload

#: Measured when nothing is named: what says most for the time it takes.
USUAL = ("w1a", "w1b", "w1c", "w2a", "w2b", "chain", "batching")
ALL = "all"


@dataclass(frozen=True)
class Options:
    workloads: list[str]
    runs: int = 1
    pairs: int = 50
    window: int = 20
    rates: tuple[float, ...] = (200.0, 1000.0)
    seconds: float = 20.0
    warmup_seconds: float = 3.0
    idle_seconds: float = 5.0
    text_bytes: int = 100
    codec: str = "js"
    #: w1c
    connections: int = 10_000
    crowd_idle_seconds: float = 30.0
    #: w2
    members: int = 500
    group_window: int = 4
    group_rate: float = 10.0
    #: w3
    hot_window: int = 100
    #: w4
    strangers: int = 400
    #: w5
    history: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    #: w6
    nodes: tuple[int, ...] = (1, 2, 5, 10, 20)
    node_rates: tuple[float, ...] = (200.0, 3000.0)
    #: Also so many for each node, so that a node has the same to do however many there are; 0: not measured.
    per_node: float = 10.0
    #: Nodes that users are on; 0: all.
    spread: int = 0
    #: w1c and batching.
    base_rate: float = 200.0
    #: chain: it numbers a message when its first task runs, so far fewer on their way saturate it.
    chain_window: int = 2
    #: A folder, or a file that ends in ``.json``; nothing: ``bench`` in the data folder.
    out: str = ""


@dataclass(frozen=True)
class Case:
    """One workload with what may differ from case to case."""

    workload: Workload
    rate: float = 0.0
    window: int = 0
    gateways: int = 1

    @property
    def name(self) -> str:
        return name_of(self.workload.name, self.rate, self.gateways)


def pick_workloads(names: list[str]) -> list[str]:
    """The workloads meant: none is the usual ones, ``all`` is all, ``w1`` is all that begin so.

    Raises ValueError for a name that means nothing.
    """
    picked: list[str] = []
    for name in names or USUAL:
        found = [known for known in WORKLOADS if name == ALL or known.startswith(name)]
        if not found:
            raise ValueError(f"unknown workload {name}: there are {', '.join(WORKLOADS)} and {ALL}")
        picked += [known for known in ([name] if name in WORKLOADS else found) if known not in picked]
    return picked


def cases_of(options: Options) -> Iterator[Case]:
    for name in options.workloads:
        workload = WORKLOADS[name]
        if name == "w1b":
            yield from (Case(workload, rate=rate) for rate in options.rates)
        elif name == "w6":
            for count in options.nodes:
                each = [options.per_node * count] if options.per_node else []
                yield from (Case(workload, rate=rate, gateways=count) for rate in sorted({*options.node_rates, *each}))
        elif workload.is_open_loop:
            yield Case(workload, rate=options.group_rate if workload.cast == "group" else options.base_rate)
        else:
            yield Case(workload, window=_window_of(workload, options))


def _window_of(workload: Workload, options: Options) -> int:
    if workload.stack == "chain":
        return options.chain_window
    if workload.cast == "strangers":
        # In all, as there is no chat that it could be of.
        return options.pairs * options.window // 10 or 1
    return {"group": options.group_window, "one_pair": options.hot_window}.get(workload.cast, options.window)
