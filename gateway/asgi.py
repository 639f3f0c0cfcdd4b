"""The gateway's ASGI application. Django is set up for its settings only: nothing here touches the ORM."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "imserver.settings")

import django

django.setup()

from gateway.routing import application

__all__ = ["application"]
