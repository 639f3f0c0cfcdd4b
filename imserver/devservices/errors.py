"""What can go wrong with servers and processes on this machine. Every text is a sentence that says what to do."""

from __future__ import annotations


class DevServiceError(Exception):
    """Base. Nothing was left running by whoever raised it."""


class WheelMissing(DevServiceError):
    """The package that carries the server is not installed, or has no server for this machine."""


class LibraryMissing(DevServiceError):
    """The server's program lacks something of the operating system."""


class PortTaken(DevServiceError):
    """Somebody else listens where we want to."""


class DataFolderUnusable(DevServiceError):
    """The data folder cannot be made or written."""


class DataFolderInUse(DevServiceError):
    """Another process works in the data folder."""


class ServerBroken(DevServiceError):
    """A store did not start, or not in time."""


class NotHealthy(DevServiceError):
    """A process of ours ended again and again, or did not become healthy in time."""
