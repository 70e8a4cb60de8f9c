"""What else a text with unusual characters can say: what is hidden in some that nobody sees, and what is read
backwards, upside down or without accents."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import re2
from numpy.typing import NDArray

from circuit_script.judgment.compiled import Folded
from circuit_script.judgment.english import COMMON, TELLING
from circuit_script.judgment.folding import (
    Places,
    codes_of,
    compiled_folds,
    expanded,
    kinds_of,
    look,
    text_of,
)
from circuit_script.judgment.glyphs import (
    ACCENT,
    HIDDEN,
    LATIN,
    MARK,
    SIZE,
    TURNED,
    UPSIDE,
    Codes,
    tables,
)
from circuit_script.judgment.page import Offsets, OneByOne

AROUND = 400  # characters on both sides of what is read in another way ...
READ = 16 * 1024  # ... and at most so many
MARKS = 2000  # of direction

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


def readings_of(text: str, folded: Folded, far: bool) -> list[Reading]:
    """What else a text with unusual characters can say."""
    found: list[Reading] = []
    hidden = folded.hidden
    if hidden or folded.needs & (HIDDEN | UPSIDE):
        codes = codes_of(text)
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
        yield Reading("tags", text_of(codes[places] - np.uint32(0xE0000)), _ended(places))
    if hidden.get("variation", 0) > 3:
        selects = ((codes >= 0xFE00) & (codes < 0xFE10)) | ((codes >= 0xE0100) & (codes < 0xE01F0))
        places = np.flatnonzero(selects)
        yield from _of_bytes(codes[places], places)
    if hidden.get("invisible", 0) + hidden.get("bidi", 0) > 15:
        yield from _of_bits(codes)


def _marked(codes: Codes, table: NDArray[np.uint8], bits: int) -> Places:
    """The places of characters of which a table says one of these bits."""
    if (folds := compiled_folds()) is not None:
        return folds.marked(codes, table, bits)
    return np.flatnonzero(table.take(codes, mode="clip") & bits)


def _kept(codes: Codes) -> Reading:
    """A text with what was rubbed out."""
    start, end = _near(np.flatnonzero((codes == 0x08) | (codes == 0x7F)), len(codes))
    near = codes[start:end]
    kinds = kinds_of(tables(), near, bool((near >= SIZE).any()))
    places = start + np.flatnonzero((kinds == 0) | (kinds == MARK))
    return Reading("kept", text_of(codes[places]), _ended(places))


def _turned(codes: Codes) -> Iterator[Reading]:
    """What stands upside down, from both ends."""
    places = _marked(codes, _IS_TURNED, 1)
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
    folds = compiled_folds()
    bare, accents, latin = _unaccented(plain) if folds is None else folds.unaccented(plain)
    if not accents:
        return ""
    if accents > 0.4 * latin:
        return bare
    if not _telling().Match(bare):
        return ""
    words = _words_beyond(plain) if folds is None else folds.words_beyond(plain)
    new = 0
    for old, times in Counter(words).items():
        word = (_unaccented(old) if folds is None else folds.unaccented(old))[0].strip(".,;:!?\"'()-")
        new += 2 if word in TELLING else times * (len(word) > 3 and word in COMMON)
        if new > 1:
            return bare
    return ""


def _words_beyond(plain: str) -> list[str]:
    """Words with letters beyond ASCII."""
    return [each for each in plain.split(" ") if not each.isascii()]


def _unaccented(plain: str) -> tuple[str, int, int]:
    """The text without accents, how many characters had one, and how many are Latin letters."""
    table, codes = tables(), codes_of(plain)
    high = bool((codes >= SIZE).any())
    accents = int(np.count_nonzero(look(table.needs, codes, high) & ACCENT))
    latin = int(np.count_nonzero(look(table.script, codes, high) == LATIN))
    bare = expanded(table, look(table.bare, codes, high), codes.astype(np.int64))[0]
    return text_of(bare), accents, latin


def _is_said(text: str) -> bool:
    """Whether most of it is letters and their marks, and next to nothing does not print."""
    letters = printed = 0
    for code, count in zip(*(each.tolist() for each in np.unique(codes_of(text), return_counts=True)), strict=True):
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
    opening = _marked(codes, _DIRECTS, _BEGINS)
    if not len(opening):
        return []
    place, last = _near(opening, len(codes))
    marks = place + _marked(codes[place:last], _DIRECTS, _ENDS)[:MARKS]
    turned = np.concatenate(([False], (_DIRECTS.take(codes[marks], mode="clip") & _TURNS_ROUND) != 0))
    starts = np.concatenate(([place], marks + (codes[marks] != 10)))
    sizes = np.concatenate((marks, [last])) - starts
    begins = np.cumsum(sizes) - sizes
    first = np.where(turned, starts + sizes - 1 + begins, starts - begins)
    at = np.repeat(first, sizes) + np.repeat(np.where(turned, -1, 1), sizes) * np.arange(int(sizes.sum()))
    return [Reading("direction", text_of(codes[at]), lambda: np.append(at, last))]
