"""Settings of the webhooks: MongoDB ``webhook``, a document a command, edited in the admin.

They are looked at for every message, so each process keeps them for up to two seconds. A thread loads them: neither an
event loop nor a stage waits for a MongoDB that is away, both go by what was last known.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, field

from pymongo.database import Database
from pymongo.errors import PyMongoError

from imserver.constants import PresenceCommand, WebhookCommand
from imserver.errors import DatabaseUnavailable
from imserver.storage.clients import Document

logger = logging.getLogger(__name__)

COLLECTION = "webhook"

#: The kinds of after hooks: what an entry of log:toWebhook is for.
AFTER_SEND = "after_send"
AFTER_SAVE = "after_save"
AFTER_PRESENCE = "presence"
AFTER_KINDS = frozenset({AFTER_SEND, AFTER_SAVE, AFTER_PRESENCE})

BEFORE_COMMANDS = frozenset(
    {WebhookCommand.BEFORE_SEND_SINGLE, WebhookCommand.BEFORE_SEND_GROUP, WebhookCommand.BEFORE_MODIFY}
)
#: Before hooks that the push stages ask; a send knows nothing of them.
PUSH_COMMANDS = frozenset(
    {
        WebhookCommand.BEFORE_ONLINE_PUSH,
        WebhookCommand.BEFORE_GROUP_ONLINE_PUSH,
        WebhookCommand.BEFORE_OFFLINE_PUSH,
    }
)
_KIND_OF_COMMAND: dict[str, str] = {
    **dict.fromkeys(PresenceCommand, AFTER_PRESENCE),
    WebhookCommand.AFTER_SEND_SINGLE: AFTER_SEND,
    WebhookCommand.AFTER_SEND_GROUP: AFTER_SEND,
    WebhookCommand.AFTER_SAVE: AFTER_SAVE,
}

DEFAULT_TIMEOUT_SECONDS = 5
DEFAULT_RETRY_MINUTES = 10

#: Loaded again in the background when older than this, so that a busy process never waits …
RELOAD_AFTER_SECONDS = 1.0
#: … and waited for when older than this.
STALE_AFTER_SECONDS = 2.0
#: Longest wait for a load; a MongoDB that is away is waited for once.
PATIENCE_SECONDS = 0.5
#: A failure that is so long ago says nothing of now: who comes after a pause waits again.
FORGIVEN_SECONDS = 10.0
#: Of a send when nothing is known yet: without settings it would be refused.
FIRST_PATIENCE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Hook:
    """One webhook that is switched on."""

    command: str
    url: str
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    fail_open: bool = False
    denied_types: frozenset[int] = frozenset()
    attention_ids: frozenset[str] = frozenset()
    retry_minutes: float = DEFAULT_RETRY_MINUTES


@dataclass(frozen=True, slots=True)
class Hooks:
    """All webhooks that are switched on."""

    by_command: dict[str, Hook] = field(default_factory=dict)
    has_before: bool = False
    after_kinds: frozenset[str] = frozenset()


def load(database: Database[Document]) -> Hooks:
    """Read the settings. Raises pymongo.errors.PyMongoError."""
    by_command = {
        document["command"]: Hook(
            command=document["command"],
            # Without an address a call fails, so a broken record refuses and does not let through.
            url=str(document.get("url", "")).rstrip("/"),
            timeout_seconds=float(document.get("timeout") or DEFAULT_TIMEOUT_SECONDS),
            fail_open=bool(document.get("fail_open")),
            denied_types=frozenset(document.get("denied_types") or ()),
            attention_ids=frozenset(document.get("attention_ids") or ()),
            retry_minutes=float(document.get("retry_minutes", DEFAULT_RETRY_MINUTES)),
        )
        for document in database[COLLECTION].find(
            {"enable": True, "command": {"$in": [*WebhookCommand, *PresenceCommand]}}
        )
    }
    return Hooks(
        by_command=by_command,
        has_before=not BEFORE_COMMANDS.isdisjoint(by_command),
        after_kinds=frozenset(kind for command, kind in _KIND_OF_COMMAND.items() if command in by_command),
    )


class HookCache:
    """The settings of one database, not older than two seconds as long as MongoDB answers."""

    def __init__(self, database: Database[Document]) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._hooks: Hooks | None = None
        self._loading: Future[None] | None = None
        self._load_began_at = float("-inf")
        #: When the last load ended, well or not.
        self._loaded_at = float("-inf")
        #: The last load failed or was not waited for to the end: go by what is known until one succeeds.
        self._is_slow = False

    def recent(self) -> Hooks | None:
        """The settings when they can be gone by without a wait; None: ``get`` or ``get_soon`` are needed."""
        age = time.monotonic() - self._loaded_at
        if age < RELOAD_AFTER_SECONDS and self._hooks is not None:
            return self._hooks
        self._start_load()
        return self._hooks if age < STALE_AFTER_SECONDS or self._goes_by_known(age) else None

    def get(self) -> Hooks:
        """The settings. Raises DatabaseUnavailable when they were never read."""
        hooks = self.recent()
        if hooks is not None:
            return hooks
        if not self._goes_by_known(time.monotonic() - self._loaded_at):
            load = self._start_load()
            if not wait_for([load], self._patience(PATIENCE_SECONDS)).done:
                self._note_slow(load)
        return self._known()

    async def get_soon(self) -> Hooks:
        """The same on an event loop. Raises DatabaseUnavailable when they were never read."""
        hooks = self.recent()
        if hooks is not None:
            return hooks
        if not self._goes_by_known(time.monotonic() - self._loaded_at):
            patience = FIRST_PATIENCE_SECONDS if self._hooks is None else PATIENCE_SECONDS
            load = self._start_load()
            done, _ = await asyncio.wait([asyncio.wrap_future(load)], timeout=self._patience(patience))
            if not done:
                self._note_slow(load)
        return self._known()

    def _goes_by_known(self, age: float) -> bool:
        return self._is_slow and age < FORGIVEN_SECONDS

    def _patience(self, seconds: float) -> float:
        """What is left of it for the load under way: in a busy process it began a second ago, and nobody waits again."""
        return max(0.0, self._load_began_at + seconds - time.monotonic())

    def _known(self) -> Hooks:
        if self._hooks is None:
            raise DatabaseUnavailable("the webhook settings cannot be read")
        return self._hooks

    def _note_slow(self, load: Future[None]) -> None:
        with self._lock:
            # One that ended this very moment has said itself how it went.
            self._is_slow = self._is_slow or self._loading is load

    def _start_load(self) -> Future[None]:
        with self._lock:
            loading = self._loading
            if loading is None:
                if self._is_slow and time.monotonic() - self._loaded_at < RELOAD_AFTER_SECONDS:
                    # It failed a moment ago.
                    loading = Future()
                    loading.set_result(None)
                    return loading
                loading = self._loading = Future()
                self._load_began_at = time.monotonic()
                threading.Thread(target=self._load, args=(loading,), name="webhook-settings", daemon=True).start()
            return loading

    def _load(self, loading: Future[None]) -> None:
        hooks, is_slow = self._hooks, True
        try:
            hooks, is_slow = load(self._database), False
        except PyMongoError as error:
            logger.warning("webhook settings not read", extra={"action": "webhook_settings", "error": repr(error)})
        finally:
            with self._lock:
                self._hooks, self._is_slow = hooks, is_slow
                self._loaded_at, self._loading = time.monotonic(), None
            loading.set_result(None)


_caches: dict[str, HookCache] = {}


def get_cache(database: Database[Document]) -> HookCache:
    """This process's cache of a database's settings."""
    return _caches.setdefault(database.name, HookCache(database))


def find_cache(name: str) -> HookCache | None:
    """The same by the database's name, None before the first ``get_cache``: for who is called very often."""
    return _caches.get(name)


def forget() -> None:
    """The settings were changed in this process: read them at the next look."""
    _caches.clear()


def enabled_after_kinds(database: Database[Document]) -> frozenset[str]:
    """Which kinds of entries log:toWebhook is to get: of AFTER_SEND, AFTER_SAVE, AFTER_PRESENCE.

    All while the settings were never read: the webhook stage then decides, and nothing is missed.
    """
    try:
        return get_cache(database).get().after_kinds
    except DatabaseUnavailable:
        return AFTER_KINDS
