"""Words that were taken apart or spelled with digits and signs, put right: "i g n o r e", "ig-nore", "1gn0r3"."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import groupby, pairwise

import numpy as np
import re2
from numpy.typing import NDArray

from circuit_script.judgment.english import COMMON, TELLING, words_in

_SOLID = re.compile(r"\S+")  # one class, so it takes linear time
_LEET = str.maketrans("013457@$!|+€8962", "oieastasiitebggz")
_EYES = str.maketrans("1!|", "lll")
_DRAWN = (
    ("|\\|", "n"), ("|\\/|", "m"), ("/\\/", "n"), ("|_|", "u"), ("|-|", "h"), ("\\/\\/", "w"), ("\\/", "v"),
    ("/\\", "a"), ("|3", "b"), ("|<", "k"), ("|)", "d"), ("|=", "f"), ("()", "o"), ("[]", "o"), ("|2", "r"),
    ("|*", "p"), ("|>", "p"), ("><", "x"),
)  # fmt: skip
MOST = 8 * 1024  # characters that are put right, of a longer text
CHUNK = 512
STRUNG = 4  # words that signs hold together
SEVERAL = 12  # letters without a space that are more than one word, known or not
KEPT = 4096  # short words whose right form is remembered
LONG = 20  # characters of a word; what is longer is a code
MANY = 2  # words put right; where there are more, the rest of the digits in words are letters, too
_DRESSES = "@$€|+!"
_BARE = {code: " " for code in range(128) if not chr(code).isalnum()}
_DRESSED = {code: " " for code in _BARE if chr(code) not in _DRESSES}
_SURE = frozenset((2, 3, 6, 7))  # of the signs, those that telling words have
_END = "!.,?;:)\"'"
_FRONT = "(\"'"


@dataclass(frozen=True, slots=True)
class Spelling:
    """The text with words put right; ``words`` are each with its first and last place, exclusive, in the wide text."""

    words: tuple[tuple[str, int, int], ...]
    size: int

    @property
    def text(self) -> str:
        return " ".join(word for word, _, _ in self.words)

    def places(self) -> NDArray[np.int64]:
        """Of each character its place in the wide text, told by share within a word, and one more for the end."""
        sizes = np.array([len(word) + 1 for word, _, _ in self.words], np.int64)  # with the space behind it
        starts = np.array([start for _, start, _ in self.words], np.int64)
        ends = np.array([end for _, _, end in self.words], np.int64)
        spaces = np.cumsum(sizes) - 1
        within = np.arange(int(sizes.sum())) - np.repeat(spaces + 1 - sizes, sizes)
        found = np.repeat(starts, sizes) + np.repeat(ends - starts, sizes) * within // np.repeat(sizes - 1, sizes)
        found[spaces] = np.where(ends < self.size, ends, np.maximum(ends - 1, 0))
        found[-1:] = self.size
        return found


@cache
def _signs() -> re2.Set:
    """What a text has in which words may have to be put right: letters apart, digits in words, telling words cut."""
    options = re2.Options()
    options.max_mem = 64 << 20
    signs = re2.Set.SearchSet(options)
    signs.Add(r"(?:^|[^\pL\pN\pM])[\pL\pN](?:[^\pL\pN\pM]{1,3}[\pL\pN]){3}(?:[^\pL\pN\pM]|$)")
    signs.Add(r"[a-z][0134578$!|+]+[a-z]")
    signs.Add(r"\b(?:" + "|".join(sorted(_leet_ends())) + ")")
    signs.Add(r"[a-z]@[a-z]+(?:[^a-z0-9.@_\-]|$)|(?:^| )@(?:ll|nd|ct|s|n)\b")
    signs.Add(r"\|[\\/_<)>\-=*23]+[a-z0-9]|[a-z]/\\|/\\[a-z]|[a-z]\\/|\\/[a-z]|[a-z]\(\)[a-z]")
    signs.Add(r"[a-z]{2,}(?:[_.\-/+,;:|~*]{1,2}[a-z]{2,}){3}")
    whole: set[str] = set()
    broken: set[str] = set()
    for word in TELLING:
        for cut in range(2, len(word) - 1):
            first, rest = word[:cut], word[cut : cut + 2]
            (whole if first in COMMON else broken).add(f"{first}@{rest}")
    signs.Add(r"\b(?:" + "|".join(sorted(each.replace("@", r"(?: |[^\pL\pN ]{1,2} ?)") for each in broken)) + ")")
    signs.Add(r"\b(?:" + "|".join(sorted(each.replace("@", r"[^\pL\pN ]{1,2} ?") for each in whole)) + ")")
    signs.Compile()
    return signs


def _leet_ends() -> set[str]:
    """Telling words whose first letter alone is a digit or a sign."""
    first = {"i": "[1!|]", "o": "0", "e": "3", "a": "[4@]", "s": r"[5$]", "t": r"[7+]"}
    return {first[word[0]] + word[1:4] for word in COMMON if word[0] in first and len(word) > 3} | {"4ll", "@ll", "411"}


def misspelled(plain: str) -> bool:
    """Whether words of a text may have to be put right."""
    return bool(_signs().Match(plain))


def respelled(plain: str, wide: str) -> Spelling | None:
    """The words of a text put right; None if they are."""
    if not misspelled(plain):
        return None
    chunks = _chunks(wide)
    if len(wide) > CHUNK:
        if not any(_words(wide, [each])[1] for each in chunks):
            return None
        if len(wide) <= MOST:
            chunks = [(0, len(wide))]
    words, changed = _words(wide, chunks)
    if not changed or not words:
        return None
    if changed > MANY:
        words = [(_dense(word), start, end) for word, start, end in words]
    return Spelling(tuple(words), len(wide))


def _words(wide: str, chunks: list[tuple[int, int]]) -> tuple[list[tuple[str, int, int]], int]:
    """The words of these parts of a text, and how many of them had to be put right."""
    tokens = [
        (each.group(), each.start(), each.end()) for start, end in chunks for each in _SOLID.finditer(wide, start, end)
    ]
    words: list[tuple[str, int, int]] = []
    changed = 0
    nth = 0
    while nth < len(tokens):
        token, start, end = tokens[nth]
        if len(token) == 1:
            last = nth
            while last < len(tokens) and len(tokens[last][0]) == 1:
                last += 1
            spelled = _spelled(tokens[nth:last])
            if spelled:
                words.extend(spelled)
                changed += 1
            else:
                words.extend((each.casefold(), at, to) for each, at, to in tokens[nth:last] if each.isalnum())
            nth = last
            continue
        small = token.casefold()
        if small.isalpha():
            joined, used = _joined(tokens, nth, small) if small.isascii() else ("", 0)
            if used:
                words.append((joined, start, tokens[nth + used][2]))
                changed += 1
                nth += used + 1
            else:
                words.append((small, start, end))
                nth += 1
            continue
        right, new = _known(small) if len(small) <= LONG else _righted(small)
        if not new and small[-1:] in "-_." and nth + 1 < len(tokens):  # a word that goes on in the next line
            follower = tokens[nth + 1][0].casefold().rstrip(_END)
            if small[:-1] + follower in TELLING and not {small[:-1], follower} <= COMMON:
                words.append((small[:-1] + follower, start, tokens[nth + 1][2]))
                changed += 1
                nth += 2
                continue
        changed += new
        done, span = 0, end - start
        for word in right.split():
            done += len(word) + 1
            first = start + span * (done - len(word) - 1) // (len(right) + 1)
            words.append((word, first, start + span * done // (len(right) + 1)))
        nth += 1
    return words, changed


def _dense(word: str) -> str:
    """A word of a text that is full of digits for letters: short numbers are words, and no digit in a word is one."""
    if word.isalpha():
        return word
    folded = _folded(word) if len(word) < 4 or not word.isdigit() else word
    if folded in COMMON:
        return folded
    return folded if len(word) < LONG and 2 * sum(each.isalpha() for each in word) >= len(word) else word


def _chunks(wide: str) -> list[tuple[int, int]]:
    """The parts of a text that have signs, the surest first if there are many; by their place."""
    if len(wide) <= CHUNK:
        return [(0, len(wide))]
    found: list[tuple[int, int, int]] = []
    start = 0
    while start < len(wide):
        end = wide.find(" ", start + CHUNK, start + CHUNK + 64)
        end = end if end > 0 else start + CHUNK
        signs = _signs().Match(wide[start:end].casefold().encode("utf-8", "replace").decode()) or ()
        if signs:
            found.append((-sum(each in _SURE for each in signs), start, min(end, len(wide))))
        start = end
    return sorted((start, end) for _, start, end in sorted(found)[: MOST // CHUNK])


def _spelled(tokens: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Single letters as words; a gap that is wider than most ends one."""
    letters = [each for each in tokens if each[0].isalnum()]
    if len(letters) < 4 or sum(each[0].isalpha() for each in letters) < len(letters) // 2:
        return []
    gaps = [after[1] - before[2] for before, after in pairwise(letters)]
    usual = min(gaps)
    words: list[tuple[str, int, int]] = []
    start = 0
    for place in range(1, len(letters) + 1):
        if place == len(letters) or gaps[place - 1] > usual:
            part = letters[start:place]
            _cut("".join(each[0] for each in part).casefold(), part[0][1], part[-1][2], words)
            start = place
    return words


