"""Writes a module of schemas from what a CRM says of its fields. Knows no vendor, and believes none: what a vendor said
stands in literals and in comments only, escaped.
"""

from __future__ import annotations

import builtins
import keyword
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from circuit_script.schemas import objects
from circuit_script.schemas.facts import FieldFacts, Kind, ObjectFacts
from circuit_script.schemas.layout import STEP, Group, Part, fits, flat, laid, quoted, remark
from circuit_script.schemas.model import ObjectSchema

MARK = "# Made by `circuit-script objects pull`."  # the first line of what may be written again
MOST_FIELDS = 2000  # of an object
MOST_CHOICES = 500
LONGEST_NAME = 200  # characters
LONGEST_ATTRIBUTE = 50
LONGEST_TEXT = 2**31  # characters: beyond, a vendor's limit is none

_USUAL: dict[str, type[ObjectSchema]] = {
    name.removesuffix("Schema"): found
    for name, found in vars(objects).items()
    if name.endswith("Schema") and isinstance(found, type) and found is not ObjectSchema
}
_PLAIN: dict[Kind, str] = {"number": "Number", "money": "Number", "integer": "Whole", "boolean": "Flag"}
_TYPING, _PYDANTIC = ("Annotated", "Any", "Literal"), ("AliasChoices", "Field")
_KINDS = ("Blank", "Flag", "Moment", "Number", "Parted", "SpelledFlag", "SpelledNumber", "SpelledWhole", "Whole")
_SCHEMAS = ("ObjectSchema", *sorted(found.__name__ for found in _USUAL.values()))
_WORDS = frozenset({*_TYPING, *_PYDANTIC, *_KINDS, *_SCHEMAS, *dir(builtins)})
# What a class has already may not be a field; the words of types may not mean something else within it.
_ATTRIBUTES = (
    frozenset({*dir(ObjectSchema), *dir(type(ObjectSchema)), *_TYPING, *_PYDANTIC, *_KINDS, *_SCHEMAS, "str", "list"})
    - ObjectSchema.model_fields.keys()
)
_LEFT_OUT = frozenset({"id", "customFields"})  # our own, in every schema


@dataclass(frozen=True, slots=True)
class _Named:
    """A field with its name in Python, and all its names in records, the usual one first."""

    attribute: str
    names: tuple[str, ...]
    facts: FieldFacts


def source_of(found: Sequence[ObjectFacts], crm: str, command: str) -> str:
    """The module, always the same for the same facts. ``command`` is what makes it. Raises ValueError for an object
    whose name cannot be registered."""
    classes = "".join(f"\n\n{_class(each, crm)}" for each in sorted(found, key=lambda each: each.object))
    shown = "".join(each if each.isprintable() else "\ufffd" for each in command)
    head = f"{MARK} Do not edit: make it again.\n# From {crm}, by: {shown}\n\n"
    return f"{head}{_imports(classes)}{classes}"


def _class(found: ObjectFacts, crm: str) -> str:
    if not found.object.isidentifier() or not found.object.isascii():
        raise ValueError(f"{found.object!r} is no name of an object")
    usual = _USUAL.get(found.object)
    base = usual or ObjectSchema
    name = found.object
    if keyword.iskeyword(name) or name in _WORDS or name.startswith("__"):
        name = f"Object_{name}"
    group = Group(f"class {name}", (base.__name__, f"object={quoted(found.object)}"), "()")
    opening = laid(group, "", behind=":")
    lines = [f'{opening}\n{STEP}"""{found.object}, as {crm} describes it."""']
    fields = [_field(each) for each in _named(found.fields, frozenset(base.model_fields))]
    return "\n".join([*lines, *([""] if fields else []), *fields]) + "\n"


def _named(fields: Sequence[FieldFacts], usual: frozenset[str]) -> Iterator[_Named]:
    """Each field under names that no other one has, and none of the ``usual`` ones but by itself; one that has none
    left is left out."""
    listed = sorted(fields, key=lambda each: (each.name.casefold(), each.name))[:MOST_FIELDS]
    own = {each.name for each in listed}
    names = set(_LEFT_OUT)
    attributes = {*usual, *(each for each in own if _attribute(each) == each)}
    for each in listed:
        if each.name in names or not _possible(each.name):
            continue
        also = [other for other in each.also if _possible(other) and other not in names | own | usual]
        mine = tuple(dict.fromkeys((each.name, *also)))
        names.update(mine)
        plain = attribute = _attribute(each.name)
        number = 2
        while attribute != each.name and attribute in attributes:
            attribute = f"{plain}_{number}"
            number += 1
        attributes.add(attribute)
        yield _Named(attribute, mine, each)


