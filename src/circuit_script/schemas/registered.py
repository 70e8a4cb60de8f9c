"""The schemas of this process, by object. Imports nothing: every child asks here, and most find none."""

from __future__ import annotations

from typing import Any

SCHEMAS: dict[str, type[Any]] = {}


def register(object_: str, found: type[Any]) -> None:
    """A class below the registered one takes its place. Raises TypeError for an object that has another schema already,
    or that is no name."""
    if not object_ or not object_.isidentifier():
        raise TypeError(f"{object_!r} is no name of an object")
    before = SCHEMAS.get(object_)
    same = before is None or (before.__module__, before.__qualname__) == (found.__module__, found.__qualname__)
    if before is not None and not same and not issubclass(found, before):
        raise TypeError(f"{object_} has the schema {before.__module__}.{before.__qualname__} already")
    SCHEMAS[object_] = found
