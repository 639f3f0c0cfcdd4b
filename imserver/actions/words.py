"""Words that lists are searched for."""

from __future__ import annotations

from imserver.errors import ArgsError

#: No name that is searched in is longer.
MAX_WORD_CHARS = 256


def check_word(name: str, word: str) -> None:
    """MongoDB's patterns take no NUL and not any length; its refusal would look as if it were away. Raises ArgsError."""
    if len(word) > MAX_WORD_CHARS or "\x00" in word:
        raise ArgsError(f"{name} must be at most {MAX_WORD_CHARS} characters, none of them NUL")
