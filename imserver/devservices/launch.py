"""Runs a command that dies with its parent: ``python launch.py PARENT_PID CORES COMMAND...``.

Linux kills a process that asked for it (PR_SET_PDEATHSIG) when the thread that forked it ends, even by SIGKILL, so
neither tests nor ``up`` leak servers. The request must be made in the child. A program that is executed in between does
it without Popen's ``preexec_fn``, which is unsafe beside threads and warned about since Python 3.12. It costs 10 ms.

Whoever starts a command this way does so from a thread that lives as long as the command shall live.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
ALL_CORES = "all"
COMMAND_NOT_RUN = 127  # as shells say it


def launcher(command: Sequence[str], cores: Iterable[int] = ()) -> list[str]:
    """``command`` as a child that does not outlive this process. stderr joins stdout, so lines keep their order.

    Args:
        cores: processor cores that it may run on; none: all that this process may.
    """
    # -I -S: nothing of the environment or of site-packages is needed, and it halves the time.
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(os.getpid()), _as_text(cores), *command]


def _as_text(cores: Iterable[int]) -> str:
    return ",".join(map(str, sorted(cores))) or ALL_CORES


def adopt_orphans() -> None:
    """Grandchildren whose parent dies become children of this process instead of the system's, and can be found."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(parent_pid: int) -> None:
    if sys.platform != "linux":
        return
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    # The parent may have ended before the request was made: then nobody will ever send the signal.
    if os.getppid() != parent_pid:
        sys.exit(COMMAND_NOT_RUN)


def main(arguments: Sequence[str]) -> None:
    parent_pid, cores, *command = arguments
    die_with_parent(int(parent_pid))
    os.dup2(1, 2)
    if cores != ALL_CORES:
        try:
            os.sched_setaffinity(0, set(map(int, cores.split(","))))
        except OSError as error:  # a sandbox that forbids it, or a machine that has changed: slower, and no worse
            sys.stderr.write(f"not kept on cores {cores}: {error.strerror}\n")
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell is the point
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.exit(COMMAND_NOT_RUN)


if __name__ == "__main__":
    main(sys.argv[1:])
