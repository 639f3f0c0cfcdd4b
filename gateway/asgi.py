"""The gateway's ASGI application. Of Django it has the settings and the logging: nothing here touches the ORM, and without
the apps' models a node is up in half the time."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "imserver.settings")

from django.conf import settings
from django.utils.log import configure_logging

configure_logging(settings.LOGGING_CONFIG, settings.LOGGING)

from gateway.routing import application

__all__ = ["application"]
