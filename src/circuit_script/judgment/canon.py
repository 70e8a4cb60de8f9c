"""Level 2: a text in one form, however its characters were dressed up.

What cannot be seen is gone, what looks like a Latin letter is one, and what was hidden in invisible characters is a
reading of its own. Real Russian, Greek or Vietnamese stays what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from circuit_script.judgment.compiled import Folded
from circuit_script.judgment.dressed import Reading, readings_of
from circuit_script.judgment.folding import folding_of, spaces, unspaced
from circuit_script.judgment.page import OneByOne, Origins
from circuit_script.judgment.signs import misspelled
from circuit_script.judgment.spelling import Spelling, respelled

PARTS = 6  # of several lines among which odd ones are looked for

_SPACES = b"\t\n\v\f\r"
_SPACED = _SPACES.decode() + " "
_LOWER = bytes(each + 32 if 65 <= each <= 90 else 32 if each in _SPACES else each for each in range(256))
_CONTROLS = bytes(each for each in (*range(32), 127) if each not in _SPACES)
_LINES = bytes(10 if each == 0x1E else _LOWER[each] for each in range(256))
_NOT_IN_LINES = _CONTROLS.replace(b"\x1e", b"")


@dataclass(frozen=True, slots=True)
class Canon:
    """A text in canonical form: ``plain`` is in lower case and has single spaces; ``wide`` has case and spaces as they
    were. ``loose`` and what comes with it: see `spelling`. ``hidden`` counts what was removed or folded, from the first
    to the last place of ``hidden_span``."""

    text: str
    plain: str
    wide: str
    spelling: Spelling | None = None
    hidden: dict[str, int] = field(default_factory=dict)
    hidden_span: tuple[int, int] = (0, 0)
    readings: tuple[Reading, ...] = ()
    folding: Folded | None = field(default=None, repr=False, compare=False)  # where it took one

    @property
    def loose(self) -> str:
        return self.spelling.text if self.spelling else ""

    def offsets(self) -> Origins:
        """Of each character of ``plain`` its place in the text, and one more for the end."""
        text, size = self.text, len(self.plain)
        if self.hidden or not text.isascii():
            return (self.folding or folding_of(text)).plain_places()
        if len(text.strip(_SPACED)) == size:
            first = len(text) - len(text.lstrip(_SPACED))
            return OneByOne(size + 1, lambda at: first + at if at < size else len(text))
        return np.append(unspaced(spaces(np.frombuffer(text.encode(), np.uint8))), len(text))

    def wide_offsets(self) -> Origins:
        if self.wide is self.text:
            return range(len(self.text) + 1)
        return (self.folding or folding_of(self.text)).wide_places()

    def loose_offsets(self) -> Origins:
        if not self.spelling:
            return ()
        places = self.spelling.places()
        if self.wide is self.text:
            return places
        wide = self.wide_offsets()
        return OneByOne(len(places), lambda at: int(wide[places[at]]))


@dataclass(frozen=True, slots=True)
class Form:
    """A text in its plain form and its wide one, before words are put right."""

    text: str
    plain: str
    wide: str
    folding: Folded | None = None  # where it took one


def canonical(text: str, *, far: bool = False) -> Canon:
    """A text in canonical form; ``far``: its words as they are, and of its readings only what is hidden in characters
    that may stand anywhere."""
    return respelled_form(form_of(text), far=far)


def form_of(text: str) -> Form:
    """The first step to it."""
    if text.isascii():
        raw = text.encode()
        small = raw.translate(_LOWER, _CONTROLS)
        if len(small) == len(raw):
            if b"  " in small:
                codes = np.frombuffer(small, np.uint8)
                space = codes == 32
                kept = np.ones(len(codes), np.bool_)
                kept[1:] = ~(space[1:] & space[:-1])
                small = codes[kept].tobytes()
            return Form(text, small.strip(b" ").decode(), text)
    folded = folding_of(text)
    return Form(text, folded.plain, folded.wide, folded)


def respelled_form(form: Form, *, far: bool = False) -> Canon:
    """The second step: words that are put right, and other readings."""
    spelling = None if far else respelled(form.plain, form.wide)
    if (folded := form.folding) is None:
        return Canon(form.text, form.plain, form.wide, spelling)
    readings = tuple(readings_of(form.text, folded, far))
    return Canon(form.text, form.plain, form.wide, spelling, folded.hidden, folded.hidden_span, readings, folded)


def plain_forms(texts: Sequence[str]) -> list[str | None]:
    """Of each of these texts the plain form, None where something may be disguised or misspelled: that takes a closer
    look. Those in ASCII are read at once."""
    forms: list[str | None] = [None] * len(texts)
    places = [place for place, text in enumerate(texts) if text.isascii()]
    raw = "\x1e".join([texts[place] for place in places]).encode()
    small = raw.translate(_LINES, _NOT_IN_LINES)
    lines = small.decode().split("\n")
    if len(small) != len(raw) or len(lines) != len(places):
        return forms
    lines = [" ".join(line.split()) if "  " in line else line.strip(" ") for line in lines]
    closer = those(lines, misspelled)
    for nth, (place, line) in enumerate(zip(places, lines, strict=True)):
        if nth not in closer:
            forms[place] = line
    return forms


def those(lines: Sequence[str], odd: Callable[[str], object], first: int = 0) -> set[int]:
    """The places of the lines that are odd, where most are not: many are looked at together, and then parts of them."""
    if not lines or not odd("\n ".join(lines)):
        return set()
    if len(lines) == 1:
        return {first}
    part = max(1, len(lines) // PARTS)
    return set().union(
        *(those(lines[start : start + part], odd, first + start) for start in range(0, len(lines), part))
    )
