"""Addresses as they may be shown to people and written to logs."""

from __future__ import annotations

import re


def hide_password(url: str) -> str:
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", url)
