"""Groups and members in MongoDB, and the members' ids in Redis: never wrong, whoever races."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest
import redis
from pymongo.database import Database

from imserver.clock import now_ms
from imserver.constants import GroupStatus, RoleLevel
from imserver.errors import GroupIDExisted
from imserver.storage import groups, keys, versions
from imserver.storage.clients import Document, close_async_clients, get_async_mongo, get_async_redis
from imserver.storage.conversations import (
    Conversations,
    NewConversation,
    add_group_records,
    cap_group_records,
    create_records,
)
from imserver.storage.groups import Groups, new_member
from imserver.storage.users import new_user
from imserver.storage.versions import State, Versions, id_hash


@pytest.fixture
async def store(database: Database[Document]) -> AsyncIterator[Groups]:
    yield Groups(get_async_redis(), get_async_mongo())
    await close_async_clients()


def group_row(group_id: str = "g", owner: str = "own") -> Document:
    return {"group_id": group_id, "group_name": group_id, "owner_user_id": owner, "status": 0, "create_time": 1}


def rows(user_ids: Sequence[str], group_id: str = "g", role: int = RoleLevel.MEMBER) -> list[Document]:
    """Members who all joined in the same millisecond."""
    return [
        {
            **new_member(group_id, user_id, role, join_source=2, inviter_user_id="i", operator_user_id="o"),
            "join_time": 1,
        }
        for user_id in user_ids
    ]


def cached(client: redis.Redis, database: Database[Document], group_id: str = "g") -> set[str]:
    """The ids as a process sees them that has remembered nothing."""
    groups._remembered()[0].clear()
    return set(groups.member_ids(client, database, group_id))


async def test_a_group_id_is_given_once(store: Groups) -> None:
    await store.add(group_row())

    with pytest.raises(GroupIDExisted):
        await store.add(group_row())

    assert [item["group_id"] for item in await store.find(["nope", "g", "g"])] == ["g"]


async def test_a_dismissed_group_changes_no_more(store: Groups) -> None:
    await store.add(group_row())

    assert await store.update("g", {"status": int(GroupStatus.DISMISSED)})
    assert not await store.update("g", {"status": int(GroupStatus.MUTED)})
    assert not await store.update("g", {"group_name": "revived"})


async def test_only_who_is_not_in_the_group_yet_is_added(store: Groups) -> None:
    await store.add_members("g", rows(["a", "b"]))

    added = await store.add_members("g", rows(["b", "c"], role=RoleLevel.ADMIN))

    assert [row["user_id"] for row in added] == ["c"]
    assert {user_id: row["role_level"] for user_id, row in (await store.find_members("g", "abc")).items()} == {
        "a": 20,
        "b": 20,
        "c": 60,
    }


async def test_pages_go_by_role_and_time_and_meet_without_gap_or_repeat(store: Groups) -> None:
    members = rows([f"m{number}" for number in range(7)])
    for moment, row in zip((5, 1, 1, 9, 3, 7, 2), members, strict=True):
        row["join_time"] = moment
    await store.add_members("g", [*members, *rows(["boss"], role=100), *rows(["aide"], role=60), *rows(["x"], "other")])

    pages = [await store.member_ids("g", skip=skip, limit=4) for skip in (0, 4, 8)]

    assert pages == [["boss", "aide", "m1", "m2"], ["m6", "m4", "m0", "m5"], ["m3"]]
    assert await store.member_ids("g") == [user_id for page in pages for user_id in page]
    assert await store.member_ids("g", (RoleLevel.ADMIN, RoleLevel.MEMBER), limit=2) == ["aide", "m1"]
    assert await store.count_with_roles("g", (RoleLevel.MEMBER,)) == 7
    assert await store.count_members(["g", "other", "none"]) == {"g": 9, "other": 1}


async def test_a_search_looks_at_ids_and_at_the_names_that_are_shown(
    store: Groups, database: Database[Document]
) -> None:
    database["user"].insert_many([new_user("u1", "Anna"), new_user("u2", "Anna"), new_user("u3", "Bob")])
    members = rows(["u1", "u2", "u3", "ann"])
    members[1]["nickname"] = "Zoe"
    await store.add_members("g", members)

    assert await store.search_members("g", "aNN", (), skip=0, limit=10) == (2, ["ann", "u1"])
    assert await store.search_members("g", "zo", (), skip=0, limit=10) == (1, ["u2"])
    assert await store.search_members("g", "u", (), skip=1, limit=1) == (3, ["u2"])
    assert await store.search_members("g", ".*", (), skip=0, limit=10) == (0, [])


async def test_a_page_of_a_large_group_touches_the_rows_of_the_page_only(
    store: Groups, database: Database[Document]
) -> None:
    await store.add_members("g", rows([f"m{number:05d}" for number in range(3000)]))

    plan = database.command(
        "explain",
        {
            "find": groups.MEMBERS,
            "filter": {"group_id": "g"},
            "projection": {"user_id": 1, "_id": 0},
            "sort": dict(groups.MEMBER_ORDER),
            "skip": 2900,
            "limit": 100,
        },
        verbosity="executionStats",
    )
    count = database.command(
        "explain", {"count": groups.MEMBERS, "query": {"group_id": "g"}}, verbosity="executionStats"
    )

    assert plan["executionStats"]["nReturned"] == 100
    assert plan["executionStats"]["totalDocsExamined"] == 0
    assert count["executionStats"]["totalDocsExamined"] == 0


async def test_the_owner_is_not_removed_while_the_group_lives(store: Groups) -> None:
    await store.add_members("g", [*rows(["own"], role=RoleLevel.OWNER), *rows(["a", "b"])])

    assert await store.remove_members("g", ["own", "a"]) == ["a"]
    assert await store.member_ids("g") == ["own", "b"]
    assert await store.remove_members("g", ["own", "b"], keep_owner=False) == ["own", "b"]
    assert await store.member_ids("g") == []


async def test_of_two_transfers_at_once_one_wins_and_there_is_one_owner(store: Groups) -> None:
    await store.add(group_row())
    await store.add_members("g", [*rows(["own"], role=100), *rows(["a"], role=60), *rows(["b"])])
    members = await store.find_members("g", ["own", "a", "b"])

    assert await store.swap_owner("g", members["own"], members["a"])
    assert not await store.swap_owner("g", members["own"], members["b"])

    roles = {user_id: row["role_level"] for user_id, row in (await store.find_members("g", members)).items()}
    assert roles == {"own": 60, "a": 100, "b": 20}
    assert (await store.find("g"))[0]["owner_user_id"] == "a"


async def test_a_transfer_to_somebody_who_left_changes_nothing(store: Groups) -> None:
    await store.add(group_row())
    await store.add_members("g", [*rows(["own"], role=100), *rows(["a"])])
    members = await store.find_members("g", ["own", "a"])
    await store.remove_members("g", ["a"])

    assert not await store.swap_owner("g", members["own"], members["a"])

    assert (await store.find("g"))[0]["owner_user_id"] == "own"
    assert await store.member_ids("g", (RoleLevel.OWNER,)) == ["own"]


async def test_the_ids_in_redis_follow_every_change(
    store: Groups, redis_client: redis.Redis, database: Database[Document]
) -> None:
    assert cached(redis_client, database) == set()

    await store.add_members("g", rows(["a", "b"]))
    assert cached(redis_client, database) == {"a", "b"}
    await store.remove_members("g", ["a"])
    assert cached(redis_client, database) == {"b"}
    await store.add_members("g", rows(["c"]))
    assert cached(redis_client, database) == {"b", "c"}


async def test_a_process_that_remembers_asks_neither_set_nor_mongodb_again(
    store: Groups, redis_client: redis.Redis, database: Database[Document]
) -> None:
    await store.add_members("g", rows(["a", "b"]))
    assert cached(redis_client, database) == {"a", "b"}

    database[groups.MEMBERS].delete_many({})
    for key in redis_client.scan_iter(match=keys.group_members("g", "*")):
        redis_client.delete(key)

    assert set(groups.member_ids(redis_client, database, "g")) == {"a", "b"}


async def test_old_ids_serve_while_mongodb_is_away_as_long_as_nothing_changed(
    store: Groups, redis_client: redis.Redis, database: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.add_members("g", rows(["a", "b"]))
    assert cached(redis_client, database) == {"a", "b"}
    for key in redis_client.scan_iter(match=keys.group_members("g", "*")):
        redis_client.delete(key)
    monkeypatch.setattr(keys, "GROUP_MEMBERS_TTL_SECONDS", 0)

    for _ in range(2):
        assert set(groups.member_ids(redis_client, None, "g")) == {"a", "b"}

    await store.add_members("g", rows(["c"]))
    with pytest.raises(groups.MembersUnknown):
        groups.member_ids(redis_client, None, "g")


async def test_another_process_reads_the_ids_from_redis(
    store: Groups, redis_client: redis.Redis, database: Database[Document]
) -> None:
    await store.add_members("g", rows(["a", "b"]))
    assert cached(redis_client, database) == {"a", "b"}
    database[groups.MEMBERS].delete_many({})

    assert cached(redis_client, database) == {"a", "b"}


async def test_ids_that_were_read_before_a_change_and_written_after_it_count_for_nobody(
    store: Groups, redis_client: redis.Redis, database: Database[Document]
) -> None:
    await store.add_members("g", rows(["a"]))
    groups._remembered()[0].clear()
    slow = SlowReader(redis_client, database)
    slow.read()

    await store.add_members("g", rows(["b"]))
    slow.write()

    assert cached(redis_client, database) == {"a", "b"}


class SlowReader:
    """``member_ids`` of another process, stopped between its look into MongoDB and its write to Redis."""

    def __init__(self, client: redis.Redis, database: Database[Document]) -> None:
        self._client, self._database = client, database
        self._token, self._ids = "", [""]

    def read(self) -> None:
        self._token = groups._state(self._client, "g")
        self._ids = [row["user_id"] for row in self._database[groups.MEMBERS].find({"group_id": "g"})]

    def write(self) -> None:
        self._client.sadd(keys.group_members("g", self._token), *self._ids, groups.COMPLETE)


async def test_a_set_that_was_written_in_part_is_not_believed(
    store: Groups, redis_client: redis.Redis, database: Database[Document]
) -> None:
    await store.add_members("g", rows(["a", "b"]))
    redis_client.sadd(keys.group_members("g", groups._state(redis_client, "g")), "a")

    assert cached(redis_client, database) == {"a", "b"}


async def test_sets_expire_before_the_token_that_names_them(
    store: Groups, redis_client: redis.Redis, database: Database[Document]
) -> None:
    await store.add_members("g", rows([f"m{number}" for number in range(2500)]))

    assert len(cached(redis_client, database)) == 2500

    token = groups._state(redis_client, "g")
    assert 0 < redis_client.ttl(keys.group_members("g", token)) < redis_client.ttl(keys.group_state("g"))


async def test_who_just_left_hears_of_it_for_a_minute(
    store: Groups, redis_client: redis.Redis, database: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.add_members("g", rows(["a", "b"]))

    await store.remove_members("g", ["a"])

    assert groups.member_ids(redis_client, database, "g") == ["b"]
    assert set(groups.member_ids(redis_client, database, "g", include_leavers=True)) == {"a", "b"}
    later = now_ms() + 61_000
    monkeypatch.setattr(groups, "now_ms", lambda: later)
    assert groups.member_ids(redis_client, database, "g", include_leavers=True) == ["b"]


async def test_who_left_and_came_back_is_there_once(
    store: Groups, redis_client: redis.Redis, database: Database[Document]
) -> None:
    await store.add_members("g", rows(["a"]))
    await store.remove_members("g", ["a"])
    await store.add_members("g", rows(["a"]))

    assert groups.member_ids(redis_client, database, "g", include_leavers=True) == ["a"]


def test_an_unknown_group_has_no_status(database: Database[Document]) -> None:
    database[groups.GROUPS].insert_one(group_row())

    assert groups.group_status(database, "g") == GroupStatus.OK
    assert groups.group_status(database, "none") is None


async def test_a_users_groups_stand_in_the_order_they_were_joined(store: Groups) -> None:
    for moment, group_id in ((3, "x"), (1, "y"), (2, "z")):
        (row,) = rows(["a"], group_id, RoleLevel.ADMIN if group_id == "z" else RoleLevel.MEMBER)
        row["join_time"] = moment
        await store.add_members(group_id, [row])

    assert await store.joined_ids("a") == ["y", "z", "x"]
    assert await store.joined_ids("a", skip=1, limit=1) == ["z"]
    assert await store.count_joined("a") == 3
    assert await store.groups_with("a", ["x", "none"]) == {"x"}
    assert await store.managed_ids("a") == ["z"]


async def test_joining_again_lifts_the_cap_and_keeps_the_owners_settings(
    store: Groups, redis_client: redis.Redis, database: Database[Document]
) -> None:
    items = [NewConversation(user_id, "sg_g", conversation_type=3, group_id="g") for user_id in ("a", "b")]
    client, mongo = get_async_redis(), get_async_mongo()
    assert await add_group_records(client, mongo, items) == {"a", "b"}
    database["conversation"].update_one({"owner_user_id": "a"}, {"$set": {"is_pinned": True}})

    await cap_group_records(client, mongo, items[:1], 7)
    assert {item["owner_user_id"]: item["max_seq"] for item in database["conversation"].find()} == {"a": 7, "b": 0}
    assert await add_group_records(client, mongo, items[:1], min_seq=8) == set()

    record = database["conversation"].find_one({"owner_user_id": "a"}) or {}
    assert (record["max_seq"], record["min_seq"], record["is_pinned"], record["group_id"]) == (0, 8, True, "g")
    assert await Conversations(client, mongo).get_ids("a") == {"sg_g"}


async def test_who_leaves_before_its_record_is_written_is_capped_all_the_same(
    store: Groups, database: Database[Document]
) -> None:
    items = [NewConversation("a", "sg_g", conversation_type=3, group_id="g")]

    await cap_group_records(get_async_redis(), get_async_mongo(), items, 2)
    create_records(database, items)

    assert [item["max_seq"] for item in database["conversation"].find()] == [2]


async def test_who_leaves_before_the_first_message_keeps_no_record(store: Groups, database: Database[Document]) -> None:
    items = [NewConversation("a", "sg_g", conversation_type=3, group_id="g")]
    client, mongo = get_async_redis(), get_async_mongo()
    await add_group_records(client, mongo, items)

    await cap_group_records(client, mongo, items, 0)

    assert database["conversation"].count_documents({}) == 0
    assert await Conversations(client, mongo).get_ids("a") == set()


async def test_changes_of_many_lists_are_each_told_to_their_owner(store: Groups) -> None:
    log = Versions(get_async_mongo())
    version_id, version = await log.get(versions.groups_of("u0001"))
    lists = {versions.groups_of(f"u{number:04d}"): {"g": State.INSERT} for number in range(1500)}

    await log.record_many(lists)

    changes = await log.changes_since(versions.groups_of("u0001"), version_id, version)
    assert (changes.inserted, changes.version, changes.is_full) == (["g"], version + 1, False)
    assert (await log.get(versions.groups_of("u1499")))[1] == 1


def test_the_hash_of_ids_is_that_of_their_json() -> None:
    assert id_hash([]) == 0
    assert id_hash(["a", "b"]) == 0xE53F04D1BCC1428D
