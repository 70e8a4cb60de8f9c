"""The quick look at a text before it is judged: whether there are words in it at all.

An attack is said in words. What holds too few of them to say anything is not judged: numbers, dates, ids, an e-mail
address of a person, a link without a query. Each has a bound, so that nothing can be written in it: no letters in at
most 24 characters (codes of numbers spell at most a dozen letters in them), runs of at most 4 letters in ids of at most
20, two words before and two in each label behind the ``@``, three words in a link's path. Words by themselves ("Anna",
"ignore") are not wordless: several fields of one record may say together what none says alone. Only where a record is
looked at in a hurry, short names and ids are left out (`SILENT`), of which no word has a kind in any language, with
its accents or without, and in which no text is coded.
"""

from __future__ import annotations

import binascii
import re
import unicodedata
from base64 import b32decode
from collections.abc import Mapping
from functools import cache
from typing import Any

import re2

from circuit_script.judgment import intake
from circuit_script.judgment.compiled import SILENCE, Silence
from circuit_script.judgment.english import TELLING
from circuit_script.judgment.words import has_kind, with_kinds

LONGEST = 120
NUMBER = 24  # characters of a value without letters
NESTED, MANY = 4, 1_000  # how deep a record is, and how many values it has, that is read in a hurry
LONGEST_ID = 24  # characters of a record's own id

# Python's own expressions cost a twentieth of RE2's here. At each character there is one way to go on, and of those a
# text has at most LONGEST.
_WORD = "[A-Za-z0-9]{1,24}"
_LABEL = f"{_WORD}(?:-{_WORD})?"
_HOST = rf"{_LABEL}(?:\.{_LABEL}){{1,3}}"
_SIGNS = re.compile(rf"[^A-Za-z]{{0,{NUMBER}}}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.,]{4,20}(?:Z|UTC| ?[+-][0-9:]{2,6})?")
_UUID = re.compile(r"[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}")
_MAIL = re.compile(rf"{_WORD}(?:[._+-]{_WORD})?@{_HOST}")
_LINK = re.compile(rf"https?://{_HOST}(?::[0-9]{{1,5}})?(?:[/_.-]{_WORD}){{0,3}}/?")
_ID = re.compile(r"[A-Za-z]{0,3}[-_]?[0-9]{1,17}|(?:[A-Za-z_-]{0,4}[0-9]){3,20}[A-Za-z_-]{0,4}")
_ID_LONGEST = 20
_BARE = re.compile("|".join(f"(?:{each.pattern})" for each in (_SIGNS, _DATE, _UUID)))


def is_wordless(text: str) -> bool:
    """Whether nothing is said in a text."""
    if (loop := _loop()) is None or type(text) is not str:
        return _is_wordless(text)
    return loop.wordless(text)


def _is_wordless(text: str) -> bool:
    if len(text) > LONGEST or not text.isascii():
        return False
    if text.isalpha():
        return False
    if "@" in text:
        return _MAIL.fullmatch(text) is not None
    if "://" in text:
        return _LINK.fullmatch(text) is not None
    if len(text) <= _ID_LONGEST and _ID.fullmatch(text) is not None:
        return True
    return _BARE.fullmatch(text) is not None


_MIXED = re.compile("(?:[a-z]{0,8}[A-Z0-9]){5,36}[a-z]{0,8}")  # letters and digits as they are drawn for an id
_NAMES = re.compile(
    r"[A-Z]{2}|[a-z]{3,10}(?:[_-][a-z]{3,10})?"
    r"|(?:[0-9]{1,6} )?[A-Z][a-z]{2,14}(?:[ '&-]{1,3}[A-Z][a-z]{1,14}){0,2}"
)
_HEX = re.compile("[0-9A-Fa-f]+")
_ACCENTED = re.compile("[A-Za-z\u00c0-\u024f' &-]+")  # each letter one character
_ACCENTS = dict.fromkeys(range(0x300, 0x370))
_SILENT_KINDS = frozenset({int, float, bool, type(None)})
# Digits as the letters that they stand for; l, i and 1 are one.
_FOLDED = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789l", b"abcdefghijkimnopqrstuvwxyzoizeasgtbgi")
REMEMBERED, REMEMBERED_LONGEST = 16_384, 40


class _Silent(dict[str, bool]):
    """Of each value of letters that was met whether it says nothing: those come again."""

    def __missing__(self, text: str) -> bool:
        silent = _is_silent(text)
        if len(text) <= REMEMBERED_LONGEST and text[-1:].isalpha():
            if len(self) >= REMEMBERED:
                self.clear()
            self[text] = silent
        return silent


SILENT: Mapping[str, bool] = _Silent()
"""Of a short value whether it says nothing, also beside others: one without words, an id of letters and digits, or up
to three words of which none has a kind in any language ("Anna Miller", "Texas")."""


