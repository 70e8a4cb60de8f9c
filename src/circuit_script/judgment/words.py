"""Classes of words in many languages: "ignore", "ignoriere" and "忽略" are all IGNORE.

A text becomes a row of numbers, one a word, which says what kind of words follow each other in it, whatever the
language. ``words/*.toml`` lists them, one file a language: ``IGNORE = "ignore disregard* pay_no_attention"``, where a
trailing ``*`` takes every ending and ``_`` joins words that follow each other. Two more keys: ``joined = true`` for a
script that is written without spaces, ``before = "..."`` for particles that are written in front of a word.

Everything takes time linear in the text.
"""

from __future__ import annotations

import tomllib
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuit_script.judgment.compiled import LOOPS, Words


class Kind(IntEnum):
    """What a word is good for. The numbers are kept: weights were learnt for them. New ones go to the end, below 64."""

    IGNORE = 1
    EARLIER = 2
    ALL = 3
    INSTRUCTION = 4
    SYSTEM = 5
    MODEL = 6
    YOU = 7
    YOUR = 8
    NOW = 9
    NEW = 10
    TASK = 11
    REVEAL = 12
    SECRET = 13
    HIDDEN = 14
    SAY = 15
    ONLY = 16
    PRETEND = 17
    MODE = 18
    FREE = 19
    WITHOUT = 20
    SEND = 21
    ADDRESS = 22
    MONEY = 23
    DELETE = 24
    RUN = 25
    TOOL = 26
    ADMIN = 27
    URGENT = 28
    THREAT = 29
    REWARD = 30
    TEST = 31
    POLICY = 32
    NOT = 33
    IMPORTANT = 34
    START = 35
    END = 36
    TEXT = 37
    SCORE = 38
    STORY = 39
    LANGUAGE = 40
    LIMIT = 41
    FOLLOW = 42
    CHANGE = 43
    MUST = 44
    INSTEAD = 45
    PERSON = 46
    HARM = 47
    DATA = 48
    CODE = 49
    ROLE = 50
    GAME = 51
    ME = 52
    QUIET = 53
    LINK = 54
    PLEASE = 55
    HENCEFORTH = 56
    PROMPT = 57
    ASK = 58


Places = NDArray[np.intp]
Codes = NDArray[np.int16]
"""One number a word: 0, or a kind, or two kinds as ``first | second << 6``."""

KEPT, LONGEST_KEPT = 50_000, 24  # words whose entries are remembered, and the characters of one
ANCHOR = 4  # characters by which a prefix is looked up; it is at least as long
GAP = "\x01"  # stands for the end of a sentence: a distance between words

_NOTHING = np.zeros(0, np.int16)
_NEXT_TEXT, _NEXT_CODE = "\x02", 0x7FFF  # stand between two texts that are read together, and between their codes
_STOPS = b".!?\n"
_KEPT = b"abcdefghijklmnopqrstuvwxyz0123456789" + _NEXT_TEXT.encode()
_ASCII = bytes(
    1 if each in _STOPS else each if each in _KEPT or each >= 0x80 else each | 0x20 if 0x41 <= each <= 0x5A else 0x20
    for each in range(256)
)
_BLANKS = "،؛«»„“”‚‘’¿¡·•、「」『』（）《》【】，：；›‹…–—\u00a0\u200b"
_ENDS = "。！？؟।॥۔"
_SPACES = np.array([each for each in range(0x3001) if chr(each).isspace()], np.uint32)  # as str.split has them
_LETTERS = np.array([not chr(each).isspace() and chr(each) != GAP for each in range(128)], np.bool_)
_ACCENTED = ("LATIN", "GREEK", "CYRILLIC")
_UNIT = 20  # how long a word is; a character of a script without spaces is a part of it
_PRIME = np.uint64(1_000_003)
_JOINED_LEADS = bytes(range(0xE3, 0xEE))  # of the kana, Han and Hangul, in UTF-8; Thai begins like Devanagari
_RUNNING = (0x0E00, 0x0E80), (0x3000, 0xE000)  # the same characters


def _spaces() -> NDArray[np.uint32]:
    """Of each character of the first plane what stands for it where marks are spaces."""
    table = np.arange(0x10000, dtype=np.uint32)
    table[:128] = list(_ASCII[:128])
    for marks_, code in ((_BLANKS, ord(" ")), (_ENDS, ord(GAP))):
        table[[ord(each) for each in marks_]] = code
    return table


