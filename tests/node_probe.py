"""A gateway node's end of the channel layer, held by a test."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import orjson
import redis
from channels.layers import get_channel_layer

from imserver.constants import PushResult
from imserver.protocol.gen.sdkws_pb2 import PushMessages
from imserver.protocol.push_event import unpack
from imserver.storage import keys
from tasks.names import RESULTS_EVENT
from tests.factories import unique


class NodeProbe:
    """A gateway node's end of the channel layer, with users that are connected there."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self.name = unique("node")
        self._inbox: Any = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        self._inbox.subscribe(self.name)
        self._inbox.get_message(timeout=5)
        client.set(keys.node(self.name), 1)
        self._answering: threading.Thread | None = None
        self._is_closed = threading.Event()
        #: Events that were answered.
        self.seen = 0

    def connect(self, user_id: str, platform_id: int = 5, *, is_background: bool = False) -> None:
        record = {
            "node": self.name,
            "platform_id": platform_id,
            "token_digest": "",
            "since_ms": 1,
            "is_background": is_background,
        }
        self._client.hset(keys.route(user_id), unique("c"), orjson.dumps(record).decode())

    def events(self) -> list[dict[str, Any]]:
        """What came since the last look: all that was published before this one."""
        end = {"type": unique("end")}
        self._client.publish(self.name, get_channel_layer().serialize(end))
        found: list[dict[str, Any]] = []
        while (event := self._next(5)) != end:
            assert event is not None, "the node's subscription is lost"
            found.append(event)
        return found

    def _next(self, seconds: float) -> dict[str, Any] | None:
        message = self._inbox.get_message(timeout=seconds)
        return None if message is None else get_channel_layer().deserialize(message["data"])

    def pushed(self) -> list[tuple[str, int, list[str]]]:
        """(text's client id, seq, users) of everything that was pushed, in order."""
        found = []
        for event in self.events():
            for _operation_id, payload, users in unpack(event):
                for msgs in PushMessages.FromString(payload).msgs.values():
                    found += [(msg.clientMsgID, msg.seq, sorted(users)) for msg in msgs.Msgs]
        return found

    def answer_all(self, code: PushResult = PushResult.OK, *, platform_id: int) -> None:
        """Answer every push that asks for it, from now on, with the same result for all its users."""
        self._answering = threading.Thread(target=self._answer, args=(code, platform_id), daemon=True)
        self._answering.start()

    def _answer(self, code: PushResult, platform_id: int) -> None:
        while not self._is_closed.is_set():
            event = self._next(0.2)
            if event is None:
                continue
            users = {user for _, _, named in unpack(event) for user in named}
            self.seen += 1
            if "reply" in event:
                answer = {
                    "type": RESULTS_EVENT,
                    "id": event["id"],
                    "part": event["part"],
                    "node": self.name,
                    "results": [[user, platform_id, int(code)] for user in users],
                }
                self._client.publish(event["reply"], get_channel_layer().serialize(answer))

    def close(self) -> None:
        self._is_closed.set()
        if self._answering is not None:
            self._answering.join(5)
        self._inbox.close()


MakeNode = Callable[[], NodeProbe]
