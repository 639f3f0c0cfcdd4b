"""A timer that is exact to microseconds: uvloop's own are in whole milliseconds."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable
from types import TracebackType
from typing import NoReturn, Self

CLOCK_MONOTONIC = 1
TFD_TIMER_ABSTIME = 1


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("at", _TimeSpec))


_libc = ctypes.CDLL(None, use_errno=True)


class ExactTimer:
    """Linux's timerfd, watched by the running loop within the ``with`` block. ``on_time`` is called in the loop."""

    def __init__(self, on_time: Callable[[], None]) -> None:
        self._on_time = on_time
        self._spec = _TimerSpec()
        self._fd = -1

    def set(self, moment: float) -> None:
        """Ring once at ``moment``, in seconds of ``time.monotonic()``; soon, when that is over. An earlier setting is forgotten."""
        self._spec.at.seconds = int(moment)
        self._spec.at.nanoseconds = int(moment % 1 * 1e9)
        if _libc.timerfd_settime(self._fd, TFD_TIMER_ABSTIME, ctypes.byref(self._spec), None) < 0:
            _raise_error()

    def _ring(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return  # set anew since the loop was told of it
        self._on_time()

    def __enter__(self) -> Self:
        """Raises OSError when no further file can be opened."""
        self._fd = _libc.timerfd_create(CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            _raise_error()
        asyncio.get_running_loop().add_reader(self._fd, self._ring)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)


def _raise_error() -> NoReturn:
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code))
