"""Level 2: a text in one form, however its characters were dressed up.

What cannot be seen is gone, what looks like a Latin letter is one, and what was hidden in invisible characters is a
reading of its own. Real Russian, Greek or Vietnamese stays what it is.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from typing import TypeVar

import numpy as np
import re2
from numpy.typing import NDArray

from circuit_script.judgment.compiled import FOLDS, Folded, Folds
from circuit_script.judgment.english import COMMON, TELLING
from circuit_script.judgment.glyphs import (
    ACCENT,
    BIDI,
    CHANGES,
    COMBINES,
    CONTROL,
    CYRILLIC,
    FLAG,
    FLAGGED,
    FOREIGN,
    HIDDEN,
    INVISIBLE,
    LATIN,
    LETTER,
    LIMIT,
    MARK,
    MARKED,
    RUBOUT,
    SIZE,
    TAG,
    TURNED,
    UPSIDE,
    VARIATION,
    WIDE,
    Codes,
    Tables,
    tables,
)
from circuit_script.judgment.page import Offsets, OneByOne, Origins
from circuit_script.judgment.spelling import Spelling, misspelled, respelled

Places = NDArray[np.int64]
_Any = TypeVar("_Any", bound=np.generic)

AROUND = 400  # characters on both sides of what is read in another way ...
READ = 16 * 1024  # ... and at most so many
MARKS = 2000  # of direction
FEW = 64
RARELY = 16
PARTS = 6  # of several lines among which odd ones are looked for

_SPACES = b"\t\n\v\f\r"
_SPACED = _SPACES.decode() + " "
_LOWER = bytes(each + 32 if 65 <= each <= 90 else 32 if each in _SPACES else each for each in range(256))
_CONTROLS = bytes(each for each in (*range(32), 127) if each not in _SPACES)
_LINES = bytes(10 if each == 0x1E else _LOWER[each] for each in range(256))
_NOT_IN_LINES = _CONTROLS.replace(b"\x1e", b"")
_NAMES = {
    INVISIBLE: "invisible", BIDI: "bidi", TAG: "tag", VARIATION: "variation", CONTROL: "control", RUBOUT: "control",
}  # fmt: skip
_BACK = {ord(latin): ord(own) for latin, own in zip("aceopxykmhtbi", "асеорхукмнтві", strict=True)}
_IN_BACK = np.zeros(SIZE, np.bool_)
_IN_BACK[list(_BACK)] = True
_TURN = {ord(a): ord(b) for a, b in zip("bdpqnumw6925()[]{}.,'<>", "qpdbunwm9652)(][}{',.><", strict=True)}
_TURN |= {ord(a): ord(b) for a, b in zip(TURNED + "ן", "acefghijkmrtvwyl", strict=True)}
_TURN |= {ord(a): ord(b) for a, b in zip("∀ᗺƆᗡƎℲ⅁ʞ˥ԀΌᴚ⊥∩Λ⅄¿¡‾ɓǃı‘ՈŀƖ", "abcdefgklpqrtuvy?!_g!i,hlI", strict=True)}
_ZERO = sorted(map(ord, "\u200b\u200c\u200d\u200e\u200f\u2060\u2061\u2062\u2063\u2064\ufeff\u00ad\u180e"))
_TURNS_ROUND, _BEGINS, _ENDS = 1, 2, 4  # what marks of direction do, and the end of a line


def _table(numbers: Mapping[int, int]) -> NDArray[np.uint8]:
    """The numbers of these characters; the last one, to which what is beyond is clipped, is 0."""
    found = np.zeros(max(numbers) + 2, np.uint8)
    found[list(numbers)] = list(numbers.values())
    return found


_NTH_ZERO = _table({code: nth for nth, code in enumerate(_ZERO, 1)})
_IS_TURNED = _table(dict.fromkeys(map(ord, TURNED), 1))
_DIRECTS = _table(
    dict.fromkeys((0x202E, 0x2067, 0x202B), _TURNS_ROUND | _BEGINS | _ENDS)
    | dict.fromkeys((0x202C, 0x2069, 10), _ENDS)
    | {0x202D: _BEGINS}
)
_TURNS = np.arange(max(_TURN) + 1, dtype=np.uint32)
_TURNS[list(_TURN)] = list(_TURN.values())


@dataclass(frozen=True, slots=True)
class Reading:
    """Another way to read a text, or something that was hidden in it; ``places`` as in a View."""

    how: str
    text: str
    places: Offsets


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
            return (self.folding or _folded(text)).plain_places()
        if len(text.strip(_SPACED)) == size:
            first = len(text) - len(text.lstrip(_SPACED))
            return OneByOne(size + 1, lambda at: first + at if at < size else len(text))
        return np.append(_unspaced(_spaces(np.frombuffer(text.encode(), np.uint8))), len(text))

    def wide_offsets(self) -> Origins:
        if self.wide is self.text:
            return range(len(self.text) + 1)
        return (self.folding or _folded(self.text)).wide_places()

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
    """A text in canonical form; ``far``: of its readings only what is hidden in characters that may stand anywhere."""
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
    folded = _folded(text)
    return Form(text, folded.plain, folded.wide, folded)


def respelled_form(form: Form, *, far: bool = False) -> Canon:
    """The second step: words that are put right, and other readings."""
    spelling = respelled(form.plain, form.wide)
    if (folded := form.folding) is None:
        return Canon(form.text, form.plain, form.wide, spelling)
    readings = tuple(_readings(form.text, folded, far))
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


def _codes(text: str) -> Codes:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _text(codes: Codes) -> str:
    return codes.astype("<u4").tobytes().decode("utf-32-le", "replace")


def _spaces(codes: Codes | NDArray[np.uint8]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (codes == 32) | ((codes >= 9) & (codes <= 13))
    return found


def _unspaced(space: NDArray[np.bool_]) -> Places:
    """The place of each character that is left where runs of spaces are one, and none is at the ends."""
    kept = np.ones(len(space), np.bool_)
    kept[1:] = ~(space[1:] & space[:-1])
    at = np.flatnonzero(kept)
    if len(at) and space[at[0]]:
        at = at[1:]
    if len(at) and space[at[-1]]:
        at = at[:-1]
    return at


def _squeezed(codes: Codes) -> tuple[Codes, Places]:
    """Runs of spaces as one, none at the ends; and the place of each character that is left."""
    space = _spaces(codes)
    at = _unspaced(space)
    out = codes.take(at)
    out[space.take(at)] = 32
    return out, at


def _expanded(table: Tables, codes: Codes, at: Places) -> tuple[Codes, Places]:
    """With what stands for several characters put in."""
    long = codes >= LIMIT
    if not long.any():
        return codes, at
    places = np.flatnonzero(long)
    if len(places) <= FEW:
        parts, repeats, done = [], np.ones(len(codes), np.int64), 0
        for place in places.tolist():
            nth = int(codes[place]) - LIMIT
            start, size = int(table.starts[nth]), int(table.lengths[nth])
            parts += [codes[done:place], table.letters[start : start + size]]
            repeats[place] = size
            done = place + 1
        return np.concatenate([*parts, codes[done:]]), np.repeat(at, repeats)
    which = np.where(long, codes - np.uint32(LIMIT), 0)
    lengths = np.where(long, table.lengths[which], 1)
    begins = np.cumsum(lengths) - lengths
    within = np.arange(int(lengths.sum())) - np.repeat(begins, lengths)
    source = np.minimum(np.repeat(table.starts[which], lengths) + within, len(table.letters) - 1)
    out = np.where(np.repeat(long, lengths), table.letters[source], np.repeat(codes, lengths))
    return out.astype(np.uint32), np.repeat(at, lengths)


def _look(table: NDArray[_Any], codes: Codes, high: bool) -> NDArray[_Any]:
    """What a table says of each character; of one beyond it (``high``: there may be such), the character itself (or
    nothing)."""
    if not high:
        return table.take(codes.astype(np.int64))
    low = codes < SIZE
    found = table.take(np.where(low, codes, 0xFFFF).astype(np.int64))
    return np.where(low, found, codes) if table.dtype == np.uint32 else found


def _kinds(table: Tables, codes: Codes, high: bool) -> NDArray[np.uint8]:
    kinds = _look(table.kind, codes, high)
    if high:
        kinds[(codes >= 0xE0000) & (codes < 0xE0080)] = TAG
        kinds[(codes >= 0xE0100) & (codes < 0xE01F0)] = VARIATION
    return kinds


@cache
def _folds() -> Folds | None:
    return FOLDS.Folds(tables(), _BACK) if FOLDS is not None else None


def _folded(text: str) -> Folded:
    folds = _folds()
    return _Folding(text) if folds is None else folds.fold(text)


def _in_order(text: str) -> str:
    """The same with its marks in the order of their classes, in which it is sooner composed."""
    if len(text) <= FEW:
        return text
    runs = groupby(text, lambda each: unicodedata.combining(each) > 0)
    return "".join("".join(sorted(run, key=unicodedata.combining) if marks else run) for marks, run in runs)


class _Folding:
    """The steps from a text to its canonical form; each keeps the place of every character in the text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.table: Tables = tables()
        self.codes: Codes = _codes(text)
        self.at: Places = np.arange(len(self.codes))
        self.hidden: dict[str, int] = {}
        self.first, self.last = len(text), 0
        self.high = bool(len(self.codes)) and int(self.codes.max()) >= SIZE
        self.needs = int(np.bitwise_or.reduce(self._look(self.table.needs, self.codes))) if len(self.codes) else 0
        if self.high or self.needs & HIDDEN:
            self._remove_hidden()
        if self.needs & CHANGES:
            self._compatible()
        if self.needs & (MARKED | COMBINES):
            self._marks()
        if self.needs & FLAGGED:
            self._flags()
        if self.needs & FOREIGN and self.needs & LETTER:
            self._twins()
        self.wide = _text(self.codes)
        self.plain = _text(self._lowered()[0])

    @property
    def hidden_span(self) -> tuple[int, int]:
        return (self.first, self.last) if self.last else (0, 0)

    def plain_places(self) -> Places:
        return np.append(self._lowered()[1], len(self.text))

    def wide_places(self) -> Places:
        return np.append(self.at, len(self.text))

    def _lowered(self) -> tuple[Codes, Places]:
        lower, at = self._look(self.table.lower, self.codes), self.at
        if len(lower) and int(lower.max()) >= LIMIT:
            lower, at = _expanded(self.table, lower, at)
        codes, kept = _squeezed(lower)
        return codes, at[kept]

    def _look(self, table: NDArray[_Any], codes: Codes) -> NDArray[_Any]:
        return _look(table, codes, self.high)

    def _keep(self, kept: NDArray[np.bool_]) -> None:
        self.codes, self.at = self.codes[kept], self.at[kept]

    def _note(self, name: str, at: Places) -> None:
        if len(at):
            self.hidden[name] = self.hidden.get(name, 0) + len(at)
            self.first = min(self.first, int(at[0]))
            self.last = max(self.last, int(at[-1]) + 1)

    def _remove_hidden(self) -> None:
        kinds = _kinds(self.table, self.codes, self.high)
        gone = (kinds != 0) & (kinds != MARK) & (kinds != FLAG)
        if not gone.any():
            return
        places = np.flatnonzero(gone)
        unusual = places[~self._usual(places)]
        of_unusual = kinds[unusual]
        for kind, name in _NAMES.items():
            self._note(name, unusual[of_unusual == kind])
        rubouts = np.flatnonzero(kinds == RUBOUT)
        if len(rubouts):
            self._rub_out(gone, rubouts)
        self._keep(~gone)

    @staticmethod
    def _rub_out(gone: NDArray[np.bool_], rubouts: Places) -> None:
        """A backspace takes the character before it with it."""
        kept = np.flatnonzero(~gone)
        runs: list[tuple[int, int]] = []  # of what is kept, before the backspace
        taken: list[int] = []
        done = 0
        for end in np.searchsorted(kept, rubouts).tolist():
            if end > done:
                runs.append((done, end))
                done = end
            if runs:
                start, last = runs.pop()
                taken.append(last - 1)
                if last - 1 > start:
                    runs.append((start, last - 1))
        gone[kept[taken]] = True

    def _usual(self, places: Places) -> NDArray[np.bool_]:
        """Which of these invisible characters writing needs: within emoji, and between letters of Persian or Hindi."""
        codes = self.codes[places]
        around = np.concatenate(([0], self.codes, [0]))
        before, after = around[places], around[places + 2]
        joins = (codes == 0x200C) | (codes == 0x200D)
        usual = joins & (before >= 0x590) & (before != codes) & (after >= 0x590)
        keycap = (before == 0x23) | (before == 0x2A) | ((before >= 0x30) & (before < 0x3A))
        emoji = (before >= 0x203C) | (before == 0xA9) | (before == 0xAE)
        hidden = (before >= 0xFE00) & (before < 0xFE10) | (before >= 0xE0000)
        usual |= ((codes == 0xFE0E) | (codes == 0xFE0F)) & (keycap | emoji) & ~hidden
        usual |= (places == 0) & (codes == 0xFEFF)
        if "\U000e007f" in self.text:  # the flags of England, Scotland and Wales
            for place in np.flatnonzero(self.codes == 0x1F3F4).tolist():
                end = self.text.find("\U000e007f", place + 1, place + 8)
                if end > 0:
                    usual |= (places > place) & (places <= end)
        result: NDArray[np.bool_] = usual
        return result

    def _compatible(self) -> None:
        codes = self.codes
        if self.needs & WIDE:
            self._note("wide", self.at[(self._look(self.table.needs, codes) & WIDE) != 0])
        self.codes, self.at = _expanded(self.table, self._look(self.table.cased, codes), self.at)

    def _marks(self) -> None:
        """A letter and its marks are one character where there is such; other marks go."""
        mark = _kinds(self.table, self.codes, self.high) == MARK
        if mark.any():
            codes = self.codes.copy()
            follows = np.zeros(len(codes) + 3, np.bool_)
            follows[: len(codes)] = mark
            dropped = mark.copy()
            bases = np.flatnonzero(~mark & follows[1 : len(codes) + 1])
            count = np.where(follows[bases + 2], np.where(follows[bases + 3], 3, 2), 1)
            for size in (1, 2):
                here = bases[count == size]
                if not len(here):
                    continue
                key = codes[here].astype(np.int64) << 32 | codes[here + 1].astype(np.int64) << 16
                if size == 2:
                    key |= codes[here + 2].astype(np.int64)
                _, example, which = np.unique(key, return_index=True, return_inverse=True)
                made = [self._composed(codes[place : place + size + 1]) for place in here[example].tolist()]
                one = np.array(made, dtype=np.uint32)[which]
                codes[here] = one
                whole = here[(one != self.codes[here])]
                for step in range(1, size + 1):
                    dropped[whole + step] = False
            self._note("combining", self.at[dropped & (self.codes != 0x20E3)])  # but for what makes a digit a key
            self.codes = codes
            self._keep(~mark)
        if self.needs & COMBINES:
            self._compose()

    @staticmethod
    def _composed(codes: Codes) -> int:
        form = unicodedata.normalize("NFC", _text(codes))
        return ord(form) if len(form) == 1 else int(codes[0])

    def _compose(self) -> None:
        """Syllables of Korean and the like, written in parts."""
        parts = (self._look(self.table.needs, self.codes) & COMBINES) != 0
        few = RARELY * np.count_nonzero(parts) < len(parts)  # then they are sooner composed than the whole is read
        text = _text(self.codes)
        if not few and unicodedata.is_normalized("NFC", text):
            return
        edges = np.diff(np.concatenate(([0], parts.astype(np.int8), [0])))
        codes = self.codes.copy()
        kept = np.ones(len(codes), np.bool_)
        for start, end in zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True):
            start = max(start - 1, 0)
            form = unicodedata.normalize("NFC", _in_order(text[start:end]))
            if len(form) <= end - start and form != text[start:end]:
                codes[start : start + len(form)] = _codes(form)
                kept[start + len(form) : end] = False
        self.codes = codes
        self._keep(kept)
        self.high = self.high or int(self.codes.max(initial=0)) >= SIZE  # of rare ideographs there are compatible forms

    def _flags(self) -> None:
        """Letters of flags, where they are no flag."""
        letters = (self.codes >= 0x1F1E6) & (self.codes < 0x1F200)
        if not letters.any():
            return
        edges = np.diff(np.concatenate(([0], letters.astype(np.int8), [0])))
        starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
        sizes = ends - starts
        if (sizes % 2 == 1).any() or (sizes > 4).any():
            self._note("wide", self.at[letters])
            self.codes = np.where(letters, self.codes - np.uint32(0x1F1E6 - 0x61), self.codes)

    def _twins(self) -> None:
        """Letters of other scripts that stand for Latin ones."""
        codes, table = self.codes, self.table
        index = np.where(codes < SIZE, codes, 0)
        script = table.script[index]
        other = script > LATIN
        if not other.any() or not (script == LATIN).any():
            return
        word = table.word[index]
        starts = np.flatnonzero(word & ~np.concatenate(([False], word[:-1])))
        bits = np.bitwise_or.reduceat(script, starts)
        alike = table.alike[index]
        strange = np.add.reduceat((other & (alike == 0)).astype(np.int32), starts)
        latin = (bits & LATIN) != 0
        mixed = latin & (bits > LATIN)
        whole = ~latin & (bits > 0) & (strange == 0)
        real = int((~latin & (bits > 0) & (strange > 0)).sum())
        fold_whole = real * 2 <= int(whole.sum()) <= int(latin.sum())
        begins = np.zeros(len(codes), np.bool_)
        begins[starts] = True
        of_word = np.cumsum(begins) - 1
        of_word[of_word < 0] = 0
        near = table.near[index]
        fold = other & mixed[of_word] & (near > 0)
        if real and (bits & CYRILLIC).any():  # a Russian word with Latin letters in it
            own = np.add.reduceat(((script == LATIN) & ~_IN_BACK[index]).astype(np.int32), starts)
            russian = real > int(latin.sum()) - int(mixed.sum())
            theirs = mixed & ((bits & CYRILLIC) != 0) & ((strange > own) | ((strange == own) & russian))
            back = theirs[of_word] & (script == LATIN)
            fold &= ~theirs[of_word]
            codes = codes.copy()
            for place in np.flatnonzero(back).tolist():
                codes[place] = _BACK.get(int(codes[place]) | 32, int(codes[place]))
            self._note("homoglyph", self.at[back])
        if fold_whole:
            fold |= other & whole[of_word]
        self.codes = np.where(fold & word, near, codes)
        self._note("homoglyph", self.at[fold & word])


