"""Looking at groups and members: lists, and what changed since a client's version."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from imserver.actions.group_notices import GROUP_ITEM, ORDER_ITEM
from imserver.actions.groups import (
    MOST_PER_REQUEST,
    Operator,
    check_member,
    check_page,
    get_group,
    get_group_infos,
    get_member_infos,
    group_store,
    to_group_infos,
)
from imserver.actions.words import check_word
from imserver.constants import RoleLevel
from imserver.errors import ArgsError, NoPermission, RecordNotFound
from imserver.protocol.gen import group_pb2
from imserver.protocol.gen.sdkws_pb2 import GroupInfo
from imserver.storage import versions
from imserver.storage.clients import get_async_mongo
from imserver.storage.users import Users
from imserver.storage.versions import Changes, Versions, id_hash

#: ``filter`` of the member list -> roles; 0 is everybody.
ROLES_BY_FILTER: dict[int, tuple[RoleLevel, ...]] = {
    0: (),
    1: (RoleLevel.OWNER,),
    2: (RoleLevel.ADMIN,),
    3: (RoleLevel.MEMBER,),
    4: (RoleLevel.ADMIN, RoleLevel.MEMBER),
    5: (RoleLevel.OWNER, RoleLevel.ADMIN),
}
#: Groups that one request for changed members names.
MOST_GROUPS_PER_SYNC = 500
#: Changed members in one such answer; beyond it, groups are told to be fetched whole.
MOST_CHANGED_MEMBERS = 500
#: Groups of such an answer that are looked up at the same time.
_AT_ONCE = 16


async def get_groups_info(group_ids: list[str]) -> list[GroupInfo]:
    """The groups that exist, in the order asked. Raises ArgsError."""
    if not group_ids or len(group_ids) > MOST_PER_REQUEST:
        raise ArgsError(f"groupIDs must be 1 to {MOST_PER_REQUEST}")
    return await get_group_infos(group_ids)


async def get_member_list(
    operator: Operator, request: group_pb2.GetGroupMemberListReq
) -> group_pb2.GetGroupMemberListResp:
    """A page of members: owner, admins, then by the time they joined. Raises ArgsError, RecordNotFound, NoPermission."""
    skip, limit = check_page(request.pagination)
    if request.filter not in ROLES_BY_FILTER:
        raise ArgsError("filter must be 0 to 5")
    check_word("keyword", request.keyword)
    await get_group(request.groupID)
    await check_member(operator, request.groupID)
    roles, groups = ROLES_BY_FILTER[request.filter], group_store()
    if request.keyword:
        total, ids = await groups.search_members(request.groupID, request.keyword, roles, skip=skip, limit=limit)
    else:
        total = await groups.count_with_roles(request.groupID, roles)
        ids = await groups.member_ids(request.groupID, roles, skip=skip, limit=limit)
    return group_pb2.GetGroupMemberListResp(total=total, members=await get_member_infos(request.groupID, ids))


async def get_members_info(
    operator: Operator, request: group_pb2.GetGroupMembersInfoReq
) -> group_pb2.GetGroupMembersInfoResp:
    """Those of the users that are members. Raises ArgsError, RecordNotFound, NoPermission."""
    if not request.userIDs or len(request.userIDs) > MOST_PER_REQUEST:
        raise ArgsError(f"userIDs must be 1 to {MOST_PER_REQUEST}")
    await get_group(request.groupID)
    await check_member(operator, request.groupID)
    return group_pb2.GetGroupMembersInfoResp(members=await get_member_infos(request.groupID, list(request.userIDs)))


async def get_joined_groups(request: group_pb2.GetJoinedGroupListReq) -> group_pb2.GetJoinedGroupListResp:
    """A page of a user's groups. Raises ArgsError."""
    skip, limit = check_page(request.pagination)
    groups = group_store()
    ids = await groups.joined_ids(request.fromUserID, skip=skip, limit=limit)
    total = await groups.count_joined(request.fromUserID)
    return group_pb2.GetJoinedGroupListResp(total=total, groups=await get_group_infos(ids))


async def get_user_ids(operator: Operator, group_id: str) -> list[str]:
    """Ids of all members in the list's order. Raises RecordNotFound, NoPermission."""
    await get_group(group_id)
    await check_member(operator, group_id)
    return await group_store().member_ids(group_id)


async def get_abstracts(group_ids: list[str]) -> list[group_pb2.GroupAbstractInfo]:
    """How many members each group has, and a number that is another one when they are others.

    Raises:
        ArgsError, RecordNotFound: one of them does not exist.
    """
    if not group_ids or len(group_ids) > MOST_PER_REQUEST or len(set(group_ids)) != len(group_ids):
        raise ArgsError(f"groupIDs must be 1 to {MOST_PER_REQUEST} different ids")
    missing = set(group_ids) - {group["group_id"] for group in await group_store().find(group_ids)}
    if missing:
        raise RecordNotFound(f"groups do not exist: {', '.join(sorted(missing)[:10])}")
    abstracts = []
    for group_id in group_ids:
        user_ids = sorted(await group_store().member_ids(group_id))
        abstracts.append(
            group_pb2.GroupAbstractInfo(
                groupID=group_id, groupMemberNumber=len(user_ids), groupMemberListHash=id_hash(user_ids)
            )
        )
    return abstracts