_SPACED = _spaces()


Joined = tuple[int, NDArray[np.uint64], Codes, NDArray[np.bool_]]
"""A length, the hashes of words that are as long, sorted, their codes, and a table of the last 16 bits of the hashes
of what words begin with."""


@dataclass(frozen=True, slots=True)
class Phrases:
    """What begins with one word: the code of that word alone, and by the second word what follows behind it with the
    code of the phrase, the longest first."""

    alone: int
    by_second: dict[str, list[tuple[tuple[str, ...], int]]]


@dataclass(frozen=True, slots=True)
class Lexicon:
    """All words: of a form its code, or ``-1 - n`` where the phrases n begin with it; of the first characters the
    prefixes; the phrases; and the words of scripts without spaces, as they are and by their hashes."""

    forms: dict[str, int]
    prefixes: dict[str, list[tuple[str, int]]]
    phrases: list[Phrases]
    running: dict[str, int]
    joined: list[Joined]
    languages: list[str]


@cache
def lexicon() -> Lexicon:
    forms: dict[str, int] = {}
    prefixes: dict[str, int] = {}
    phrases: dict[tuple[str, ...], int] = {}
    joined: dict[str, int] = {}
    languages: list[str] = []
    for language, data in _files():
        languages.append(language)
        running, before = bool(data.pop("joined", False)), str(data.pop("before", "")).split()
        for name, listed in data.items():
            kind = Kind[name]
            for each in _variants(listed.split(), before):
                if "_" in each:
                    words = tuple(each.split("_"))
                    phrases[words] = _with(phrases.get(words, 0), kind)
                elif running and not each.isascii():
                    joined[each] = _with(joined.get(each, 0), kind)
                elif each.endswith("*"):
                    prefixes[each[:-1]] = _with(prefixes.get(each[:-1], 0), kind)
                else:
                    forms[each] = _with(forms.get(each, 0), kind)
    heads = _heads(prefixes)
    for form, code in forms.items():  # a form that is listed may have a prefix's kind besides
        kinds = [each for prefix, each in heads.get(form[:ANCHOR], ()) if form.startswith(prefix)]
        forms[form] = _with(code, Kind(kinds[0] & 63)) if kinds else code
    return Lexicon(forms, heads, _phrases(forms, phrases), joined, _hashed(joined), languages)


def classes(plain: str) -> Codes:
    """Of each word of a canonical text its code, in order; the end of a sentence counts as two words."""
    return _classes(plain) if (loop := _loop()) is None else loop.classes(plain)


def _classes(plain: str) -> Codes:
    text = _spaced(plain)
    if not text.isascii() and _has_joined(text):
        return _read_joined(text)[0]
    return _codes_of(text.replace(GAP, " \x01 \x01 ").split())


def classes_of(plains: Sequence[str]) -> list[Codes]:
    """`classes` of several texts."""
    return _classes_of(plains) if (loop := _loop()) is None else [*map(loop.classes, plains)]


def _classes_of(plains: Sequence[str]) -> list[Codes]:
    """At once, which costs numpy less than one after the other."""
    found = [_NOTHING] * len(plains)
    alike = [place for place, plain in enumerate(plains) if plain.isascii() and _NEXT_TEXT not in plain]
    text = _NEXT_TEXT.join([plains[place] for place in alike]).encode().translate(_ASCII).decode()
    codes = _codes_of(text.replace(GAP, " \x01 \x01 ").replace(_NEXT_TEXT, f" {_NEXT_TEXT} ").split())
    ends = np.flatnonzero(codes == _NEXT_CODE).tolist()
    for place, (first, end) in zip(alike, pairwise([-1, *ends, len(codes)]), strict=False):
        found[place] = codes[first + 1 : end]
    for place in set(range(len(plains))).difference(alike):
        found[place] = _classes(plains[place])
    return found


def places(plain: str) -> dict[int, tuple[int, int]]:
    """Of each number in the row of ``classes`` the first and the last character of its word. For where something was
    found: it is slower."""
    text = _spaced(plain)
    if not text.isascii() and _has_joined(text):
        return _read_joined(text)[1]()
    numbers, starts, ends = (each.tolist() for each in _placed(text))
    return dict(zip(numbers, zip(starts, ends, strict=True), strict=True))


