"""Words that were taken apart or spelled with digits and signs, put right: "i g n o r e", "ig-nore", "1gn0r3"."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import accumulate, groupby, pairwise
from typing import cast

import numpy as np
from numpy.typing import NDArray

from circuit_script.judgment.compiled import TOKENS, Speller
from circuit_script.judgment.english import COMMON, TELLING, bare, words_in
from circuit_script.judgment.page import OneByOne, token_places
from circuit_script.judgment.signs import CHUNK, around, misspelled, odd_parts

_LEET = str.maketrans("013457@$!|+€8962", "oieastasiitebggz")
_ELLS = _LEET | str.maketrans("1!|", "lll")
_DRAWN = (
    ("|\\|", "n"), ("|\\/|", "m"), ("/\\/", "n"), ("|_|", "u"), ("|-|", "h"), ("\\/\\/", "w"), ("\\/", "v"),
    ("/\\", "a"), ("|3", "b"), ("|<", "k"), ("|)", "d"), ("|=", "f"), ("()", "o"), ("[]", "o"), ("|2", "r"),
    ("|*", "p"), ("|>", "p"), ("><", "x"),
)  # fmt: skip
_DRAWS = frozenset("|\\([/>")  # without one of these none is drawn
NEAR = 2048  # characters of a text that is read as a whole; of a longer one, what is put right and around it
ALL = 3  # parts with signs, of which each has words to be put right
STRUNG = 4  # words that signs hold together
CODE = ("<>", "()", "[]", "{}", "=")  # signs of code: several kinds hold together what nobody means to be words
CLOSES = "</"  # and so does this
SHORT = 2  # characters; that one with a sign or a digit is a word says nothing among others: "</h3>", "(!n)"
SEVERAL = 12  # letters without a space that are more than one word, known or not
KEPT = 8192  # short words whose right form is remembered
LONG = 20  # characters of a word; what is longer is a code
READ_AGAIN = 4  # longer rows of letters that are remembered: who reads a text may read it without accents, too
KEPT_CODES, LONG_CODE = 1024, 128  # codes that are remembered, too, and the characters of one
DRAWN = 60  # characters of which no frequent word comes, each drawn with four signs
APART = 4  # characters with spaces between them that may be a word
PIECES = 5  # tokens that may be one telling word
MANY = 2  # words put right; where there are more, the rest of the digits in words are letters, too
_DRESSES = "@$€|+!"
_BARE = {code: " " for code in range(128) if not chr(code).isalnum()}
_DRESSED = {code: " " for code in _BARE if chr(code) not in _DRESSES}
_PARTS_TOO = frozenset(("i", "in", "for", "over", "by", "pass", "me", "con"))  # words that telling words begin with
_END = "!.,?;:)\"'"
_FRONT = "(\"'"
_PARTING = re.compile(f"[{re.escape(''.join(CODE) + _FRONT)}]")


Places = NDArray[np.int64]
Rows = tuple[list[str], list[int], list[int]]
"""Letters, each with its first place and its last, exclusive, in the wide text."""
Said = tuple[list[str], list[str], list[int], list[int]]
"""The same, with what they say."""


@dataclass(frozen=True, slots=True)
class Spelling:
    """The text with words put right, with a space between two; ``span`` says from where to where each of them stands in
    the wide text, and is asked only where something was found."""

    text: str
    span: Callable[[int], tuple[int, int]]
    size: int

    def places(self) -> OneByOne:
        """Of each character its place in the wide text, told by share within a word, and one more for the end."""
        return OneByOne(len(self.text) + 1, self._place)

    def _place(self, at: int) -> int:
        text = self.text
        if at >= len(text):
            return self.size
        start, end = self.span(text.count(" ", 0, at))
        if text[at] == " ":
            return end if end < self.size else max(end - 1, 0)
        first = text.rfind(" ", 0, at) + 1
        last = text.find(" ", at)
        return start + (end - start) * (at - first) // ((last if last > 0 else len(text)) - first)


def respelled(plain: str, wide: str) -> Spelling | None:
    """The words of a text put right; None if they are."""
    if not misspelled(plain):
        return None
    parts = [(0, len(wide))]
    if len(wide) > CHUNK:  # words that are put right have a sign near them
        odd: list[tuple[int, int]] = []
        for nth, each in enumerate(odd_parts(wide)):
            if len(odd) == nth >= ALL or _Tokens(wide, [each]).changed:  # where each is odd, the others are as well
                odd.append(each)
        if not odd:
            return None
        if len(wide) > NEAR:
            parts = around(wide, odd)
    read = _Tokens(wide, parts)
    if not read.changed:
        return None
    said = read.text()
    if not said:
        return None
    return Spelling(dense(said) if read.changed > MANY else said, read.word_span, len(wide))


class _Put(str):
    """The words of a token that had to be put right."""

    __slots__ = ()


class _Usual(dict[str, str | None]):
    """Of each token that was met the words that it says, "" for none; None where it may go on in the next. Those of one
    character are told each time."""

    def __missing__(self, token: str) -> str | None:
        word = self._word(token)
        if 1 < len(token) <= LONG:
            if len(self) >= KEPT:
                self.clear()
            self[token] = word
        return word

    @staticmethod
    def _word(token: str) -> str | None:
        small = token.casefold()
        if len(token) == 1:
            return small if token.isalnum() else ""
        if small.isalpha():
            return None if small in _BEGINS else small
        right, new = righted(small)
        if new:
            return _Put(right)
        return None if small[-1] in "-_." and small[:-1] in _CUT else right


_usual = _Usual()
_CUT = TELLING.union(word[:size] for word in TELLING for size in range(1, len(word)))
_BEGINS = (_CUT - COMMON) | (_CUT & _PARTS_TOO)


class _Tokens:
    """The words of these parts of a text. Most tokens are what they always are; only the others are looked at one by
    one. ``changed`` is how many had to be put right."""

    __slots__ = (
        "_known_places", "_known_rows", "_parts", "_put", "_said", "_sizes", "_spans", "_text", "_tokens", "_wide",
        "changed",
    )  # fmt: skip

    def __init__(self, wide: str, parts: list[tuple[int, int]]) -> None:
        self._wide, self._parts = wide, parts
        self._spans: tuple[Places, Places] | None = None
        self._tokens: list[str] = []
        for start, end in parts:
            self._tokens += wide[start:end].split()
        self._said = usual(self._tokens)
        self._put: dict[int, int] = {}  # of several tokens that say something together the first, and what follows
        self._text = ""
        self._sizes: tuple[Places, Places] | None = None
        self._known_rows: dict[int, Said] = {}  # these two by their first token
        self._known_places: dict[int, tuple[list[int], list[int]]] = {}
        self.changed = look(self._tokens, self._said, self._put, self._letters)

    def text(self) -> str:
        """What they say together."""
        self._text = " ".join(filter(None, self._said))
        return self._text

    def word_span(self, nth: int) -> tuple[int, int]:
        """From where to where a word stands, told by share of the token that says it."""
        if self._sizes is None:
            known = cast("list[str]", self._said)  # all of it, by now
            self._sizes = words_end(self._text), word_ends(known)
        token, place, before, upto, first, last = placed(*self._sizes, nth)
        if token in self._put:
            firsts, lasts = self._places(token)
            return firsts[place], lasts[place]
        starts, ends = self.spans()
        start, whole = int(starts[token]), upto - before
        width = int(ends[token]) - start
        return start + width * (first - before) // whole, start + width * (last - before) // whole

    def _places(self, first: int) -> tuple[list[int], list[int]]:
        """Of the words that tokens from this one on say together the first places and the last, exclusive."""
        if first not in self._known_places:
            last = self._put[first]
            starts, ends = self.spans()
            whole = [int(starts[first])], [int(ends[last - 1])]
            letters = len(self._tokens[first]) == 1
            self._known_places[first] = shared(*self._rows(first, last)) if letters else whole
        return self._known_places[first]

    def spans(self) -> tuple[Places, Places]:
        """Of all tokens the first places and the last, exclusive."""
        if self._spans is None:
            spans = [places_of(self._wide, *each) for each in self._parts]
            starts, ends = zip(*spans, strict=True)
            self._spans = spans[0] if len(spans) == 1 else (np.concatenate(starts), np.concatenate(ends))
        return self._spans

    def _letters(self, first: int, last: int) -> str:
        """What these tokens of one character say, "" for nothing."""
        if (loop := _loop()) is not None:
            return loop.row_of(self._tokens, first, last, *self.spans())
        _, said, _, _ = self._rows(first, last)
        return " ".join(filter(None, said))

    def _rows(self, first: int, last: int) -> Said:
        if first not in self._known_rows:
            starts, ends = self.spans()
            letters = "".join(self._tokens[first:last])
            rows, firsts, lasts = spelled(letters, starts[first:last], ends[first:last])
            self._known_rows[first] = rows, said_of(rows), firsts, lasts
        return self._known_rows[first]


def places_of(text: str, start: int, end: int) -> tuple[Places, Places]:
    """Of all tokens of a part the first places and the last, exclusive."""
    return (token_places if (loop := _loop()) is None else loop.token_places)(text, start, end)


def word_ends(words: list[str]) -> Places:
    """Where each of these ends with the space behind it, where there is one between two that say something."""
    return _word_ends(words) if (loop := _loop()) is None else loop.word_ends(words)


def _word_ends(words: list[str]) -> Places:
    sizes = np.fromiter(map(len, words), np.int64, len(words))
    return np.cumsum(sizes + (sizes > 0))


def words_end(text: str) -> Places:
    """The same of the words of a text."""
    return _word_ends(text.split()) if (loop := _loop()) is None else loop.words_end(text)


def placed(words: Places, tokens: Places, nth: int) -> tuple[int, int, int, int, int, int]:
    """The token that says a word, and which of its words that is; where the token before it ends, that token, the word
    before and that word."""
    return (_placed if (loop := _loop()) is None else loop.placed)(words, tokens, nth)


def _placed(words: Places, tokens: Places, nth: int) -> tuple[int, int, int, int, int, int]:
    upto = int(words[nth])
    token = int(tokens.searchsorted(upto))
    before = int(tokens[token - 1]) if token else 0
    place = nth - int(words.searchsorted(before, "right"))
    return token, place, before, int(tokens[token]), int(words[nth - 1]) if nth else 0, upto


@cache
def _loop() -> Speller | None:
    """What is said of tokens, compiled, where there is a compiler."""
    if TOKENS is None:
        return None
    loop: Speller = TOKENS.Speller(
        common=COMMON, telling=TELLING, leet=_LEET, ells=_ELLS, drawn=_DRAWN, draws=_DRAWS, dresses=_DRESSES,
        ends=_END, fronts=_FRONT, long_word=LONG, most_drawn=DRAWN, strung=STRUNG, apart=APART,
        pieces=PIECES, code_signs=CODE, closes=CLOSES, few=SHORT, cut=_CUT, begins=_BEGINS, segmented=_segmented,
        words_in=words_in, put=_Put, kept=KEPT,
    )  # fmt: skip
    return loop


def usual(tokens: list[str]) -> list[str | None]:
    """Of each of these tokens the words that it says by itself, as `_Usual` knows them."""
    return [*map(_usual.__getitem__, tokens)] if (loop := _loop()) is None else loop.usual(tokens, _usual)


def look(tokens: list[str], said: list[str | None], put: dict[int, int], spell: Callable[[int, int], str]) -> int:
    """Look at the tokens that take it, and how many had to be put right: what they say is in ``said`` then, and of
    several that say it together the first in ``put``, with what follows. ``spell`` says what single letters do."""
    return (_look if (loop := _loop()) is None else loop.look)(tokens, said, put, spell)


def _look(tokens: list[str], said: list[str | None], put: dict[int, int], spell: Callable[[int, int], str]) -> int:
    changed = done = 0
    for first, last in _odd(tokens, said):
        if last <= done:
            continue
        first = max(first, done)
        if said[first] is None:
            words, last = _looked_at(tokens, first)
            if last == first + 1:
                said[first], words = words, ""
        else:
            words = spell(first, last)
        if words:
            said[first:last] = [words, *[""] * (last - first - 1)]
            put[first] = last
            changed += 1
        done = last
    return changed + sum([each.__class__ is _Put for each in said])


def _odd(tokens: list[str], said: list[str | None]) -> list[tuple[int, int]]:
    """The tokens that take a closer look, and where four and more follow each other of one character each."""
    odd = [(nth, nth + 1) for nth, each in enumerate(said) if each is None]
    first = last = 0
    for nth in [*(nth for nth, each in enumerate(tokens) if len(each) == 1), -1]:
        if nth != last:
            if last - first >= APART:
                odd.append((first, last))
            first = nth
        last = nth + 1
    return sorted(odd)


def _looked_at(tokens: list[str], nth: int) -> tuple[str, int]:
    """What a token says with those that belong to it, and what follows."""
    small = tokens[nth].casefold()
    if small.isalpha():
        said, used = _joined(tokens, nth, small)
        return said or small, nth + used + 1
    follower = tokens[nth + 1].casefold().rstrip(_END) if nth + 1 < len(tokens) else small
    if small[:-1] + follower in TELLING and not {small[:-1], follower} <= COMMON:
        return small[:-1] + follower, nth + 2  # a word that goes on in the next line
    return righted(small)[0] or small, nth + 1


def dense(text: str) -> str:
    """A text that is full of digits for letters."""
    return _dense(text) if (loop := _loop()) is None else loop.dense(text)


def _dense(text: str) -> str:
    return " ".join(map(_dense_word, text.split(" ")))


def _dense_word(word: str) -> str:
    """Short numbers are words, and no digit in a word is one."""
    if word.isalpha():
        return word
    folded = _folded(word) if len(word) < 4 or not word.isdigit() else word
    if folded in COMMON:
        return folded
    return folded if len(word) < LONG and 2 * sum(each.isalpha() for each in word) >= len(word) else word


def spelled(letters: str, starts: Places, ends: Places) -> Rows:
    """Single letters in rows; a gap that is wider than most ends one."""
    return (_spelled if (loop := _loop()) is None else loop.spelled)(letters, starts, ends)


def _spelled(letters: str, starts: Places, ends: Places) -> Rows:
    if not letters.isalnum():
        kept = [nth for nth, each in enumerate(letters) if each.isalnum()]
        letters, starts, ends = "".join([letters[nth] for nth in kept]), starts[kept], ends[kept]
    if len(letters) < APART or sum(map(str.isalpha, letters)) < len(letters) // 2:
        return [], [], []
    gaps = starts[1:] - ends[:-1]
    wider = np.flatnonzero(gaps > gaps.min()) + 1
    edges = [0, *wider.tolist(), len(letters)]
    rows = [letters[first:last].casefold() for first, last in pairwise(edges)]
    rows = [each if each.isalpha() else _folded(each) for each in rows]
    return rows, starts[edges[:-1]].tolist(), ends[[*(wider - 1), -1]].tolist()


def said_of(rows: list[str]) -> list[str]:
    """What rows of letters say."""
    return _said_of(rows) if (loop := _loop()) is None else loop.said_of(rows)


def _said_of(rows: list[str]) -> list[str]:
    said = {each: _segmented(each) for each in {*rows}}
    return [said[each] for each in rows]


def shared(rows: list[str], said: list[str], starts: list[int], ends: list[int]) -> tuple[list[int], list[int]]:
    """Of the words that each row says the first places and the last, told by share."""
    return (_shared if (loop := _loop()) is None else loop.shared)(rows, said, starts, ends)


def _shared(rows: list[str], said: list[str], starts: list[int], ends: list[int]) -> tuple[list[int], list[int]]:
    firsts: list[int] = []
    lasts: list[int] = []
    for row, words, start, end in zip(rows, said, starts, ends, strict=True):
        if words == row:
            firsts.append(start)
            lasts.append(end)
            continue
        upto = accumulate(map(len, words.split()), initial=0)
        places = [start + (end - start) * each // len(row) for each in upto]
        firsts += places[:-1]
        lasts += places[1:]
    return firsts, lasts


def _segmented(letters: str) -> str:
    return (_segments if len(letters) <= LONG else _segments.__wrapped__)(letters)


@lru_cache(KEPT)
def _segments(letters: str) -> str:
    """Letters as words: several only if all are known, or if these are too many for one."""
    if not letters.isascii():
        letters = bare(letters)
    if letters in COMMON or not letters.isascii():
        return letters
    words = words_in(letters) if len(letters) <= LONG else _long_words(letters)
    return words if len(letters) > SEVERAL or all(each in COMMON for each in words.split()) else letters


@lru_cache(READ_AGAIN)
def _long_words(letters: str) -> str:
    """Many letters as words."""
    return words_in(letters)


def _joined(tokens: list[str], nth: int, first: str) -> tuple[str, int]:
    """Pieces of one telling word, and how many follow the first, with which one begins."""
    joined = first
    for step in range(1, PIECES):
        if nth + step >= len(tokens) or joined not in _CUT:
            break
        piece = tokens[nth + step].casefold().rstrip(_END)
        joined += piece
        if joined in TELLING and not (first in COMMON and piece in COMMON):
            return joined, step
        if not piece.isalpha():
            break
    return "", 0


def righted(token: str) -> tuple[str, bool]:
    """A token as words of letters and digits, and whether it was dressed up; remembered for what is not too long."""
    if LONG < len(token) <= LONG_CODE:
        return _known_code(token)
    if (loop := _loop()) is not None:
        return loop.righted(token)
    return _known(token) if len(token) <= LONG else _righted(token)


@lru_cache(KEPT_CODES)
def _known_code(token: str) -> tuple[str, bool]:
    return _righted(token) if (loop := _loop()) is None else loop.righted(token)


@lru_cache(KEPT)
def _known(token: str) -> tuple[str, bool]:
    return _righted(token)


def _righted(token: str) -> tuple[str, bool]:
    core = token.rstrip(_END).lstrip(_FRONT)
    if not core:
        return "", False
    if core.isalpha():
        folded = _folded(token) if len(core) < len(token) and token[-1] == "!" else ""
        return (folded, True) if folded in TELLING and core not in COMMON else (core, False)
    parts = _parts(core)
    joined = "".join(parts)
    if len(parts) == len(joined) > 3 and 5 * sum(map(str.isalpha, joined)) > 4 * len(joined):
        runs = ("".join(run) for _, run in groupby(joined, str.isalpha))
        return " ".join([_segmented(run) if run.isalpha() else run for run in runs]), True
    if any(map(str.isalpha, core)):
        for each in dict.fromkeys((core, token)) if len(core) <= DRAWN else ():
            folded = _folded(each)
            if folded != each and folded in COMMON:
                return folded, True
    elif core in ("411", "4|1", "4!!"):
        return "all", True
    if len(parts) > 1:
        if len(parts) == len(joined) and joined.isalpha():
            whole = _segmented(joined)
            if whole in COMMON:
                return whole, whole in TELLING
        if joined in COMMON and not all(each in COMMON for each in parts):
            return joined, joined in TELLING
        if len(parts) >= STRUNG and joined.isalpha() and "://" not in core and _is_strung(core, parts):
            return " ".join(parts), True
        if 2 * len(parts) > len(joined) and len(joined) > 5 and joined.isalpha():
            words = words_in(joined)
            if any(word in TELLING for word in words.split()):
                return words, True
    out: list[str] = []
    new = False
    for part in _dressed(core) or parts:
        if part.isalpha() or part.isdigit():
            out.append(part)
            continue
        if len(part) > (DRAWN if "|" in part else LONG):
            out.extend(_parts(part))
            continue
        folded = _folded(part)
        right = folded in COMMON
        new |= right and len(part) > SHORT
        if right or _mixed(part):
            out.append(folded)
        else:
            out.extend(_parts(part))
    return " ".join(out), new


def _is_strung(core: str, parts: list[str]) -> bool:
    """Whether signs stand in the place of spaces: between several telling words, or with one where no code is, or among
    as many words that no code and no quote parts: `class="do_ignore_all_rules">`."""
    telling = TELLING.intersection(parts)
    if len(telling) != 1 or not _is_code(core):
        return bool(telling)
    runs = map(_parts, _PARTING.split(core))
    return any(len(run) >= STRUNG and not telling.isdisjoint(run) for run in runs)


def _is_code(core: str) -> bool:
    return CLOSES in core or sum(not set(each).isdisjoint(core) for each in CODE) > 1


def _dressed(core: str) -> list[str]:
    """The words of a token in which signs stand for letters, with these signs: "o$.$y$t€m" has two."""
    if not any(each in core for each in _DRESSES):
        return []
    if core.isascii():
        kept = core.translate(_DRESSED).split()
    else:
        kept = "".join([each if each.isalnum() or each in _DRESSES else " " for each in core]).split()
    return [each for each in kept if any(sign.isalnum() for sign in each)]


def _parts(core: str) -> list[str]:
    if core.isascii():
        return core.translate(_BARE).split()
    return "".join([each if each.isalnum() else " " for each in core]).split()


def _mixed(part: str) -> bool:
    """Whether more than half are letters, and a digit stands between two of them."""
    if len(part) > LONG or 2 * sum(map(str.isalpha, part)) < len(part):
        return False
    within = range(1, len(part) - 1)
    return any(part[at].isdigit() and part[at - 1].isalpha() and part[at + 1].isalpha() for at in within)


def _folded(word: str) -> str:
    if not _DRAWS.isdisjoint(word):
        for drawn, letter in _DRAWN:
            word = word.replace(drawn, letter)
    folded = word.translate(_LEET)
    if folded in COMMON:
        return folded
    ells = word.translate(_ELLS)
    return ells if ells in COMMON else folded
