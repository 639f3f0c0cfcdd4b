"""Device tokens of push vendors, and the number on the app's icon."""

from __future__ import annotations

from imserver.constants import PLATFORM_CLASS
from imserver.errors import ArgsError, UserIDNotFound
from imserver.storage.clients import get_async_mongo, get_async_redis
from imserver.storage.device_tokens import DeviceTokens
from imserver.storage.offline_waits import Badges
from imserver.storage.users import Users

MOST_TOKEN_CHARS = 4096
#: A longer life ends then, too.
MOST_LIFETIME_SECONDS = 10 * 365 * 86_400


async def check_set_token(user_id: str, platform_id: int, token: str, lifetime_seconds: int) -> None:
    """Raises ArgsError, UserIDNotFound."""
    _check_platform(platform_id)
    if not token or len(token) > MOST_TOKEN_CHARS or not token.isprintable() or " " in token:
        raise ArgsError(f"fcmToken must be 1 to {MOST_TOKEN_CHARS} printable characters without spaces")
    if lifetime_seconds < 0:
        raise ArgsError("expireTime is a number of seconds; 0: no end")
    await _check_user(user_id)


async def do_set_token(user_id: str, platform_id: int, token: str, lifetime_seconds: int) -> None:
    """The device belongs to this user from now on, whoever had it. May run twice."""
    seconds = min(lifetime_seconds, MOST_LIFETIME_SECONDS)
    await DeviceTokens(get_async_mongo()).set(user_id, platform_id, token, seconds)


async def forget_token(user_id: str, platform_id: int) -> bool:
    """The user logged out on this platform: no more offline pushes there. May run twice.

    Raises:
        pymongo.errors.PyMongoError: MongoDB is away.
    """
    return await DeviceTokens(get_async_mongo()).forget(user_id, platform_id)


async def check_set_badge(user_id: str, count: int) -> None:
    """Raises ArgsError, UserIDNotFound."""
    if count < 0:
        raise ArgsError("appUnreadCount must not be negative")
    await _check_user(user_id)


async def do_set_badge(user_id: str, count: int) -> None:
    """Where the number on the icon goes on from. May run twice."""
    await Badges(get_async_redis()).set(user_id, count)


def _check_platform(platform_id: int) -> None:
    if platform_id not in PLATFORM_CLASS:
        raise ArgsError("platformID must be 1 to 11")


async def _check_user(user_id: str) -> None:
    if not await Users(get_async_mongo()).exists(user_id):
        raise UserIDNotFound(f"user {user_id} is not registered")
