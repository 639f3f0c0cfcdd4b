"""``python -m tests.benchmarks.prefill TEXT_BYTES``: chats with a past, through the project's own storage modules.

stdin: JSON, a list of [user, other user, number of messages]. Runs with the settings of the product it fills.
"""

from __future__ import annotations

import random
import sys

import orjson

from imserver.clock import now_ms
from imserver.constants import SessionType
from imserver.protocol.conversations import single_conversation_id
from imserver.protocol.documents import to_document
from imserver.storage import conversations
from imserver.storage.clients import get_mongo, get_redis
from imserver.storage.conversations import NewConversation
from imserver.storage.msg_blocks import MsgBlockWriter, StoredMsgs
from imserver.storage.seq import SeqAllocator
from tests.client import text_message

#: Messages in one call of MongoDB; whole blocks.
AT_ONCE = 2000
#: Between two messages of the past.
STEP_MS = 1000


def fill(sender: str, receiver: str, count: int, text_bytes: int) -> None:
    """``count`` messages, the seqs that belong to them, and both users' conversation records."""
    client, database = get_redis(), get_mongo()
    conversation_id = single_conversation_id(sender, receiver)
    blocks = MsgBlockWriter(database)
    msg = text_message(sender, receiver, "")
    msg.status = 2
    model = to_document(msg, 0)
    chance = random.Random(count)
    first_ms = now_ms() - count * STEP_MS
    for start in range(1, count + 1, AT_ONCE):
        documents = []
        for seq in range(start, min(start + AT_ONCE, count + 1)):
            # Random, or the store's compression would make the history smaller than it is in life.
            unique = chance.randbytes(48).hex()
            documents.append(
                {
                    **model,
                    "seq": seq,
                    "client_msg_id": unique[:32],
                    "server_msg_id": unique[32:64],
                    "send_time": first_ms + seq * STEP_MS,
                    "create_time": first_ms + seq * STEP_MS,
                    "content": f'{{"content":"{chance.randbytes(text_bytes // 2 + 1).hex()[:text_bytes]}"}}',
                }
            )
        blocks.write([StoredMsgs(conversation_id, start, documents)])
    SeqAllocator(client, database).allocate(conversation_id, count)
    records = [
        NewConversation(
            owner_user_id=owner,
            conversation_id=conversation_id,
            conversation_type=SessionType.SINGLE,
            user_id=peer,
            group_id="",
        )
        for owner, peer in ((sender, receiver), (receiver, sender))
    ]
    conversations.create_records(database, records)
    conversations.remember_ids(client, {(item.owner_user_id, conversation_id) for item in records})


def main() -> None:
    text_bytes = int(sys.argv[1])
    for sender, receiver, count in orjson.loads(sys.stdin.buffer.read()):
        fill(sender, receiver, count, text_bytes)


if __name__ == "__main__":
    main()