def _cut(letters: str, start: int, end: int, words: list[tuple[str, int, int]]) -> None:
    done = 0
    folded = letters if letters.isalpha() else _folded(letters)
    for word in _segmented(folded).split():
        at = start + (end - start) * done // max(len(folded), 1)
        done += len(word)
        words.append((word, at, start + (end - start) * done // max(len(folded), 1)))


def _segmented(letters: str) -> str:
    """Letters as words: several only if all are known, or if these are too many for one."""
    if not letters.isascii():
        bare = "".join(each for each in unicodedata.normalize("NFD", letters) if not unicodedata.combining(each))
        letters = bare if bare.isascii() else letters
    if letters in COMMON or not letters.isascii():
        return letters
    words = words_in(letters)
    return words if len(letters) > SEVERAL or all(each in COMMON for each in words.split()) else letters


def _joined(tokens: list[tuple[str, int, int]], nth: int, first: str) -> tuple[str, int]:
    """Pieces of one telling word, and how many follow the first."""
    if first in COMMON and first not in ("i", "in", "for", "over", "by", "pass", "me", "con"):
        return "", 0
    joined = first
    for step in range(1, 5):
        if nth + step >= len(tokens) or len(joined) > 14:
            break
        piece = tokens[nth + step][0].casefold().rstrip(_END)
        joined += piece
        if joined in TELLING and not (first in COMMON and piece in COMMON):
            return joined, step
        if not piece.isalpha():
            break
    return "", 0


def _righted(token: str) -> tuple[str, bool]:
    """A token as words of letters and digits, and whether it was dressed up."""
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
    if any(each.isalpha() for each in core):
        for each in dict.fromkeys((core, token)):
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
        if len(parts) >= STRUNG and joined.isalpha() and "://" not in core and not TELLING.isdisjoint(parts):
            return " ".join(parts), True  # signs in the place of spaces
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
        folded = _folded(part)
        right = folded in COMMON
        new |= right
        if right or _mixed(part):
            out.append(folded)
        else:
            out.extend(_parts(part))
    return " ".join(out), new


@lru_cache(KEPT)
def _known(token: str) -> tuple[str, bool]:
    return _righted(token)


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
    if 2 * sum(each.isalpha() for each in part) < len(part) or len(part) > LONG:
        return False
    within = range(1, len(part) - 1)
    return any(part[at].isdigit() and part[at - 1].isalpha() and part[at + 1].isalpha() for at in within)


def _folded(word: str) -> str:
    if "|" in word or "\\" in word or "(" in word or "[" in word or "/" in word or ">" in word:
        for drawn, letter in _DRAWN:
            word = word.replace(drawn, letter)
    ells = word.translate(_EYES).translate(_LEET)
    folded = word.translate(_LEET)
    if folded not in COMMON and ells in COMMON:
        return ells
    return folded
