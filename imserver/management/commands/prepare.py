"""``manage.py prepare``: indexes, Django's tables, the first users. Harmless to repeat; `make up` and compose run it."""

from __future__ import annotations

import secrets
from typing import Any

from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from pymongo.errors import DuplicateKeyError, PyMongoError

from imserver.conf import get_config
from imserver.constants import AppManagerLevel
from imserver.storage import users
from imserver.storage.clients import get_mongo
from imserver.storage.indexes import ensure_indexes

SUPERUSER = "admin"


class Command(BaseCommand):
    help = "Ensure indexes, migrate, create the IM admin users and Django's superuser."

    def handle(self, *_args: Any, **_options: Any) -> None:
        database = get_mongo()
        try:
            ensure_indexes(database)
        except PyMongoError as error:
            raise CommandError(f"MongoDB is not usable at MONGO_URL: {error}") from error
        call_command("migrate", verbosity=0, interactive=False)
        for user_id in sorted(get_config().admins):
            self._ensure_admin(user_id)
        self._ensure_superuser()

    def _ensure_admin(self, user_id: str) -> None:
        collection = get_mongo()[users.COLLECTION]
        if collection.find_one({"user_id": user_id}, {"_id": 1}) is None:
            try:
                collection.insert_one(users.new_user(user_id, user_id, level=AppManagerLevel.ADMIN))
            except DuplicateKeyError:
                self.stderr.write(f"{user_id} was created by another process meanwhile")

    def _ensure_superuser(self) -> None:
        if User.objects.filter(is_superuser=True).exists():
            return
        password = secrets.token_urlsafe(12)
        User.objects.create_superuser(SUPERUSER, "", password)
        self.stdout.write(f"admin password: {password}")
