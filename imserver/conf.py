"""Configuration: one frozen dataclass, read from the environment once and validated before anything opens.

Every field is an environment variable (and a line of ``.env``). A secret may also come from a file named by
``<NAME>_FILE``. ``docs/configuration.md`` is generated from this module by ``manage.py checkconfig --markdown``.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from environ import Env

BASE_DIR = Path(__file__).resolve().parent.parent

TRUE_WORDS = frozenset({"1", "true", "yes", "on"})
FALSE_WORDS = frozenset({"0", "false", "no", "off", ""})


class ConfigError(Exception):
    """A setting has a value that cannot be used; the text names the setting and what it accepts."""


def _option(
    default: object,
    help_text: str,
    *,
    minimum: int | None = None,
    maximum: int | None = None,
    choices: tuple[object, ...] = (),
    pattern: str = "",
    secret: bool = False,
) -> Any:
    return field(
        default=default,
        metadata={
            "help": help_text,
            "minimum": minimum,
            "maximum": maximum,
            "choices": choices,
            "pattern": pattern,
            "secret": secret,
        },
    )


REDIS_PATTERN = r"(redis|rediss|unix|valkey)://.+"
MONGO_PATTERN = r"mongodb(\+srv)?://.+"
NAME_PATTERN = r"[A-Za-z0-9_-]+"
HTTP_PATTERN = r"https?://[^\s/]+.*"
#: Vendor of offline pushes -> settings that it cannot do without.
VENDOR_SETTINGS = {
    "": (),
    "fcm": ("fcm_service_account",),
    "apns": ("apns_key", "apns_key_id", "apns_team_id", "apns_topic"),
    "jpush": ("jpush_app_key", "jpush_master_secret"),
    "getui": ("getui_app_id", "getui_app_key", "getui_master_secret"),
    "xiaomi": ("xiaomi_app_secret", "xiaomi_package"),
    "dummy": (),
}


@dataclass(frozen=True, slots=True)
class Config:
    """All settings, typed. Field names in upper case are the environment variables."""

    # -- addresses
    bind_host: str = _option("127.0.0.1", "Address that gateway, web and Flower listen on.")
    gateway_port: int = _option(10001, "WebSocket port of the gateway.", minimum=0, maximum=65535)
    web_port: int = _option(10002, "Port of REST, admin, demo page, /healthz and /metrics.", minimum=0, maximum=65535)
    flower_port: int = _option(5555, "Port of Flower.", minimum=0, maximum=65535)
    redis_url: str = _option(
        "redis://127.0.0.1:6379/0", "Redis or Valkey for logs, seqs, cache, routes, tokens.", pattern=REDIS_PATTERN
    )
    broker_url: str = _option("", "Celery broker. Empty: same as REDIS_URL.")
    channel_layer_urls: str = _option("", "Channel-layer Redis servers, comma separated. Empty: same as REDIS_URL.")
    mongo_url: str = _option("mongodb://127.0.0.1:27017", "MongoDB server or replica set.", pattern=MONGO_PATTERN)
    mongo_database: str = _option("imserver", "Name of the MongoDB database.", pattern=NAME_PATTERN)
    key_prefix: str = _option("", "Put before every Redis key; lets several installations share a server.")
    data_dir: str = _option(".data", "Folder of the embedded servers' files, relative to the project.")

    # -- auth
    auth_secret: str = _option(
        "openIM123", "Shared secret: signs tokens and is asked for by /auth/get_admin_token.", secret=True
    )
    admin_user_ids: str = _option("imAdmin", "User ids that may have an admin token, comma separated.")
    token_expire_days: int = _option(90, "Lifetime of a token in days.", minimum=1, maximum=36500)
    multi_login_policy: int = _option(
        1,
        "Who stays when a user logs in twice: 0 everybody, 1 one per platform, 4 one per class, 5 PC free, others one.",
        choices=(0, 1, 4, 5),
    )
    max_tokens_per_end: int = _option(30, "Policy 0: valid tokens kept per user and platform.", minimum=1)
    django_secret_key: str = _option("", "Django's SECRET_KEY. Empty: derived from AUTH_SECRET.", secret=True)

    # -- the pipeline
    shards: int = _option(
        16, "Number of shards of each log. Do not change while logs hold entries.", minimum=1, maximum=256
    )
    batch_size: int = _option(500, "Most log entries handled in one batch.", minimum=1, maximum=5000)
    log_max_entries: int = _option(
        100_000,
        "A log of a shard longer than this makes sends be refused as busy; of after hooks or offline pushes, it drops them.",
        minimum=1,
    )
    dedup_ttl_seconds: int = _option(3600, "How long a repeated client_msg_id gets the first answer.", minimum=1)
    cache_ttl_seconds: int = _option(86_400, "How long messages stay in the Redis cache.", minimum=1)
    lease_ms: int = _option(3000, "A drainer that is silent this long loses its shard.", minimum=500)
    linger_ms: int = _option(1000, "How long a drainer waits on empty logs before it gives its slot back.", minimum=0)
    drain_slice_ms: int = _option(60_000, "Longest run of one drain task before it gives its slot back.", minimum=100)
    persist_gather_ms: int = _option(
        200,
        "How long persist lets messages gather at most before it writes; readers use the cache meanwhile.",
        minimum=0,
    )
    segment_single: int = _option(50, "Seqs reserved in MongoDB at a time for a single chat.", minimum=1)
    segment_group: int = _option(100, "Seqs reserved in MongoDB at a time for a group.", minimum=1)
    seq_overdraft: int = _option(
        1000, "Seqs a conversation may use beyond the reserved range while MongoDB is away.", minimum=0
    )
    seq_key_ttl_days: int = _option(
        365, "A conversation silent this long leaves Redis; its next message skips some seqs.", minimum=1
    )
    friend_check: bool = _option(False, "Refuse single chat messages between users who are not friends.")
    new_member_sees_history: bool = _option(True, "Members who join a group may pull what was said before.")

    # -- objects (uploaded files)
    object_store: str = _option(
        "local",
        "Where uploaded files go: local is DATA_DIR/objects of this host, s3 any S3-compatible store.",
        choices=("local", "s3"),
    )
    object_url: str = _option(
        "",
        "Address of the web process as clients see it, for URLs of files. Empty: the Host header of the request.",
        pattern=r"(https?://.+)?",
    )
    object_max_mb: int = _option(500, "Largest file that may be uploaded, in MiB.", minimum=1, maximum=40_000)
    object_types: str = _option(
        "", "Content types that may be uploaded, comma separated, as image/png or image/*. Empty: all."
    )
    object_upload_hours: int = _option(24, "An upload that takes longer is given up.", minimum=1, maximum=168)
    object_url_seconds: int = _option(3600, "How long the signed URL of a file works.", minimum=60, maximum=604_800)
    s3_endpoint: str = _option("", "Address of the S3-compatible store. Empty: AWS.", pattern=r"(https?://.+)?")
    s3_public_endpoint: str = _option(
        "", "The same store as clients reach it. Empty: same as S3_ENDPOINT.", pattern=r"(https?://.+)?"
    )
    s3_region: str = _option("us-east-1", "Region of the bucket.")
    s3_bucket: str = _option("", "Bucket for uploaded files; it must exist.")
    s3_access_key: str = _option("", "Access key id. Empty: as boto3 finds it by itself.", secret=True)
    s3_secret_key: str = _option("", "Secret access key.", secret=True)

    # -- gateway
    push_result_ms: int = _option(
        500, "How long a push waits for a node to say whom it reached, before they count as not reached.", minimum=10
    )
    gateway_server: str = _option(
        "uvicorn", "ASGI server of the gateway and web; docs/servers.md compares them.", choices=("uvicorn", "daphne")
    )
    max_connections: int = _option(100_000, "Connections a gateway node accepts.", minimum=1)
    max_connections_per_user: int = _option(
        1000, "Connections a user may have on all nodes together; one more is refused with 1601.", minimum=1
    )
    handshake_seconds: int = _option(
        10, "A TCP connection whose HTTP request is not complete by then is cut.", minimum=1, maximum=300
    )
    requests_per_second: int = _option(
        10_000, "Requests a connection may send; what is above is answered with 90103. 0: no limit.", minimum=0
    )
    requests_per_second_per_user: int = _option(
        20_000, "The same for all connections of a user on one node together. 0: no limit.", minimum=0
    )
    max_frame_bytes: int = _option(51_200, "Largest frame a client may send.", minimum=1024, maximum=1_048_576)
    max_message_bytes: int = _option(1_048_576, "Largest envelope after decompression.", minimum=1024)
    send_queue_frames: int = _option(2048, "Frames that may wait for a slow reader before it is cut off.", minimum=1)
    send_queue_bytes: int = _option(
        4_194_304, "Bytes of frames that may wait for a slow reader before it is cut off.", minimum=65_536
    )
    send_stall_seconds: int = _option(
        20, "A client that takes nothing of what is written to it for so long is cut off.", minimum=1, maximum=3600
    )
    node_heartbeat_ms: int = _option(2000, "How often a gateway node says that it lives.", minimum=100)
    node_ttl_ms: int = _option(
        7000, "A node that was silent this long is dead; its routes no longer count.", minimum=300
    )
    drain_seconds: int = _option(
        3, "On SIGTERM connections are told to reconnect, spread over this time.", minimum=0, maximum=300
    )
    grace_seconds: int = _option(
        8, "On SIGTERM web finishes the requests it has begun, for at most this time.", minimum=0, maximum=300
    )

    # -- offline push: docs/offline-push.md
    offline_push_vendor: str = _option(
        "", "Who pushes to devices that are not connected. Empty: nobody.", choices=tuple(VENDOR_SETTINGS)
    )
    offline_push_show_text: bool = _option(True, "Text messages are shown; off: only that there is a message.")
    offline_push_timeout_seconds: int = _option(10, "Longest wait for the vendor's answer.", minimum=1, maximum=60)
    offline_push_retry_minutes: int = _option(
        10, "What the vendor does not take is tried again for so long.", minimum=0, maximum=720
    )
    offline_push_ca_file: str = _option("", "More certificates to trust when calling the vendor, a PEM file.")
    fcm_service_account: str = _option("", "FCM: the service account's JSON.", secret=True)
    fcm_url: str = _option("https://fcm.googleapis.com", "FCM: address.", pattern=HTTP_PATTERN)
    fcm_token_url: str = _option("", "FCM: where access tokens come from. Empty: the service account's token_uri.")
    apns_key: str = _option("", "APNs: the text of the .p8 key file.", secret=True)
    apns_key_id: str = _option("", "APNs: id of the key.")
    apns_team_id: str = _option("", "APNs: id of the team.")
    apns_topic: str = _option("", "APNs: the app's bundle id.")
    apns_url: str = _option(
        "https://api.push.apple.com",
        "APNs: address; https://api.sandbox.push.apple.com for test builds.",
        pattern=HTTP_PATTERN,
    )
    jpush_app_key: str = _option("", "JPush: app key.")
    jpush_master_secret: str = _option("", "JPush: master secret.", secret=True)
    jpush_url: str = _option("https://api.jpush.cn", "JPush: address.", pattern=HTTP_PATTERN)
    jpush_intent: str = _option("", "JPush: intent that a tap on Android opens. Empty: the app.")
    jpush_apns_production: bool = _option(True, "JPush: iOS builds of the App Store; off: test builds.")
    getui_app_id: str = _option("", "Getui: app id.")
    getui_app_key: str = _option("", "Getui: app key.")
    getui_master_secret: str = _option("", "Getui: master secret.", secret=True)
    getui_url: str = _option("https://restapi.getui.com/v2", "Getui: address.", pattern=HTTP_PATTERN)
    getui_channel_id: str = _option("", "Getui: Android notification channel. Empty: the vendor's.")
    getui_channel_name: str = _option("", "Getui: name of that channel.")
    xiaomi_app_secret: str = _option("", "Xiaomi: app secret.", secret=True)
    xiaomi_package: str = _option("", "Xiaomi: package name of the app.")
    xiaomi_url: str = _option("https://api.xmpush.xiaomi.com", "Xiaomi: address.", pattern=HTTP_PATTERN)
    xiaomi_channel_id: str = _option("", "Xiaomi: Android notification channel. Empty: the default one.")

    # -- processes and presentation
    worker_processes: int = _option(1, "Celery worker processes that `make up` starts.", minimum=1, maximum=64)
    cpu_affinity: bool = _option(
        True, "On a machine with two cores `make up` keeps the gateway on one, Valkey and the worker on the other."
    )
    worker_threads: int = _option(
        12, "Threads of one worker process; a busy stage holds one of them.", minimum=8, maximum=256
    )
    metrics_dir: str = _option("", "Folder where the processes of a host share their counters. Empty: each its own.")
    demo: bool = _option(False, "Serve the demo page, where anyone may be anyone.")
    debug: bool = _option(False, "Django debug pages. Never in production.")
    log_level: str = _option("INFO", "Least severe level logged.", choices=("DEBUG", "INFO", "WARNING", "ERROR"))
    log_format: str = _option("console", "console for people, json for collectors.", choices=("console", "json"))
    allowed_hosts: str = _option("*", "Host names the web process answers to, comma separated.")

    @property
    def broker(self) -> str:
        """Celery has a name of its own for a Redis behind a socket."""
        return self.broker_url or self.redis_url.replace("unix://", "redis+socket://", 1)

    @property
    def channel_layer_hosts(self) -> list[str]:
        return _words(self.channel_layer_urls) or [self.redis_url]

    @property
    def admins(self) -> frozenset[str]:
        return frozenset(_words(self.admin_user_ids))

    @property
    def hosts(self) -> list[str]:
        return _words(self.allowed_hosts)

    @property
    def data_path(self) -> Path:
        return BASE_DIR / self.data_dir


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _parse(name: str, kind: type, text: str) -> object:
    if kind is bool:
        word = text.strip().lower()
        if word in TRUE_WORDS:
            return True
        if word in FALSE_WORDS:
            return False
        raise ConfigError(f"{name}={text!r}: expected 1 or 0 (also true/false, yes/no, on/off)")
    if kind is int:
        try:
            return int(text)
        except ValueError:
            raise ConfigError(f"{name}={text!r}: expected a whole number") from None
    return text


def _check(name: str, value: object, metadata: Mapping[str, Any]) -> None:
    shown = "(hidden)" if metadata["secret"] else repr(value)
    if metadata["choices"] and value not in metadata["choices"]:
        choices = ", ".join(str(choice) for choice in metadata["choices"])
        raise ConfigError(f"{name}={shown}: expected one of {choices}")
    if isinstance(value, int) and not isinstance(value, bool):
        if metadata["minimum"] is not None and value < metadata["minimum"]:
            raise ConfigError(f"{name}={shown}: must be at least {metadata['minimum']}")
        if metadata["maximum"] is not None and value > metadata["maximum"]:
            raise ConfigError(f"{name}={shown}: must be at most {metadata['maximum']}")
    if metadata["pattern"] and not re.fullmatch(metadata["pattern"], str(value)):
        raise ConfigError(f"{name}={shown}: does not look like {metadata['pattern']}")


def _read(name: str, environ: Mapping[str, str], secret: bool) -> str | None:
    if name in environ:
        return environ[name]
    if secret and f"{name}_FILE" in environ:
        path = Path(environ[f"{name}_FILE"])
        try:
            return path.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ConfigError(f"{name}_FILE={str(path)!r}: cannot be read: {error.strerror}") from error
    return None


def _check_together(config: Config) -> None:
    if config.node_ttl_ms < 3 * config.node_heartbeat_ms:
        raise ConfigError(
            f"NODE_TTL_MS={config.node_ttl_ms}: must be at least three times NODE_HEARTBEAT_MS={config.node_heartbeat_ms}"
        )
    if config.broker_url and "://" not in config.broker_url:
        raise ConfigError(f"BROKER_URL={config.broker_url!r}: expected an address such as redis://host:6379/1")
    for url in _words(config.channel_layer_urls):
        if not re.fullmatch(REDIS_PATTERN, url):
            raise ConfigError(f"CHANNEL_LAYER_URLS={url!r}: does not look like {REDIS_PATTERN}")
    if not config.auth_secret:
        raise ConfigError("AUTH_SECRET is empty: set a secret of your own")
    if config.object_store == "s3" and not config.s3_bucket:
        raise ConfigError("S3_BUCKET is empty: OBJECT_STORE=s3 needs a bucket")
    missing = [name.upper() for name in VENDOR_SETTINGS[config.offline_push_vendor] if not getattr(config, name)]
    if missing:
        raise ConfigError(f"OFFLINE_PUSH_VENDOR={config.offline_push_vendor!r}: missing {', '.join(missing)}")
    if config.fcm_token_url and not re.fullmatch(HTTP_PATTERN, config.fcm_token_url):
        raise ConfigError(f"FCM_TOKEN_URL={config.fcm_token_url!r}: does not look like {HTTP_PATTERN}")
    if not config.admins:
        raise ConfigError("ADMIN_USER_IDS is empty: name at least one admin user id")


def load_config(environ: Mapping[str, str] | None = None) -> Config:
    """Build the configuration from ``environ`` (default: ``.env``, then the process environment, which wins).

    Raises:
        ConfigError: a value is refused; the text names the variable.
    """
    if environ is None:
        Env.read_env(str(BASE_DIR / ".env"))
        environ = os.environ
    kinds = get_type_hints(Config)
    values: dict[str, Any] = {}
    for option in dataclasses.fields(Config):
        name = option.name.upper()
        text = _read(name, environ, option.metadata["secret"])
        value = option.default if text is None else _parse(name, kinds[option.name], text)
        _check(name, value, option.metadata)
        values[option.name] = value
    config = Config(**values)
    _check_together(config)
    return config


_config: Config | None = None


def get_config() -> Config:
    """The process's configuration, read at the first call."""
    global _config
    if _config is None:
        _config = load_config()
    return _config
