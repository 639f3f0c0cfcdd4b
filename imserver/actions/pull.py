"""Pulling: seqs and messages of a user's conversations, from the cache, then from MongoDB."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from imserver.actions.chats import find_pullable
from imserver.constants import MsgStatus
from imserver.errors import ArgsError
from imserver.protocol.conversations import (
    is_notification_conversation,
    notification_twin,
    single_conversation_id,
)
from imserver.protocol.frames import placeholder, push_messages, with_seq
from imserver.protocol.gen import msg_pb2, sdkws_pb2
from imserver.protocol.slots import is_the_same_for_all, shown_msg
from imserver.storage.clients import get_async_mongo, get_async_redis
from imserver.storage.conversations import Conversations
from imserver.storage.msg_blocks import MsgBlockReader
from imserver.storage.msg_cache import MsgCache
from imserver.storage.read_seq import ReadSeqs
from imserver.storage.seq import get_max_seqs as get_cached_max_seqs
from imserver.storage.seq_limits import Limits, SeqLimits

#: A request may ask for this many messages altogether, so that one answer stays within a client's read limit.
MOST_MSGS_PER_PULL = 5000
#: … and of one range of a chat at most the newest so many are given.
MOST_MSGS_PER_RANGE = 1000
#: 1007 looks into so many conversations at a time.
LAST_MESSAGES_AT_ONCE = 50
#: 1007 looks at so many messages of each conversation for one that is not deleted, the newest first; where there was none,
#: at so many before those, and so on.
LAST_MESSAGE_STEPS = (20, 180, 800, 4000)

#: Field numbers of PullMessageBySeqsResp and GetSeqMessageResp agree.
PullResp = sdkws_pb2.PullMessageBySeqsResp


@dataclass(frozen=True, slots=True)
class SeqBounds:
    """Seqs of a conversation that a user may pull. ``updated_ms``: time of the last allocation. ``last_seq``: where the
    conversation ends for those who are still in it."""

    min_seq: int
    max_seq: int
    updated_ms: int = 0
    last_seq: int = 0


async def get_bounds(user_id: str, conversation_ids: list[str]) -> dict[str, SeqBounds]:
    """What there is for the user to pull in each conversation; those without any message are missing."""
    chats = [item for item in conversation_ids if not is_notification_conversation(item)]
    counters, limits = await asyncio.gather(
        _get_counters(conversation_ids), SeqLimits(get_async_redis(), get_async_mongo()).get(user_id, chats)
    )
    bounds = {}
    for conversation_id, (max_seq, updated_ms) in counters.items():
        limit = limits.get(conversation_id, Limits())
        bounds[conversation_id] = SeqBounds(max(limit.min_seq, 1), limit.clamp_max(max_seq), updated_ms, max_seq)
    return bounds


async def _get_counters(conversation_ids: list[str]) -> dict[str, tuple[int, int]]:
    """(max seq, time of the last allocation) of the conversations that have a message."""
    counters = await get_cached_max_seqs(get_async_redis(), conversation_ids) if conversation_ids else {}
    blocks = MsgBlockReader(get_async_mongo())
    for conversation_id in conversation_ids:
        if conversation_id not in counters:
            # Redis lost its counters: what is stored is all there is, until the next message counts again.
            counters[conversation_id] = (await blocks.last_seq(conversation_id), 0)
    return {conversation_id: counter for conversation_id, counter in counters.items() if counter[0] > 0}


async def _conversation_ids(user_id: str) -> list[str]:
    ids = await Conversations(get_async_redis(), get_async_mongo()).get_ids(user_id)
    return sorted(ids)


async def get_max_seqs(user_id: str) -> sdkws_pb2.GetMaxSeqResp:
    """1001: max seq of all conversations of the user, their notification twins and the user's own notifications.

    As OpenIM's, it knows no caps: who left a group learns that it goes on, and may pull none of that.
    """
    chats = await _conversation_ids(user_id)
    wanted = _with_notifications(user_id, chats)
    # A twin without a counter never had a notification, so only chats are worth a look into MongoDB.
    cached = await get_cached_max_seqs(get_async_redis(), wanted)
    missing = [chat for chat in chats if chat not in cached]
    found = cached | (await _get_counters(missing) if missing else {})
    answer = sdkws_pb2.GetMaxSeqResp()
    for conversation_id, (seq, _) in found.items():
        if seq > 0:
            answer.maxSeqs[conversation_id] = seq
    return answer


def _with_notifications(user_id: str, chats: list[str]) -> list[str]:
    """Conversations, their notification twins and the user's own notifications."""
    own = notification_twin(single_conversation_id(user_id, user_id))
    return list(dict.fromkeys([*chats, *map(notification_twin, chats), own]))