def places_of(plain: str, wanted: Iterable[int]) -> dict[int, tuple[int, int]]:
    """`places` of these words only."""
    return _places_of(plain, wanted) if (loop := _loop()) is None else loop.places(plain, wanted)


def _places_of(plain: str, wanted: Iterable[int]) -> dict[int, tuple[int, int]]:
    text = _spaced(plain)
    if not text.isascii() and _has_joined(text):
        return _read_joined(text)[1]()
    numbers, starts, ends = _placed(text)
    sought = sorted(set(wanted))
    at = np.searchsorted(numbers, sought)
    return dict(zip(sought, zip(starts[at].tolist(), ends[at].tolist(), strict=True), strict=True))


def _placed(text: str) -> tuple[Places, Places, Places]:
    """The words of a text with spaces for marks: the numbers, where each begins and where it ends."""
    if text.isascii():
        chars: NDArray[Any] = np.frombuffer(text.encode(), np.uint8)
        gaps, letters = chars == ord(GAP), _LETTERS.take(chars)
    else:
        chars = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        gaps = chars == ord(GAP)
        letters = ~(gaps | np.isin(chars, _SPACES))
    first = letters.copy()
    first[1:] = letters[1:] > letters[:-1]
    last = letters.copy()
    last[:-1] = letters[:-1] > letters[1:]
    starts = np.flatnonzero(first)
    return (np.cumsum(first + 2 * gaps) - 1)[starts], starts, np.flatnonzero(last) + 1


def _spaced(plain: str) -> str:
    """The text in lower case, with a space for each mark and a gap for each end of a sentence, as long as before."""
    data = plain.encode("utf-8", "surrogatepass").translate(_ASCII)
    if len(data) == len(plain):
        return data.decode("ascii")
    chars = np.frombuffer(plain.encode("utf-32-le", "surrogatepass"), np.uint32)
    spaced = _SPACED.take(chars, mode="clip")
    if int(chars.max()) >= len(_SPACED):
        spaced = np.where(chars < len(_SPACED), spaced, chars)
    return spaced.tobytes().decode("utf-32-le", "surrogatepass")


def _has_joined(text: str) -> bool:
    data = text.encode("utf-8", "surrogatepass")
    return len(data.translate(None, _JOINED_LEADS)) != len(data) or b"\xe0\xb8" in data or b"\xe0\xb9" in data


@cache
def _loop() -> Words | None:
    """The same in one compiled loop, where there is one."""
    if LOOPS is None:
        return None
    blanks, running = np.zeros((2, len(_SPACED)), np.bool_)
    blanks[_SPACES] = True
    for first, end in _RUNNING:
        running[first:end] = True
    loop: Words = LOOPS.Words(lexicon(), _SPACED, blanks, running, _UNIT)
    return loop


class _Known(dict[str, int]):
    """Of each word that was met its entry in the lexicon, by its form or by what it begins with; 0 for none."""

    def __missing__(self, word: str) -> int:
        book = lexicon()
        entry = book.forms.get(word, 0)
        if not entry:
            for prefix, code in book.prefixes.get(word[:ANCHOR], ()):
                if word.startswith(prefix):
                    entry = code
                    break
        if len(word) <= LONGEST_KEPT:
            if len(self) >= KEPT:
                self.clear()
                self[_NEXT_TEXT] = _NEXT_CODE
            self[word] = entry
        return entry


_known = _Known({_NEXT_TEXT: _NEXT_CODE})


def _codes_of(words: list[str]) -> Codes:
    codes = np.fromiter(map(_known.__getitem__, words), np.int16, len(words))
    begins = np.flatnonzero(codes < 0)
    if not len(begins):
        return codes
    phrases, last = lexicon().phrases, len(words) - 1
    for place, nth in zip(begins.tolist(), (-1 - codes[begins]).tolist(), strict=True):
        found = phrases[nth]
        codes[place] = found.alone
        if place < last and words[place + 1] in found.by_second:
            for rest, code in found.by_second[words[place + 1]]:
                if tuple(words[place + 2 : place + 2 + len(rest)]) == rest:
                    codes[place] = code
                    break
    return codes


def has_kind(plain: str) -> bool:
    """Whether any word of a canonical text has a kind, by itself or as the first of a phrase."""
    text = _spaced(plain)
    if not text.isascii() and _has_joined(text):
        return True
    return any(map(_known.__getitem__, text.split()))


