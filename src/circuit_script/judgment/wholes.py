"""Codes of a whole text: the alphabet shifted, words backwards, pig latin, Braille."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from circuit_script.judgment import compiled
from circuit_script.judgment.compiled import CODES
from circuit_script.judgment.english import COMMON, TELLING
from circuit_script.judgment.page import token_places
from circuit_script.judgment.parts import Part, around

TURNED = 16 * 1024  # characters of a text that are read as a whole in another way
KEPT = 4096  # words of pig latin that are remembered
LONG = 32  # characters of a word of it
SHORT = 400  # characters of a text in which one word is enough
SHIFTS = 6  # shifts of the alphabet that are tried
MIRRORED, PIGS = 27, 28  # kinds of words that are known, behind the shifts

Reading = tuple[str, str, Callable[[], list[Part]]]
"""What a code is called, the text, and its parts, which are asked for only where something was found."""

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_DOTS = 0x2800  # where Braille begins
_BRAILLE = np.arange(_DOTS, _DOTS + 256, dtype=np.uint32)
_BRAILLE[[ord(each) - _DOTS for each in "⠁⠃⠉⠙⠑⠋⠛⠓⠊⠚⠅⠇⠍⠝⠕⠏⠟⠗⠎⠞⠥⠧⠺⠭⠽⠵⠀⠂⠲⠦⠖⠒"]] = [*map(ord, _LETTERS + " ,.?!:")]
_IMAGED = sorted({each for each in TELLING if len(each) > 5} | {"the", "and", "you", "your", "with", "please", "this"})
_IMAGED_TOO = sorted({*_IMAGED, *(each for each in TELLING if len(each) == 5)})  # as rot13 and backwards
_AROUND = ".,;:!?\"'()*-<>[]"
_FOLDED = (
    "ß\u017f\u1e9e\u212a\ufb00\ufb01\ufb02\ufb03\ufb04\ufb05\ufb06"  # beyond ASCII, what is folded to letters of it
)


@cache
def _shift(by: int) -> bytes:
    turned = _LETTERS[by:] + _LETTERS[:by] if by < 26 else _LETTERS[::-1]
    return bytes.maketrans((_LETTERS + _LETTERS.upper()).encode(), (turned + turned.upper()).encode())


def _turned(text: str, by: int) -> str:
    return text.encode("utf-8", "surrogatepass").translate(_shift(by)).decode("utf-8", "surrogatepass")


@cache
def shifted() -> dict[str, int]:
    """Frequent words in every Caesar shift, and in the alphabet backwards (26); with the shift that undoes it."""
    found: dict[str, int] = {}
    for by in range(1, 27):
        for word in _IMAGED_TOO if by == 13 else _IMAGED:
            image = _turned(word, 26 - by if by < 26 else 26)
            if image not in COMMON:
                found.setdefault(image, by)
    return found


@cache
def mirrored() -> frozenset[str]:
    """Frequent words backwards, as they are and in rot13."""
    turned = [_turned(word, 13) for word in _IMAGED_TOO]
    return frozenset(word[::-1] for word in (*_IMAGED_TOO, *turned)) - COMMON - {"dna", "siht"}


@cache
def pigs() -> frozenset[str]:
    found: set[str] = set()
    for word in _IMAGED:
        first = next((at for at, each in enumerate(word) if each in "aeiouy"), 0)
        tails = [word[:first] + "ay"] if first else ["way", "yay", "ay", "hay"]
        found.update(word[first:] + tail for tail in tails)
    return frozenset(found) - COMMON


@cache
def _images() -> dict[str, tuple[int, ...]]:
    """All of these words, with their kinds: what undoes it, or one of the others."""
    found: dict[str, tuple[int, ...]] = {word: (by,) for word, by in shifted().items()}
    for kind, words in ((MIRRORED, mirrored()), (PIGS, pigs())):
        for word in sorted(words):
            found[word] = (*found.get(word, ()), kind)
    return found


@cache
def _known() -> dict[str, int]:
    return {word: nth for nth, word in enumerate(_images())}


@cache
def _facts() -> tuple[list[tuple[int, ...]], list[bool]]:
    """Of each of these words the kinds, and whether it is long."""
    return [*_images().values()], [len(word) > 5 for word in _images()]


@cache
def _of_kind(kind: int) -> NDArray[np.bool_]:
    """Of each of these words whether it is of this kind."""
    return np.array([kind in kinds for kinds in _images().values()], np.bool_)


@cache
def _loop() -> compiled.Images | None:
    if CODES is None:
        return None
    loop: compiled.Images = CODES.Images([*_images()], _AROUND, _FOLDED, lambda word: _known().get(word.casefold(), -1))
    return loop


def _found(text: str) -> NDArray[np.int32]:
    """The words of a text that are known: the number of each, and from where to where the token stands."""
    return _found_by_word(text) if (loop := _loop()) is None else loop.hits(text)


def _found_by_word(text: str) -> NDArray[np.int32]:
    known = _known()
    told: dict[str, int] = {}
    for each in set(text.split()):
        nth = known.get(each.strip(_AROUND).casefold(), -1)
        if nth >= 0:
            told[each] = nth
    if not told:
        return np.zeros((0, 3), np.int32)
    marks = np.array([told.get(each, -1) for each in text.split()], np.int32)
    rows = np.column_stack([marks, *token_places(text, 0, None)])
    return rows[marks >= 0].astype(np.int32)


class Hits:
    """Words of a text that are known, by what they tell."""

    __slots__ = ("_kinds", "_rows", "counts", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._rows = _found(text)
        self._kinds: dict[int, list[int]] = {}
        self.counts: dict[int, int] = {}
        if len(self._rows):
            kinds, _ = _facts()
            counts = np.bincount(self._rows[:, 0])
            for nth in np.flatnonzero(counts).tolist():
                for kind in kinds[nth]:
                    self._kinds.setdefault(kind, []).append(nth)
                    self.counts[kind] = self.counts.get(kind, 0) + int(counts[nth])

    def sure(self, kind: int, *, usual: bool = True) -> bool:
        """Whether words tell enough; of a short text in a usual code one does."""
        words = self._kinds.get(kind, ())
        _, long = _facts()
        return len(words) > (0 if usual and len(self.text) < SHORT else 1) or any(long[nth] for nth in words)

    def spans(self, kind: int) -> list[tuple[int, int]]:
        """What is read as a whole: all of a text, of a long one what is around the words."""
        if len(self.text) <= 4096:
            return [(0, len(self.text))]
        spans: list[tuple[int, int]] = []
        left = TURNED
        rows = self._rows[_of_kind(kind).take(self._rows[:, 0]), 1:]
        for start, end in around(rows, len(self.text)):
            spans.append((start, min(end, start + left)))
            left -= end - start
            if left <= 0:
                break
        return spans


def _tokens(text: str, spans: list[tuple[int, int]], said: list[str]) -> Callable[[], list[Part]]:
    """The parts of a text that is told token by token."""

    def parts() -> list[Part]:
        starts, ends = zip(*(token_places(text, *span) for span in spans), strict=True)
        places = np.concatenate(starts).tolist(), np.concatenate(ends).tolist()
        return [*zip([f"{each} " for each in said], *places, strict=True)]

    return parts


def _shifts(hits: Hits) -> list[Reading]:
    best = sorted(
        ((count, by) for by, count in hits.counts.items() if by < MIRRORED and hits.sure(by, usual=by == 13)),
        reverse=True,
    )
    return [_undone(hits, by) for _, by in best[:SHIFTS]]


def _undone(hits: Hits, by: int) -> Reading:
    """The text with one shift undone."""
    name = "rot13" if by == 13 else "atbash" if by == 26 else f"caesar {26 - by}"
    parts = [(_turned(hits.text[start:end], by) + "\n", start, end) for start, end in hits.spans(by)]
    return name, "".join([said for said, _, _ in parts]), lambda: parts


def _mirrors(hits: Hits) -> list[Reading]:
    if not hits.sure(MIRRORED):
        return []
    text, spans = hits.text, hits.spans(MIRRORED)
    turned = [text[start:end][::-1] for start, end in spans]
    words = [token for each in turned for token in reversed(each.split())]
    return [
        ("reversed", "".join(turned), lambda: [(said, *span) for said, span in zip(turned, spans, strict=True)]),
        ("words reversed", " ".join([*words, ""]), _tokens(text, spans, words)),
    ]


@lru_cache(KEPT)
def _pig(word: str) -> str:
    """A word of pig latin as it was: the letters before "ay" go to the front, as many as make a word."""
    if not word.endswith("ay") or len(word) < 4:
        return word
    stem = word[:-2]
    tries = [stem[-size:] + stem[:-size] for size in (1, 2, 3, 4) if size < len(stem)]
    if stem[-1] in "why":
        tries.append(stem[:-1])
    return next((each for each in (*tries, stem) if each in COMMON), tries[0] if tries else stem)


def _told(word: str) -> str:
    core = word.rstrip(".,;:!?\"'")
    return _pig(core) + word[len(core) :] if len(core) <= LONG else word


def _pig_latin(hits: Hits) -> list[Reading]:
    if not hits.sure(PIGS):
        return []
    text, spans = hits.text, hits.spans(PIGS)
    words = [word for start, end in spans for word in text[start:end].casefold().split()]
    told = {word: _told(word) for word in set(words) if "ay" in word}
    said = [*map(told.get, words, words)]
    return [("pig latin", " ".join([*said, ""]), _tokens(text, spans, said))]


def _braille(hits: Hits) -> list[Reading]:
    codes = np.frombuffer(hits.text.encode("utf-32-le", "surrogatepass"), np.uint32)
    told = np.where((codes >= _DOTS) & (codes < _DOTS + 256), _BRAILLE[codes & 255], codes)
    said = told.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
    return [("braille", said, lambda: [(said, 0, len(said))])]


DECODERS: dict[str, Callable[[Hits], list[Reading]]] = {
    "shift": _shifts, "mirror": _mirrors, "pig latin": _pig_latin, "braille": _braille,
}  # fmt: skip
