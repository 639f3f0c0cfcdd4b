"""Tokens: issuing, checking, revoking. JWT says who; the token store says whether it still counts."""

from __future__ import annotations

import hmac
import logging
import time
import warnings
from dataclasses import dataclass

import jwt

from imserver.actions import presence
from imserver.actions.login_policy import tokens_to_kick
from imserver.conf import get_config
from imserver.constants import PLATFORM_CLASS, AppManagerLevel, Platform, TokenState
from imserver.errors import (
    ArgsError,
    NoPermission,
    RecordNotFound,
    TokenExpired,
    TokenInvalid,
    TokenKicked,
    TokenMalformed,
    TokenNotExist,
    TokenNotValidYet,
    TokenUnknown,
)
from imserver.storage.clients import get_async_mongo, get_async_redis
from imserver.storage.tokens import Tokens
from imserver.storage.users import Users

logger = logging.getLogger(__name__)

ALGORITHM = "HS256"

# OpenIM's shipped secret is shorter than the RFC recommends, and whoever sets a secret is told in docs/configuration.md.
warnings.filterwarnings("ignore", category=jwt.InsecureKeyLengthWarning)

#: Clocks of several hosts differ; a token must be valid where it arrives first.
ISSUED_AT_SLACK_SECONDS = 5

#: An app server that has not heard of the newer admin token goes on with the older one for this long.
ADMIN_GRACE_SECONDS = 300

#: Kicked tokens a user and platform keep, so that they are told 1506; older ones are unknown (1507) from then on.
KICKED_TOKENS_KEPT = 30


@dataclass(frozen=True, slots=True)
class Claims:
    """Who a token speaks for. ``expires_at``: Unix seconds. ``serial`` orders tokens that expire in the same second."""

    user_id: str
    platform_id: int
    expires_at: int
    serial: int = 0


@dataclass(frozen=True, slots=True)
class IssuedToken:
    token: str
    lifetime_seconds: int