async def search_groups(request: group_pb2.GetGroupsReq) -> group_pb2.GetGroupsResp:
    """For app admins: the group of an id, else a page of those with a word in their name. Raises ArgsError."""
    skip, limit = check_page(request.pagination)
    check_word("groupName", request.groupName)
    if request.groupID:
        found = await group_store().find([request.groupID])
        total, found = len(found), found[skip : skip + limit]
    else:
        total, found = await group_store().search(request.groupName, skip=skip, limit=limit)
    owners = await Users(get_async_mongo()).find([group["owner_user_id"] for group in found])
    names = {user["user_id"]: user["nickname"] for user in owners}
    return group_pb2.GetGroupsResp(
        total=total,
        groups=[
            group_pb2.CMSGroup(
                groupInfo=info,
                groupOwnerUserName=names.get(info.ownerUserID, ""),
                groupOwnerUserID=info.ownerUserID,
            )
            for info in await to_group_infos(found)
        ],
    )


# -- incremental sync


async def get_full_joined_ids(request: group_pb2.GetFullJoinGroupIDsReq) -> group_pb2.GetFullJoinGroupIDsResp:
    # The version first: a change in between is told again, and never missed.
    version_id, version = await Versions(get_async_mongo()).get(versions.groups_of(request.userID))
    ids = await group_store().joined_ids(request.userID)
    equal = id_hash(ids) == request.idHash
    return group_pb2.GetFullJoinGroupIDsResp(
        version=version, versionID=version_id, equal=equal, groupIDs=[] if equal else ids
    )


async def get_full_member_ids(
    operator: Operator, request: group_pb2.GetFullGroupMemberUserIDsReq
) -> group_pb2.GetFullGroupMemberUserIDsResp:
    """Raises RecordNotFound, NoPermission."""
    await get_group(request.groupID)
    await check_member(operator, request.groupID)
    version_id, version = await Versions(get_async_mongo()).get(versions.members_of(request.groupID))
    ids = await group_store().member_ids(request.groupID)
    equal = id_hash(ids) == request.idHash
    return group_pb2.GetFullGroupMemberUserIDsResp(
        version=version, versionID=version_id, equal=equal, userIDs=[] if equal else ids
    )


async def get_changed_joined(request: group_pb2.getIncrementalJoinGroupReq) -> group_pb2.getIncrementalJoinGroupResp:
    changes = await Versions(get_async_mongo()).changes_since(
        versions.groups_of(request.userID), request.versionID, request.version
    )
    return group_pb2.getIncrementalJoinGroupResp(
        version=changes.version,
        versionID=changes.version_id,
        full=changes.is_full,
        delete=changes.deleted,
        insert=await get_group_infos(changes.inserted),
        update=await get_group_infos(changes.updated),
    )


@dataclass(slots=True)
class _MemberChanges:
    """Changes of one group, without the items that are no members."""

    version_id: str
    version: int
    is_full: bool
    inserted: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    is_group_changed: bool = False
    is_order_changed: bool = False

    @classmethod
    def of(cls, changes: Changes) -> _MemberChanges:
        return cls(
            changes.version_id,
            changes.version,
            changes.is_full,
            inserted=changes.inserted,
            deleted=changes.deleted,
            updated=[item for item in changes.updated if item not in (GROUP_ITEM, ORDER_ITEM)],
            is_group_changed=GROUP_ITEM in changes.updated,
            is_order_changed=ORDER_ITEM in changes.updated,
        )

    @property
    def count(self) -> int:
        return len(self.inserted) + len(self.deleted) + len(self.updated)

    def forget(self) -> None:
        """Too many altogether: this group is to be fetched whole."""
        self.is_full, self.inserted, self.deleted, self.updated = True, [], [], []


async def get_changed_members(
    operator: Operator, request: group_pb2.BatchGetIncrementalGroupMemberReq
) -> group_pb2.BatchGetIncrementalGroupMemberResp:
    """An entry for every group of the request, changed or not: clients ask again for ever for one that is missing.

    Raises:
        ArgsError, NoPermission: not a member of all of them.  RecordNotFound: an app admin asks for an unknown group.
    """
    wanted = {item.groupID: (item.versionID, item.version) for item in request.reqList}
    if len(wanted) > MOST_GROUPS_PER_SYNC:
        raise ArgsError(f"more than {MOST_GROUPS_PER_SYNC} groups at once")
    if not operator.is_admin and len(await group_store().groups_with(request.userID, wanted)) < len(wanted):
        raise NoPermission("only members of all these groups may do this")
    groups = {info.groupID: info for info in await get_group_infos(list(wanted))}
    missing = wanted.keys() - groups.keys()
    if missing:
        raise RecordNotFound(f"groups do not exist: {', '.join(sorted(missing)[:10])}")
    limit = asyncio.Semaphore(_AT_ONCE)

    async def look(group_id: str) -> _MemberChanges:
        async with limit:
            version_id, version = wanted[group_id]
            found = await Versions(get_async_mongo()).changes_since(versions.members_of(group_id), version_id, version)
            return _MemberChanges.of(found)

    answer = group_pb2.BatchGetIncrementalGroupMemberResp()
    all_changes = dict(zip(wanted, await asyncio.gather(*(look(group_id) for group_id in wanted)), strict=True))
    total = 0
    for group_id, changes in all_changes.items():
        total += changes.count
        if changes.count and total > MOST_CHANGED_MEMBERS:
            changes.forget()
        infos = await get_member_infos(group_id, [*changes.inserted, *changes.updated])
        inserted = set(changes.inserted)
        entry = answer.respList[group_id]
        entry.version, entry.versionID, entry.full = changes.version, changes.version_id, changes.is_full
        entry.delete.extend(changes.deleted)
        entry.insert.extend(info for info in infos if info.userID in inserted)
        entry.update.extend(info for info in infos if info.userID not in inserted)
        # With the members their count changed, which clients know from here only.
        if changes.is_full or changes.is_group_changed or changes.count:
            entry.group.CopyFrom(groups[group_id])
        if changes.is_order_changed and not changes.is_full:
            entry.sortVersion = changes.version
    return answer
