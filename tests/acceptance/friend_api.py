"""The friend routes as users call them, for tests."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

from tests.client import Api

Json = dict[str, Any]

FIRST_PAGE = {"pageNumber": 1, "showNumber": 100}


class FriendApi:
    """Users with tokens of their own. ``None`` for a user is the app admin."""

    def __init__(self, api: Api, names: Iterator[str]) -> None:
        self.api = api
        self._names = names
        self._tokens: dict[str, str] = {}
        self._lock = asyncio.Lock()

    async def users(self, count: int) -> list[str]:
        """Registers users."""
        user_ids = list(itertools.islice(self._names, count))
        await self.api.register(*user_ids)
        return user_ids

    async def token(self, user_id: str | None) -> str | None:
        """Of a platform that the tests' sockets do not use, so that nobody is logged out."""
        if user_id is None:
            return None
        async with self._lock:
            if user_id not in self._tokens:
                self._tokens[user_id] = await self.api.token(user_id, platform_id=5)
        return self._tokens[user_id]

    async def call(self, user_id: str | None, route: str, **body: Any) -> Any:
        return await self.api.call(f"/friend/{route}", body, token=await self.token(user_id))

    async def code(self, user_id: str | None, route: str, **body: Any) -> int:
        """The error code of an answer, 0 for a success."""
        envelope = await self.api.post(f"/friend/{route}", body, token=await self.token(user_id))
        code: int = envelope["errCode"]
        return code

    async def apply(self, applicant: str, target: str, **body: Any) -> int:
        return await self.code(applicant, "add_friend", fromUserID=applicant, toUserID=target, **body)

    async def answer(self, target: str, applicant: str, result: int = 1, **body: Any) -> int:
        ids = {"fromUserID": applicant, "toUserID": target}
        return await self.code(target, "add_friend_response", **ids, handleResult=result, **body)

    async def befriend(self, owner: str, *user_ids: str) -> None:
        """As an app server does."""
        await self.call(None, "import_friend", ownerUserID=owner, friendUserIDs=list(user_ids))

    async def update(self, owner: str, *user_ids: str, **changes: Any) -> int:
        return await self.code(owner, "update_friends", ownerUserID=owner, friendUserIDs=list(user_ids), **changes)

    async def delete(self, owner: str, user_id: str) -> int:
        return await self.code(owner, "delete_friend", ownerUserID=owner, friendUserID=user_id)

    async def block(self, owner: str, user_id: str, **body: Any) -> int:
        return await self.code(owner, "add_black", ownerUserID=owner, blackUserID=user_id, **body)

    async def unblock(self, owner: str, user_id: str) -> int:
        return await self.code(owner, "remove_black", ownerUserID=owner, blackUserID=user_id)

    async def friends(self, owner: str, number: int = 1, size: int = 100) -> list[Json]:
        """A page of the owner's list."""
        pagination = {"pageNumber": number, "showNumber": size}
        data = await self.call(owner, "get_friend_list", userID=owner, pagination=pagination)
        return list(data["friendsInfo"])

    async def ids(self, owner: str) -> list[str]:
        """Ids of the owner's friends in the list's order."""
        return list((await self.call(owner, "get_friend_id", userID=owner))["friendIDs"])

    async def received(self, user_id: str, *results: int) -> list[Json]:
        body = {"userID": user_id, "pagination": FIRST_PAGE, "handleResults": list(results)}
        return list((await self.call(user_id, "get_friend_apply_list", **body))["FriendRequests"])

    async def sent(self, user_id: str, *results: int) -> list[Json]:
        body = {"userID": user_id, "pagination": FIRST_PAGE, "handleResults": list(results)}
        return list((await self.call(user_id, "get_self_friend_apply_list", **body))["friendRequests"])

    async def unhandled(self, user_id: str, since: int = 0) -> int:
        data = await self.call(user_id, "get_self_unhandled_apply_count", userID=user_id, time=since)
        return int(data["count"])

    async def changed(self, owner: str, version: Json | None = None) -> Json:
        body = {"userID": owner, **version_of(version or {})}
        return dict(await self.call(owner, "get_incremental_friends", **body))

    async def changed_blacks(self, owner: str, version: Json | None = None) -> Json:
        body = {"userID": owner, **version_of(version or {})}
        return dict(await self.call(owner, "get_incremental_blacks", **body))


def version_of(answer: Json) -> Json:
    return {"version": answer.get("version", 0), "versionID": answer.get("versionID", "")}