def decode_token(token: str) -> Claims:
    """Signature, form and time of a token; not whether it was revoked.

    Raises:
        TokenMalformed, TokenExpired, TokenNotValidYet, TokenUnknown
    """
    try:
        claims = jwt.decode(token, get_config().auth_secret, algorithms=[ALGORITHM], options={"require": ["exp"]})
        serial = int(str(claims.get("jti", "0")), 16)
        return Claims(str(claims["UserID"]), int(claims["PlatformID"]), int(claims["exp"]), serial)
    except jwt.ExpiredSignatureError as error:
        raise TokenExpired("the token has expired; ask for a new one") from error
    except jwt.ImmatureSignatureError as error:
        raise TokenNotValidYet("the token is not valid yet; compare the clocks") from error
    except jwt.InvalidSignatureError as error:
        raise TokenUnknown("the token was signed with another secret") from error
    except jwt.DecodeError as error:
        raise TokenMalformed("not a token") from error
    except (jwt.InvalidTokenError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise TokenUnknown("the token's claims are not understood") from error


async def check_claims(token: str) -> Claims:
    """A token that is valid and not revoked. Raises the errors of 1501 to 1507."""
    claims = decode_token(token)
    state = await Tokens(get_async_redis()).get_state(claims.user_id, claims.platform_id, token)
    if state is None:
        raise TokenNotExist("the token is not known here; log in again")
    if state == TokenState.KICKED:
        raise TokenKicked("logged in elsewhere or logged out by the server")
    if state != TokenState.NORMAL:
        raise TokenUnknown("the token is no longer valid")
    return claims


async def check_token(token: str, user_id: str, platform_id: int) -> None:
    """``check_claims`` for a connection, whose user and platform must be the token's."""
    claims = await check_claims(token)
    if claims.user_id != user_id or claims.platform_id != platform_id:
        raise TokenInvalid("the token belongs to another user or platform")


def _sign(user_id: str, platform_id: int) -> IssuedToken:
    lifetime = get_config().token_expire_days * 86_400
    now = int(time.time())
    claims = {"UserID": user_id, "PlatformID": platform_id, "exp": now + lifetime, "iat": now - ISSUED_AT_SLACK_SECONDS}
    # Two logins in one second must not share a token: one could not be kicked without the other.
    claims["jti"] = f"{time.time_ns():x}"
    return IssuedToken(jwt.encode(claims, get_config().auth_secret, algorithm=ALGORITHM), lifetime)


async def get_admin_token(secret: str, user_id: str) -> IssuedToken:
    """A token of platform 10 for a configured admin.

    Raises:
        NoPermission: wrong secret.  ArgsError: not an admin user id.  RecordNotFound: the admin user does not exist.
    """
    config = get_config()
    if not hmac.compare_digest(secret.encode(), config.auth_secret.encode()):
        raise NoPermission("wrong secret")
    if user_id not in config.admins:
        raise ArgsError("userID is not in ADMIN_USER_IDS")
    if not await Users(get_async_mongo()).exists(user_id):
        raise RecordNotFound(f"admin user {user_id} does not exist; run `manage.py prepare`")
    issued = _sign(user_id, Platform.ADMIN)
    await Tokens(get_async_redis()).replace(user_id, Platform.ADMIN, issued.token, ADMIN_GRACE_SECONDS)
    return issued


async def get_user_token(user_id: str, platform_id: int) -> IssuedToken:
    """A token for a user, after making room by the multi-login policy.

    Raises:
        ArgsError: unknown platform, or an account that nobody logs in with.  NoPermission: an admin or platform 10.
        RecordNotFound: unknown user.
    """
    if platform_id not in PLATFORM_CLASS:
        raise ArgsError("platformID must be 1 to 11")
    if platform_id == Platform.ADMIN or user_id in get_config().admins:
        raise NoPermission("admin tokens come from /auth/get_admin_token")
    found = await Users(get_async_mongo()).find([user_id])
    if not found:
        raise RecordNotFound(f"user {user_id} is not registered")
    if found[0].get("app_manger_level", 0) >= AppManagerLevel.NOTIFICATION:
        raise ArgsError("notification and robot accounts have no token")
    # Two logins at once must see each other, or the policy would let both stay.
    async with Tokens(get_async_redis()).lock(user_id):
        return await _issue(user_id, platform_id)


async def _issue(user_id: str, platform_id: int) -> IssuedToken:
    config, tokens = get_config(), Tokens(get_async_redis())
    known = await tokens.get_all(user_id)
    now = int(time.time())
    alive: dict[int, list[tuple[int, int, str]]] = {}
    for platform, states in known.items():
        expired = []
        kicked_before: dict[str, tuple[int, int]] = {}
        for token, state in states.items():
            try:
                claims = decode_token(token)
            except (TokenExpired, TokenUnknown, TokenMalformed, TokenNotValidYet):
                expired.append(token)
                continue
            if state == TokenState.NORMAL and claims.expires_at > now:
                alive.setdefault(platform, []).append((claims.expires_at, claims.serial, token))
            else:
                kicked_before[token] = (claims.expires_at, claims.serial)
        await tokens.forget(user_id, platform, expired)
        old = sorted((claims_at, token) for token, claims_at in kicked_before.items())
        await tokens.forget(user_id, platform, [token for _, token in old[:-KICKED_TOKENS_KEPT]])
    ordered = {platform: [token for _, _, token in sorted(items)] for platform, items in alive.items()}
    kicked = tokens_to_kick(config.multi_login_policy, platform_id, ordered, config.max_tokens_per_end)
    for platform, losers in kicked.items():
        await tokens.kick(user_id, platform, losers)
    issued = _sign(user_id, platform_id)
    await tokens.add(user_id, platform_id, issued.token)
    return issued


async def force_logout(user_id: str, platform_id: int, operation_id: str = "") -> int:
    """Kick every connection of a user on a platform and its tokens; returns how many connections. May run twice."""
    if platform_id not in PLATFORM_CLASS:
        raise ArgsError("platformID must be 1 to 11")
    return await presence.kick_platform(user_id, platform_id, operation_id)
