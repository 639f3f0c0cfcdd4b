"""The web process's ASGI application: REST, admin, demo page, metrics, health."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "imserver.settings")

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

django_application = get_asgi_application()

from imserver.rest.stored import PartReceiver

application = PartReceiver(ASGIStaticFilesHandler(django_application))
