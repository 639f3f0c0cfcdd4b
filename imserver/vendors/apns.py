"""Apple Push Notification service: HTTP/2, one call a device token, a provider token signed with ES256.

https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns
"""

from __future__ import annotations

import time
from typing import Any, ClassVar
from urllib.parse import quote

import httpx
import jwt
import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from imserver.conf import Config, ConfigError
from imserver.vendors.base import (
    Notice,
    Outcome,
    Result,
    Target,
    Vendor,
    body_of,
    failure_of,
    retry_after_of,
    whole_number,
)

#: Apple wants a provider token that is between 20 and 60 minutes old at most.
PROVIDER_TOKEN_SECONDS = 40 * 60
#: How long Apple keeps a notice for a device that is switched off.
KEEP_SECONDS = 24 * 3600
_DEAD_TOKENS = frozenset({"BadDeviceToken", "Unregistered", "ExpiredToken"})


class Apns(Vendor):
    name: ClassVar[str] = "apns"
    is_by_token: ClassVar[bool] = True
    is_http2: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        try:
            key = load_pem_private_key(config.apns_key.encode(), None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ConfigError("APNS_KEY: expected the text of the .p8 file") from error
        if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
            raise ConfigError("APNS_KEY: not a P-256 key")
        self._key = key
        self._url = f"{config.apns_url.rstrip('/')}/3/device/"
        self._token = ""
        self._token_until = 0.0

    async def send(self, notice: Notice, targets: list[Target]) -> list[Result]:
        return [await self._send_one(notice, target) for target in targets]

    async def _send_one(self, notice: Notice, target: Target) -> Result:
        token = self._get_provider_token()
        response = await self.post(
            self._url + quote(target.token, safe=""),
            content=orjson.dumps(payload_of(notice, target)),
            headers={
                "authorization": f"bearer {token}",
                "apns-topic": self.config.apns_topic,
                "apns-push-type": "alert",
                "apns-priority": "10",
                "apns-expiration": str(int(time.time()) + KEEP_SECONDS),
            },
        )
        if response.is_success:
            return Result(Outcome.OK)
        if response.status_code == 403 and token == self._token:
            self._token = ""
        return _result_of(response)

    def _get_provider_token(self) -> str:
        now = time.time()
        if not self._token or now >= self._token_until:
            claims = {"iss": self.config.apns_team_id, "iat": int(now)}
            self._token = jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": self.config.apns_key_id})
            self._token_until = now + PROVIDER_TOKEN_SECONDS
        return self._token


def payload_of(notice: Notice, target: Target) -> dict[str, Any]:
    aps: dict[str, Any] = {
        "alert": {"title": notice.title, "body": notice.description},
        "sound": notice.sound or "default",
        "mutable-content": 1,
    }
    if target.badge is not None:
        aps["badge"] = target.badge
    return {"aps": aps, **notice.data}


def _result_of(response: httpx.Response) -> Result:
    body = body_of(response)
    code = str(body.get("reason", ""))
    reason = f"HTTP {response.status_code} {code}"
    if code in _DEAD_TOKENS or response.status_code == 410:
        return Result(Outcome.INVALID, reason, invalid_since_ms=whole_number(body.get("timestamp")))
    if code == "ExpiredProviderToken":
        return Result(Outcome.RETRY, reason)
    if code == "TooManyRequests":
        # Too many to this device; others go on.
        return Result(Outcome.RETRY, reason, retry_after_of(response))
    return failure_of(response, reason)
