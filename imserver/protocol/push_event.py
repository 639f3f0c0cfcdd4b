"""What a push looks like on its way to a gateway node: frames, each with the users on that node whom it is for.

A list of users that several frames share is sent once: five hundred messages to a group of ten thousand would else be tens
of megabytes, and Redis drops a subscriber that has so much before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

#: (operation id, serialized PushMessages, users).
Frame = tuple[str, bytes, list[str]]

PUSH_EVENT = "push.frames"
#: Frames of one event; a batch with more becomes several events.
MOST_EVENT_BYTES = 4_000_000


def pack(frames: Iterable[Frame]) -> list[dict[str, Any]]:
    """The events, in order, that carry the frames. Frames of the same users share the list when it is the same object."""
    events: list[dict[str, Any]] = []
    packed: list[list[Any]] = []
    lists: dict[int, int] = {}
    users: list[list[str]] = []
    size = 0
    for operation_id, payload, user_ids in frames:
        if packed and size + len(payload) > MOST_EVENT_BYTES:
            events.append({"type": PUSH_EVENT, "users": users, "frames": packed})
            packed, lists, users, size = [], {}, [], 0
        at = lists.get(id(user_ids))
        if at is None:
            at = lists[id(user_ids)] = len(users)
            users.append(user_ids)
        packed.append([operation_id, payload, at])
        size += len(payload)
    if packed:
        events.append({"type": PUSH_EVENT, "users": users, "frames": packed})
    return events


def unpack(event: dict[str, Any]) -> Iterator[Frame]:
    """The frames of an event."""
    users = event["users"]
    for operation_id, payload, at in event["frames"]:
        yield operation_id, payload, users[at]
