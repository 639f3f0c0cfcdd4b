"""Groups through REST: rights, errors, rows, and what a client's sync is told."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from imserver.constants import RoleLevel
from tests.acceptance.group_api import GroupApi, version_of
from tests.client import Api
from tests.stack import Stack, wait_until

pytestmark = pytest.mark.acceptance

FIRST_PAGE = {"pageNumber": 1, "showNumber": 100}


@pytest.fixture
def people(api: Api, names: Iterator[str]) -> GroupApi:
    return GroupApi(api, names)


# -- creating


async def test_a_new_group_has_its_owner_admins_and_members(people: GroupApi, stack: Stack) -> None:
    owner, admin, member, other = await people.users(4)

    group_id = await people.create(owner, member, admins=(admin,), introduction="hello", ex="{}", needVerification=2)

    info = await people.info(group_id)
    wanted = {"ownerUserID": owner, "creatorUserID": owner, "memberCount": 3, "introduction": "hello", "ex": "{}"}
    assert wanted.items() <= info.items()
    assert (info["status"], info["groupType"], info["needVerification"]) == (0, 2, 2)
    assert await people.roles(group_id) == {owner: 100, admin: 60, member: 20}
    row = await people.member(group_id, member)
    assert row is not None
    assert (row["nickname"], row["joinSource"], row["inviterUserID"]) == (member, 2, owner)
    assert await people.member(group_id, other) is None
    assert set(info) == {
        *("groupID", "groupName", "notification", "introduction", "faceURL", "ownerUserID", "createTime"),
        *("memberCount", "ex", "status", "creatorUserID", "groupType", "needVerification", "lookMemberInfo"),
        *("applyMemberFriend", "notificationUpdateTime", "notificationUserID"),
    }


async def test_a_group_that_cannot_be_is_refused(people: GroupApi) -> None:
    owner, member, other = await people.users(3)
    given = await people.create(owner, groupID=f"given-{owner}")
    info = {"groupName": "g", "groupType": 2}

    async def code(by: str | None = owner, **change: Any) -> int:
        body = {"ownerUserID": owner, "memberUserIDs": [member], "groupInfo": info, **change}
        return await people.code(by, "create_group", **body)

    assert given == f"given-{owner}"
    assert await code(groupInfo={**info, "groupType": 0}) == 1001
    assert await code(groupInfo={**info, "needVerification": 3}) == 1001
    assert await code(groupInfo={**info, "groupID": "under_score"}) == 1001
    assert await code(groupInfo={**info, "groupName": "x" * 300}) == 1001
    assert await code(groupInfo={**info, "groupID": given}) == 1202
    assert await code(memberUserIDs=[member, member]) == 1001
    assert await code(memberUserIDs=[owner]) == 1001
    assert await code(memberUserIDs=["nobody_at_all"]) == 1101
    assert await code(None, ownerUserID="") == 1001
    assert await code(other) == 1002
    assert await code(None) == 0


# -- coming


async def test_who_joins_an_open_group_is_a_member_at_once(people: GroupApi, stack: Stack) -> None:
    owner, user = await people.users(2)
    group_id = await people.create(owner, needVerification=2)
    body = {"groupID": group_id, "joinSource": 3, "reqMessage": "", "inviterUserID": user}

    await people.call(user, "join_group", **body)

    row = await people.member(group_id, user)
    assert row is not None
    assert (row["roleLevel"], row["joinSource"]) == (20, 3)
    record = stack.database["conversation"].find_one({"owner_user_id": user, "conversation_id": f"sg_{group_id}"})
    assert record is not None
    assert (record["conversation_type"], record["group_id"], record["max_seq"]) == (3, group_id, 0)
    assert await people.code(user, "join_group", **body) == 1001
    assert await people.code(owner, "join_group", **{**body, "inviterUserID": user}) == 1002
    assert await people.code(user, "join_group", **{**body, "groupID": "none"}) == 1004


async def test_who_joins_says_how_the_group_was_found(people: GroupApi) -> None:
    owner, user = await people.users(2)
    group_id = await people.create(owner)

    for source in (None, 0, 1, 5, -1):
        assert await people.code(user, "join_group", groupID=group_id, joinSource=source) == 1001

    for source in (2, 3, 4):
        assert await people.code(user, "join_group", groupID=group_id, joinSource=source) == 0


async def test_who_joins_a_closed_group_applies_and_is_let_in(people: GroupApi) -> None:
    owner, admin, user, stranger = await people.users(4)
    group_id = await people.create(owner, stranger, admins=(admin,), needVerification=0)

    await people.call(user, "join_group", groupID=group_id, inviterUserID=user, reqMessage="please", joinSource=3)

    assert await people.member(group_id, user) is None
    listed = {"fromUserID": admin, "pagination": FIRST_PAGE, "handleResults": [0]}
    (request,) = (await people.call(admin, "get_recv_group_applicationList", **listed))["groupRequests"]
    assert (request["userInfo"]["userID"], request["groupInfo"]["groupID"]) == (user, group_id)
    assert (request["reqMsg"], request["handleResult"], request["joinSource"]) == ("please", 0, 3)
    assert (await people.call(admin, "get_group_application_unhandled_count", userID=admin, time=0))["count"] == 1
    answer = {"groupID": group_id, "fromUserID": user, "handledMsg": "welcome", "handleResult": 1}
    assert await people.code(stranger, "group_application_response", **answer) == 1002
    assert await people.code(admin, "group_application_response", **{**answer, "handleResult": 5}) == 1001
    assert await people.code(admin, "group_application_response", **{**answer, "fromUserID": stranger}) == 1004
    await people.call(admin, "group_application_response", **answer)
    assert await people.code(owner, "group_application_response", **answer) == 1206

    assert (await people.roles(group_id))[user] == 20
    own = {"userID": user, "pagination": FIRST_PAGE}
    (request,) = (await people.call(user, "get_user_req_group_applicationList", **own))["groupRequests"]
    assert (request["handleResult"], request["handleMsg"], request["handleUserID"]) == (1, "welcome", admin)
    assert (await people.call(owner, "get_group_application_unhandled_count", userID=owner, time=0))["count"] == 0
    one = {"groupID": group_id, "userID": user}
    found = await people.call(user, "get_specified_user_group_request_info", **one)
    assert found == {"total": 1, "groupRequests": [request]}
    none = await people.call(owner, "get_specified_user_group_request_info", groupID=group_id, userID=stranger)
    assert none == {"total": 0, "groupRequests": []}


async def test_applications_are_listed_for_the_groups_that_are_named(people: GroupApi) -> None:
    owner, other, user = await people.users(3)
    first, second = [await people.create(owner) for _ in range(2)]
    foreign = await people.create(other, owner)
    for group_id in (first, second, foreign):
        await people.call(user, "join_group", groupID=group_id, joinSource=3)
    body = {"fromUserID": owner, "pagination": FIRST_PAGE}

    async def listed(by: str | None, *group_ids: str) -> set[str]:
        data = await people.call(by, "get_recv_group_applicationList", **body, groupIDs=list(group_ids))
        assert data["total"] == len(data["groupRequests"])
        return {request["groupInfo"]["groupID"] for request in data["groupRequests"]}

    assert await listed(owner) == await listed(None) == {first, second}
    assert await listed(owner, second, second) == {second}
    assert await listed(None, first, foreign, "none") == {first, foreign}
    for group_id in (foreign, "none"):
        named = [first, group_id]
        assert await people.code(owner, "get_recv_group_applicationList", **body, groupIDs=named) == 1002


async def test_who_is_refused_stays_out_and_may_apply_again(people: GroupApi) -> None:
    owner, user = await people.users(2)
    group_id = await people.create(owner)
    application = {"groupID": group_id, "inviterUserID": user, "joinSource": 4}
    answer = {"groupID": group_id, "fromUserID": user, "handleResult": -1}

    await people.call(user, "join_group", **application)
    await people.call(owner, "group_application_response", **answer)

    assert await people.member(group_id, user) is None
    await people.call(user, "join_group", **application)
    await people.call(owner, "group_application_response", **{**answer, "handleResult": 1})
    assert await people.member(group_id, user) is not None


async def test_members_invite_and_strangers_do_not(people: GroupApi) -> None:
    owner, member, first, second, stranger = await people.users(5)
    group_id = await people.create(owner, member)

    await people.call(member, "invite_user_to_group", groupID=group_id, invitedUserIDs=[first, member])
    await people.call(None, "invite_user_to_group", groupID=group_id, invitedUserIDs=[second])

    assert set(await people.roles(group_id)) == {owner, member, first, second}
    row = await people.member(group_id, first)
    assert row is not None
    assert (row["joinSource"], row["inviterUserID"]) == (2, member)

    async def code(by: str | None, *user_ids: str, group: str = group_id) -> int:
        return await people.code(by, "invite_user_to_group", groupID=group, invitedUserIDs=list(user_ids))

    assert await code(stranger, stranger) == 1002
    assert await code(owner, first) == 1001
    assert await code(owner) == 1001
    assert await code(owner, "nobody_at_all") == 1004
    assert await code(owner, stranger, group="none") == 1004


async def test_where_invitations_need_approval_a_members_is_an_application(people: GroupApi) -> None:
    owner, member, user, direct = await people.users(4)
    group_id = await people.create(owner, member, needVerification=1)

    await people.call(member, "invite_user_to_group", groupID=group_id, invitedUserIDs=[user], reason="a friend")
    await people.call(owner, "invite_user_to_group", groupID=group_id, invitedUserIDs=[direct])

    assert set(await people.roles(group_id)) == {owner, member, direct}
    await people.call(
        owner, "group_application_response", groupID=group_id, fromUserID=user, handledMsg="", handleResult=1
    )
    row = await people.member(group_id, user)
    assert row is not None
    assert (row["joinSource"], row["inviterUserID"]) == (2, member)


# -- going


async def test_who_quits_is_out_and_the_owner_does_not_quit(people: GroupApi) -> None:
    owner, member, other = await people.users(3)
    group_id = await people.create(owner, member, other)

    assert await people.code(owner, "quit_group", groupID=group_id, userID=owner) == 1002
    assert await people.code(owner, "quit_group", groupID=group_id, userID=member) == 1002
    await people.call(member, "quit_group", groupID=group_id, userID=member)
    await people.call(other, "quit_group", groupID=group_id)

    assert await people.roles(group_id) == {owner: 100}
    assert await people.code(owner, "quit_group", groupID=group_id) == 1002
    assert await people.code(member, "quit_group", groupID=group_id, userID=member) == 1004
    assert await people.code(member, "quit_group", groupID="none", userID=member) == 1004


async def test_kicking_goes_downwards_only(people: GroupApi) -> None:
    owner, admin, other, member, stranger = await people.users(5)
    group_id = await people.create(owner, member, admins=(admin, other))

    async def code(by: str | None, *user_ids: str) -> int:
        return await people.code(by, "kick_group", groupID=group_id, kickedUserIDs=list(user_ids))

    assert await code(member, admin) == 1002
    assert await code(stranger, member) == 1002
    assert await code(admin, other) == 1002
    assert await code(admin, owner) == 1001
    assert await code(None, owner) == 1001
    assert await code(admin, admin) == 1001
    assert await code(owner, stranger) == 1101
    assert await code(owner) == 1001
    assert await people.roles(group_id) == {owner: 100, admin: 60, other: 60, member: 20}
    assert await code(admin, member) == 0
    assert await code(owner, other) == 0
    assert await code(None, admin) == 0
    assert await people.roles(group_id) == {owner: 100}


async def test_a_dismissed_group_stays_to_look_at_and_takes_nothing(people: GroupApi) -> None:
    owner, admin, user = await people.users(3)
    group_id = await people.create(owner, admins=(admin,), needVerification=2)

    assert await people.code(admin, "dismiss_group", groupID=group_id) == 1002
    await people.call(owner, "dismiss_group", groupID=group_id, deleteMember=False)

    info = await people.info(group_id)
    assert (info["status"], info["memberCount"]) == (2, 0)
    assert await people.code(owner, "dismiss_group", groupID=group_id) == 1204
    assert await people.code(user, "join_group", groupID=group_id, joinSource=3) == 1204
    assert await people.code(None, "invite_user_to_group", groupID=group_id, invitedUserIDs=[user]) == 1204
    assert await people.code(None, "cancel_mute_group", groupID=group_id) == 1204
    assert await people.code(None, "set_group_info_ex", groupID=group_id, groupName="back") == 1204
    assert (await people.info(group_id))["status"] == 2
    assert (await people.call(admin, "get_joined_group_list", fromUserID=admin, pagination=FIRST_PAGE)) == {
        "total": 0,
        "groups": [],
    }


# -- settings


async def test_mutes_have_their_ranks_and_their_ends(people: GroupApi) -> None:
    owner, admin, other, member = await people.users(4)
    group_id = await people.create(owner, member, admins=(admin, other))

    async def code(by: str | None, user_id: str, seconds: int = 60, route: str = "mute_group_member") -> int:
        return await people.code(by, route, groupID=group_id, userID=user_id, mutedSeconds=seconds)

    assert await code(member, admin) == 1002
    assert await code(admin, other) == 1002
    assert await code(admin, owner) == 1002
    assert await code(admin, "nobody_at_all") == 1004
    assert await code(admin, member, 0) == 1001
    assert await code(admin, member) == 0
    assert await code(owner, admin) == 0
    before = await people.member(group_id, member)
    assert before is not None
    assert before["muteEndTime"] > before["joinTime"]
    assert await code(admin, member, route="cancel_mute_group_member") == 0
    after = await people.member(group_id, member)
    assert after is not None
    assert after["muteEndTime"] == 0


async def test_a_group_is_muted_by_its_owner_and_admins(people: GroupApi) -> None:
    owner, admin, member = await people.users(3)
    group_id = await people.create(owner, member, admins=(admin,))

    assert await people.code(member, "mute_group", groupID=group_id) == 1002
    await people.call(admin, "mute_group", groupID=group_id)
    assert (await people.info(group_id))["status"] == 3
    await people.call(owner, "cancel_mute_group", groupID=group_id)
    assert (await people.info(group_id))["status"] == 0


async def test_the_information_of_a_group_is_set_field_by_field(people: GroupApi) -> None:
    owner, member = await people.users(2)
    group_id = await people.create(owner, member, introduction="keep me")

    changes = {"groupName": "new", "notification": "read this", "faceURL": None, "lookMemberInfo": 1}
    await people.call(owner, "set_group_info_ex", groupID=group_id, **changes)

    info = await people.info(group_id)
    assert (info["groupName"], info["notification"], info["introduction"]) == ("new", "read this", "keep me")
    assert (info["lookMemberInfo"], info["notificationUserID"]) == (1, owner)
    assert info["notificationUpdateTime"] >= info["createTime"]
    assert await people.code(member, "set_group_info_ex", groupID=group_id, groupName="x") == 1002
    assert await people.code(owner, "set_group_info_ex", groupID=group_id, groupName="") == 1001
    assert await people.code(owner, "set_group_info_ex", groupID=group_id, needVerification=7) == 1001
    assert await people.code(owner, "set_group_info_ex", groupID=group_id, groupName=" ") == 1001
    assert await people.code(owner, "set_group_info_ex", groupID=group_id) == 0
    assert await people.code(member, "set_group_info_ex", groupID=group_id) == 1002
    assert await people.code(owner, "set_group_info_ex", groupID="none", groupName="x") == 1004


async def test_members_set_their_own_names_and_roles_are_the_owners_to_give(people: GroupApi) -> None:
    owner, admin, second, member, other, stranger = await people.users(6)
    group_id = await people.create(owner, member, other, admins=(admin, second))

    async def code(by: str | None, user_id: str, **changes: Any) -> int:
        change = {"groupID": group_id, "userID": user_id, **changes}
        return await people.code(by, "set_group_member_info", members=[change])

    assert await code(member, member, nickname="me", ex="x") == 0
    assert await code(member, other, nickname="you") == 1002
    assert await code(admin, other, nickname="you") == 0
    assert await code(admin, owner, nickname="boss") == 1002
    assert await code(admin, other, roleLevel=60) == 1002
    assert await code(member, member, roleLevel=60) == 1002
    assert await code(owner, owner, roleLevel=20) == 1002
    for by in (owner, None):
        assert await code(by, other, roleLevel=100) == 1002
        assert await code(by, other, roleLevel=30) == 1001
        assert await code(by, stranger, nickname="x") == 1001
    assert await code(stranger, other, nickname="x") == 1002
    assert await code(stranger, stranger, nickname="x") == 1002
    assert await code(owner, other, roleLevel=60) == 0
    assert await code(None, admin, roleLevel=20) == 0
    assert await code(admin, admin, roleLevel=60) == 1002
    assert await code(second, second, roleLevel=20) == 0
    assert await people.roles(group_id) == {owner: 100, other: 60, admin: 20, second: 20, member: 20}
    row = await people.member(group_id, member)
    assert row is not None
    assert (row["nickname"], row["ex"], row["faceURL"]) == ("me", "x", "")


async def test_a_group_is_handed_over_to_a_member(people: GroupApi) -> None:
    owner, admin, member, stranger = await people.users(4)
    group_id = await people.create(owner, member, admins=(admin,))

    async def code(by: str | None, old: str, new: str) -> int:
        return await people.code(by, "transfer_group", groupID=group_id, oldOwnerUserID=old, newOwnerUserID=new)

    assert await code(admin, owner, admin) == 1002
    assert await code(owner, owner, stranger) == 1001
    assert await code(owner, owner, owner) == 1001
    assert await code(None, member, admin) == 1002
    assert await code(owner, owner, admin) == 0
    assert await people.roles(group_id) == {admin: 100, owner: 60, member: 20}
    assert (await people.info(group_id))["ownerUserID"] == admin
    assert await code(None, admin, member) == 0
    assert await people.roles(group_id) == {member: 100, owner: 60, admin: 20}


# -- looking


async def test_members_are_looked_at_by_members_page_by_page(people: GroupApi) -> None:
    owner, admin, stranger, *members = await people.users(9)
    group_id = await people.create(owner, *members, admins=(admin,))

    async def page(number: int = 1, size: int = 100, kind: int = 0, keyword: str = "") -> tuple[int, list[str]]:
        pagination = {"pageNumber": number, "showNumber": size}
        body = {"groupID": group_id, "pagination": pagination, "filter": kind, "keyword": keyword}
        data = await people.call(members[0], "get_group_member_list", **body)
        return data["total"], [item["userID"] for item in data["members"]]

    total, everybody = await page()
    assert (total, set(everybody)) == (8, {owner, admin, *members})
    assert everybody[:2] == [owner, admin]
    assert [(await page(number, 3))[1] for number in (1, 2, 3, 4)] == [everybody[:3], everybody[3:6], everybody[6:], []]
    assert await page(kind=1) == (1, [owner])
    assert await page(kind=2) == (1, [admin])
    assert await page(1, 2, kind=3) == (6, everybody[2:4])
    assert await page(kind=4) == (7, everybody[1:])
    assert await page(kind=5) == (2, [owner, admin])
    assert await page(keyword=members[3][2:]) == (1, [members[3]])
    body = {"groupID": group_id, "pagination": FIRST_PAGE, "filter": 0, "keyword": ""}
    assert await people.code(stranger, "get_group_member_list", **body) == 1002
    assert await people.code(owner, "get_group_member_list", **{**body, "filter": 9}) == 1001
    assert await people.code(owner, "get_group_member_list", **{**body, "pagination": {"showNumber": 3}}) == 1001
    assert await people.code(stranger, "get_group_members_info", groupID=group_id, userIDs=[owner]) == 1002
    assert await people.code(stranger, "get_groups_info", groupIDs=[group_id, "none"]) == 0


async def test_ones_groups_come_page_by_page_and_some_members_in_the_order_asked(people: GroupApi) -> None:
    owner, member, stranger = await people.users(3)
    ids = [await people.create(owner, member) for _ in range(3)]
    await people.create(owner)

    async def page(number: int) -> tuple[int, list[str]]:
        body = {"fromUserID": member, "pagination": {"pageNumber": number, "showNumber": 2}}
        data = await people.call(member, "get_joined_group_list", **body)
        return data["total"], [info["groupID"] for info in data["groups"]]

    full = await people.call(member, "get_full_join_group_ids", userID=member, idHash=0)
    wanted = [member, stranger, "nobody_at_all", owner]
    data = await people.call(member, "get_group_members_info", groupID=ids[0], userIDs=wanted)

    assert set(full["groupIDs"]) == set(ids)
    assert [await page(number) for number in (1, 2, 3)] == [
        (3, full["groupIDs"][:2]),
        (3, full["groupIDs"][2:]),
        (3, []),
    ]
    assert [(item["userID"], item["roleLevel"]) for item in data["members"]] == [(member, 20), (owner, 100)]


async def test_the_full_lists_of_ids_are_ordered_as_the_pages_and_hashed(people: GroupApi) -> None:
    owner, *members = await people.users(5)
    group_id = await people.create(owner, *members)
    later = await people.create(owner)

    data = await people.call(members[0], "get_full_group_member_user_ids", groupID=group_id, idHash=0)

    assert data["userIDs"] == list(await people.roles(group_id))
    assert (data["equal"], data["version"] >= 1, len(data["versionID"])) == (False, True, 24)
    hashed = int.from_bytes(hashlib.md5(orjson.dumps(data["userIDs"])).digest()[:8], "big")  # noqa: S324
    again = await people.call(members[0], "get_full_group_member_user_ids", groupID=group_id, idHash=hashed)
    assert (again["equal"], again["userIDs"], again["version"]) == (True, [], data["version"])
    joined = await people.call(owner, "get_full_join_group_ids", userID=owner, idHash=0)
    assert (joined["equal"], joined["groupIDs"]) == (False, [group_id, later])
    empty = await people.call(members[0], "get_full_join_group_ids", userID=members[0], idHash=1)
    assert empty["groupIDs"] == [group_id]


async def test_a_user_learns_of_new_and_lost_groups_by_the_version(people: GroupApi) -> None:
    owner, user = await people.users(2)
    start = await people.joined(user)
    assert (start["full"], start["insert"], start["sortVersion"]) == (True, [], 0)

    group_id = await people.create(owner, user)
    second = await people.create(owner, user)

    inserted = await people.joined(user, start)
    assert [item["groupID"] for item in inserted["insert"]] == [group_id, second]
    assert (inserted["full"], inserted["delete"], inserted["versionID"]) == (False, [], start["versionID"])
    unchanged = await people.joined(user, inserted)
    assert (unchanged["full"], unchanged["insert"], unchanged["delete"]) == (False, [], [])
    await people.call(user, "quit_group", groupID=group_id, userID=user)
    await people.call(owner, "dismiss_group", groupID=second)
    deleted = await people.joined(user, inserted)
    assert (deleted["delete"], deleted["insert"]) == ([group_id, second], [])
    assert (await people.joined(user, {**deleted, "versionID": "0" * 24}))["full"]


async def test_every_group_asked_for_gets_an_entry_and_what_is_empty_there_is_null(people: GroupApi) -> None:
    owner, member, user, stranger = await people.users(4)
    group_id, quiet = await people.create(owner, member), await people.create(owner, member)
    start = await people.changed(owner, group_id, {})
    assert (start["full"], start["insert"], start["update"], start["delete"]) == (True, None, None, [])
    assert start["group"]["groupID"] == group_id

    await people.call(owner, "invite_user_to_group", groupID=group_id, invitedUserIDs=[user])
    await people.call(owner, "kick_group", groupID=group_id, kickedUserIDs=[member])

    quiet_version = version_of(await people.changed(owner, quiet, {}))
    body = {
        "userID": owner,
        "reqList": [{"groupID": group_id, **version_of(start)}, {"groupID": quiet, **quiet_version}],
    }
    answers = (await people.call(owner, "get_incremental_group_members_batch", **body))["respList"]
    assert set(answers) == {group_id, quiet}
    changed = answers[group_id]
    assert ([item["userID"] for item in changed["insert"]], changed["update"], changed["delete"]) == (
        [user],
        None,
        [member],
    )
    assert (changed["full"], changed["group"]["memberCount"], changed["sortVersion"]) == (False, 2, 0)
    assert answers[quiet] == {
        **quiet_version,
        "full": False,
        "delete": [],
        "insert": None,
        "update": None,
        "group": None,
        "sortVersion": 0,
    }
    assert await people.code(stranger, "get_incremental_group_members_batch", **{**body, "userID": stranger}) == 1002
    assert await people.code(user, "get_incremental_group_members_batch", **{**body, "userID": user}) == 1002


async def test_changed_roles_and_changed_groups_are_told_as_such(people: GroupApi) -> None:
    owner, member = await people.users(2)
    group_id = await people.create(owner, member)
    start = await people.changed(owner, group_id, {})

    await people.call(owner, "set_group_info_ex", groupID=group_id, groupName="new")
    named = await people.changed(owner, group_id, start)
    change = {"groupID": group_id, "userID": member, "roleLevel": 60}
    await people.call(owner, "set_group_member_info", members=[change])
    promoted = await people.changed(owner, group_id, named)

    assert (named["group"]["groupName"], named["update"], named["sortVersion"]) == ("new", None, 0)
    assert [(item["userID"], item["roleLevel"]) for item in promoted["update"]] == [(member, RoleLevel.ADMIN)]
    assert (promoted["group"]["groupName"], promoted["sortVersion"]) == ("new", promoted["version"])


async def test_leaving_caps_the_conversation_and_coming_back_lifts_the_cap(people: GroupApi, stack: Stack) -> None:
    owner, member = await people.users(2)
    group_id = await people.create(owner, member, needVerification=2)
    where = {"owner_user_id": member, "conversation_id": f"sg_{group_id}"}

    def cap() -> int | None:
        record = stack.database["conversation"].find_one(where)
        return None if record is None else int(record["max_seq"])

    wait_until(lambda: cap() == 0, "the record that the first message makes")
    await people.call(member, "quit_group", groupID=group_id, userID=member)

    assert (cap() or 0) >= 1
    await people.call(member, "join_group", groupID=group_id, joinSource=3)
    assert cap() == 0
