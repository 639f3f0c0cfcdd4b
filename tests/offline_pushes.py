"""The offline push stage run by hand in this process."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import orjson
import redis
from pymongo.database import Database

from imserver.clock import now_ms
from imserver.constants import SessionType
from imserver.protocol.conversations import conversation_id_of, shard_of
from imserver.protocol.gen.sdkws_pb2 import MsgData, OfflinePushInfo
from imserver.storage import device_tokens, keys, offline_waits
from imserver.storage.clients import Document
from tasks.push.offline import OfflinePush
from tests.factories import make_msg, run_stage, wait_until

SHARDS = 16


def add_token(database: Database[Document], user_id: str, platform_id: int, token: str) -> str:
    """A registered device; returns its token."""
    owner = {"user_id": user_id, "platform_id": platform_id}
    values = {"token": token, "update_time": 1_760_000_000_000, "expires_at": None}
    database[device_tokens.COLLECTION].update_one(owner, {"$set": values}, upsert=True)
    return token


class OfflinePushes:
    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.stage = OfflinePush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stage.close()

    def add(self, sender: str, users: list[str], text: str = "hi", *, group: str = "", **fields: Any) -> MsgData:
        """An entry as the push stage writes it."""
        if group:
            fields |= {"sessionType": SessionType.GROUP, "groupID": group}
        info = fields.pop("offlinePushInfo", None)
        msg = make_msg(sender, users[0], text, **fields)
        if info is not None:
            msg.offlinePushInfo.CopyFrom(OfflinePushInfo(**info))
        self.add_msg(msg, users)
        return msg

    def add_msg(self, msg: MsgData, users: list[str], seq: int = 1, *, age_ms: int = 0) -> int:
        conversation_id = conversation_id_of(msg)
        shard = shard_of(conversation_id, SHARDS)
        entry: Any = {
            "c": conversation_id,
            "s": seq,
            "m": msg.SerializeToString(),
            "o": "op1",
            "u": orjson.dumps(users),
        }
        entry_id = f"{now_ms() - age_ms}-*" if age_ms else "*"
        self.client.xadd(keys.log(keys.TO_OFFLINE_PUSH, shard), entry, id=entry_id)
        return shard

    def run(self) -> None:
        """What the sweep and the runners do, once."""
        offline_waits.add_ticks(self.client, SHARDS)
        for shard in range(SHARDS):
            run_stage(self.client, self.stage, shard)

    def waiting(self) -> int:
        return offline_waits.count_waiting(self.client, SHARDS)

    def is_idle(self) -> bool:
        return self.waiting() == 0 and not any(
            self.client.xlen(keys.log(keys.TO_OFFLINE_PUSH, shard)) for shard in range(SHARDS)
        )

    def run_until_idle(self, seconds: float = 30) -> None:
        def is_done() -> bool:
            self.run()
            return self.is_idle()

        wait_until(is_done, "every push is done", seconds)
