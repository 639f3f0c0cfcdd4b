"""Keeps Django from looking for the libraries of its geographic module, which nothing here uses.

The MongoDB backend tries that module three times while it is imported. Where GDAL is not installed each try asks the
compiler and the linker for a dozen names: 0.4 s of every process that uses Django.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from django.core.exceptions import ImproperlyConfigured

LIBRARY_MODULE = "django.contrib.gis.gdal.libgdal"


class NoGis(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == LIBRARY_MODULE:
            # As the module itself says it when it found nothing.
            raise ImproperlyConfigured("geographic fields are not used here")
        return None


def forbid_gis() -> None:
    """May be called again."""
    if not any(isinstance(finder, NoGis) for finder in sys.meta_path):
        sys.meta_path.insert(0, NoGis())
