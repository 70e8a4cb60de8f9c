"""The steps from a text to its canonical form, character by character: compiled where that can be, else with numpy."""

from __future__ import annotations

import unicodedata
from functools import cache
from itertools import groupby
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from circuit_script.judgment.compiled import FOLDS, Folded, Folds
from circuit_script.judgment.glyphs import (
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
    VARIATION,
    WIDE,
    Codes,
    Tables,
    tables,
)

Places = NDArray[np.int64]
_Any = TypeVar("_Any", bound=np.generic)

FEW = 64
RARELY = 16

_NAMES = {
    INVISIBLE: "invisible", BIDI: "bidi", TAG: "tag", VARIATION: "variation", CONTROL: "control", RUBOUT: "control",
}  # fmt: skip
_BACK = {ord(latin): ord(own) for latin, own in zip("aceopxykmhtbi", "асеорхукмнтві", strict=True)}
_IN_BACK = np.zeros(SIZE, np.bool_)
_IN_BACK[list(_BACK)] = True


def codes_of(text: str) -> Codes:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def text_of(codes: Codes) -> str:
    return codes.astype("<u4").tobytes().decode("utf-32-le", "replace")


def spaces(codes: Codes | NDArray[np.uint8]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (codes == 32) | ((codes >= 9) & (codes <= 13))
    return found


def unspaced(space: NDArray[np.bool_]) -> Places:
    """The place of each character that is left where runs of spaces are one, and none is at the ends."""
    kept = np.ones(len(space), np.bool_)
    kept[1:] = ~(space[1:] & space[:-1])
    at = np.flatnonzero(kept)
    if len(at) and space[at[0]]:
        at = at[1:]
    if len(at) and space[at[-1]]:
        at = at[:-1]
    return at


def squeezed(codes: Codes) -> tuple[Codes, Places]:
    """Runs of spaces as one, none at the ends; and the place of each character that is left."""
    space = spaces(codes)
    at = unspaced(space)
    out = codes.take(at)
    out[space.take(at)] = 32
    return out, at


def expanded(table: Tables, codes: Codes, at: Places) -> tuple[Codes, Places]:
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


def look(table: NDArray[_Any], codes: Codes, high: bool) -> NDArray[_Any]:
    """What a table says of each character; of one beyond it (``high``: there may be such), the character itself (or
    nothing)."""
    if not high:
        return table.take(codes.astype(np.int64))
    low = codes < SIZE
    found = table.take(np.where(low, codes, 0xFFFF).astype(np.int64))
    return np.where(low, found, codes) if table.dtype == np.uint32 else found


def kinds_of(table: Tables, codes: Codes, high: bool) -> NDArray[np.uint8]:
    kinds = look(table.kind, codes, high)
    if high:
        kinds[(codes >= 0xE0000) & (codes < 0xE0080)] = TAG
        kinds[(codes >= 0xE0100) & (codes < 0xE01F0)] = VARIATION
    return kinds


@cache
def compiled_folds() -> Folds | None:
    return FOLDS.Folds(tables(), _BACK) if FOLDS is not None else None


def folding_of(text: str) -> Folded:
    folds = compiled_folds()
    return Folding(text) if folds is None else folds.fold(text)


def _in_order(text: str) -> str:
    """The same with its marks in the order of their classes, in which it is sooner composed."""
    if len(text) <= FEW:
        return text
    runs = groupby(text, lambda each: unicodedata.combining(each) > 0)
    return "".join("".join(sorted(run, key=unicodedata.combining) if marks else run) for marks, run in runs)


class Folding:
    """The steps from a text to its canonical form; each keeps the place of every character in the text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.table: Tables = tables()
        self.codes: Codes = codes_of(text)
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
        self.wide = text_of(self.codes)
        self.plain = text_of(self._lowered()[0])

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
            lower, at = expanded(self.table, lower, at)
        codes, kept = squeezed(lower)
        return codes, at[kept]

    def _look(self, table: NDArray[_Any], codes: Codes) -> NDArray[_Any]:
        return look(table, codes, self.high)

    def _keep(self, kept: NDArray[np.bool_]) -> None:
        self.codes, self.at = self.codes[kept], self.at[kept]

    def _note(self, name: str, at: Places) -> None:
        if len(at):
            self.hidden[name] = self.hidden.get(name, 0) + len(at)
            self.first = min(self.first, int(at[0]))
            self.last = max(self.last, int(at[-1]) + 1)

    def _remove_hidden(self) -> None:
        kinds = kinds_of(self.table, self.codes, self.high)
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
        self.codes, self.at = expanded(self.table, self._look(self.table.cased, codes), self.at)

    def _marks(self) -> None:
        """A letter and its marks are one character where there is such; other marks go."""
        mark = kinds_of(self.table, self.codes, self.high) == MARK
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
        form = unicodedata.normalize("NFC", text_of(codes))
        return ord(form) if len(form) == 1 else int(codes[0])

    def _compose(self) -> None:
        """Syllables of Korean and the like, written in parts."""
        parts = (self._look(self.table.needs, self.codes) & COMBINES) != 0
        few = RARELY * np.count_nonzero(parts) < len(parts)  # then they are sooner composed than the whole is read
        text = text_of(self.codes)
        if not few and unicodedata.is_normalized("NFC", text):
            return
        edges = np.diff(np.concatenate(([0], parts.astype(np.int8), [0])))
        codes = self.codes.copy()
        kept = np.ones(len(codes), np.bool_)
        for start, end in zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True):
            start = max(start - 1, 0)
            form = unicodedata.normalize("NFC", _in_order(text[start:end]))
            if len(form) <= end - start and form != text[start:end]:
                codes[start : start + len(form)] = codes_of(form)
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
