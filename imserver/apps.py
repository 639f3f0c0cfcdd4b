from __future__ import annotations

from django.apps import AppConfig


class IMServerConfig(AppConfig):
    name = "imserver"
    label = "imserver"
    verbose_name = "Messaging"
    default_auto_field = "django_mongodb_backend.fields.ObjectIdAutoField"