def with_kinds() -> tuple[list[str], list[str]]:
    """Of ASCII, the words of which `has_kind` could be true: those that are listed, and what others begin with."""
    book = lexicon()
    prefixes = [prefix for each in book.prefixes.values() for prefix, _ in each]
    return [*filter(str.isascii, book.forms)], [*filter(str.isascii, prefixes)]


def _read_joined(text: str) -> tuple[Codes, Callable[[], dict[int, tuple[int, int]]]]:
    """A text where some scripts have no spaces: their words are found by hashes of one character and more from each
    place, the longest first; what stands between them counts by its length."""
    chars = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    thai, hangul = (chars >= 0x0E00) & (chars <= 0x0E7F), (chars >= 0xAC00) & (chars <= 0xD7AF)
    wide = thai | hangul | ((chars >= 0x3040) & (chars <= 0x9FFF))
    stops = chars == 1
    starts, lengths, codes = _joined_words(chars)
    weights = np.where(wide, np.where(thai, 4, np.where(hangul, 7, 8)), 0)
    weights[stops] = 2 * _UNIT
    for step in range(int(lengths.max()) if len(lengths) else 0):
        weights[starts[lengths > step] + step] = 0
    weights[starts] = _UNIT
    narrow = np.where(wide | stops, np.uint32(32), chars).astype(np.uint32)
    words = [word for word in narrow.tobytes().decode("utf-32-le", "surrogatepass").split(" ") if word]
    letters = narrow != 32
    begins = np.flatnonzero(letters & ~np.concatenate(([False], letters[:-1])))
    weights[begins] = _UNIT
    at = np.cumsum(weights) // _UNIT
    row = np.zeros(int(at[-1]) + 1 if len(at) else 0, np.int16)
    # Alone, "ai" is a word of French and Italian, and no model.
    row[at[begins]] = _codes_of(["chatbot" if word == "ai" else word for word in words])
    row[at[starts]] = codes

    def where() -> dict[int, tuple[int, int]]:
        told = {}
        for placed, sizes in ((begins, map(len, words)), (starts, lengths.tolist())):
            for slot, start, size in zip(at[placed].tolist(), placed.tolist(), sizes, strict=True):
                told[slot] = start, start + size
        return told

    return row, where


def _joined_words(chars: NDArray[np.uint32]) -> tuple[Places, Places, Codes]:
    """Where words of joined scripts begin, how long they are, and their codes; none overlaps another. From each place
    one character more is read as long as some word begins so."""
    codes = np.zeros(len(chars), np.int16)
    lengths = np.zeros(len(chars), np.intp)
    alive = np.arange(len(chars))
    hashes = np.zeros(len(chars), np.uint64)
    for length, known, its_codes, begins in lexicon().joined:
        alive = alive[: np.searchsorted(alive, len(chars) - length + 1)]
        hashes = hashes[: len(alive)] * _PRIME + chars[alive + (length - 1)]
        possible = begins[hashes.astype(np.uint16)]
        alive, hashes = alive[possible], hashes[possible]
        if not len(alive):
            break
        slot = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
        sure = known[slot] == hashes
        codes[alive[sure]] = its_codes[slot[sure]]
        lengths[alive[sure]] = length
    starts = np.flatnonzero(codes)
    taken: list[int] = []
    done = 0
    for start, length in zip(starts.tolist(), lengths[starts].tolist(), strict=True):
        if start >= done:
            taken.append(start)
            done = start + length
    chosen = np.array(taken, np.intp)
    return chosen, lengths[chosen], codes[chosen]


def marks(codes: Codes) -> tuple[Places, Places]:
    """Where words with a kind stand, and the kinds; a word with two kinds stands there twice."""
    at = np.flatnonzero(codes)
    both = codes[at].astype(np.intp)
    kinds, second = both & 63, both >> 6
    if second.any():
        twice = np.flatnonzero(second)
        order = np.argsort(np.concatenate((np.arange(len(at)), twice)), kind="stable")
        kinds = np.concatenate((kinds, second[twice]))[order]
        at = np.concatenate((at, at[twice]))[order]
    return at, kinds


PAIRS = 64 * 64
FEATURES = 64 + 3 * PAIRS
"""How many features there are."""
_NEXT, _SKIP, _NEAR = 64, 64 + PAIRS, 64 + 2 * PAIRS


