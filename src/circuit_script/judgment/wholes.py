"""Codes of a whole text: the alphabet shifted, words backwards, pig latin, Braille."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, lru_cache

from circuit_script.judgment.english import COMMON, TELLING
from circuit_script.judgment.page import token_places, token_spans
from circuit_script.judgment.parts import Part, around

TURNED = 16 * 1024  # characters of a text that are read as a whole in another way
KEPT = 4096  # words of pig latin that are remembered
LONG = 32  # characters of a word of it
SHORT = 400  # characters of a text in which one word is enough
SHIFTS = 6  # shifts of the alphabet that are tried

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_BRAILLE = str.maketrans("⠁⠃⠉⠙⠑⠋⠛⠓⠊⠚⠅⠇⠍⠝⠕⠏⠟⠗⠎⠞⠥⠧⠺⠭⠽⠵⠀⠂⠲⠦⠖⠒", _LETTERS + " ,.?!:")
_IMAGED = sorted({each for each in TELLING if len(each) > 5} | {"the", "and", "you", "your", "with", "please", "this"})
_IMAGED_TOO = sorted({*_IMAGED, *(each for each in TELLING if len(each) == 5)})  # as rot13 and backwards


def _shift(by: int) -> dict[int, int]:
    turned = _LETTERS[by:] + _LETTERS[:by] if by < 26 else _LETTERS[::-1]
    return str.maketrans(_LETTERS + _LETTERS.upper(), turned + turned.upper())


@cache
def shifted() -> dict[str, int]:
    """Frequent words in every Caesar shift, and in the alphabet backwards (26); with the shift that undoes it."""
    found: dict[str, int] = {}
    for by in range(1, 27):
        for word in _IMAGED_TOO if by == 13 else _IMAGED:
            image = word.translate(_shift(26 - by if by < 26 else 26))
            if image not in COMMON:
                found.setdefault(image, by)
    return found


@cache
def mirrored() -> frozenset[str]:
    """Frequent words backwards, as they are and in rot13."""
    turned = [word.translate(_shift(13)) for word in _IMAGED_TOO]
    return frozenset(word[::-1] for word in (*_IMAGED_TOO, *turned)) - COMMON - {"dna", "siht"}


@cache
def pigs() -> frozenset[str]:
    found: set[str] = set()
    for word in _IMAGED:
        first = next((at for at, each in enumerate(word) if each in "aeiouy"), 0)
        tails = [word[:first] + "ay"] if first else ["way", "yay", "ay", "hay"]
        found.update(word[first:] + tail for tail in tails)
    return frozenset(found) - COMMON


def _hits(text: str, knows: Callable[[str], int]) -> dict[int, list[tuple[str, int, int]]]:
    """Words that are known, by what they tell."""
    told: dict[str, tuple[int, str]] = {}
    for each in set(text.split()):
        word = each.strip(".,;:!?\"'()*-<>[]").casefold()
        if what := knows(word):
            told[each] = what, word
    found: dict[int, list[tuple[str, int, int]]] = {}
    if told:
        marks = [*map(told.get, text.split())]
        known = [nth for nth, mark in enumerate(marks) if mark]
        starts, ends = token_places(text, 0, None)
        spans = zip(starts[known].tolist(), ends[known].tolist(), strict=True)
        for (what, word), (start, end) in zip(filter(None, marks), spans, strict=True):
            found.setdefault(what, []).append((word, start, end))
    return found


def _sure(hits: list[tuple[str, int, int]], text: str, *, usual: bool = True) -> bool:
    """Whether words tell enough; of a short text in a usual code one does."""
    words = {word for word, _, _ in hits}
    return len(words) > (0 if usual and len(text) < SHORT else 1) or any(len(word) > 5 for word in words)


def _spans(hits: list[tuple[str, int, int]], text: str) -> list[tuple[int, int]]:
    if len(text) <= 4096:
        return [(0, len(text))]
    spans: list[tuple[int, int]] = []
    left = TURNED
    for start, end in around([(start, end) for _, start, end in hits], len(text)):
        spans.append((start, min(end, start + left)))
        left -= end - start
        if left <= 0:
            break
    return spans


def _tokens(text: str, start: int, end: int) -> Iterator[tuple[str, tuple[int, int]]]:
    return zip(text[start:end].split(), token_spans(text, start, end), strict=True)


def _shifts(text: str) -> list[tuple[str, list[Part]]]:
    images = shifted()
    found = _hits(text, lambda word: images.get(word, 0))
    best = sorted(((len(hits), by) for by, hits in found.items() if _sure(hits, text, usual=by == 13)), reverse=True)[
        :SHIFTS
    ]
    out: list[tuple[str, list[Part]]] = []
    for _, by in best:
        name = "rot13" if by == 13 else "atbash" if by == 26 else f"caesar {26 - by}"
        table = _shift(by)
        spans = _spans(found[by], text)
        out.append((name, [(text[start:end].translate(table) + "\n", start, end) for start, end in spans]))
    return out


def _mirrors(text: str) -> list[tuple[str, list[Part]]]:
    images = mirrored()
    hits = _hits(text, lambda word: int(word in images)).get(1, [])
    if not _sure(hits, text):
        return []
    spans = _spans(hits, text)
    words: list[Part] = []
    for span in spans:
        starts, ends = token_places(text, *span)
        tokens = [f"{token} " for token in reversed(text[slice(*span)][::-1].split())]
        words += zip(tokens, starts.tolist(), ends.tolist(), strict=True)
    return [("reversed", [(text[start:end][::-1], start, end) for start, end in spans]), ("words reversed", words)]


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


def _pig_latin(text: str) -> list[tuple[str, list[Part]]]:
    images = pigs()
    hits = _hits(text, lambda word: int(word in images)).get(1, [])
    if not _sure(hits, text):
        return []
    parts = []
    for start, end in _spans(hits, text):
        for token, place in _tokens(text, start, end):
            word = token.casefold()
            core = word.rstrip(".,;:!?\"'")
            said = _pig(core) if len(core) <= LONG else core
            parts.append((f"{said}{word[len(core) :]} ", *place))
    return [("pig latin", parts)]


def _braille(text: str) -> list[tuple[str, list[Part]]]:
    return [("braille", [(text.translate(_BRAILLE), 0, len(text))])]


DECODERS: dict[str, Callable[[str], list[tuple[str, list[Part]]]]] = {
    "shift": _shifts, "mirror": _mirrors, "pig latin": _pig_latin, "braille": _braille,
}  # fmt: skip
