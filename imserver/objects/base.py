"""Where uploaded files are kept: the contract that the back ends share.

A file is put in parts by its uploader, straight to the store, with URLs that the store has signed. A key names content and not a
file of a user: names are in MongoDB (storage/objects.py), and several may lead to one key.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

#: Bytes of a part, except the last one. S3 takes no smaller ones; a part is what a web process holds in memory at once.
MIN_PART_BYTES = 5 * 1024 * 1024
MAX_PART_BYTES = 16 * 1024 * 1024
#: Parts of a file.
MOST_PARTS = 10_000
#: Longest body that a process of ours reads: a part, or a form around a file of that size.
MOST_BODY_BYTES = MAX_PART_BYTES + 64 * 1024


class PartsMissing(Exception):
    """Parts are not there, or not as they were announced; ``numbers`` says which."""

    def __init__(self, numbers: list[int]) -> None:
        super().__init__(f"parts {numbers} are missing")
        self.numbers = numbers


class StoreUnavailable(Exception):
    """The store cannot be reached, or refuses; the text has no secrets."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload as the store sees it. ``store_id``: what the store itself calls it."""

    upload_id: str
    key: str
    size: int
    part_size: int
    store_id: str = ""

    @property
    def part_count(self) -> int:
        return -(-self.size // self.part_size)

    def bytes_of(self, number: int) -> int:
        """Size of a part, counted from 1."""
        return self.part_size if number < self.part_count else self.size - self.part_size * (self.part_count - 1)


@dataclass(frozen=True, slots=True)
class Form:
    """A browser form that uploads one file. URLs that start with a slash are the web process's own."""

    url: str
    fields: dict[str, str] = field(default_factory=dict)
    file_field: str = "file"
    success_codes: tuple[int, ...] = (200, 204)


@dataclass(frozen=True, slots=True)
class Shown:
    """How a file is handed out."""

    file_name: str
    content_type: str
    is_inline: bool


class ObjectStore(ABC):
    """Methods block and are called in threads; signing does not wait for anything.

    All may raise StoreUnavailable, and run twice.
    """

    #: Kept with each file: after a change of the setting, files elsewhere are not looked for here.
    name: str
    #: Largest file that a form may bring.
    most_form_bytes: int

    @abstractmethod
    def begin(self, upload_id: str, key: str, content_type: str) -> str:
        """Prepare for parts; returns the store's own id of the upload."""

    @abstractmethod
    def sign_part(self, upload: Upload, number: int, seconds: int) -> str:
        """URL to PUT a part to, within so many seconds."""

    @abstractmethod
    def complete(self, upload: Upload, md5s: list[str]) -> None:
        """Make the file of its parts, whose MD5s and sizes are compared. Raises PartsMissing."""

    @abstractmethod
    def abort(self, upload: Upload) -> None:
        """Forget the parts of an upload; nothing happens when there are none."""

    @abstractmethod
    def sign_form(self, key: str, size: int, content_type: str, seconds: int) -> Form:
        """A form for a file of exactly this size."""

    @abstractmethod
    def find_size(self, key: str) -> int | None:
        """Bytes of a file; None when there is none."""

    @abstractmethod
    def sign_get(self, key: str, shown: Shown, seconds: int) -> str:
        """URL to read a file from, within so many seconds."""

    @abstractmethod
    def remove(self, key: str) -> None:
        """Remove a file; nothing happens when there is none."""
