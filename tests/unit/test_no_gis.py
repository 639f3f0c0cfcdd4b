"""Django's geographic module is not looked for."""

from __future__ import annotations

import ctypes.util
import importlib
import sys

import pytest
from django.core.exceptions import ImproperlyConfigured

from imserver.no_gis import LIBRARY_MODULE, NoGis, forbid_gis


def test_its_library_is_refused_without_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_for: list[str] = []
    monkeypatch.setattr(ctypes.util, "find_library", looked_for.append)

    with pytest.raises(ImproperlyConfigured, match="not used here"):
        importlib.import_module(LIBRARY_MODULE)

    assert LIBRARY_MODULE not in sys.modules
    assert looked_for == []


def test_forbidding_it_again_changes_nothing() -> None:
    forbid_gis()

    assert sum(isinstance(finder, NoGis) for finder in sys.meta_path) == 1
