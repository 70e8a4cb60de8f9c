"""Which names of objects a test may use: a misspelt one would find nothing, and an assertion about it would hold."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

from circuit_script.execution.authoring.place import OBJECTS


def fault_of(object: str, own: Collection[str] = ()) -> str:
    """What is wrong with this name, with the nearest one; empty when it is known. ``own`` are circuit.toml's."""
    known = {each.lower(): each for each in (*OBJECTS, *own)}
    if object in known.values():
        return ""
    near = get_close_matches(object.lower(), known, n=1, cutoff=0.5)
    meant = f"Did you mean {known[near[0]]!r}? " if near else ""
    return f'There is no object {object!r}. {meant}One of your own stands in circuit.toml: objects = ["{object}"].'
