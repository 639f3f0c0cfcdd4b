"""``manage.py checkconfig``: is the configuration usable, what is each setting, and where does it come from."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping
from typing import Any, ClassVar, get_type_hints

from django.core.management.base import BaseCommand, CommandParser
from environ import Env

from imserver.conf import BASE_DIR, Config, ConfigError, load_config
from imserver.devservices.redact import hide_password
from imserver.vendors.registry import create_vendor

MARKDOWN_HEAD = """\
# Configuration

Every setting is an environment variable, or a line `NAME=value` of the file `.env` in the project's folder; the
environment wins. A secret may also come from a file: `NAME_FILE=/path`. `manage.py checkconfig` shows the settings in
use and where each comes from. A value that cannot be used is refused by name before anything starts.

`make up` starts its own Valkey or MongoDB where `REDIS_URL` or `MONGO_URL` is not set, and sets `DEMO=1` and a
`METRICS_DIR` unless they are set.

This page is made by `manage.py checkconfig --markdown` from `imserver/conf.py`.

| Setting | Default | Accepts | Meaning |
|---|---|---|---|
"""


class Command(BaseCommand):
    help = "Check the configuration and show every setting, its value and its source; --markdown: the reference page."
    requires_system_checks: list[str] = []  # noqa: RUF012 - Django's own spelling

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--markdown", action="store_true", help="print docs/configuration.md instead")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["markdown"]:
            self.stdout.write(markdown(), ending="")
            return
        try:
            config = load_config()
            # Reads the vendor's key, which the other processes do at the first push only.
            create_vendor(config)
        except ConfigError as error:
            self.stderr.write(f"configuration refused: {error}")
            sys.exit(1)
        for line in listing(config, os.environ, read_dotenv()):
            self.stdout.write(line)


class _DotEnv(Env):  # type: ignore[misc]  # django-environ has no types
    """Reads a file of settings into its own mapping instead of the process's environment."""

    ENVIRON: ClassVar[dict[str, str]] = {}


def read_dotenv() -> dict[str, str]:
    _DotEnv.ENVIRON = {}
    _DotEnv.read_env(str(BASE_DIR / ".env"))
    return dict(_DotEnv.ENVIRON)


def find_source(name: str, environ: Mapping[str, str], dotenv: Mapping[str, str], *, may_be_file: bool = False) -> str:
    """``environ`` is the process's environment after ``conf`` merged ``.env`` into it without overwriting anything."""
    for variable in (name, f"{name}_FILE") if may_be_file else (name,):
        if variable in environ:
            place = ".env" if dotenv.get(variable) == environ[variable] else "environment"
            return place if variable == name else f"{variable} ({place})"
    return "default"


def listing(config: Config, environ: Mapping[str, str], dotenv: Mapping[str, str]) -> list[str]:
    """One line a setting. Secrets and passwords in addresses are hidden."""
    rows = []
    for option in dataclasses.fields(Config):
        value = getattr(config, option.name)
        name = option.name.upper()
        is_secret = option.metadata["secret"]
        source = find_source(name, environ, dotenv, may_be_file=is_secret)
        rows.append((name, "(hidden)" if is_secret else _show(value), source))
    name_width = max(len(name) for name, _, _ in rows)
    value_width = max(len(value) for _, value, _ in rows)
    return [f"{name:<{name_width}}  {value:<{value_width}}  {source}" for name, value, source in rows]


def _show(value: object) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    return hide_password(str(value))


def markdown() -> str:
    kinds = get_type_hints(Config)
    lines = []
    for option in dataclasses.fields(Config):
        accepts = _accepts(kinds[option.name], option.metadata)
        meaning = _cell(option.metadata["help"])
        lines.append(f"| `{option.name.upper()}` | {_code(option.default)} | {accepts} | {meaning} |\n")
    return MARKDOWN_HEAD + "".join(lines)


def _accepts(kind: type, metadata: Mapping[str, Any]) -> str:
    if metadata["choices"]:
        return ", ".join(_code(choice) for choice in metadata["choices"])
    if kind is bool:
        return "`1` or `0`"
    if kind is int:
        low, high = metadata["minimum"], metadata["maximum"]
        if high is None:
            return "whole number" if low is None else f"whole number from {low}"
        return f"whole number {low} to {high}"
    if metadata["pattern"]:
        return f"text like {_code(metadata['pattern'])}"
    return "text, secret" if metadata["secret"] else "text"


def _code(value: object) -> str:
    text = _show(value)
    return f"`{_cell(text)}`" if text else "(empty)"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
