"""Firebase Cloud Messaging, HTTP v1: one call a device token, an access token from the service account.

https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, ClassVar

import httpx
import jwt
import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from imserver.conf import Config, ConfigError
from imserver.vendors.base import (
    Notice,
    Outcome,
    Result,
    Target,
    TryLater,
    Vendor,
    body_of,
    failure_of,
    retry_after_of,
    whole_number,
)

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTION_SECONDS = 3600
#: An access token is replaced this long before it expires.
SPARE_SECONDS = 300
#: FCM's rule for an exceeded quota without Retry-After.
QUOTA_WAIT_SECONDS = 60.0
ERROR_TYPE = "type.googleapis.com/google.firebase.fcm.v1.FcmError"


class Fcm(Vendor):
    name: ClassVar[str] = "fcm"
    is_by_token: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        try:
            account = orjson.loads(config.fcm_service_account)
            self._email = str(account["client_email"])
            self._key_id = str(account.get("private_key_id", ""))
            self._project = str(account["project_id"])
            token_url = str(account.get("token_uri") or TOKEN_URL)
            key = load_pem_private_key(str(account["private_key"]).encode(), None)
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError, UnsupportedAlgorithm) as error:
            raise ConfigError(
                "FCM_SERVICE_ACCOUNT: expected the JSON of a service account with client_email, project_id and private_key"
            ) from error
        if not isinstance(key, RSAPrivateKey):
            raise ConfigError("FCM_SERVICE_ACCOUNT: private_key is not an RSA key")
        self._key = key
        self._token_url = config.fcm_token_url or token_url
        self._url = f"{config.fcm_url.rstrip('/')}/v1/projects/{self._project}/messages:send"
        self._access_token = ""
        self._expires_at = 0.0
        self._refreshing = asyncio.Lock()

    async def send(self, notice: Notice, targets: list[Target]) -> list[Result]:
        return [await self._send_one(notice, target) for target in targets]

    async def _send_one(self, notice: Notice, target: Target) -> Result:
        token = await self._get_access_token()
        response = await self.post(
            self._url,
            content=orjson.dumps({"message": message_of(notice, target)}),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json; charset=UTF-8"},
        )
        if response.is_success:
            return Result(Outcome.OK)
        if response.status_code == 401 and token == self._access_token:
            self._access_token = ""
        return _result_of(response)

    async def _get_access_token(self) -> str:
        """Raises TryLater."""
        async with self._refreshing:
            if not self._access_token or time.time() >= self._expires_at:
                await self._refresh()
            return self._access_token

    async def _refresh(self) -> None:
        now = int(time.time())
        claims = {
            "iss": self._email,
            "scope": SCOPE,
            "aud": self._token_url,
            "iat": now,
            "exp": now + ASSERTION_SECONDS,
        }
        headers = {"kid": self._key_id} if self._key_id else None
        assertion = jwt.encode(claims, self._key, algorithm="RS256", headers=headers)
        response = await self.post(self._token_url, can_repeat=True, data={"grant_type": GRANT, "assertion": assertion})
        body = body_of(response)
        token, seconds = body.get("access_token"), whole_number(body.get("expires_in"))
        if not response.is_success or not isinstance(token, str) or not seconds:
            reason = f"no access token: HTTP {response.status_code} {str(body.get('error', ''))[:60]}"
            raise TryLater(reason, retry_after_of(response), pause=True)
        self._access_token, self._expires_at = token, time.time() + seconds - SPARE_SECONDS


def message_of(notice: Notice, target: Target) -> dict[str, Any]:
    aps: dict[str, Any] = {"sound": notice.sound or "default"}
    if target.badge is not None:
        aps["badge"] = target.badge
    return {
        "token": target.token,
        "notification": {"title": notice.title, "body": notice.description},
        "data": notice.data,
        "android": {"priority": "HIGH"},
        "apns": {"payload": {"aps": aps}},
    }


def _result_of(response: httpx.Response) -> Result:
    error = body_of(response).get("error")
    error = error if isinstance(error, dict) else {}
    details = [item for item in error.get("details") or () if isinstance(item, dict)]
    codes = [str(item.get("errorCode", "")) for item in details if item.get("@type") == ERROR_TYPE]
    code = codes[0] if codes else str(error.get("status", ""))
    reason = f"HTTP {response.status_code} {code}"
    if code == "UNREGISTERED":
        return Result(Outcome.INVALID, reason)
    if code == "INVALID_ARGUMENT" and _is_about_token(details):
        return Result(Outcome.INVALID, reason)
    if response.status_code == 429:
        return Result(Outcome.RETRY, reason, retry_after_of(response, otherwise=QUOTA_WAIT_SECONDS), pause=True)
    if response.status_code == 401:
        return Result(Outcome.RETRY, reason, pause=True)
    return failure_of(response, reason)


def _is_about_token(details: list[dict[str, Any]]) -> bool:
    fields = [
        violation.get("field")
        for item in details
        for violation in item.get("fieldViolations") or ()
        if isinstance(violation, dict)
    ]
    return "message.token" in fields