async def get_tails(user_id: str, since_ms: int) -> list[bytes]:
    """The newest message (or a placeholder) of each conversation and its notifications that had one since then.

    Returns a serialized PushMessages for each: OpenIM's Go core counts what is in one push as of one conversation.
    """
    ids = _with_notifications(user_id, await _conversation_ids(user_id))
    counters = await get_cached_max_seqs(get_async_redis(), ids)
    recent = [item for item, (_, updated_ms) in counters.items() if updated_ms >= since_ms]
    bounds = await get_bounds(user_id, await find_pullable(user_id, recent) if recent else [])
    last = [(item, bound.max_seq) for item, bound in bounds.items() if bound.max_seq >= bound.min_seq]
    payloads = []
    for at in range(0, len(last), LAST_MESSAGES_AT_ONCE):
        part = last[at : at + LAST_MESSAGES_AT_ONCE]
        found = await get_msgs(user_id, {item: [seq] for item, seq in part})
        payloads += [push_messages(item, found.get(item, {}).get(seq) or placeholder(seq)) for item, seq in part]
    return payloads


async def get_read_and_max_seqs(
    user_id: str, request: msg_pb2.GetConversationsHasReadAndMaxSeqReq
) -> msg_pb2.GetConversationsHasReadAndMaxSeqResp:
    """1006: how far each conversation goes and how far the user has read. No ids: all chat conversations."""
    asked = list(request.conversationIDs)
    ids = await find_pullable(user_id, asked) if asked else await _conversation_ids(user_id)
    bounds = await get_bounds(user_id, ids)
    read = await ReadSeqs(get_async_redis(), get_async_mongo()).get(user_id, list(bounds))
    answer = msg_pb2.GetConversationsHasReadAndMaxSeqResp()
    for conversation_id, bound in bounds.items():
        seqs = answer.seqs[conversation_id]
        seqs.maxSeq = bound.max_seq
        seqs.hasReadSeq = min(read[conversation_id], bound.max_seq)
        seqs.maxSeqTime = bound.updated_ms
    if request.returnPinned:
        conversations = Conversations(get_async_redis(), get_async_mongo())
        answer.pinnedConversationIDs.extend(await conversations.list_ids(user_id, {"is_pinned": True}))
    return answer


async def pull_by_ranges(user_id: str, request: sdkws_pb2.PullMessageBySeqsReq) -> bytes:
    """1002: messages by seq range. Returns a serialized PullMessageBySeqsResp."""
    pullable = await find_pullable(user_id, (item.conversationID for item in request.seqRanges))
    bounds = await get_bounds(user_id, pullable)
    wanted: dict[str, list[int]] = {}
    is_end: dict[str, bool] = {}
    ranges: list[tuple[str, int, int]] = []
    for item in request.seqRanges:
        bound = bounds.get(item.conversationID)
        if bound is None:
            continue
        begin, end = max(item.begin, bound.min_seq), min(item.end, bound.max_seq)
        if begin > end:
            continue
        if not is_notification_conversation(item.conversationID):
            begin = max(begin, end - min(item.num if item.num > 0 else MOST_MSGS_PER_RANGE, MOST_MSGS_PER_RANGE) + 1)
        ranges.append((item.conversationID, begin, end))
        if request.order == sdkws_pb2.PullOrderAsc:
            is_end[item.conversationID] = bound.max_seq <= item.end
        else:
            is_end[item.conversationID] = item.begin <= bound.min_seq
    for conversation_id, begin, end in _cut_to_fit(ranges):
        wanted.setdefault(conversation_id, []).extend(range(begin, end + 1))
    msgs = await get_msgs(user_id, wanted)
    return _pull_response(wanted, msgs, is_end, {})


