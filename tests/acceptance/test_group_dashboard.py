"""The routes of groups that app servers and older clients use, and /statistics (protocol: rest.md 6)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from imserver.constants import SessionType
from tests.acceptance.group_api import GroupApi
from tests.client import ANSWER_SECONDS, Api, Connect, text_message
from tests.stack import POLL_SECONDS

pytestmark = pytest.mark.acceptance

PAGE = {"pageNumber": 1, "showNumber": 100}


@pytest.fixture
def groups(api: Api, names: Iterator[str]) -> GroupApi:
    return GroupApi(api, names)


async def test_set_group_info_changes_what_is_given_and_leaves_the_rest(groups: GroupApi) -> None:
    owner, member, stranger = await groups.users(3)
    group_id = await groups.create(owner, member, groupName="before", introduction="kept")

    change = {"groupInfoForSet": {"groupID": group_id, "groupName": "after", "introduction": "", "needVerification": 2}}
    await groups.call(owner, "set_group_info", **change)

    info = await groups.info(group_id)
    assert (info["groupName"], info["introduction"], info["needVerification"]) == ("after", "kept", 2)
    assert await groups.code(member, "set_group_info", **change) == 1002
    assert await groups.code(stranger, "set_group_info", **change) == 1002
    nothing = {"groupInfoForSet": {"groupID": group_id}}
    assert await groups.code(owner, "set_group_info", **nothing) == 0
    assert await groups.code(member, "set_group_info", **nothing) == 1002
    wrong = {"groupInfoForSet": {"groupID": group_id, "needVerification": 7}}
    assert await groups.code(owner, "set_group_info", **wrong) == 1001
    assert await groups.code(owner, "set_group_info", groupInfoForSet={"groupID": "none", "groupName": "x"}) == 1004
    assert (await groups.info(group_id))["groupName"] == "after"


async def test_applications_of_some_users_are_for_those_who_answer_them(groups: GroupApi) -> None:
    owner, member, applicant, other = await groups.users(4)
    group_id = await groups.create(owner, member, needVerification=1)
    for user_id in (applicant, other):
        await groups.call(user_id, "join_group", groupID=group_id, reqMessage="please", joinSource=3)
    route = "get_group_users_req_application_list"

    answer = await groups.call(owner, route, groupID=group_id, userIDs=[applicant, member])

    assert answer["total"] == 1
    assert [item["userInfo"]["userID"] for item in answer["groupRequests"]] == [applicant]
    assert (await groups.call(None, route, groupID=group_id, userIDs=[applicant, other]))["total"] == 2
    assert await groups.code(member, route, groupID=group_id, userIDs=[applicant]) == 1002
    assert await groups.code(owner, route, groupID=group_id, userIDs=[]) == 1001
    assert await groups.code(owner, route, groupID="none", userIDs=[applicant]) == 1004


async def test_member_ids_and_their_hash_change_with_the_members(groups: GroupApi) -> None:
    owner, member, third, stranger = await groups.users(4)
    group_id = await groups.create(owner, member)

    async def abstract() -> dict[str, Any]:
        (item,) = (await groups.call(stranger, "get_group_abstract_info", groupIDs=[group_id]))["groupAbstractInfos"]
        return dict(item)

    before = await abstract()
    assert await groups.call(member, "get_group_member_user_id", groupID=group_id) == {"userIDs": [owner, member]}
    await groups.call(owner, "invite_user_to_group", groupID=group_id, invitedUserIDs=[third])
    after = await abstract()

    assert (before["groupMemberNumber"], after["groupMemberNumber"]) == (2, 3)
    assert before["groupMemberListHash"] != after["groupMemberListHash"]
    assert await groups.code(stranger, "get_group_member_user_id", groupID=group_id) == 1002
    assert await groups.code(owner, "get_group_member_user_id", groupID="none") == 1004
    many = [f"none{number}" for number in range(1001)]
    for group_ids in ([group_id, "none"], many[:1000]):
        assert await groups.code(owner, "get_group_abstract_info", groupIDs=group_ids) == 1004
    for group_ids in ([], [group_id] * 2, many):
        assert await groups.code(owner, "get_group_abstract_info", groupIDs=group_ids) == 1001


async def test_changed_members_of_one_group(groups: GroupApi) -> None:
    owner, member, third, stranger = await groups.users(4)
    group_id = await groups.create(owner, member)
    route = "get_incremental_group_members"
    first = await groups.call(owner, route, groupID=group_id)

    await groups.call(owner, "invite_user_to_group", groupID=group_id, invitedUserIDs=[third])
    since = {"versionID": first["versionID"], "version": first["version"]}
    second = await groups.call(owner, route, groupID=group_id, **since)

    assert first["full"]
    assert (first["insert"], first["update"]) == (None, None)
    assert not second["full"]
    assert [item["userID"] for item in second["insert"]] == [third]
    assert await groups.code(stranger, route, groupID=group_id) == 1002
    assert await groups.code(None, route, groupID="none") == 1004


async def test_an_admin_finds_groups_by_word_and_id(groups: GroupApi) -> None:
    (owner,) = await groups.users(1)
    word = f"word{owner}"
    ids = [await groups.create(owner, groupName=f"{at} {word.upper()} (x)") for at in range(3)]

    page = await groups.call(None, "get_groups", groupName=word, pagination={"pageNumber": 1, "showNumber": 2})
    by_id = await groups.call(None, "get_groups", groupID=ids[0], pagination=PAGE)

    assert page["total"] == 3
    assert len(page["groups"]) == 2
    (found,) = by_id["groups"]
    assert (found["groupInfo"]["groupID"], found["groupOwnerUserID"], found["groupOwnerUserName"]) == (
        ids[0],
        owner,
        owner,
    )
    assert (await groups.call(None, "get_groups", groupName=".*" + word, pagination=PAGE))["total"] == 0
    assert (await groups.call(None, "get_groups", groupID="none", pagination=PAGE)) == {"total": 0, "groups": []}
    assert await groups.code(owner, "get_groups", groupName=word, pagination=PAGE) == 1002
    assert await groups.code(None, "get_groups", groupName=word) == 1001


# -- /statistics


async def test_figures_count_what_was_made_and_said(api: Api, groups: GroupApi, connect: Connect) -> None:
    start = int(time.time() * 1000) - 1
    alice_id, bob_id = await groups.users(2)
    group_id = await groups.create(alice_id, bob_id)
    alice = await connect(alice_id)
    for text in ("one", "two"):
        await alice.send_text(bob_id, text)
    msg = text_message(alice_id, "", "in the group")
    msg.groupID, msg.sessionType = group_id, SessionType.GROUP
    await alice.send_msg(msg)
    span = {"start": start, "end": start + 3_600_000}

    async def active(path: str, **body: Any) -> dict[str, Any]:
        """Persist writes the messages a moment after they were sent."""
        return dict(await api.call(f"/statistics/{path}", {**span, "pagination": PAGE, **body}))

    def count_of(answer: dict[str, Any], kind: str, name: str, wanted: str) -> int:
        return sum(item["count"] for item in answer[kind + "s"] if item[kind][name] == wanted)

    async with asyncio.timeout(ANSWER_SECONDS):
        while True:
            if count_of(await active("user/active", group=True), "user", "userID", alice_id) >= 3:
                break
            await asyncio.sleep(POLL_SECONDS)
    singles = await active("user/active")
    in_groups = await active("group/active")

    assert count_of(singles, "user", "userID", alice_id) == 2
    assert count_of(in_groups, "group", "groupID", group_id) >= 1
    assert singles["msgCount"] == sum(singles["dateCount"].values()) >= 2
    assert singles["userCount"] >= 1
    users, made = await api.call("/statistics/user/register", span), await api.call("/statistics/group/create", span)
    for answer in (users, made):
        assert answer["total"] == answer["before"] + sum(answer["count"].values())
    assert sum(users["count"].values()) >= 2
    assert sum(made["count"].values()) >= 1


@pytest.mark.parametrize("route", ["user/register", "user/active", "group/create", "group/active"])
async def test_figures_are_for_app_admins_and_of_a_time(api: Api, groups: GroupApi, route: str) -> None:
    (user_id,) = await groups.users(1)
    good = {"start": 1_000, "end": 2_000, "pagination": PAGE}

    refused = await api.post(f"/statistics/{route}", good, token=await groups.token(user_id))

    assert refused["errCode"] == 1002
    for wrong in ({}, {"start": 5, "end": 5}, {"start": -1}, {"end": 1 << 60}, {"end": 400 * 86_400_000}):
        body = {**good, **wrong} if wrong else {}
        assert (await api.post(f"/statistics/{route}", body))["errCode"] == 1001, wrong
    assert (await api.post(f"/statistics/{route}", good))["errCode"] == 0
