"""Signed URLs of the local store: path and query are what the server wrote, until a time."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from urllib.parse import quote, urlencode

from imserver.conf import get_config

EXPIRES, SIGNATURE = "expires", "signature"


class SignatureRefused(Exception):
    """The URL was not signed here, or not for this; or its time is over."""


def sign_path(path: str, seconds: int, **params: str) -> str:
    """A path with a signed query that is accepted for so many seconds."""
    signed = {**params, EXPIRES: str(int(time.time()) + seconds)}
    return f"{quote(path)}?{urlencode({**signed, SIGNATURE: _signature(path, signed)})}"


def check_path(path: str, query: Mapping[str, str]) -> None:
    """Raises SignatureRefused. Unsigned parameters are refused as well."""
    signed = {name: value for name, value in query.items() if name != SIGNATURE}
    if not hmac.compare_digest(_signature(path, signed).encode(), query.get(SIGNATURE, "").encode()):
        raise SignatureRefused("the URL is not signed by this server")
    if int(signed[EXPIRES]) < time.time():
        raise SignatureRefused("the URL has expired")


def _signature(path: str, params: Mapping[str, str]) -> str:
    # A key of its own, so that nothing else that AUTH_SECRET signs can be passed off as a URL.
    key = hashlib.sha256(b"objects:" + get_config().auth_secret.encode()).digest()
    text = f"{path}?{urlencode(sorted(params.items()))}"
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
