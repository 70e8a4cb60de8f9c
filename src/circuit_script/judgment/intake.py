"""Level 1: what is to be judged. A value of any shape becomes fields of text, a text becomes a page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from circuit_script.judgment.page import Page, View, once
from circuit_script.judgment.verdict import Finding

DEPTH = 32
FIELDS = 5000
CHARACTERS = 1024 * 1024
LONG = 8 * 1024  # characters; a longer text is also read in windows of so many,
OVERLAP = 1024  # of which two that follow each other have these in common
SNAP = 256  # characters in which a window's begin looks for a space
LONG_KEY = 32  # longer names of fields are read like texts, and those that are no Latin word
_USUAL = re.compile(rf"[!-~\u00a1-\u00ac\u00ae-\u024f]{{0,{LONG_KEY}}}")


@dataclass(frozen=True, slots=True)
class Piece:
    """One field: where it stands in the value ("deal.notes[2]"), and its text."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Intake:
    """The fields of a value; ``over`` says what of it was too much, and so is not among them."""

    pieces: tuple[Piece, ...]
    over: tuple[Finding, ...] = ()


def windows(text: str) -> Iterator[tuple[int, int]]:
    """From where to where the windows of a text go; each but the first begins with a word."""
    start = 0
    while True:
        end = min(start + LONG, len(text))
        yield start, end
        if end == len(text):
            return
        start = end - OVERLAP
        spaces = (text.find(each, start, start + SNAP) for each in " \n")
        start = min((each + 1 for each in spaces if each >= 0), default=start)


def page_of(
    text: str, source: str | None = None, field: str | None = None, *, far: bool = False, decoded: bool = True
) -> Page:
    """A text and all that is read in it; ``far``: but for what windows of it show as well; unless ``decoded``: but for
    what is written in codes."""
    from circuit_script.judgment.canon import canonical
    from circuit_script.judgment.unmask import views

    canon = canonical(text, far=far)
    first = View("plain", canon.plain, once(canon.offsets), canon.loose, once(canon.loose_offsets))
    others = views(canon, far=OVERLAP - SNAP if far else 0) if decoded else []
    return Page(text, (first, *others), canon.hidden, canon.hidden_span, source, field)


def read(value: object) -> Intake:
    """Every text within a value, in its order; None and truth values say nothing."""
    pieces: list[Piece] = []
    over: dict[str, Finding] = {}
    left = CHARACTERS
    queue: list[tuple[str, object, int]] = [("", value, 0)]

    def too_much(pattern: str, path: str, why: str) -> None:
        over.setdefault(pattern, Finding("intake", 1.0, (0, 0), path, why, f"intake.{pattern}"))

    while queue:
        path, each, depth = queue.pop()
        if isinstance(each, Mapping | list | tuple | set | frozenset):
            if depth >= DEPTH:
                too_much("depth", path, f"It is nested more than {DEPTH} deep.")
                continue
            room = FIELDS - len(pieces) + 1
            inner = _entries(path, each, depth + 1, room)
            if len(inner) >= room:
                too_much("fields", path, f"It has more than {FIELDS} fields.")
            queue.extend(reversed(inner))
            continue
        text = _text(each)
        if not text:
            continue
        if len(pieces) >= FIELDS:
            too_much("fields", path, f"It has more than {FIELDS} fields.")
            break
        if len(text) > left:
            too_much("size", path, f"It has more than {CHARACTERS} characters.")
            text = text[:left]
        left -= len(text)
        if text:
            pieces.append(Piece(path, text))
        if not left:
            break
    return Intake(tuple(pieces), tuple(over.values()))


def _entries(
    path: str, value: Mapping[object, object] | list[object] | tuple[object, ...] | set[object] | frozenset[object],
    depth: int, room: int,
) -> list[tuple[str, object, int]]:  # fmt: skip
    found: list[tuple[str, object, int]] = []
    if isinstance(value, Mapping):
        for key, each in value.items():
            name = _text(key)
            if not is_usual(name):
                found.append((f"{path}.(name)" if path else "(name)", name, depth))
                name = name[:LONG_KEY]
            found.append((f"{path}.{name}" if path else name, each, depth))
            if len(found) >= room:
                break
        return found
    for nth, each in enumerate(value):
        found.append((f"{path}[{nth}]", each, depth))
        if len(found) >= room:
            break
    return found


def is_usual(name: str) -> bool:
    """Whether it is a field's name in which nothing can be said: one in Latin letters, without spaces. Some other
    languages need none."""
    return _USUAL.fullmatch(name) is not None


def _text(value: object) -> str:
    """One value that holds no others as text."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        data = bytes(value)
        wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        return data.decode("utf-16" if wide else "utf-8", "replace")
    if value is None or isinstance(value, bool):
        return ""
    try:
        return str(value)
    except Exception:  # a number too long to be written, an object that cannot
        return type(value).__name__
