"""Entities of a page, "&amp;" or "&#38;", undone as `html.unescape` does it. A text may have thousands of them."""

from __future__ import annotations

import html
import string
from functools import cache
from html.entities import html5

_OPEN = {name: said for name, said in html5.items() if not name.endswith(";")}  # which end where they like
_LONGEST, _BEGINS = max(map(len, _OPEN)), frozenset(name[:2] for name in _OPEN)
_HEX = string.hexdigits


def unescaped(entity: str) -> str:
    """What an entity says, from its sign to a semicolon at most, with what is behind it; itself if it is none."""
    name = entity[1:]
    if (said := html5.get(name)) is not None:
        return said
    if name.startswith("#"):
        return _numbered(entity, name)
    for size in range(_LONGEST if name[:2] in _BEGINS else 0, 1, -1):
        if (said := _OPEN.get(name[:size])) is not None:
            return said + name[size:]
    return entity


def _numbered(entity: str, name: str) -> str:
    hexadecimal = name[1:2] in ("x", "X")
    digits = name[2:] if hexadecimal else name[1:]
    rest = digits.lstrip(_HEX if hexadecimal else string.digits)
    number = digits[: len(digits) - len(rest)]
    return _character(int(number, 16 if hexadecimal else 10)) + rest.removeprefix(";") if number else entity


def _character(code: int) -> str:
    if 0x20 <= code < 0x7F or 0xA0 <= code < 0xD800:
        return chr(code)
    if code < 0xA0:
        return _control(code)
    if code < 0xE000 or code > 0x10FFFF:
        return "\ufffd"
    return "" if 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE else chr(code)


@cache
def _control(code: int) -> str:
    return html.unescape(f"&#{code};")
