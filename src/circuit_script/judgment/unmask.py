"""Level 3: what is written in a code that a model reads and a filter does not, as views of its own.

Each code has a sign that one pass over the text looks for; only what has one is decoded, and only what then reads like
text is a view. All of it is bounded: by depth, by the characters that are decoded, by the number of views.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import accumulate

import re2

from circuit_script.judgment import escapes, pieces, wholes
from circuit_script.judgment.canon import Canon, form_of, respelled_form
from circuit_script.judgment.page import Offsets, OneByOne, Origins, View, once
from circuit_script.judgment.parts import Part, apart, in_place, places_of, text_in_place
from circuit_script.judgment.rules import MEMORY

DEPTH = 3
DECODED = 64 * 1024  # characters that are decoded of a text, at most
WINDOW, MORE = 8 * 1024, 2 * 1024
VIEWS = 24
FEW = 8  # pieces of one code that are views each; more are read as one

_DRESSED = ("turned", "kept", "direction", "unaccented")  # what is read like this is not dressed up once more
# That of base64 counts the characters of every word: in one set with the others its states would multiply theirs.
_BASE64 = r"[a-z0-9][a-z0-9+/_\-]{15}|[a-z0-9+/]{6}={1,2}(?:[^a-z0-9]|$)"
_SIGNS: dict[str, str] = {
    "hex": r"(?:(?:0x|\\x|%)?[0-9a-f]{2}[\s,:;\-]{0,2}){8}",
    "binary": r"(?:[01]{7,8}[\s,]{0,2}){4}",
    "numbers": r"(?:\d{1,3}[\s,;\-]{1,3}){6}",
    "morse": r"(?:[.\-_*]{1,6}[ /|]{1,3}){6}",
    "braille": r"[\x{2801}-\x{28ff}]{2}",
    "spelling alphabet": r"(?:\b(?:" + "|".join(pieces.ALPHABET) + r")\b\W*){4}",
}
_MARKS = {  # what has a sign of its own is looked for only where that is; all take linear time
    "percent": ("%", re.compile("%[0-9a-f]{2}[^%]{0,12}%[0-9a-f]{2}")),
    "entities": ("&", re.compile("&(?:#x?[0-9a-f]{1,6}|[a-z]{2,8}[0-9]{0,2};)")),
    "backslash": ("\\", re.compile(r"\\(?:u\{?[0-9a-f]{4}|x[0-9a-f]{2}|[0-7]{3}|[nrt])")),
    "quoted printable": ("=", re.compile("=[0-9a-f]{2}[^=]{0,40}=[0-9a-f]{2}")),
    "ascii85": ("~", re.compile("<~")),
}
_WORDS = ("shift", "mirror", "pig latin")


@cache
def _signs() -> tuple[re2._Regexp, re2.Set, tuple[str, ...]]:
    """The sign of base64, those of other codes, and the names of these."""
    words = (wholes.shifted(), wholes.mirrored(), wholes.pigs())
    lists = [r"\b(?:" + "|".join(sorted(each)) + r")\b" for each in words]
    options = re2.Options()
    options.max_mem = MEMORY
    others = re2.Set.SearchSet(options)
    for sign in (*_SIGNS.values(), *lists):
        others.Add(sign)
    others.Compile()
    return re2.compile(_BASE64.encode(), options), others, (*_SIGNS, *_WORDS)


@dataclass(slots=True)
class _Work:
    """What is found so far, and how much more may be."""

    views: list[View] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    left: int = DECODED
    spelt: int = DECODED  # how many more characters of words put right
    over: bool = False  # whether there was more than may be

    def room(self, size: int) -> bool:
        """Whether one more may be. The first one always may: no other could say that there was more."""
        may = len(self.views) < VIEWS and (size <= self.left or not self.views)
        self.over = self.over or not may
        return may

    def spells(self, size: int) -> bool:
        """Whether words put right of what was decoded may be one more view: they take half as much as it."""
        if size > self.spelt:
            self.over = True
            return False
        self.spelt -= size
        return len(self.views) < VIEWS

    def add(self, view: View, size: int) -> None:
        self.left -= size
        self.views.append(view)


def bound(size: int) -> int:
    """How many characters are decoded of a text of this size: of a long one twice as many as it has, which one code
    within another takes that both are codes of the whole."""
    return min(DECODED, 2 * max(size, WINDOW) + MORE)


def views(canon: Canon, *, far: int = 0) -> list[View]:
    """Everything that is written in a text in another way; with ``far``, as in `canonical`, only what goes on for more
    characters without a space, and what is hidden in characters that may stand anywhere."""
    names = coded(canon.plain) if not far or _goes_on(canon.text, far) else []
    if not (names or canon.readings or canon.spelling):
        return []
    most = bound(len(canon.text))
    work = _Work(seen={canon.plain}, left=most, spelt=most // 2)
    _look(canon, lambda: range(len(canon.text) + 1), "", 0, names, work)
    if work.over and work.views:
        work.views[-1] = replace(work.views[-1], more=True)
    return work.views


def _goes_on(text: str, far: int) -> bool:
    """Whether there are more characters than so many without a space: half as many are, then, from one of these places
    on."""
    half = far // 2
    for at in range(0, len(text), half):
        part = text[at : at + half]
        if part.split(None, 1) == [part] and max(map(len, text[max(at - far, 0) : at + half + far].split())) > far:
            return True
    return False


def coded(plain: str) -> list[str]:
    """The codes of which a text has a sign."""
    of_base64, others, names = _signs()
    seen = plain.encode("utf-8", "replace")
    found = ["base64"] if of_base64.search(seen) else []
    found += [names[each] for each in sorted(others.Match(seen) or ())]
    marks = [name for name, (sign, code) in _MARKS.items() if sign in plain and code.search(plain)]
    if not marks:
        return found
    words = sum(each in _WORDS for each in found)
    return [*found[: len(found) - words], *marks, *found[len(found) - words :]]


def _look(canon: Canon, outer: Offsets, how: str, depth: int, names: Sequence[str], work: _Work) -> None:
    """All readings of one text, which itself stands at ``outer`` in the original."""
    if canon.spelling and canon.loose not in work.seen and (not how or work.spells(len(canon.loose))):
        work.seen.add(canon.loose)
        places = _within(outer, canon.loose_offsets)
        work.views.append(View(_named("spelling", how), canon.loose, places, depth=depth))
    if depth >= DEPTH:
        return
    for each in canon.readings if how.partition(" ")[0] not in _DRESSED else ():
        _add(each.text, _within(outer, each.places), _named(each.how, how), depth + 1, work)
    if not names:
        return
    found: list[Part] = []
    wide = once(canon.wide_offsets)
    hits = cache(lambda: wholes.Hits(canon.wide))
    escaped = [name for name in names if name in escapes.DECODERS]
    for name in names:
        if not work.room(1):
            return
        if name in wholes.DECODERS:
            for called, text, told in wholes.DECODERS[name](hits()):
                _add_placed(text, told, wide, outer, _named(called, how), depth + 1, work)
        elif name in escaped[:1] and (undone := escapes.undone(canon.wide, escaped)) is not None:
            called, text, places = undone
            _add(text, _within(outer, _within(wide, places)), _named(called, how), depth + 1, work)
        elif name in pieces.DECODERS:
            found += _add_pieces(canon.wide, name, wide, outer, how, depth + 1, work)
    found = apart(found) if found else found
    if found and sum(end - start for _, start, end in found) < len(canon.wide) - 8:
        _add_in_place(canon.wide, found, wide, outer, _named("in place", how), depth + 1, work)


def _add_pieces(text: str, name: str, wide: Offsets, outer: Offsets, how: str, depth: int, work: _Work) -> list[Part]:
    """Pieces in a code as views, many as one. Those that are, wherever they stand."""
    said: dict[str, list[tuple[int, int]]] = {}
    for piece, start, end in pieces.DECODERS[name](text):
        said.setdefault(piece, []).append((start, end))
    together = [[each] for each in said] if len(said) <= FEW else [_fitting([*said], work)]
    found: list[Part] = []
    for some in together:
        line = "\n" if len(together) < len(said) else ""
        parts = [(f"{each}{line}", *said[each][-1]) for each in some]
        if _add_parts(parts, wide, outer, _named(name, how), depth, work):
            found += [(f"{each}{line}", *place) for each in some for place in said[each]]
    return found


def _fitting(texts: list[str], work: _Work) -> list[str]:
    """As many of these as there is room for, each in a line of its own."""
    fitting = sum(size <= work.left for size in accumulate(len(each) + 1 for each in texts))
    work.over = work.over or fitting < len(texts)
    return texts[:fitting]


def _named(how: str, outer: str) -> str:
    return f"{how} in {outer}" if outer else how


def _within(outer: Offsets, inner: Offsets) -> Offsets:
    """The places of what stands within something else, by those of that."""

    def places() -> Origins:
        around, at = outer(), inner()
        last = len(around) - 1
        return OneByOne(len(at), lambda nth: int(around[min(int(at[nth]), last)]))

    return once(places)


def _add_parts(parts: list[Part], wide: Offsets, outer: Offsets, how: str, depth: int, work: _Work) -> bool:
    return _add_placed("".join([text for text, _, _ in parts]), lambda: parts, wide, outer, how, depth, work)


def _add_in_place(
    text: str, parts: list[Part], wide: Offsets, outer: Offsets, how: str, depth: int, work: _Work
) -> None:
    _add_placed(text_in_place(text, parts), lambda: in_place(text, parts), wide, outer, how, depth, work)


def _add_placed(
    text: str, parts: Callable[[], list[Part]], wide: Offsets, outer: Offsets, how: str, depth: int, work: _Work
) -> bool:
    places = places_of(parts, wide, backwards=how.startswith("reversed"))
    return _add(text, _within(outer, places), how, depth, work)


def _add(text: str, places: Offsets, how: str, depth: int, work: _Work) -> bool:
    form = form_of(text)
    if not form.plain:
        return False
    if form.plain in work.seen:
        return True
    if not work.room(len(text)):
        return False
    work.seen.add(form.plain)
    canon = respelled_form(form)
    offsets, loose_offsets = _within(places, canon.offsets), _within(places, canon.loose_offsets)
    work.add(View(how, canon.plain, offsets, canon.loose, loose_offsets, depth), len(text))
    _look(canon, places, how, depth, coded(canon.plain) if depth < DEPTH else (), work)
    return True