def _cut_to_fit(ranges: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Leave out the oldest of long ranges of notifications: a refusal would end the client's sync. They are given as far as
    the answer goes, for nobody asks again for a revocation that was left out. Raises ArgsError when that is not enough."""
    is_cut = [is_notification_conversation(conversation_id) for conversation_id, _, _ in ranges]
    lengths = [end - begin + 1 for _, begin, end in ranges]
    room = MOST_MSGS_PER_PULL - sum(length for length, cut in zip(lengths, is_cut, strict=True) if not cut)
    to_cut = sorted(length for length, cut in zip(lengths, is_cut, strict=True) if cut)
    most = to_cut[-1] if to_cut else 0
    for number, length in enumerate(to_cut):
        share = room // (len(to_cut) - number)
        if length > share:
            most = max(share, 1)
            break
        room -= length
    fitting = [
        (conversation_id, max(begin, end - most + 1) if cut else begin, end)
        for (conversation_id, begin, end), cut in zip(ranges, is_cut, strict=True)
    ]
    _check_size(sum(end - begin + 1 for _, begin, end in fitting))
    return fitting


async def pull_by_seq_lists(user_id: str, request: msg_pb2.GetSeqMessageReq) -> bytes:
    """1005: messages by seq, in the order asked. Returns a serialized GetSeqMessageResp."""
    pullable = await find_pullable(user_id, (item.conversationID for item in request.conversations))
    bounds = await get_bounds(user_id, pullable)
    descending = request.order == sdkws_pb2.PullOrderDesc
    wanted: dict[str, list[int]] = {}
    is_end: dict[str, bool] = {}
    end_seq: dict[str, int] = {}
    for item in request.conversations:
        # Every conversation gets an entry, also an empty one: clients look it up without asking whether it is there.
        seqs = wanted.setdefault(item.conversationID, [])
        bound = bounds.get(item.conversationID, SeqBounds(1, 0))
        for seq in item.seqs:
            if seq <= 0:
                continue
            if bound.min_seq <= seq <= bound.max_seq:
                seqs.append(seq)
            elif descending and seq < bound.min_seq:
                is_end[item.conversationID], end_seq[item.conversationID] = True, bound.min_seq
            elif not descending and seq > bound.max_seq:
                is_end[item.conversationID], end_seq[item.conversationID] = True, bound.max_seq
    _check_size(sum(len(seqs) for seqs in wanted.values()))
    msgs = await get_msgs(user_id, wanted)
    return _pull_response(wanted, msgs, is_end, end_seq)


async def get_last_messages(user_id: str, request: msg_pb2.GetLastMessageReq) -> msg_pb2.GetLastMessageResp:
    """1007: the newest message of each conversation that is still there; conversations without one are left out."""
    bounds = await get_bounds(user_id, await find_pullable(user_id, request.conversationIDs))
    answer = msg_pb2.GetLastMessageResp()
    # The newest seq of each that was not looked at.
    left = {conversation_id: bound.max_seq for conversation_id, bound in bounds.items()}
    for step in LAST_MESSAGE_STEPS:
        left = {
            conversation_id: seq
            for conversation_id, seq in left.items()
            if conversation_id not in answer.msgs and seq >= bounds[conversation_id].min_seq
        }
        wanted = {
            conversation_id: list(range(seq, max(seq - step, bounds[conversation_id].min_seq - 1), -1))
            for conversation_id, seq in left.items()
        }
        ids = list(wanted)
        # A few conversations at a time: each may bring that many messages, of which one is kept.
        at_once = max(LAST_MESSAGES_AT_ONCE * LAST_MESSAGE_STEPS[0] // step, 1)
        for at in range(0, len(ids), at_once):
            part = {conversation_id: wanted[conversation_id] for conversation_id in ids[at : at + at_once]}
            _pick_last(answer, part, await get_msgs(user_id, part))
            left |= {conversation_id: seqs[-1] - 1 for conversation_id, seqs in part.items()}
    return answer


def _pick_last(
    answer: msg_pb2.GetLastMessageResp, wanted: dict[str, list[int]], found: dict[str, dict[int, bytes]]
) -> None:
    for conversation_id, seqs in wanted.items():
        for seq in seqs:
            raw = found.get(conversation_id, {}).get(seq)
            if raw is None:
                continue
            msg = sdkws_pb2.MsgData.FromString(raw)
            if msg.status < MsgStatus.DELETED:
                answer.msgs[conversation_id].CopyFrom(msg)
                break


async def get_msgs(user_id: str, wanted: dict[str, list[int]]) -> dict[str, dict[int, bytes]]:
    """Serialized MsgData (with seq) by conversation and seq, as the user sees them.

    Seqs without a message are missing, and so are those of messages that are deleted for this user or for all.
    """
    cache = MsgCache(get_async_redis())
    look = await cache.look(wanted)
    found = {
        conversation_id: {seq: with_seq(raw, seq) for seq, raw in msgs.items()}
        for conversation_id, msgs in look.msgs.items()
    }
    missing = {
        conversation_id: [seq for seq in seqs if seq not in found[conversation_id]]
        for conversation_id, seqs in wanted.items()
    }
    missing = {conversation_id: seqs for conversation_id, seqs in missing.items() if seqs}
    if not missing:
        return found
    for conversation_id, slots in (await MsgBlockReader(get_async_mongo()).get_slots(missing)).items():
        marked = look.marked.get(conversation_id, set())
        refill: dict[int, bytes] = {}
        for seq, slot in slots.items():
            msg = shown_msg(slot, user_id)
            if msg is None:
                continue
            raw = msg.SerializeToString()
            found[conversation_id][seq] = with_seq(raw, seq)
            if seq not in marked and is_the_same_for_all(slot):
                refill[seq] = raw
        await cache.put(conversation_id, refill, look)
    return found


def _check_size(total: int) -> None:
    if total > MOST_MSGS_PER_PULL:
        raise ArgsError(f"more than {MOST_MSGS_PER_PULL} messages asked for at once")


def _pull_response(
    wanted: dict[str, list[int]],
    msgs: dict[str, dict[int, bytes]],
    is_end: dict[str, bool],
    end_seq: dict[str, int],
) -> bytes:
    """Every wanted seq yields one message: a placeholder stands where there is none."""
    answer = PullResp()
    for conversation_id, seqs in wanted.items():
        by_kind = answer.notificationMsgs if is_notification_conversation(conversation_id) else answer.msgs
        entry = by_kind[conversation_id]
        found = msgs.get(conversation_id, {})
        for seq in seqs:
            raw = found.get(seq)
            entry.Msgs.add().MergeFromString(raw if raw is not None else placeholder(seq))
        entry.isEnd = is_end.get(conversation_id, False)
        entry.endSeq = end_seq.get(conversation_id, 0)
    return answer.SerializeToString()
