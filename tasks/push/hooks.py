"""Asks the before-online-push hooks about a batch, many messages at a time."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import redis
from pymongo.database import Database

from imserver.conf import get_config
from imserver.errors import DatabaseUnavailable
from imserver.storage import webhooks
from imserver.storage.clients import Document
from imserver.storage.logs import Lease
from imserver.storage.webhooks import Hook, Hooks
from imserver.webhooks import before_push
from tasks.push import layer
from tasks.push.messages import Push

#: Calls at the same time.
MOST_CALLS = 16


class PushHooks:
    def __init__(self, client: redis.Redis, database: Database[Document]) -> None:
        self._redis = client
        self._database = database

    def are_on(self) -> bool:
        """Also while the settings were never read: then the push stage finds out, and nothing is pushed unasked."""
        try:
            return not before_push.COMMANDS.isdisjoint(self._get().by_command)
        except DatabaseUnavailable:
            return True

    def apply(self, pushes: list[Push], lease: Lease) -> list[Push]:
        """The pushes with the receivers that the app server wants; the lease is kept however long it takes to answer.

        Raises DatabaseUnavailable when it is not known whether it is to be asked, LeaseLost.
        """
        hooks = self._get()
        asked = {
            index: hook
            for index, push in enumerate(pushes)
            if (hook := before_push.hook_for(hooks, push.msg)) is not None
        }
        if not asked:
            return pushes
        return layer.run_keeping(
            self._ask_all(pushes, asked), lambda: lease.renew(self._redis), get_config().lease_ms / 4000
        )

    async def _ask_all(self, pushes: list[Push], asked: dict[int, Hook]) -> list[Push]:
        places = asyncio.Semaphore(MOST_CALLS)

        async def ask(push: Push, hook: Hook) -> Push:
            async with places:
                receivers = await before_push.receivers_after(
                    hook, push.msg, push.seq, push.operation_id, list(push.receivers)
                )
            return replace(push, receivers=receivers)

        answers = await asyncio.gather(*(ask(pushes[index], hook) for index, hook in asked.items()))
        changed = dict(zip(asked, answers, strict=True))
        return [changed.get(index, push) for index, push in enumerate(pushes)]

    def _get(self) -> Hooks:
        return webhooks.get_cache(self._database).get()
