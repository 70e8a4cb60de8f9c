"""What a text has in which words may have to be put right, and the parts of it that do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache

import re2

from circuit_script.judgment.english import COMMON, TELLING
from circuit_script.judgment.rules import MEMORY

MOST = 8 * 1024  # characters that are put right, of a longer text
CHUNK = 512
AROUND = 256  # characters before and behind it
TO_SPACE = 64  # characters in which its begin and its end look for a space
_SURE = frozenset((2, 3, 6, 7))  # of the signs, those that telling words have
_STRINGS = 5  # the one of words that signs hold together


def misspelled(plain: str) -> bool:
    """Whether words of a text may have to be put right. What is seen in a beginning that ends before a space is in the
    whole, too."""
    end = plain.find(" ", CHUNK, 2 * CHUNK) if len(plain) > 2 * CHUNK else -1
    return (end > 0 and bool(signs().Match(plain[:end]))) or bool(signs().Match(plain))


@cache
def signs() -> re2.Set:
    """What a text has in which words may have to be put right: letters apart, digits in words, telling words cut."""
    options = re2.Options()
    options.max_mem = MEMORY
    every = re2.Set.SearchSet(options)
    every.Add(r"(?:^|[^\pL\pN\pM])[\pL\pN](?:[^\pL\pN\pM]{1,3}[\pL\pN]){3}(?:[^\pL\pN\pM]|$)")
    every.Add(r"[a-z][0134578$!|+]+[a-z]")
    every.Add(r"\b(?:" + "|".join(sorted(_leet_ends())) + ")")
    every.Add(r"[a-z]@[a-z]+(?:[^a-z0-9.@_\-]|$)|(?:^| )@(?:ll|nd|ct|s|n)\b")
    every.Add(r"\|[\\/_<)>\-=*23]+[a-z0-9]|[a-z]/\\|/\\[a-z]|[a-z]\\/|\\/[a-z]|[a-z]\(\)[a-z]")
    every.Add(r"[a-z]{2,}(?:[_.\-/+,;:|~*]+[a-z]{2,}){3}")
    whole: set[str] = set()
    broken: set[str] = set()
    for word in TELLING:
        for cut in range(2, len(word) - 1):
            first, rest = word[:cut], word[cut : cut + 2]
            (whole if first in COMMON else broken).add(f"{first}@{rest}")
    every.Add(r"\b(?:" + "|".join(sorted(each.replace("@", r"(?: |[^\pL\pN ]+ ?)") for each in broken)) + ")")
    every.Add(r"\b(?:" + "|".join(sorted(each.replace("@", r"[^\pL\pN ]+ ?") for each in whole)) + ")")
    every.Compile()
    return every


def _leet_ends() -> set[str]:
    """Telling words whose first letter alone is a digit or a sign."""
    first = {"i": "[1!|]", "o": "0", "e": "3", "a": "[4@]", "s": r"[5$]", "t": r"[7+]"}
    return {first[word[0]] + word[1:4] for word in COMMON if word[0] in first and len(word) > 3} | {"4ll", "@ll", "411"}


def _cuts(wide: str) -> Iterator[tuple[int, int]]:
    """The parts of a text, cut at a space where there is one."""
    start = 0
    while start < len(wide):
        end = wide.find(" ", start + CHUNK, start + CHUNK + TO_SPACE)
        end = end if end > 0 else start + CHUNK
        yield start, min(end, len(wide))
        start = end


def around(wide: str, odd: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """These parts of a text with what stands around them; those that meet are one."""
    parts: list[tuple[int, int]] = []
    for start, end in odd:
        start, end = max(start - AROUND, 0), min(end + AROUND, len(wide))
        start = max(wide.find(" ", start, start + TO_SPACE), start) if start else 0
        end = max(wide.find(" ", end, end + TO_SPACE), end)
        if parts and start <= parts[-1][1]:
            start, _ = parts.pop()
        parts.append((start, end))
    return parts


def odd_parts(wide: str) -> list[tuple[int, int]]:
    """The parts of a text that have signs, by their place; of a long one as many as are read, the surest."""
    found: list[tuple[int, int, int]] = []
    for start, end in _cuts(wide):
        if its := signs_in(wide[start:end].casefold()):
            found.append((-sum(each in _SURE for each in its), start, end))
    if len(wide) > MOST:
        found = sorted(found)[: MOST // CHUNK]
    return sorted((start, end) for _, start, end in found)


def signs_in(text: str) -> Sequence[int]:
    """The signs that a part of a text has, in lower case. Without a telling word nothing is said by words that signs
    hold together."""
    seen = text.encode("utf-8", "replace")
    found: Sequence[int] = signs().Match(seen) or ()
    return found if found != [_STRINGS] or _telling().search(seen) else ()


@cache
def _telling() -> re2._Regexp:
    return re2.compile(r"(?:^|[^\pL\pN])(?:" + "|".join(sorted(TELLING)) + r")(?:[^\pL\pN]|$)")
