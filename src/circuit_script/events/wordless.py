"""The quick look at a text before it is judged: whether there are words in it at all.

An attack is said in words. What holds too few of them to say anything is not judged: numbers, dates, ids, an e-mail
address of a person, a link without a query. Each has a bound, so that nothing can be written in it: no letters in at
most 24 characters (codes of numbers spell at most a dozen letters in them), runs of at most 4 letters in ids of at most
20, two words before and two in each label behind the ``@``, three words in a link's path. Words by themselves ("Anna",
"ignore") are never left out: several fields of one record may say together what none says alone.
"""

from __future__ import annotations

import re

LONGEST = 120

# Python's own expressions cost a twentieth of RE2's here. At each character there is one way to go on, and of those a
# text has at most LONGEST.
_WORD = "[A-Za-z0-9]{1,24}"
_LABEL = f"{_WORD}(?:-{_WORD})?"
_HOST = rf"{_LABEL}(?:\.{_LABEL}){{1,3}}"
_WORDLESS = re.compile(
    "|".join(
        (
            r"[^A-Za-z]{0,24}",
            r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.,]{4,20}(?:Z|UTC| ?[+-][0-9:]{2,6})?",
            r"[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}",
            rf"{_WORD}(?:[._+-]{_WORD})?@{_HOST}",
            rf"https?://{_HOST}(?::[0-9]{{1,5}})?(?:[/_.-]{_WORD}){{0,3}}/?",
        )
    )
)
_ID = re.compile(r"[A-Za-z]{0,3}[-_]?[0-9]{1,17}|(?:[A-Za-z_-]{0,4}[0-9]){3,20}[A-Za-z_-]{0,4}")
_ID_LONGEST = 20
_ODD = re.compile(r"[^A-Za-z0-9_\s.,;:!?'’\"()/&@+%€$£-]")
_LONG_WORD = 30


def is_wordless(text: str) -> bool:
    """Whether nothing is said in a text."""
    if len(text) > LONGEST or not text.isascii():
        return False
    if text.isalpha():
        return False
    if len(text) <= _ID_LONGEST and _ID.fullmatch(text) is not None:
        return True
    return _WORDLESS.fullmatch(text) is not None


def is_prose(text: str) -> bool:
    """Whether a text is plain words: no markup, no codes, nothing that is read in more than one way. Several such texts
    can be read together, as none of them can use up what is done to unmask another, or make its letters look usual."""
    return max(map(len, text.split()), default=0) <= _LONG_WORD and _ODD.search(text) is None
