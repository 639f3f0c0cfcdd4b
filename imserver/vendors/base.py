"""What all vendors share: a notice, whom it is for, what came of it, and the HTTP call.

What a failure means: no connection, and any failure of a call that changes nothing (an access token), is tried again. Once
a push is written to the vendor, an answer that does not come in time says nothing: the vendor may have taken it. Such a
push counts as unknown and is not repeated, for a device that rings twice is worse than one that does not.
"""

from __future__ import annotations

import asyncio
import ssl
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, ClassVar

import httpx
import orjson

from imserver.conf import Config, ConfigError

#: Connections of a process to its vendor.
MOST_CONNECTIONS = 32
#: We let go of an idle connection before the vendor does: a push that meets a closing connection is lost (unknown).
KEEP_ALIVE_SECONDS = 15
#: A vendor that asks for a longer wait is asked again after this.
MOST_RETRY_AFTER_SECONDS = 3600.0
REASON_CHARS = 200


class Outcome(StrEnum):
    """What came of a push to one target; the label of im_offline_push_total."""

    OK = "ok"
    #: The device token is dead and is to be removed.
    INVALID = "invalid token"
    #: The vendor knows no device of the user.
    NO_DEVICE = "no device"
    #: It cannot succeed: wrong credentials of the app, a payload that the vendor does not take.
    REFUSED = "refused"
    #: No answer in time; the vendor may have taken it.
    UNKNOWN = "unknown"
    #: Not taken; may succeed later.
    RETRY = "retry"


@dataclass(frozen=True, slots=True)
class Notice:
    """What a device shows, and what the app gets with it."""

    title: str
    description: str
    message_id: str
    conversation_id: str = ""
    ex: str = ""
    #: Name of a sound of the app; empty: the system's.
    sound: str = ""

    @property
    def data(self) -> dict[str, str]:
        """What the app gets when the notice is opened."""
        return {"conversationID": self.conversation_id, "clientMsgID": self.message_id, "ex": self.ex}


@dataclass(frozen=True, slots=True)
class Target:
    """A user, for vendors that know users; a device of a user for the others."""

    user_id: str
    platform_id: int = 0
    token: str = ""
    #: Number on the app's icon; None: as it is.
    badge: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """``pause``: the vendor as a whole takes nothing for now. ``is_down``: it did not answer at all."""

    outcome: Outcome
    reason: str = ""
    retry_after: float = 0.0
    pause: bool = False
    is_down: bool = False
    #: INVALID: a token registered after this (ms) is another one.
    invalid_since_ms: int | None = None


class TryLater(Exception):
    """Nothing was pushed; it may work later."""

    def __init__(self, reason: str, retry_after: float = 0.0, *, pause: bool = False, is_down: bool = False) -> None:
        super().__init__(reason)
        self.result = Result(Outcome.RETRY, reason, retry_after, pause=pause, is_down=is_down)


class Vendor(ABC):
    """One push service. Made once for each event loop that pushes."""

    name: ClassVar[str]
    #: Targets are device tokens (else users).
    is_by_token: ClassVar[bool] = False
    #: Most targets of a call.
    batch_size: ClassVar[int] = 1
    is_http2: ClassVar[bool] = False

    def __init__(self, config: Config) -> None:
        """Raises ConfigError when the credentials cannot be used."""
        self.config = config
        self._client: httpx.AsyncClient | None = None

    @abstractmethod
    async def send(self, notice: Notice, targets: list[Target]) -> list[Result]:
        """Push to at most ``batch_size`` targets; a result for each. Raises TryLater, httpx.HTTPError, TimeoutError."""

    async def push(self, notice: Notice, targets: list[Target]) -> list[Result]:
        """``send``, with every failure of the network made a result."""
        try:
            return await self.send(notice, targets)
        except TryLater as error:
            result = error.result
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            result = Result(Outcome.RETRY, f"not reachable: {error.__class__.__name__}", is_down=True)
        except TimeoutError:
            result = Result(Outcome.UNKNOWN, "no answer in time", is_down=True)
        except (httpx.HTTPError, OSError) as error:
            result = Result(Outcome.UNKNOWN, f"answer lost: {error.__class__.__name__}", is_down=True)
        return [result] * len(targets)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    # -- for the vendors

    async def post(self, url: str, *, can_repeat: bool = False, **request: Any) -> httpx.Response:
        """One call. With ``can_repeat`` it pushes nothing by itself, and every failure is TryLater.

        Raises:
            TryLater, httpx.HTTPError, TimeoutError
        """
        try:
            async with asyncio.timeout(self.config.offline_push_timeout_seconds):
                return await self._get_client().post(url, **request)
        except httpx.TimeoutException as error:
            if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
                raise
            if can_repeat:
                raise TryLater("no answer in time", is_down=True) from error
            raise TimeoutError("no answer in time") from error
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            if can_repeat:
                raise TryLater(f"not reachable: {error.__class__.__name__}", is_down=True) from error
            raise

    def _get_client(self) -> httpx.AsyncClient:
        if self._client is None:
            limits = httpx.Limits(
                max_connections=MOST_CONNECTIONS,
                max_keepalive_connections=MOST_CONNECTIONS,
                keepalive_expiry=KEEP_ALIVE_SECONDS,
            )
            seconds = self.config.offline_push_timeout_seconds
            self._client = httpx.AsyncClient(
                http1=not self.is_http2,
                http2=self.is_http2,
                verify=tls_context(self.config),
                limits=limits,
                # Connecting gets half, so that what could not even be sent is told from what was not answered.
                timeout=httpx.Timeout(seconds, connect=seconds / 2, pool=seconds / 2),
                trust_env=False,
            )
        return self._client


def tls_context(config: Config) -> ssl.SSLContext:
    """The system's certificates, and those of OFFLINE_PUSH_CA_FILE. Raises ConfigError."""
    context = ssl.create_default_context()
    if config.offline_push_ca_file:
        try:
            context.load_verify_locations(config.offline_push_ca_file)
        except OSError as error:
            raise ConfigError(
                f"OFFLINE_PUSH_CA_FILE={config.offline_push_ca_file!r}: cannot be used: {error}"
            ) from error
    return context


def body_of(response: httpx.Response) -> dict[str, Any]:
    """The JSON object of an answer; empty when it is none."""
    try:
        body = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return {}
    return body if isinstance(body, dict) else {}


def whole_number(value: object) -> int | None:
    """An answer's number, also when it is written as a text."""
    try:
        return None if isinstance(value, bool) else int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        return None


def retry_after_of(response: httpx.Response, header: str = "Retry-After", otherwise: float = 0.0) -> float:
    """Seconds that the answer asks to wait, written as seconds or as a date."""
    text = response.headers.get(header, "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            seconds = otherwise
    # A comparison with NaN is false.
    return min(seconds, MOST_RETRY_AFTER_SECONDS) if seconds > 0 else otherwise


def failure_of(response: httpx.Response, reason: str = "") -> Result:
    """The result of an answer that is no success and about which the vendor has no rule of its own."""
    reason = (reason or f"HTTP {response.status_code}")[:REASON_CHARS]
    if response.status_code == 429:
        return Result(Outcome.RETRY, reason, retry_after_of(response), pause=True)
    if response.is_server_error or response.status_code == 408:
        return Result(Outcome.RETRY, reason, retry_after_of(response))
    return Result(Outcome.REFUSED, reason)
