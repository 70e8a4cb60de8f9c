"""Level 2: a text in one form, however its characters were dressed up.

What cannot be seen is gone, what looks like a Latin letter is one, and what was hidden in invisible characters is a
reading of its own. Real Russian, Greek or Vietnamese stays what it is.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TypeVar

import numpy as np
import re2
from numpy.typing import NDArray

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
from circuit_script.judgment.page import Offsets
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
_ZERO = frozenset("\u200b\u200c\u200d\u200e\u200f\u2060\u2061\u2062\u2063\u2064\ufeff\u00ad\u180e")


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
    folding: _Folding | None = field(default=None, repr=False, compare=False)  # where it took one

    @property
    def loose(self) -> str:
        return self.spelling.text if self.spelling else ""

    def offsets(self) -> Sequence[int] | Places:
        """Of each character of ``plain`` its place in the text, and one more for the end."""
        if not self.hidden and self.text.isascii():
            return np.append(_squeezed(_codes(self.text))[1], len(self.text))
        return (self.folding or _Folding(self.text)).plain()[1]

    def wide_offsets(self) -> Sequence[int] | Places:
        if self.wide is self.text:
            return range(len(self.text) + 1)
        return (self.folding or _Folding(self.text)).wide_places()

    def loose_offsets(self) -> Sequence[int] | Places:
        if not self.spelling:
            return ()
        places = self.spelling.places()
        return places if self.wide is self.text else np.asarray(self.wide_offsets(), np.int64).take(places)


def canonical(text: str, *, far: bool = False) -> Canon:
    """A text in canonical form; ``far``: of its readings only what is hidden in characters that may stand anywhere."""
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
            plain = small.strip(b" ").decode()
            return Canon(text, plain, text, respelled(plain, text))
    folding = _Folding(text)
    plain, _ = folding.plain(tracked=False)
    wide = folding.wide()
    return Canon(
        text,
        plain,
        wide,
        respelled(plain, wide),
        {name: count for name, count in folding.hidden.items() if count},
        folding.hidden_span,
        tuple(_readings(text, plain, folding, far)),
        folding,
    )


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


def _squeezed(codes: Codes) -> tuple[Codes, Places]:
    """Runs of spaces as one, none at the ends; and the place of each character that is left."""
    space = (codes == 32) | ((codes >= 9) & (codes <= 13))
    kept = np.ones(len(codes), np.bool_)
    kept[1:] = ~(space[1:] & space[:-1])
    at = np.flatnonzero(kept)
    if len(at) and space[at[0]]:
        at = at[1:]
    if len(at) and space[at[-1]]:
        at = at[:-1]
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


class _Folding:
    """The steps from a text to its canonical form; each keeps the place of every character in the text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.table: Tables = tables()
        self.codes: Codes = _codes(text)
        self.original = self.codes
        self.at: Places = np.arange(len(self.codes))
        self.hidden: dict[str, int] = {}
        self.first, self.last = len(text), 0
        self.kinds: NDArray[np.uint8] = np.zeros(0, np.uint8)
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

    @property
    def hidden_span(self) -> tuple[int, int]:
        return (self.first, self.last) if self.last else (0, 0)

    def plain(self, *, tracked: bool = True) -> tuple[str, Sequence[int] | Places]:
        lower = self._look(self.table.lower, self.codes)
        at = self.at
        if len(lower) and int(lower.max()) >= LIMIT:
            lower, at = _expanded(self.table, lower, at)
        codes, kept = _squeezed(lower)
        return _text(codes), np.append(at[kept], len(self.text)) if tracked else ()

    def wide(self) -> str:
        return _text(self.codes)

    def wide_places(self) -> Places:
        return np.append(self.at, len(self.text))

    def _look(self, table: NDArray[_Any], codes: Codes) -> NDArray[_Any]:
        """What a table says of each character; of one beyond it, the character itself (or nothing)."""
        if not self.high:
            return table.take(codes.astype(np.int64))
        low = codes < SIZE
        found = table.take(np.where(low, codes, 0xFFFF).astype(np.int64))
        return np.where(low, found, codes) if table.dtype == np.uint32 else found

    def _kinds(self) -> NDArray[np.uint8]:
        codes = self.codes
        kinds = self._look(self.table.kind, codes)
        if self.high:
            kinds[(codes >= 0xE0000) & (codes < 0xE0080)] = TAG
            kinds[(codes >= 0xE0100) & (codes < 0xE01F0)] = VARIATION
        return kinds

    def _keep(self, kept: NDArray[np.bool_]) -> None:
        self.codes, self.at = self.codes[kept], self.at[kept]

    def _note(self, name: str, at: Places) -> None:
        if len(at):
            self.hidden[name] = self.hidden.get(name, 0) + len(at)
            self.first = min(self.first, int(at[0]))
            self.last = max(self.last, int(at[-1]) + 1)

    def _remove_hidden(self) -> None:
        kinds = self.kinds = self._kinds()
        gone = (kinds != 0) & (kinds != MARK) & (kinds != FLAG)
        if not gone.any():
            return
        places = np.flatnonzero(gone)
        unusual = places[~self._usual(places)]
        of_unusual = kinds[unusual]
        for kind, name in _NAMES.items():
            self._note(name, unusual[of_unusual == kind])
        if (kinds == RUBOUT).any():
            self._rub_out(gone)
        self._keep(~gone)

    def _rub_out(self, gone: NDArray[np.bool_]) -> None:
        """A backspace takes the character before it with it."""
        kept = np.flatnonzero(~gone)
        runs: list[tuple[int, int]] = []  # of what is kept, before the backspace
        taken: list[int] = []
        done = 0
        for end in np.searchsorted(kept, np.flatnonzero(self.kinds == RUBOUT)).tolist():
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
        kinds = self._kinds()
        mark = kinds == MARK
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
            form = unicodedata.normalize("NFC", text[start:end])
            if len(form) <= end - start and form != text[start:end]:
                codes[start : start + len(form)] = _codes(form)
                kept[start + len(form) : end] = False
        self.codes = codes
        self._keep(kept)

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


