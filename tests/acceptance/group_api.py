"""The group routes as users call them, for tests."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from tests.client import Api

Json = dict[str, Any]


class GroupApi:
    """Users with tokens of their own. ``None`` for a user is the app admin."""

    def __init__(self, api: Api, names: Iterator[str]) -> None:
        self.api = api
        self._names = names
        self._tokens: dict[str, str] = {}

    async def users(self, count: int) -> list[str]:
        """Registers users."""
        user_ids = list(itertools.islice(self._names, count))
        await self.api.register(*user_ids)
        return user_ids

    async def token(self, user_id: str | None) -> str | None:
        """Of a platform that the tests' sockets do not use, so that nobody is logged out."""
        if user_id is None:
            return None
        if user_id not in self._tokens:
            self._tokens[user_id] = await self.api.token(user_id, platform_id=5)
        return self._tokens[user_id]

    async def call(self, user_id: str | None, route: str, **body: Any) -> Any:
        return await self.api.call(f"/group/{route}", body, token=await self.token(user_id))

    async def code(self, user_id: str | None, route: str, **body: Any) -> int:
        """The error code of an answer, 0 for a success."""
        envelope = await self.api.post(f"/group/{route}", body, token=await self.token(user_id))
        code: int = envelope["errCode"]
        return code

    async def create(
        self, owner: str, *members: str, admins: tuple[str, ...] = (), send_message: bool | None = None, **info: Any
    ) -> str:
        """Returns the group's id."""
        body = {
            "ownerUserID": owner,
            "memberUserIDs": list(members),
            "adminUserIDs": list(admins),
            "groupInfo": {"groupName": "group", "groupType": 2, **info},
            "sendMessage": send_message,
        }
        group_id: str = (await self.call(owner, "create_group", **body))["groupInfo"]["groupID"]
        return group_id

    async def info(self, group_id: str) -> Json:
        (info,) = (await self.call(None, "get_groups_info", groupIDs=[group_id]))["groupInfos"]
        return dict(info)

    async def member(self, group_id: str, user_id: str) -> Json | None:
        body = {"groupID": group_id, "userIDs": [user_id]}
        members = (await self.call(None, "get_group_members_info", **body))["members"]
        return dict(members[0]) if members else None

    async def roles(self, group_id: str) -> dict[str, int]:
        """Role of each member, in the list's order."""
        body = {"groupID": group_id, "pagination": {"pageNumber": 1, "showNumber": 100}, "filter": 0, "keyword": ""}
        data = await self.call(None, "get_group_member_list", **body)
        return {item["userID"]: item["roleLevel"] for item in data["members"]}

    async def changed(self, user_id: str, group_id: str, version: Json) -> Json:
        """The entry of one group in the answer of changed members."""
        body = {"userID": user_id, "reqList": [{"groupID": group_id, **version_of(version)}]}
        data = await self.call(user_id, "get_incremental_group_members_batch", **body)
        return dict(data["respList"][group_id])

    async def joined(self, user_id: str, version: Json | None = None) -> Json:
        body = {"userID": user_id, **version_of(version or {})}
        return dict(await self.call(user_id, "get_incremental_join_groups", **body))


def version_of(answer: Json) -> Json:
    return {"version": answer.get("version", 0), "versionID": answer.get("versionID", "")}