def _readings(text: str, folded: Folded, far: bool) -> list[Reading]:
    """What else a text with unusual characters can say."""
    found: list[Reading] = []
    hidden = folded.hidden
    if hidden or folded.needs & (HIDDEN | UPSIDE):
        codes = _codes(text)
        found.extend(_of_unseen(codes, hidden))
        if not far:
            found.extend(_of_direction(codes) if hidden.get("bidi") else ())
            found.extend([_kept(codes)] if "\b" in text or "\x7f" in text else ())
            found.extend(_turned(codes) if folded.needs & UPSIDE else ())
    bare = _bare(folded.plain) if folded.needs & ACCENT and not far else ""
    if bare:
        size = len(bare)
        found.append(Reading("unaccented", bare, lambda: OneByOne(size + 1, lambda at: at * len(text) // size)))
    return [each for each in found if each.text.strip()]


def _of_unseen(codes: Codes, hidden: dict[str, int]) -> Iterator[Reading]:
    """What is written in characters that nobody sees."""
    if hidden.get("tag", 0) > 1:
        places = np.flatnonzero((codes >= 0xE0020) & (codes < 0xE007F))
        yield Reading("tags", _text(codes[places] - np.uint32(0xE0000)), _ended(places))
    if hidden.get("variation", 0) > 3:
        selects = ((codes >= 0xFE00) & (codes < 0xFE10)) | ((codes >= 0xE0100) & (codes < 0xE01F0))
        places = np.flatnonzero(selects)
        yield from _of_bytes(codes[places], places)
    if hidden.get("invisible", 0) + hidden.get("bidi", 0) > 15:
        yield from _of_bits(codes)


def _kept(codes: Codes) -> Reading:
    """A text with what was rubbed out."""
    start, end = _near(np.flatnonzero((codes == 0x08) | (codes == 0x7F)), len(codes))
    near = codes[start:end]
    kinds = _kinds(tables(), near, bool((near >= SIZE).any()))
    places = start + np.flatnonzero((kinds == 0) | (kinds == MARK))
    return Reading("kept", _text(codes[places]), _ended(places))


def _turned(codes: Codes) -> Iterator[Reading]:
    """What stands upside down, from both ends."""
    places = np.flatnonzero(_IS_TURNED.take(codes, mode="clip"))
    if len(places) <= 2:
        return
    start, end = _near(places, len(codes))
    near = codes[start:end]
    turned = np.where(near < len(_TURNS), _TURNS.take(near, mode="clip"), near)
    swapped = turned.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
    yield Reading("turned", swapped[::-1], lambda: np.append(np.arange(end - 1, start - 1, -1), start))
    yield Reading("turned", swapped, lambda: range(start, end + 1))


def _ended(places: Places) -> Offsets:
    """These places, and that behind the last one."""
    return lambda: np.append(places, int(places[-1]) + 1 if len(places) else 0)


@cache
def _telling() -> re2.Set:
    found = re2.Set.SearchSet()
    found.Add(r"\b(?:" + "|".join(sorted(TELLING)) + r")\b")
    found.Compile()
    return found


def _bare(plain: str) -> str:
    """The text without accents, if they only dress it up; else nothing."""
    folds = _folds()
    bare, accents, latin = _unaccented(plain) if folds is None else folds.unaccented(plain)
    if not accents:
        return ""
    if accents > 0.4 * latin:
        return bare
    if not _telling().Match(bare):
        return ""
    new = 0
    for old, word in zip(plain.split(" "), bare.split(" "), strict=True):
        if not old.isascii():
            word = word.strip(".,;:!?\"'()-")
            new += 2 if word in TELLING else len(word) > 3 and word in COMMON
            if new > 1:
                return bare
    return ""


def _unaccented(plain: str) -> tuple[str, int, int]:
    """The text without accents, how many characters had one, and how many are Latin letters."""
    table, codes = tables(), _codes(plain)
    high = bool((codes >= SIZE).any())
    accents = int(np.count_nonzero(_look(table.needs, codes, high) & ACCENT))
    latin = int(np.count_nonzero(_look(table.script, codes, high) == LATIN))
    bare = _expanded(table, _look(table.bare, codes, high), codes.astype(np.int64))[0]
    return _text(bare), accents, latin


def _is_said(text: str) -> bool:
    """Whether most of it is letters and their marks, and next to nothing does not print."""
    letters = printed = 0
    for code, count in zip(*(each.tolist() for each in np.unique(_codes(text), return_counts=True)), strict=True):
        each = chr(code)
        if each.isalnum() or each == " " or unicodedata.category(each)[0] == "M":
            letters += count
        if (each.isprintable() or each.isspace()) and each != "\ufffd":
            printed += count
    return bool(text) and letters >= 0.6 * len(text) and printed >= 0.95 * len(text)


def _of_bytes(codes: Codes, places: Places) -> list[Reading]:
    """Bytes that hang on an emoji as variation selectors."""
    values = np.where(codes < 0xFE10, codes - np.uint32(0xFE00), codes - np.uint32(0xE0100 - 16)).astype(np.uint8)
    text = values.tobytes().decode("utf-8", "replace").replace("\ufffd", "")
    if not _is_said(text) or 2 * len(text.encode()) < len(values):
        return []
    return [Reading("variation", text, _steps(places, len(text), 1))]


def _of_bits(codes: Codes) -> list[Reading]:
    """Bits written with two characters that nobody sees."""
    nth = _NTH_ZERO.take(codes, mode="clip")
    places = np.flatnonzero(nth)
    if len(places) < 32:
        return []
    nth = nth[places]
    counts = np.bincount(nth, minlength=len(_ZERO) + 1)
    zero, one = np.argsort(-counts, kind="stable")[:2].tolist()
    if not counts[one] or counts[zero] + counts[one] < 32:
        return []
    either = (nth == zero) | (nth == one)
    places, bits = places[either], (nth[either] == one).astype(np.uint8)
    for data in (np.packbits(bits).tobytes(), np.packbits(1 - bits).tobytes()):
        said = data.decode("utf-8", "replace")
        if _is_said(said):
            return [Reading("zero width", said, _steps(places, len(said), 8))]
    return []


def _steps(places: Places, size: int, step: int) -> Offsets:
    last = len(places) - 1
    return lambda: OneByOne(size + 1, lambda at: int(places[min(at * step, last)]))


def _near(places: Places, size: int) -> tuple[int, int]:
    """From where to where a text is read in another way, for what stands at these places."""
    start = max(0, int(places[0]) - AROUND)
    return start, min(size, int(places[-1]) + AROUND, start + READ)


def _of_direction(codes: Codes) -> list[Reading]:
    """What is shown from right to left, as it is seen."""
    directs = _DIRECTS.take(codes, mode="clip")
    opening = np.flatnonzero(directs & _BEGINS)
    if not len(opening):
        return []
    place, last = _near(opening, len(codes))
    marks = place + np.flatnonzero(directs[place:last] & _ENDS)[:MARKS]
    turned = np.concatenate(([False], (directs[marks] & _TURNS_ROUND) != 0))
    starts = np.concatenate(([place], marks + (codes[marks] != 10)))
    sizes = np.concatenate((marks, [last])) - starts
    begins = np.cumsum(sizes) - sizes
    first = np.where(turned, starts + sizes - 1 + begins, starts - begins)
    at = np.repeat(first, sizes) + np.repeat(np.where(turned, -1, 1), sizes) * np.arange(int(sizes.sum()))
    return [Reading("direction", _text(codes[at]), lambda: np.append(at, last))]