def _readings(text: str, plain: str, folding: _Folding, far: bool) -> list[Reading]:
    """What else a text with unusual characters can say."""
    found: list[Reading] = []
    hidden = folding.hidden
    kinds, codes = folding.kinds, folding.original

    def at(places: Places) -> Offsets:
        return lambda: [*places.tolist(), int(places[-1]) + 1 if len(places) else 0]

    if hidden.get("tag", 0) > 1:
        places = np.flatnonzero((kinds == TAG) & (codes >= 0xE0020) & (codes < 0xE007F))
        found.append(Reading("tags", _text(codes[places] - np.uint32(0xE0000)), at(places)))
    if hidden.get("variation", 0) > 3:
        places = np.flatnonzero(kinds == VARIATION)
        found.extend(_of_bytes(codes[places], places))
    if hidden.get("invisible", 0) + hidden.get("bidi", 0) > 15:
        found.extend(_of_bits(text, codes))
    if far:
        return [each for each in found if each.text.strip()]
    if hidden.get("bidi"):
        found.extend(_of_direction(text))
    if kinds.size and (kinds == RUBOUT).any():
        start, end = _near(np.flatnonzero(kinds == RUBOUT), len(text))
        places = start + np.flatnonzero((kinds[start:end] == 0) | (kinds[start:end] == MARK))
        found.append(Reading("kept", _text(codes[places]), at(places)))
    if folding.needs & UPSIDE:
        places = np.flatnonzero(np.isin(codes, [ord(each) for each in TURNED]))
        if len(places) > 2:
            start, end = _near(places, len(text))
            swapped = text[start:end].translate(_TURN)
            found.append(Reading("turned", swapped[::-1], lambda: [*range(end - 1, start - 1, -1), start]))
            found.append(Reading("turned", swapped, lambda: range(start, end + 1)))
    bare = _bare(plain, folding) if folding.needs & ACCENT else ""
    if bare:
        size = len(bare)
        found.append(Reading("unaccented", bare, lambda: [each * len(text) // size for each in range(size + 1)]))
    return [each for each in found if each.text.strip()]


@cache
def _telling() -> re2.Set:
    found = re2.Set.SearchSet()
    found.Add(r"\b(?:" + "|".join(sorted(TELLING)) + r")\b")
    found.Compile()
    return found


def _bare(plain: str, folding: _Folding) -> str:
    """The text without accents, if they only dress it up; else nothing."""
    table, codes = folding.table, _codes(plain)
    count = int(np.count_nonzero(folding._look(table.needs, codes) & ACCENT))
    if not count:
        return ""
    bare = _text(_expanded(table, folding._look(table.bare, codes), codes.astype(np.int64))[0])
    if count > 0.4 * np.count_nonzero(folding._look(table.script, codes) == LATIN):
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


def _is_said(text: str) -> bool:
    """Whether most of it is letters and their marks, and next to nothing does not print."""
    counts = Counter(text)
    letters = sum(
        count for each, count in counts.items() if each.isalnum() or each == " " or unicodedata.category(each)[0] == "M"
    )
    printed = sum(
        count for each, count in counts.items() if (each.isprintable() or each.isspace()) and each != "\ufffd"
    )
    return bool(text) and letters >= 0.6 * len(text) and printed >= 0.95 * len(text)


def _of_bytes(codes: Codes, places: Places) -> list[Reading]:
    """Bytes that hang on an emoji as variation selectors."""
    values = np.where(codes < 0xFE10, codes - np.uint32(0xFE00), codes - np.uint32(0xE0100 - 16)).astype(np.uint8)
    text = values.tobytes().decode("utf-8", "replace").replace("\ufffd", "")
    if not _is_said(text) or 2 * len(text.encode()) < len(values):
        return []
    return [Reading("variation", text, _steps(places, len(text), 1))]


def _of_bits(text: str, codes: Codes) -> list[Reading]:
    """Bits written with two characters that nobody sees."""
    counts = {each: text.count(each) for each in _ZERO}
    zero, one = sorted(counts, key=lambda each: (-counts[each], each))[:2]
    if not counts[one] or counts[zero] + counts[one] < 32:
        return []
    places = np.flatnonzero((codes == ord(zero)) | (codes == ord(one)))
    bits = (codes[places] == ord(one)).astype(np.uint8)
    for data in (np.packbits(bits).tobytes(), np.packbits(1 - bits).tobytes()):
        said = data.decode("utf-8", "replace")
        if _is_said(said):
            return [Reading("zero width", said, _steps(places, len(said), 8))]
    return []


def _steps(places: Places, size: int, step: int) -> Offsets:
    return lambda: [int(places[min(at * step, len(places) - 1)]) for at in range(size + 1)]


def _near(places: Places, size: int) -> tuple[int, int]:
    """From where to where a text is read in another way, for what stands at these places."""
    start = max(0, int(places[0]) - AROUND)
    return start, min(size, int(places[-1]) + AROUND, start + READ)


def _of_direction(text: str) -> list[Reading]:
    """What is shown from right to left, as it is seen."""
    if not any(each in text for each in "\u202e\u202d\u2067\u202b"):
        return []
    codes = _codes(text)
    marks = np.flatnonzero(np.isin(codes, [0x202E, 0x2067, 0x202B, 0x202C, 0x2069, 10]))
    place, last = _near(np.flatnonzero(np.isin(codes, [0x202E, 0x202D, 0x2067, 0x202B])), len(text))
    marks = marks[(marks >= place) & (marks < last)][:MARKS]
    turned = np.concatenate(([False], np.isin(codes[marks], [0x202E, 0x2067, 0x202B])))
    starts = np.concatenate(([place], marks + (codes[marks] != 10)))
    sizes = np.concatenate((marks, [last])) - starts
    within = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    at = np.repeat(starts, sizes) + np.where(np.repeat(turned, sizes), np.repeat(sizes - 1, sizes) - within, within)
    return [Reading("direction", _text(codes[at]), lambda: [*at.tolist(), last])]
