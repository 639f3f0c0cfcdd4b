"""Who was let through to speak in which group, as this process remembers it.

For a second nobody is looked up again: no call a message, and a mute or a kick bites within that second. For longer only while
MongoDB is away, and only as long as the group's token is the one of then (storage/groups.py): so who was removed or muted
since does not speak, and all others go on.
"""

from __future__ import annotations

import time

from cachetools import TTLCache

from imserver.runtime import one_a_process

ALLOWED_SECONDS = 1
REMEMBERED_SECONDS = 3600
#: How long a look-up of somebody who is remembered may take; then MongoDB counts as away …
LOOK_SECONDS = 0.5
#: … and is not asked about those for so long.
AWAY_SECONDS = 1.0
_MOST_ENTRIES = 100_000

#: (group id, user id)
Speaker = tuple[str, str]


class Speakers:
    """A refusal is never remembered: who was just invited may speak at once."""

    def __init__(self) -> None:
        self._allowed: TTLCache[Speaker, bool] = TTLCache(_MOST_ENTRIES, ALLOWED_SECONDS)
        self._tokens: TTLCache[Speaker, str] = TTLCache(_MOST_ENTRIES, REMEMBERED_SECONDS)
        self._away_until = 0.0

    @property
    def is_away(self) -> bool:
        """MongoDB did not answer a moment ago."""
        return time.monotonic() < self._away_until

    def is_allowed(self, speaker: Speaker) -> bool:
        return speaker in self._allowed

    def was_allowed(self, speaker: Speaker, token: str) -> bool:
        return self._tokens.get(speaker) == token

    def allow(self, speaker: Speaker, token: str) -> None:
        """``token``: the group's, read before the look-up."""
        self._allowed[speaker] = True
        self._tokens[speaker] = token

    def refuse(self, speaker: Speaker) -> None:
        self._tokens.pop(speaker, None)

    def note_away(self) -> None:
        self._away_until = time.monotonic() + AWAY_SECONDS

    def clear(self) -> None:
        self._allowed.clear()
        self._tokens.clear()
        self._away_until = 0.0


@one_a_process
def get_speakers() -> Speakers:
    return Speakers()
