"""What group operations leave behind in rows and versions, where a setting or a crowd is needed to see it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pymongo.database import Database
from pymongo.errors import ServerSelectionTimeoutError

from imserver.actions import group_life, group_members, group_membership, group_queries
from imserver.actions.group_notices import GROUP_ITEM, record_change
from imserver.actions.groups import Operator, check_group_send, group_store
from imserver.actions.speakers import get_speakers
from imserver.clock import now_ms
from imserver.constants import GroupStatus, RoleLevel, SessionType
from imserver.errors import GroupDismissed, NotInGroup, RecordNotFound
from imserver.protocol.gen import group_pb2
from imserver.protocol.gen.sdkws_pb2 import GroupInfo, MsgData
from imserver.storage import groups, versions
from imserver.storage.clients import Document, close_async_clients, get_async_mongo
from imserver.storage.groups import new_member
from imserver.storage.users import new_user
from imserver.storage.versions import State, Versions
from tests.factories import make_msg, persist, reconfigure, transfer

ADMIN = Operator("imAdmin", is_admin=True, operation_id="op")
OWNER = Operator("own", is_admin=False, operation_id="op")


@pytest.fixture
async def group(database: Database[Document]) -> AsyncIterator[str]:
    """A group of its owner and ``m1``; ``m2`` is registered. Nobody is remembered as allowed to speak."""
    get_speakers().clear()
    database["user"].insert_many([new_user(user_id, user_id) for user_id in ("own", "m1", "m2")])
    request = group_pb2.CreateGroupReq(
        ownerUserID="own", memberUserIDs=["m1"], groupInfo=GroupInfo(groupID="g", groupType=2, needVerification=2)
    )
    await group_life.do_create(OWNER, request)
    yield "g"
    await close_async_clients()


def say(text: str, sender: str = "own") -> MsgData:
    return make_msg(sender, "", text, sessionType=SessionType.GROUP, groupID="g")


async def join(user_id: str) -> None:
    await group_members.enter(Operator(user_id, is_admin=False, operation_id="op"), "g", user_id, join_source=3)


async def leave(user_id: str) -> None:
    member = await group_members.check_quit(user_id, "g")
    await group_members.do_quit(Operator(user_id, is_admin=False, operation_id="op"), member)


def record(database: Database[Document], user_id: str) -> Document:
    return database["conversation"].find_one({"owner_user_id": user_id, "conversation_id": "sg_g"}) or {}


@pytest.mark.parametrize(("sees_history", "min_seq"), [(True, 0), (False, 4)])
async def test_the_setting_decides_where_a_new_members_history_begins(
    group: str, database: Database[Document], monkeypatch: pytest.MonkeyPatch, sees_history: bool, min_seq: int
) -> None:
    reconfigure(monkeypatch, new_member_sees_history=sees_history)
    transfer([say("two"), say("three")])  # the news of the group's creation are the first
    persist()

    await join("m2")

    assert (record(database, "m2")["min_seq"], record(database, "m2")["max_seq"]) == (min_seq, 0)
    assert record(database, "m1")["min_seq"] == 0


async def test_leaving_and_coming_back_are_told_to_the_owners_lists(group: str, database: Database[Document]) -> None:
    log = Versions(get_async_mongo())
    transfer([say("two")])
    persist()
    conversations = await log.get(versions.conversations_of("m1"))
    joined = await log.get(versions.groups_of("m1"))

    await leave("m1")

    assert record(database, "m1")["max_seq"] == 2
    assert (await log.changes_since(versions.conversations_of("m1"), *conversations)).updated == ["sg_g"]
    assert (await log.changes_since(versions.groups_of("m1"), *joined)).deleted == [group]
    await join("m1")
    assert record(database, "m1")["max_seq"] == 0
    assert (await log.changes_since(versions.groups_of("m1"), *joined)).inserted == [group]


async def test_who_comes_into_a_group_that_is_being_dismissed_is_put_out_again(
    group: str, database: Database[Document]
) -> None:
    database[groups.GROUPS].update_one({"group_id": group}, {"$set": {"status": 2}})

    with pytest.raises(GroupDismissed):
        await join("m2")

    assert await group_store().member_ids(group) == ["own", "m1"]


async def test_a_dismissal_that_died_half_way_is_finished_by_the_next(group: str, database: Database[Document]) -> None:
    database[groups.GROUPS].update_one({"group_id": group}, {"$set": {"status": 2}})

    await group_life.check_dismiss(OWNER, group)
    await group_life.do_dismiss(OWNER, group, send_message=None)

    assert await group_store().member_ids(group) == []
    with pytest.raises(GroupDismissed):
        await group_life.check_dismiss(ADMIN, group)


async def test_a_crowd_of_changes_is_told_by_full_and_every_group_keeps_its_entry(
    group: str, database: Database[Document]
) -> None:
    log = Versions(get_async_mongo())
    known = {}
    for number in range(4):
        group_id = f"crowd{number}"
        await group_store().add({**(await group_store().find([group]))[0], "group_id": group_id, "_id": group_id})
        rows = [
            new_member(group_id, f"u{at:03d}", RoleLevel.MEMBER, join_source=2, inviter_user_id="", operator_user_id="")
            for at in range(180)
        ]
        known[group_id] = await log.get(versions.members_of(group_id))
        await group_membership.add(group_id, rows, is_new_group=True)
    request = group_pb2.BatchGetIncrementalGroupMemberReq(
        userID="own",
        reqList=[
            group_pb2.getIncrementalGroupMemberReq(groupID=group_id, versionID=version_id, version=version)
            for group_id, (version_id, version) in known.items()
        ],
    )

    answer = await group_queries.get_changed_members(ADMIN, request)

    assert [(entry.full, len(entry.insert)) for _, entry in sorted(answer.respList.items())] == [
        (False, 180),
        (False, 180),
        (True, 0),
        (True, 0),
    ]
    assert [entry.group.memberCount for _, entry in sorted(answer.respList.items())] == [180] * 4


async def test_an_app_admin_who_asks_for_an_unknown_group_is_told_so(group: str) -> None:
    request = group_pb2.BatchGetIncrementalGroupMemberReq(
        userID="own", reqList=[group_pb2.getIncrementalGroupMemberReq(groupID="none")]
    )

    with pytest.raises(RecordNotFound):
        await group_queries.get_changed_members(ADMIN, request)


async def test_a_change_of_the_group_itself_names_no_member(group: str) -> None:
    start = await record_change(group, {GROUP_ITEM: State.UPDATE})
    await record_change(group, {GROUP_ITEM: State.UPDATE})
    request = group_pb2.BatchGetIncrementalGroupMemberReq(
        userID="own",
        reqList=[group_pb2.getIncrementalGroupMemberReq(groupID=group, versionID=start[0], version=start[1])],
    )

    entry = (await group_queries.get_changed_members(OWNER, request)).respList[group]

    assert (len(entry.update), entry.HasField("group"), entry.full) == (0, True, False)


async def test_who_just_came_may_speak_although_it_was_refused_a_moment_ago(group: str) -> None:
    with pytest.raises(NotInGroup):
        await check_group_send(say("hello", "m2"))

    await join("m2")

    await check_group_send(say("hello", "m2"))


async def test_admins_and_notifications_pass_by_membership_but_not_by_the_end_of_the_group(group: str) -> None:
    await check_group_send(say("from above", "imAdmin"))
    notice = say("event", "m2")
    notice.contentType = 1514
    await check_group_send(notice)
    unknown = say("hello")
    unknown.groupID = "none"
    with pytest.raises(RecordNotFound):
        await check_group_send(unknown)


async def test_a_dismissed_group_takes_the_notice_of_its_end_only(group: str) -> None:
    await group_life.do_dismiss(OWNER, group, send_message=None)
    end = say("the end")
    end.contentType = 1511

    await check_group_send(end)
    with pytest.raises(GroupDismissed):
        await check_group_send(say("too late", "imAdmin"))


# -- MongoDB is away


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on, groups are not found in MongoDB, and what was allowed this second is forgotten."""

    async def find_one(*_: Any) -> None:
        raise ServerSelectionTimeoutError("away")

    def begin() -> None:
        get_speakers()._allowed.clear()
        monkeypatch.setattr(groups.Groups, "find_one", find_one)

    return begin


async def test_who_spoke_in_a_group_goes_on_while_mongodb_is_away(group: str, outage: Callable[[], None]) -> None:
    await check_group_send(say("hello"))
    await check_group_send(say("hello", "m1"))
    outage()

    for _ in range(3):
        await check_group_send(say("still here"))
        await check_group_send(say("me, too", "m1"))
    with pytest.raises(ServerSelectionTimeoutError):
        await check_group_send(say("for the first time", "m2"))


@pytest.mark.parametrize("change", ["removed", "muted", "all muted", "gone for good"])
async def test_who_may_no_longer_speak_does_not_speak_while_mongodb_is_away(
    group: str, outage: Callable[[], None], change: str
) -> None:
    await check_group_send(say("hello", "m1"))
    if change == "removed":
        await leave("m1")
    elif change == "muted":
        await group_store().update_member(group, "m1", {"mute_end_time": now_ms() + 60_000})
    elif change == "all muted":
        await group_store().update(group, {"status": int(GroupStatus.MUTED)})
    else:
        await group_life.do_dismiss(OWNER, group, send_message=None)
    outage()

    with pytest.raises(ServerSelectionTimeoutError):
        await check_group_send(say("and yet", "m1"))
