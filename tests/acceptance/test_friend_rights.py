"""The friend routes, each: whose token they ask for, and input that they cannot use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.friend_api import FIRST_PAGE, FriendApi
from tests.client import Api

pytestmark = pytest.mark.acceptance


@pytest.fixture
def people(api: Api, names: Iterator[str]) -> FriendApi:
    return FriendApi(api, names)


#: Route -> body, for the users "me" and "you".
ROUTES: dict[str, dict[str, Any]] = {
    "add_friend": {"fromUserID": "me", "toUserID": "you"},
    "add_friend_response": {"fromUserID": "you", "toUserID": "me", "handleResult": 1},
    "get_friend_apply_list": {"userID": "me", "pagination": FIRST_PAGE},
    "get_self_friend_apply_list": {"userID": "me", "pagination": FIRST_PAGE},
    "get_self_unhandled_apply_count": {"userID": "me", "time": 0},
    "get_designated_friend_apply": {"fromUserID": "me", "toUserID": "you"},
    "delete_friend": {"ownerUserID": "me", "friendUserID": "you"},
    "update_friends": {"ownerUserID": "me", "friendUserIDs": ["you"], "remark": "x"},
    "set_friend_remark": {"ownerUserID": "me", "friendUserID": "you", "remark": "x"},
    "import_friend": {"ownerUserID": "me", "friendUserIDs": ["you"]},
    "get_friend_list": {"userID": "me", "pagination": FIRST_PAGE},
    "get_designated_friends": {"ownerUserID": "me", "friendUserIDs": ["you"]},
    "get_specified_friends_info": {"ownerUserID": "me", "userIDList": ["you"]},
    "is_friend": {"userID1": "me", "userID2": "you"},
    "get_friend_id": {"userID": "me"},
    "get_full_friend_user_ids": {"userID": "me", "idHash": 0},
    "get_incremental_friends": {"userID": "me", "version": 0, "versionID": ""},
    "add_black": {"ownerUserID": "me", "blackUserID": "you"},
    "remove_black": {"ownerUserID": "me", "blackUserID": "you"},
    "get_black_list": {"userID": "me", "pagination": FIRST_PAGE},
    "get_specified_blacks": {"ownerUserID": "me", "userIDList": ["you"]},
    "get_incremental_blacks": {"userID": "me", "version": 0, "versionID": ""},
}
#: Route -> changes of its body that are bad input.
BAD_INPUT: dict[str, list[dict[str, Any]]] = {
    "get_friend_apply_list": [{"pagination": None}, {"pagination": {"pageNumber": 0, "showNumber": 1}}],
    "get_self_friend_apply_list": [{"pagination": None}, {"pagination": {"pageNumber": 1, "showNumber": 1001}}],
    "get_self_unhandled_apply_count": [{"time": "now"}],
    "get_designated_friend_apply": [{"toUserID": ""}, {"toUserID": 5}],
    "get_friend_list": [{"pagination": None}, {"pagination": {"pageNumber": 1, "showNumber": -1}}],
    "get_designated_friends": [{"friendUserIDs": ["you", "you"]}, {"friendUserIDs": "you"}],
    "get_specified_friends_info": [{"userIDList": []}, {"userIDList": ["you", "you"]}],
    "is_friend": [{"userID2": ""}],
    "get_full_friend_user_ids": [{"idHash": -1}],
    "get_incremental_friends": [{"version": -1}, {"versionID": 5}],
    "get_friend_id": [{"userID": ["me"]}],
    "add_black": [{"blackUserID": ""}, {"blackUserID": "me"}, {"ex": "x" * 4001}],
    "remove_black": [{"blackUserID": ""}],
    "get_black_list": [{"pagination": None}, {"pagination": {"pageNumber": 1, "showNumber": 0}}],
    "get_specified_blacks": [{"userIDList": []}, {"userIDList": ["you", ""]}],
    "get_incremental_blacks": [{"version": "new"}],
}


def filled(body: Any, me: str, you: str) -> Any:
    """A body with the names of users in it."""
    if isinstance(body, dict):
        return {name: filled(value, me, you) for name, value in body.items()}
    if isinstance(body, list):
        return [filled(value, me, you) for value in body]
    return {"me": me, "you": you}.get(body, body) if isinstance(body, str) else body


async def test_every_route_asks_for_the_user_itself_and_a_good_token(people: FriendApi) -> None:
    me, you, other = await people.users(3)

    async def code(route: str, body: Any, token: str | None, **headers: str) -> int:
        envelope = await people.api.post(f"/friend/{route}", body, token=token, **headers)
        assert set(envelope) - {"data"} == {"errCode", "errMsg", "errDlt"}
        found: int = envelope["errCode"]
        return found

    found = {}
    for route, template in ROUTES.items():
        body = filled(template, me, you)
        found[route] = (
            await code(route, body, await people.token(other)),
            await code(route, body, ""),
            await code(route, body, "no.token.at.all"),
            await code(route, body, await people.token(me), operationID=""),
            await code(route, [], await people.token(me)),
        )
    assert found == dict.fromkeys(ROUTES, (1002, 1001, 1503, 1001, 1001))
    assert (await people.ids(me), await people.received(you)) == ([], [])
    assert await people.code(me, "import_friend", ownerUserID=me, friendUserIDs=[you]) == 1002


async def test_every_route_refuses_what_it_cannot_read(people: FriendApi) -> None:
    me, you = await people.users(2)

    found = {
        (route, at): await people.code(me, route, **filled({**ROUTES[route], **change}, me, you))
        for route, changes in BAD_INPUT.items()
        for at, change in enumerate(changes)
    }

    assert found == dict.fromkeys(found, 1001)
