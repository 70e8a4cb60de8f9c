"""How much of a text is written in what only looks like its letters, as one number: a disguise that says nothing yet
says that something is to go unseen."""

from __future__ import annotations

import re
import secrets
from functools import cache

from circuit_script.judgment.compiled import TOKENS, Shares
from circuit_script.judgment.page import Page, View

# The share of a text from which it counts as disguised: of characters that look like others and of such that are as
# wide as a Chinese one, and of words spelled with digits and signs or letter by letter.
ALIKE, WIDE, SPELLED = 0.02, 0.1, 0.2
WIDELY = 0.5  # of what the others say: there are keyboards that write so
_WORD = re.compile(r"\w+")
_ASCII = bytes(range(128))
_APART = bytes(each if each >= 128 or _WORD.match(chr(each)) else 32 for each in range(256))  # the same, for ASCII


def disguise(page: Page) -> float:
    """From 0, nothing, to 1. What was decoded does not count: codes have honest uses."""
    said = _spelled(page.views[0])
    if page.hidden:
        size = max(len(page.views[0].plain), 1)
        alike, wide = page.hidden.get("homoglyph", 0), page.hidden.get("wide", 0)
        said = max(said, alike / size / ALIKE, min(wide / size / WIDE, 1.0) * WIDELY)
    return min(said, 1.0)


def _spelled(view: View) -> float:
    """From 0 to 1, how many of the words had to be put right."""
    if not view.loose:
        return 0.0
    right, words = put_right(view.loose, view.plain)
    return min(right / words / SPELLED, 1.0) if right else 0.0


def put_right(said: str, plain: str) -> tuple[int, int]:
    """How many words of what is said are not in the text as it is, and of how many."""
    return (_put_right if (loop := _loop()) is None else loop.put_right)(said, plain)


@cache
def _loop() -> Shares | None:
    """The same in a compiled loop, where there is one."""
    if TOKENS is None:
        return None
    loop: Shares = TOKENS.Shares(secrets.randbits(64))
    return loop


def _put_right(said: str, plain: str) -> tuple[int, int]:
    words = said.split()
    known, tokens = set(words), set(plain.split())
    other = known - tokens
    if other:
        other.difference_update(_runs(" ".join(tokens - known)))
    return sum(map(other.__contains__, words)), len(words)


def _runs(text: str) -> list[str]:
    """The letters and digits between others."""
    raw = text.encode("utf-8", "surrogatepass")
    if text.isascii() or raw.translate(None, _ASCII).decode("utf-8", "surrogatepass").isalnum():
        return raw.translate(_APART).decode().split()
    return _WORD.findall(text)
