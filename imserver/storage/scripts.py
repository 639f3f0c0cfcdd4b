"""The Lua scripts, loaded by name. Each file lists its keys, arguments, answers and stored fields."""

from __future__ import annotations

from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import NoScriptError

LUA_DIR = Path(__file__).parent / "lua"


class Script:
    """One Lua script. Sent by its digest; sent whole when the server does not know it (first use, restart)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.source = (LUA_DIR / f"{name}.lua").read_text(encoding="utf-8")
        self.sha = sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def run(self, client: redis.Redis, keys: list[Any], args: list[Any]) -> Any:
        try:
            return client.evalsha(self.sha, len(keys), *keys, *args)
        except NoScriptError:
            return client.eval(self.source, len(keys), *keys, *args)

    def run_many(self, client: redis.Redis, calls: list[tuple[list[Any], list[Any]]]) -> list[Any]:
        """Several calls in one round trip. An exception of one call stands in its place in the answer."""
        if len(calls) == 1:
            return [self.run(client, *calls[0])]
        for _attempt in range(2):
            pipe = client.pipeline(transaction=False)
            for keys, args in calls:
                pipe.execute_command(*self.command(keys, args))  # type: ignore[no-untyped-call]
            results: list[Any] = pipe.execute(raise_on_error=False)
            if not self.is_missing(results):
                return results
            self.load(client)
        return results

    def command(self, keys: list[Any], args: list[Any]) -> list[Any]:
        """A call as a command; who sends it looks at ``is_missing``, and sends again after ``load``."""
        return ["EVALSHA", self.sha, len(keys), *keys, *args]

    @staticmethod
    def is_missing(results: list[Any]) -> bool:
        """The server restarted and does not know the script: none of the calls ran."""
        return any(isinstance(result, NoScriptError) for result in results)

    def load(self, client: redis.Redis) -> None:
        client.script_load(self.source)

    async def run_async(self, client: redis.asyncio.Redis, keys: list[Any], args: list[Any]) -> Any:
        try:
            return await client.evalsha(self.sha, len(keys), *keys, *args)
        except NoScriptError:
            return await client.eval(self.source, len(keys), *keys, *args)

    async def run_many_async(self, client: redis.asyncio.Redis, calls: list[tuple[list[Any], list[Any]]]) -> list[Any]:
        """Several calls in one round trip. An exception of one call stands in its place in the answer."""
        if len(calls) == 1:
            return [await self.run_async(client, *calls[0])]
        for _attempt in range(2):
            pipe = client.pipeline(transaction=False)
            for keys, args in calls:
                pipe.evalsha(self.sha, len(keys), *keys, *args)
            results: list[Any] = await pipe.execute(raise_on_error=False)
            if not any(isinstance(result, NoScriptError) for result in results):
                return results
            # The server restarted: none of the calls ran, so load the script and send them again.
            await client.script_load(self.source)
        return results


@cache
def get_script(name: str) -> Script:
    return Script(name)
