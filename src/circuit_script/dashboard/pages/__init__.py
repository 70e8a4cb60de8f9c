"""The pages, each in its file, which declares it when it is loaded."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules


def load_pages() -> None:
    """Load every page."""
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
