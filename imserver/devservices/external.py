"""Servers that the user runs and named by REDIS_URL and MONGO_URL: do they answer?"""

from __future__ import annotations

from collections.abc import Callable

import pymongo
import redis
from pymongo.errors import PyMongoError

from imserver.devservices import mongod, valkey
from imserver.devservices.errors import ServerBroken
from imserver.devservices.redact import hide_password

ANSWER_SECONDS = 5.0
LONGEST_REASON = 200


def _refused(setting: str, url: str, error: Exception) -> ServerBroken:
    return ServerBroken(
        f"{setting}={hide_password(url)} does not answer ({str(error)[:LONGEST_REASON]}). Start that server, or unset"
        f" {setting} to use the embedded one."
    )


def check_redis(url: str) -> None:
    """Raises ``ServerBroken``."""
    try:
        client = redis.Redis.from_url(url, socket_connect_timeout=ANSWER_SECONDS, socket_timeout=ANSWER_SECONDS)
        try:
            client.ping()
        finally:
            client.close()
    except (redis.RedisError, ValueError) as error:
        raise _refused(valkey.SETTING, url, error) from error


def check_mongo(url: str) -> None:
    """Raises ``ServerBroken``."""
    try:
        client: pymongo.MongoClient[dict[str, object]] = pymongo.MongoClient(
            url, serverSelectionTimeoutMS=int(ANSWER_SECONDS * 1000)
        )
        with client:
            client.admin.command("ping")
    except (PyMongoError, ValueError) as error:
        raise _refused(mongod.SETTING, url, error) from error


EXTERNAL_CHECKS: dict[str, Callable[[str], None]] = {valkey.NAME: check_redis, mongod.NAME: check_mongo}
