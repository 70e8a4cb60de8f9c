"""What a CRM says of its fields, in words that no vendor owns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "text", "email", "phone", "url", "number", "integer", "money", "boolean", "date", "datetime", "choice", "choices",
    "unknown",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class FieldFacts:
    """One field of an object: its ``name`` in our records, and those under which records may have it ``also``.

    ``choices`` are all values that it takes, of kind "choice" or "choices"; empty where others are taken, too.
    ``required`` is what a new record must have; ``length`` is in characters; ``spelled``: webhooks say its value as
    text. ``said`` is the vendor's own word for its type.
    """

    name: str
    label: str = ""
    kind: Kind = "unknown"
    also: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    required: bool = False
    writable: bool = True
    length: int | None = None
    spelled: bool = False
    said: str = ""


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """The fields of one object."""

    object: str
    fields: tuple[FieldFacts, ...]
