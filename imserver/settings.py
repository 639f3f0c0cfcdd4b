"""Django settings, built from ``conf.Config``. Values come from the environment and ``.env``; see docs/configuration.md."""

from __future__ import annotations

import hashlib
import sys

from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from imserver.conf import BASE_DIR, ConfigError, get_config
from imserver.log import logging_config
from imserver.no_gis import forbid_gis
from imserver.storage.clients import DURABLE

forbid_gis()
try:
    config = get_config()
except ConfigError as error:
    sys.exit(f"configuration refused: {error}")

SECRET_KEY = config.django_secret_key or hashlib.sha256(b"django:" + config.auth_secret.encode()).hexdigest()
DEBUG = config.debug
ALLOWED_HOSTS = config.hosts
ROOT_URLCONF = "imserver.urls"
ASGI_APPLICATION = "imserver.asgi.application"
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en-us"
APPEND_SLASH = False
DEFAULT_AUTO_FIELD = "django_mongodb_backend.fields.ObjectIdAutoField"
DATA_UPLOAD_MAX_MEMORY_SIZE = 8 * 1024 * 1024

INSTALLED_APPS = [
    "imserver.django_apps.MongoAdminConfig",
    "imserver.django_apps.MongoAuthConfig",
    "imserver.django_apps.MongoContentTypesConfig",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "imserver",
]
# Contrib apps get ObjectId keys on MongoDB, so they need migrations of their own.
MIGRATION_MODULES = {
    "admin": "imserver.mongo_migrations.admin",
    "auth": "imserver.mongo_migrations.auth",
    "contenttypes": "imserver.mongo_migrations.contenttypes",
}

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "imserver" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASES = {
    "default": {
        "ENGINE": "django_mongodb_backend",
        "HOST": config.mongo_url,
        "NAME": config.mongo_database,
        # What an operator saved in the admin is on disk when the page says so.
        "OPTIONS": DURABLE,
    }
}
DATABASE_ROUTERS = ["django_mongodb_backend.routers.MongoRouter"]

AUTH_PASSWORD_VALIDATORS = [{"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"}]
SESSION_COOKIE_HTTPONLY = True
STATIC_URL = "/static/"

# Publish/subscribe: an online push is a hint, so the at-most-once layer with one Redis call a message is the right one.
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "imserver.channel_layer.WaitingPubSubChannelLayer",
        "CONFIG": {
            "hosts": [
                # Without it the first publish after a restart of Redis fails on the connection that broke.
                {"address": address, "retry": Retry(ExponentialBackoff(cap=0.5, base=0.05), 3)}
                for address in config.channel_layer_hosts
            ]
        },
    }
}

LOGGING_CONFIG = "logging.config.dictConfig"
LOGGING = logging_config(config.log_level, config.log_format)
SILENCED_SYSTEM_CHECKS: list[str] = []