def sequence_features(codes: Codes) -> Places:
    """What kinds of words follow each other, as numbers below ``FEATURES``, each once, the lowest first.

    k: a word of kind k · 64 + 64a + b: b is the next word with a kind after a, at most 8 words on · 4160 + 64a + b: b
    follows a as the second to fifth word with a kind, at most 8 words on · 8256 + 64a + b, a <= b: both stand within
    12 words, in any order, with at most five words with a kind in between.
    """
    at, kinds = marks(codes)
    seen = np.zeros(FEATURES, np.bool_)
    seen[kinds] = True
    left = kinds << 6
    for step in range(1, min(7, len(kinds))):
        away = at[step:] - at[:-step]
        ordered = left[:-step] + kinds[step:]
        if step < 6:
            seen[(_NEXT if step == 1 else _SKIP) + ordered[away <= 8]] = True
        near = np.minimum(ordered, left[step:] + kinds[:-step])
        seen[_NEAR + near[away <= 12]] = True
    return np.flatnonzero(seen)


def _heads(prefixes: dict[str, int]) -> dict[str, list[tuple[str, int]]]:
    heads: dict[str, list[tuple[str, int]]] = {}
    for prefix in sorted(prefixes, key=lambda each: -len(each)):
        if len(prefix) < ANCHOR:
            raise ValueError(f"{prefix}*: a prefix has at least {ANCHOR} characters")
        heads.setdefault(prefix[:ANCHOR], []).append((prefix, prefixes[prefix]))
    return heads


def _phrases(forms: dict[str, int], phrases: dict[tuple[str, ...], int]) -> list[Phrases]:
    """Phrases by their first word, which is noted in ``forms``."""
    found: dict[str, Phrases] = {}
    for words in sorted(phrases, key=lambda each: -len(each)):
        alone = forms.get(words[0], 0)
        mine = found.setdefault(words[0], Phrases(alone, {}))
        code = _with(phrases[words], Kind(alone & 63)) if alone else phrases[words]
        mine.by_second.setdefault(words[1], []).append((words[2:], code))
    for number, first in enumerate(found):
        forms[first] = -1 - number
    return list(found.values())


def _hashed(joined: dict[str, int]) -> list[Joined]:
    words: list[dict[int, int]] = [{} for _ in range(max(map(len, joined), default=0))]
    begins = [np.zeros(1 << 16, np.bool_) for _ in words]
    for word, code in joined.items():
        value = 0
        for number, each in enumerate(word):
            value = (value * int(_PRIME) + ord(each)) & 0xFFFF_FFFF_FFFF_FFFF
            begins[number][value & 0xFFFF] = True
        words[len(word) - 1][value] = code
    return [
        (
            number + 1,
            np.array(sorted(values) or [0], np.uint64),
            np.array([values[each] for each in sorted(values)] or [0], np.int16),
            begins[number],
        )
        for number, values in enumerate(words)
    ]


def _with(code: int, kind: Kind) -> int:
    """A code with one kind more; a word has two at most, those that came first."""
    if not code:
        return int(kind)
    return code | int(kind) << 6 if code < 64 and code != kind else code


def _variants(listed: Iterable[str], before: list[str]) -> Iterator[str]:
    """Each word as a canonical text has it, without its accents too, and behind each particle."""
    seen: set[str] = set()
    for each in listed:
        word = unicodedata.normalize("NFKC", each).casefold()
        forms = [word, _bare(word), *(particle + word for particle in before)]
        for form in forms:
            if form not in seen:
                seen.add(form)
                yield form


def _bare(word: str) -> str:
    if len(word) < 5 or not all(each in "_*'" or unicodedata.name(each, "").startswith(_ACCENTED) for each in word):
        return word
    return "".join(each for each in unicodedata.normalize("NFD", word) if not unicodedata.combining(each))


def _files() -> Iterator[tuple[str, dict[str, Any]]]:
    """The languages, English first: where two languages disagree on a word, the first two kinds stand."""
    names = sorted(each.name for each in (files(__package__) / "words").iterdir() if each.name.endswith(".toml"))
    for name in sorted(names, key=lambda each: each != "en.toml"):
        data = (files(__package__) / "words" / name).read_text(encoding="utf-8")
        yield name.removesuffix(".toml"), tomllib.loads(data)