def _is_silent(text: str) -> bool:
    if len(text) > LONGEST:
        return False
    if not text.isascii():
        return _is_name_with_accents(text)
    if "@" in text or "://" in text:
        return _is_wordless(text)
    if not text[-1:].isalpha() and _is_wordless(text):
        return True
    if len(text) >= 12 and text.isalnum() and not text.istitle():
        return _is_mixed(text)
    if _NAMES.fullmatch(text) is not None:
        return not has_kind(text.lower())
    return _is_wordless(text)


def _is_name_with_accents(text: str) -> bool:
    """Whether it is a name in Latin letters that has no kind as it is written, and none without its accents."""
    if len(text) > REMEMBERED_LONGEST or _ACCENTED.fullmatch(text) is None:
        return False
    bare = unicodedata.normalize("NFD", text).translate(_ACCENTS)
    if not bare.isascii() or _NAMES.fullmatch(bare) is None:
        return False
    return not (has_kind(bare.lower()) or has_kind(text.lower()))


def _is_mixed(text: str) -> bool:
    """Whether letters and digits take turns as in an id that was drawn, spell no word that attacks need, and are no
    code of a text."""
    if not 12 <= len(text) <= 36 or _MIXED.fullmatch(text) is None:
        return False
    return not _telling().Match(text.encode().translate(_FOLDED)) and not _is_coded(text)


def _is_coded(text: str) -> bool:
    """Whether letters and digits are a text in base64, base32 or base 16: of drawn ones, one in thousands is."""
    whole = text[: len(text) - (len(text) % 4 == 1)]
    if _is_text(binascii.a2b_base64(whole + "=" * (-len(whole) % 4))):
        return True
    if _HEX.fullmatch(text) is not None:
        return _is_text(bytes.fromhex(text[: len(text) // 2 * 2]))
    if not (text.isupper() or text.islower()):
        return False
    try:
        return _is_text(b32decode(text[: len(text) // 8 * 8], casefold=True))
    except binascii.Error:
        return False


def _is_text(data: bytes) -> bool:
    return data.isascii() or len(data.decode("utf-8", "ignore").encode()) == len(data)


def _folded() -> list[str]:
    """Words that attacks need, with i for l."""
    return sorted({word.replace("l", "i") for word in TELLING})


@cache
def _telling() -> re2.Set:
    words = re2.Set.SearchSet()
    words.Add("|".join(_folded()))
    words.Compile()
    return words


def said_in(record: dict[str, Any]) -> list[str] | None:
    """The values of a record in which something could be said; None where that takes a closer look: odd names of
    fields, values nested deep, very many, or of other types than JSON has."""
    if (loop := _loop()) is None or type(record) is not dict:
        return _said_in(record)
    return loop.said(record)


@cache
def _loop() -> Silence | None:
    """The same in one compiled loop, where there is one."""
    if SILENCE is None:
        return None
    bounds = (
        LONGEST,
        NUMBER,
        _ID_LONGEST,
        REMEMBERED_LONGEST,
        LONGEST_ID,
        intake.LONG_KEY,
        NESTED,
        MANY,
        intake.CHARACTERS,
    )
    loop: Silence = SILENCE.Silence(bounds, *with_kinds(), _folded(), _FOLDED, SILENT, _is_mixed)
    return loop


def _said_in(record: Mapping[str, Any]) -> list[str] | None:
    said: list[str] = []
    if not _look_into(record, said, NESTED) or len(said) > MANY:
        return None
    return said if sum(map(len, said)) <= intake.CHARACTERS else None


def _look_into(record: Mapping[str, Any], said: list[str], depth: int) -> bool:
    for name, value in record.items():
        if not intake.is_usual(name):
            return False
        kind = type(value)
        if kind is str:
            if value and not (depth == NESTED and name == "id" and is_id(value)) and not SILENT[value]:
                said.append(value)
        elif kind not in _SILENT_KINDS and not _is_plain(value, kind, said, depth):
            return False
    return True


def _is_plain(value: Any, kind: type, said: list[str], depth: int) -> bool:
    """Whether a value that is neither a text nor a number is one of JSON, and not nested too deep; its texts are added
    to ``said``."""
    if not depth:
        return False
    if kind is dict:
        return _look_into(value, said, depth - 1)
    if kind is not list:
        return False
    for each in value:
        kind = type(each)
        if kind is dict:
            if depth < 2 or not _look_into(each, said, depth - 2):
                return False
        elif kind is str:
            if each and not SILENT[each]:
                said.append(each)
        elif kind not in _SILENT_KINDS and not _is_plain(each, kind, said, depth - 1):
            return False
    return True


def is_id(text: str) -> bool:
    """Whether a record's own id is short and has no sign in it that could part words."""
    return len(text) <= LONGEST_ID and text.isascii() and text.isalnum()
