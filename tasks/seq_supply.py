"""What transfer needs of MongoDB: ranges of seqs, and read seqs that Redis does not have. Patient with one that is away."""

from __future__ import annotations

import logging
import math
import threading
import time

import pymongo
import redis
from pymongo.database import Database
from pymongo.errors import PyMongoError

from imserver import metrics
from imserver.storage.clients import Document
from imserver.storage.read_seq import ReadSeqWriter
from imserver.storage.seq import SeqAllocator, SeqUnavailable
from tasks.sorting import MsgList, ReadReceipt

logger = logging.getLogger(__name__)

#: MongoDB was away: how long it is not asked again, so that a batch does not wait for its time-out each time.
MONGO_RETRY_SECONDS = 3.0
#: A refill that takes longer is not waited for; seqs beyond the range are used meanwhile.
REFILL_SECONDS = 0.02
#: Seqs that are to be left after a refill ahead.
REFILL_AHEAD = 20


class SeqSupply:
    def __init__(self, client: redis.Redis, database: Database[Document], *, watches: bool) -> None:
        """
        Args:
            watches: find out from a thread whether MongoDB is back; else the next batch after a moment does.
        """
        self._database = database
        self._seqs = SeqAllocator(client, database)
        self._read_seqs = ReadSeqWriter(client, database)
        self._watches = watches
        self._away_until = 0.0
        self._refilling: threading.Thread | None = None

    @property
    def is_away(self) -> bool:
        """MongoDB did not answer a moment ago."""
        return time.monotonic() < self._away_until

    def refill(self, short: list[MsgList]) -> bool:
        """Reserve ranges in MongoDB; False when it is away (and is not asked again for a moment)."""
        if self.is_away:
            return False
        if self._refilling is not None:
            # Who refills ahead usually takes two milliseconds; one that hangs tells that we would hang too.
            self._refilling.join(REFILL_SECONDS)
            if self._refilling.is_alive():
                return False
        return self._ensure(short, 0, "seq range not refilled")

    def refill_ahead(self, lists: list[MsgList]) -> None:
        """Ranges that run low are refilled before a batch has to wait for them."""
        if not self.is_away:
            self._ensure(lists, REFILL_AHEAD, "seq range not refilled ahead")

    def refill_soon(self, lists: list[MsgList]) -> None:
        """The same on a thread of its own: a MongoDB that hangs must not hold up the next batch. While it is at it, nothing
        more is asked; a range that is still low says so at its next commit."""
        if lists and not (self._refilling and self._refilling.is_alive()):
            self._refilling = threading.Thread(target=self.refill_ahead, args=(lists,), daemon=True)
            self._refilling.start()

    def _ensure(self, lists: list[MsgList], ahead: int, trouble: str) -> bool:
        try:
            for item in lists:
                self._seqs.ensure_range(item.conversation_id, len(item.msgs) + ahead)
        except SeqUnavailable:
            # Somebody else is at it, or died at it: its lock expires.
            return False
        except PyMongoError as error:
            metrics.SEQ_REFILLS_FAILED.inc()
            self._note_away(trouble, error)
            return False
        return True

    def seed_read_seqs(self, receipts: list[ReadReceipt]) -> None:
        """Look up in MongoDB what Redis does not have, before a receipt moves it."""
        for receipt in receipts:
            if self.is_away:
                return
            try:
                self._read_seqs.seed(receipt.conversation_id, receipt.user_id)
            except PyMongoError as error:
                # The receipt then moves what Redis has; MongoDB keeps the greater one.
                self._note_away("read seq not looked up", error)

    def _note_away(self, what: str, error: PyMongoError) -> None:
        logger.warning(what, extra={"action": "transfer", "error": repr(error)[:300]})
        if not self._watches:
            self._away_until = time.monotonic() + MONGO_RETRY_SECONDS
        elif not self.is_away:
            # Nobody's message is the one that finds out whether it is back.
            self._away_until = math.inf
            threading.Thread(target=self._wait_for_mongo, daemon=True).start()

    def _wait_for_mongo(self) -> None:
        pause = threading.Event()
        try:
            while not pause.wait(MONGO_RETRY_SECONDS):
                try:
                    with pymongo.timeout(MONGO_RETRY_SECONDS):
                        self._database.client.admin.command("ping")
                except PyMongoError:
                    continue
                return
        finally:
            # Whatever ended the waiting: the next look-up finds out.
            self._away_until = 0.0
