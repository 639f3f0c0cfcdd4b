"""The data folder: made, writable, used by one process at a time; and ``up.env``, the address card of an ``up``."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import psutil

from imserver.devservices.errors import DataFolderInUse, DataFolderUnusable
from imserver.devservices.ports import describe_process

LOCK_FILE = "up.lock"
ENV_FILE = "up.env"
PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700


class DataFolder:
    """Holds ``path`` from ``open()`` to ``close()``. When the process dies the kernel frees it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def open(self) -> None:
        """Raises ``DataFolderUnusable`` or ``DataFolderInUse``."""
        try:
            self.path.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
            descriptor = os.open(self.path / LOCK_FILE, os.O_RDWR | os.O_CREAT, PRIVATE_FILE)
        except OSError as error:
            raise DataFolderUnusable(
                f"The data folder {self.path} cannot be written ({error.strerror}): make it writable for this account,"
                " or set DATA_DIR to a folder that is."
            ) from error
        try:
            self._take(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._lock = descriptor

    def _take(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read_pid(descriptor)
            who = describe_process(holder) if holder else "another process"
            raise DataFolderInUse(
                f"The data folder {self.path} is in use by {who}. Stop that first, or set DATA_DIR to another folder."
            ) from None
        # The lock is free but a server of a killed run may live on. Two Valkeys on one file would ruin it.
        leftovers = find_processes_in(self.path)
        if leftovers:
            names = " and ".join(describe_process(pid) for pid in leftovers)
            raise DataFolderInUse(
                f"The data folder {self.path} is still in use by what an earlier run left: {names}. Stop it with"
                f" `kill {' '.join(map(str, leftovers))}` and try again."
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        if self._lock is None:
            return
        os.ftruncate(self._lock, 0)
        os.close(self._lock)
        self._lock = None

    def make_subfolder(self, name: str) -> Path:
        folder = self.path / name
        try:
            folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        except OSError as error:
            raise DataFolderUnusable(f"The folder {folder} cannot be made: {error.strerror}.") from error
        return folder

    def write_env(self, values: Mapping[str, str]) -> None:
        """Leaves ``up.env``; it may hold secrets, so nobody else may read it, not even for a moment."""
        path = self.path / ENV_FILE
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.writelines(f"{name}={value}\n" for name, value in sorted(values.items()))

    def remove_env(self) -> None:
        (self.path / ENV_FILE).unlink(missing_ok=True)

    def __enter__(self) -> DataFolder:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_up_env(path: Path) -> dict[str, str]:
    """What a running ``up`` on this data folder uses (``REDIS_URL``, ``MONGO_URL``, ports ...); empty if none runs."""
    try:
        descriptor = os.open(path / LOCK_FILE, os.O_RDWR)
    except OSError:
        return {}
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pass
    else:
        return {}  # nobody holds the folder: what lies there is of a run that was killed
    finally:
        os.close(descriptor)
    try:
        lines = (path / ENV_FILE).read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line)


def find_processes_in(folder: Path) -> list[int]:
    """Servers that work below ``folder``: Valkey moves into its folder, mongod names it on its command line."""
    found: list[int] = []
    for process in psutil.process_iter(["cwd", "cmdline"]):
        cwd, words = process.info["cwd"], process.info["cmdline"] or []
        if not words or not ("valkey" in words[0] or "mongod" in words[0]):
            continue
        places = [Path(cwd)] if cwd else []
        if "--dbpath" in words:
            places.append(Path(words[words.index("--dbpath") + 1]))
        if any(place.is_relative_to(folder) for place in places):
            found.append(process.pid)
    return found


def _read_pid(descriptor: int) -> int | None:
    text = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
    return int(text) if text.isdigit() else None
