"""A bar on a terminal; elsewhere one line to standard error for each thing that begins."""

from __future__ import annotations

import sys

from tqdm import tqdm

#: What is being done, how much of it, the speed, and the time that it has taken.
FORMAT = "{desc} |{bar:24}| {percentage:3.0f}%{postfix} [{elapsed}]"


class Bar:
    """``begin`` names what is done now, ``advance`` tells how much of it, ``count`` how many cases are done."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._count = ""
        self._bar = tqdm(
            total=100,
            leave=False,
            disable=not self._is_terminal,
            bar_format=FORMAT,
            dynamic_ncols=True,
            file=sys.stderr,
        )

    def count(self, done: int, cases: int) -> None:
        self._count = f"[{done}/{cases}] " if cases > 1 else ""

    def begin(self, text: str) -> None:
        if self._is_terminal:
            self._bar.reset()
            self._bar.set_description_str(self._count + text, refresh=False)
            self._show(0.0, "")
        else:
            sys.stderr.write(f"{self._count}{text}\n")
            sys.stderr.flush()

    def advance(self, share: float, fact: str = "") -> None:
        if self._is_terminal:
            self._show(share, fact)

    def _show(self, share: float, fact: str) -> None:
        self._bar.n = round(100 * min(share, 1.0))
        self._bar.set_postfix_str(fact)

    def end(self) -> None:
        self._bar.close()
