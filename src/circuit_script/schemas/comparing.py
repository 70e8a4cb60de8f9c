"""What two modules of schemas say otherwise, field by field. Both are read as text; nothing of them is run."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Change:
    """One field that is ``added``, ``removed`` or ``changed``: ``was`` and ``now`` are its type as it is written, with
    the comment above it. What is said of all (an object, the head) has no ``field``."""

    how: Literal["added", "removed", "changed"]
    object: str
    field: str = ""
    was: str = ""
    now: str = ""


def changes(before: str, after: str) -> list[Change]:
    """From ``before`` to ``after``, in their order. Raises SyntaxError where ``before`` is no Python."""
    old, new = _fields(before), _fields(after)
    found = []
    for object_, field in dict.fromkeys((*old, *new)):
        was, now = old.get((object_, field)), new.get((object_, field))
        if was != now:
            how: Literal["added", "removed", "changed"] = (
                "added" if was is None else "removed" if now is None else "changed"
            )
            found.append(Change(how, object_, field, was or "", now or ""))
    if not found and before != after:
        found.append(Change("changed", "", "", "", ""))
    return sorted(found, key=lambda each: (each.object, each.field.casefold(), each.field))


def _fields(text: str) -> Mapping[tuple[str, str], str]:
    """Each field as it is written, by class and name; a class by itself has the name ""."""
    try:
        tree = ast.parse(text)
    except (ValueError, RecursionError, MemoryError) as error:  # a NUL; nested without end
        raise SyntaxError(str(error)) from None
    lines = text.split("\n")
    found: dict[tuple[str, str], str] = {}
    for each in tree.body:
        if not isinstance(each, ast.ClassDef):
            continue
        found[each.name, ""] = ", ".join(ast.unparse(base) for base in each.bases)
        for one in each.body:
            if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
                written = ast.unparse(one.annotation)
                found[each.name, one.target.id] = f"{written}{_comment(lines, one.lineno)}"
    return found


def _comment(lines: list[str], number: int) -> str:
    """The comment that stands right above a line."""
    above = lines[number - 2].strip() if 1 < number <= len(lines) + 1 else ""
    return f"  {above}" if above.startswith("#") else ""
