"""One stream of log lines for all processes: each line behind the (coloured) name of who said it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TextIO

KEPT_LINES = 200
LONGEST_LINE_BYTES = 1 << 16
COLOURS = (36, 32, 35, 33, 34, 96, 92, 95, 93, 94)
RESET = "\033[0m"

Render = Callable[[str], str | None]


def as_is(line: str) -> str | None:
    return line


def has_colours(out: TextIO, environ: Mapping[str, str]) -> bool:
    """Colours for people at a terminal who did not decline them (https://no-color.org)."""
    return out.isatty() and not environ.get("NO_COLOR")


class Console:
    """Where all streams write. A terminal that went away must not spoil the tidy end: its errors are dropped."""

    def __init__(self, out: TextIO, environ: Mapping[str, str] = os.environ) -> None:
        self._out = out
        self._has_colours = has_colours(out, environ)
        self._width = 0
        self._names: dict[str, int] = {}

    def reserve(self, names: Iterable[str]) -> None:
        """Makes the column of names wide enough for all of them from the first line on."""
        for name in names:
            self._names.setdefault(name, COLOURS[len(self._names) % len(COLOURS)])
        self._width = max(map(len, self._names), default=0)

    def write(self, name: str, line: str) -> None:
        self.reserve([name])
        shown = f"{name:<{self._width}} |"
        if self._has_colours:
            shown = f"\033[{self._names[name]}m{shown}{RESET}"
        self.write_plain(f"{shown} {line}\n")

    def write_plain(self, text: str) -> None:
        try:
            self._out.write(text)
            self._out.flush()
        except (OSError, ValueError):  # the reader has gone, or the stream is closed
            return


class LogStream:
    """What one process says. Callable as circus wants a stream to be: with a mapping that holds bytes in ``data``."""

    def __init__(self, name: str, console: Console, render: Render = as_is) -> None:
        self.name = name
        self._console = console
        self._render = render
        self._kept: deque[str] = deque(maxlen=KEPT_LINES)
        self._rest = b""

    def __call__(self, data: Mapping[str, Any]) -> None:
        self.feed(data["data"])

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._say(line)
        if len(self._rest) > LONGEST_LINE_BYTES:
            self.close()

    def close(self) -> None:
        """Says what has no line end yet. The stream may go on after it."""
        rest, self._rest = self._rest, b""
        if rest:
            self._say(rest)

    def notice(self, text: str) -> None:
        """A line of the supervisor about this process."""
        self._console.write(self.name, text)

    def tail(self, count: int) -> list[str]:
        return list(self._kept)[-count:]

    def _say(self, raw: bytes) -> None:
        line = raw.decode("utf-8", errors="replace").rstrip("\r")
        self._kept.append(line)
        shown = self._render(line)
        if shown is not None:
            self._console.write(self.name, shown)