def _possible(name: str) -> bool:
    return 0 < len(name) <= LONGEST_NAME and _sendable(name)


def _sendable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _attribute(name: str) -> str:
    """A name of Python's for it: the same, where that is one."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    found = re.sub(r"[^A-Za-z0-9_]+", "_", plain).lstrip("_")[:LONGEST_ATTRIBUTE] or "field"
    if found[0].isdigit():
        found = f"field_{found}"
    return f"{found}_" if keyword.iskeyword(found) or found in _ATTRIBUTES else found


def _field(named: _Named) -> str:
    facts = named.facts
    part = _annotation(named, closed=_is_closed(named))
    said = [remark(facts.label)] if facts.label and facts.label != named.attribute else []
    said += ["needed in a new record"] if facts.required else []
    said += [] if facts.writable else ["read only"]
    said += [f"of a type that is not known here: {remark(facts.said)}"] if facts.kind == "unknown" else []
    comment = f"{STEP}# {'; '.join(said)}\n" if said else ""
    return comment + laid(part, STEP, f"{named.attribute}: ", " = None")


def _is_closed(named: _Named) -> bool:
    """Whether its choices can be a Literal. One alone must fit in its line: it could be broken at no comma."""
    choices = named.facts.choices
    several = len(set(choices))
    if not 0 < several <= MOST_CHOICES or not all(map(_sendable, choices)):
        return False
    return several > 1 or fits(f"{STEP}{named.attribute}: {flat(_annotation(named, closed=True))} = None")


def _annotation(named: _Named, *, closed: bool) -> Part:
    """Its type, with its names in records where they are not the attribute's."""
    kind, *more = _kind(named.facts, closed)
    told: list[Part] = []
    if len(named.names) > 1:
        told.append(Group("validation_alias=AliasChoices", tuple(map(quoted, named.names)), "()"))
    elif named.names[0] != named.attribute:
        told.append(f"alias={quoted(named.names[0])}")
    if kind == "str | None" and named.facts.length is not None and 0 < named.facts.length <= LONGEST_TEXT:
        told.append(f"max_length={named.facts.length}")
    if told:
        more.append(Group("Field", tuple(told), "()"))
    return Group("Annotated", (kind, *more)) if more else kind


def _kind(facts: FieldFacts, closed: bool) -> list[Part]:
    """Its type, and what reads it."""
    choices = tuple(quoted(each) for each in sorted(set(facts.choices)))
    match facts.kind:
        case "text" | "email" | "phone" | "url":
            return ["str | None"]
        case "date" | "datetime":
            return ["Moment"]
        case "choice":
            return [Group("Literal", choices, after="| None"), "Blank"] if closed else ["str | None"]
        case "choices":
            several = Group("list", (Group("Literal", choices),), after="| None") if closed else "list[str] | None"
            return [several, "Parted" if facts.spelled else "Blank"]
        case "number" | "money" | "integer" | "boolean":
            return [f"{'Spelled' if facts.spelled else ''}{_PLAIN[facts.kind]}"]
        case _:
            return ["Any"]


def _imports(text: str) -> str:
    """The imports that this text needs, in isort's order."""
    code = re.sub(r"#.*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", "", text)
    used = set(re.findall(r"[A-Za-z_]\w*", code, re.ASCII))
    blocks = []
    for modules in (
        (("typing", _TYPING),),
        (
            ("circuit_script", _SCHEMAS),
            ("circuit_script.schemas.kinds", _KINDS),
            ("pydantic", _PYDANTIC),
        ),
    ):
        lines = []
        for module, names in modules:
            if wanted := sorted(used & set(names)):
                line = f"from {module} import {', '.join(wanted)}"
                inner = "".join(f"{STEP}{each},\n" for each in wanted)
                lines.append(line if fits(line) else f"from {module} import (\n{inner})")
        if lines:
            blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)
