"""Level 3: what is written in a code that a model reads and a filter does not, as views of its own.

Each code has a sign that one pass over the text looks for; only what has one is decoded, and only what then reads like
text is a view. All of it is bounded: by depth, by the characters that are decoded, by the number of views.
"""

from __future__ import annotations

import base64
import binascii
import html
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from itertools import islice

import numpy as np
import re2
from numpy.typing import NDArray

from circuit_script.judgment.canon import Canon, canonical
from circuit_script.judgment.english import COMMON, TELLING, words_in
from circuit_script.judgment.page import Offsets, View, once, token_spans

DEPTH = 3
DECODED = 64 * 1024
VIEWS = 24
PIECES = 500  # of one code in one text
ESCAPES = 4000
INFLATED = 16 * 1024
TURNED = 16 * 1024  # characters of a text that are read as a whole in another way
KEPT = 4096  # words of pig latin that are remembered
LONG = 32  # characters of a word of it
SHORT = 400  # characters of a text in which one word is enough
AROUND = 400  # characters on both sides of what was found, in long texts
FEW = 8  # pieces of one code that are views each; more are read as one
SHIFTS = 6  # shifts of the alphabet that are tried

Part = tuple[str, int, int]
"""A text, and from where to where it stands for characters of the wide form."""

_PERCENT = re.compile("(?:%[0-9a-fA-F]{2})+|%")  # this and the next take linear time: nothing comes again
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-]{8,}={0,2}")
_CODES = """
    .- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- -..- -.-- --..
    ----- .---- ..--- ...-- ....- ..... -.... --... ---.. ----. .-.-.- --..-- ..--.. ---...
"""
_SPOKEN = """
    alpha alfa bravo charlie delta echo foxtrot golf hotel india juliet juliett kilo lima mike november oscar papa
    quebec romeo sierra tango uniform victor whiskey whisky xray x-ray yankee zulu
"""
_HIGH = bytes(range(128, 256))
_DIGITS = "0123456789abcdefABCDEF"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_MORSE = dict(
    zip(
        _CODES.split(),
        _LETTERS + "0123456789.,?:",
        strict=True,
    )
)
_BRAILLE = str.maketrans("⠁⠃⠉⠙⠑⠋⠛⠓⠊⠚⠅⠇⠍⠝⠕⠏⠟⠗⠎⠞⠥⠧⠺⠭⠽⠵⠀⠂⠲⠦⠖⠒", _LETTERS + " ,.?!:")
_ALPHABET = _SPOKEN.split()
_IMAGED = sorted({each for each in TELLING if len(each) > 5} | {"the", "and", "you", "your", "with", "please", "this"})
_IMAGED_TOO = sorted({*_IMAGED, *(each for each in TELLING if len(each) == 5)})  # as rot13 and backwards


def _shift(by: int) -> dict[int, int]:
    turned = _LETTERS[by:] + _LETTERS[:by] if by < 26 else _LETTERS[::-1]
    return str.maketrans(_LETTERS + _LETTERS.upper(), turned + turned.upper())


@cache
def _shifted() -> dict[str, int]:
    """Frequent words in every Caesar shift, and in the alphabet backwards (26); with the shift that undoes it."""
    found: dict[str, int] = {}
    for by in range(1, 27):
        for word in _IMAGED_TOO if by == 13 else _IMAGED:
            image = word.translate(_shift(26 - by if by < 26 else 26))
            if image not in COMMON:
                found.setdefault(image, by)
    return found


@cache
def _mirrored() -> frozenset[str]:
    """Frequent words backwards, as they are and in rot13."""
    turned = [word.translate(_shift(13)) for word in _IMAGED_TOO]
    return frozenset(word[::-1] for word in (*_IMAGED_TOO, *turned)) - COMMON - {"dna", "siht"}


@cache
def _pigs() -> frozenset[str]:
    found: set[str] = set()
    for word in _IMAGED:
        first = next((at for at, each in enumerate(word) if each in "aeiouy"), 0)
        tails = [word[:first] + "ay"] if first else ["way", "yay", "ay", "hay"]
        found.update(word[first:] + tail for tail in tails)
    return frozenset(found) - COMMON


_DRESSED = ("turned", "kept", "direction", "unaccented")  # what is read like this is not dressed up once more

_SIGNS: dict[str, str] = {
    "base64": r"[a-z0-9][a-z0-9+/_\-]{15}|[a-z0-9+/]{6}={1,2}(?:[^a-z0-9]|$)",
    "hex": r"(?:(?:0x|\\x|%)?[0-9a-f]{2}[\s,:;\-]{0,2}){8}",
    "binary": r"(?:[01]{7,8}[\s,]{0,2}){4}",
    "numbers": r"(?:\d{1,3}[\s,;\-]{1,3}){6}",
    "morse": r"(?:[.\-_*]{1,6}[ /|]{1,3}){6}",
    "braille": r"[\x{2801}-\x{28ff}]{2}",
    "spelling alphabet": r"(?:\b(?:" + "|".join(_ALPHABET) + r")\b\W*){4}",
    "percent": r"%[0-9a-f]{2}[^%]{0,12}%[0-9a-f]{2}",
    "entities": r"&(?:#x?[0-9a-f]{1,6}|[a-z]{2,8}[0-9]{0,2};)",
    "backslash": r"\\(?:u\{?[0-9a-f]{4}|x[0-9a-f]{2}|[0-7]{3}|[nrt])",
    "quoted printable": r"=[0-9a-f]{2}[^=]{0,40}=[0-9a-f]{2}",
    "ascii85": r"<~",
}


@cache
def _signs() -> tuple[re2.Set, tuple[str, ...]]:
    options = re2.Options()
    options.max_mem = 64 << 20
    signs = re2.Set.SearchSet(options)
    names = [*_SIGNS, "shift", "mirror", "pig latin"]
    for each in _SIGNS.values():
        signs.Add(each)
    for words in (_shifted(), _mirrored(), _pigs()):
        signs.Add(r"\b(?:" + "|".join(sorted(words)) + r")\b")
    signs.Compile()
    return signs, tuple(names)


@cache
def _finder(name: str) -> re2._Regexp:
    return re2.compile(
        {
            "base32": rb"[A-Z2-7]{16,}={0,6}",
            "hex": rb"(?:(?:0x|\\x|%)?[0-9a-fA-F]{2}[\s,:;\-]{0,2}){8,}",
            "binary": rb"(?:[01]{7,8}[\s,]{0,2}){4,}",
            "numbers": rb"(?:\d{1,3}[\s,;\-]{1,3}){6,}\d{1,3}",
            "morse": rb"(?:[.\-_*]{1,6}[\s/|]{1,5}){6,}[.\-_*]{0,6}",
            "spelling alphabet": (r"(?i)(?:\b(?:" + "|".join(_ALPHABET) + r")\b\W*){4,}").encode(),
            "ascii85": rb"<~[!-uz\s]{5,}~>",
        }[name]
    )


@dataclass(slots=True)
class _Work:
    """What is found so far, and how much more may be."""

    views: list[View] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    left: int = DECODED

    def room(self, size: int) -> bool:
        return len(self.views) < VIEWS and size <= self.left


def views(canon: Canon, *, far: int = 0) -> list[View]:
    """Everything that is written in a text in another way; with ``far``, as in `canonical`, only what goes on for more
    characters without a space, and what is hidden in characters that may stand anywhere."""
    if far:
        canon = replace(canon, spelling=None)
    names = coded(canon.plain) if not far or max(map(len, canon.text.split()), default=0) > far else []
    if not (names or canon.readings or canon.spelling):
        return []
    work = _Work(seen={canon.plain})
    _look(canon, lambda: range(len(canon.text) + 1), "", 0, names, work)
    return work.views


def coded(plain: str) -> list[str]:
    """The codes of which a text has a sign."""
    signs, names = _signs()
    return [names[each] for each in sorted(signs.Match(plain) or ())]


def _look(canon: Canon, outer: Offsets, how: str, depth: int, names: list[str], work: _Work) -> None:
    """All readings of one text, which itself stands at ``outer`` in the original."""
    if canon.spelling and canon.loose not in work.seen and work.room(len(canon.loose)):
        work.seen.add(canon.loose)
        work.left -= len(canon.loose)
        places = _within(outer, canon.loose_offsets)
        work.views.append(View(_named("spelling", how), canon.loose, places, depth=depth))
    if depth >= DEPTH:
        return
    for each in canon.readings if how.partition(" ")[0] not in _DRESSED else ():
        _add(each.text, _within(outer, each.places), _named(each.how, how), depth + 1, work)
    found: list[Part] = []
    wide = once(canon.wide_offsets)
    for name in names:
        if name in _WHOLE:
            for called, parts in _WHOLE[name](canon.wide):
                _add_parts(parts, wide, outer, _named(called, how), depth + 1, work)
        elif name in _ESCAPES:
            parts = _ESCAPES[name](canon.wide)
            if parts:
                _add_parts(_in_place(canon.wide, parts), wide, outer, _named(name, how), depth + 1, work)
        elif name in _PIECES:
            pieces = list({part[0]: part for part in _PIECES[name](canon.wide)}.values())
            apart = [[part] for part in pieces] if len(pieces) <= FEW else [_fitting(pieces, work.left)]
            for parts in apart:
                if _add_parts(parts, wide, outer, _named(name, how), depth + 1, work):
                    found += parts
    found = _apart(found)
    if found and sum(end - start for _, start, end in found) < len(canon.wide) - 8:
        _add_parts(_in_place(canon.wide, found), wide, outer, _named("in place", how), depth + 1, work)


def _named(how: str, outer: str) -> str:
    return f"{how} in {outer}" if outer else how


def _fitting(parts: list[Part], left: int) -> list[Part]:
    """As many of these parts as there is room for, each in a line of its own."""
    fitting: list[Part] = []
    for text, start, end in parts:
        left -= len(text) + 1
        if left < 0:
            break
        fitting.append((f"{text}\n", start, end))
    return fitting


def _within(outer: Offsets, inner: Offsets) -> Offsets:
    def places() -> NDArray[np.int64]:
        around, at = outer(), np.asarray(inner(), np.int64)
        if isinstance(around, range):
            return np.minimum(at, len(around) - 1)
        return np.asarray(around, np.int64).take(at, mode="clip")

    return once(places)


def _add_parts(parts: list[Part], wide: Offsets, outer: Offsets, how: str, depth: int, work: _Work) -> bool:
    def at_all() -> NDArray[np.int64]:
        sizes = np.array([len(text) for text, _, _ in parts])
        starts = np.array([start for _, start, _ in parts])
        ends = np.array([end for _, _, end in parts])
        begins = np.cumsum(sizes) - sizes
        nth = np.arange(int(sizes.sum())) - np.repeat(begins, sizes)
        at = np.repeat(starts, sizes) + np.repeat(ends - starts, sizes) * nth // np.repeat(sizes, sizes)
        lasts = begins + sizes - 1
        at[lasts] = np.maximum(ends - 1, at[lasts])
        if how.startswith("reversed"):
            at = at[np.repeat(2 * begins + sizes - 1, sizes) - np.arange(len(at))]
        at = np.append(at, ends.max())
        places = wide()
        return at if isinstance(places, range) else np.asarray(places, np.int64).take(at)

    if not parts:
        return False
    return _add("".join(text for text, _, _ in parts), _within(outer, at_all), how, depth, work)


def _add(text: str, places: Offsets, how: str, depth: int, work: _Work) -> bool:
    if not work.room(len(text)):
        return False
    canon = canonical(text)
    if not canon.plain:
        return False
    if canon.plain in work.seen:
        return True
    work.seen.add(canon.plain)
    work.left -= len(text)
    work.views.append(
        View(how, canon.plain, _within(places, canon.offsets), canon.loose, _within(places, canon.loose_offsets), depth)
    )
    _look(canon, places, how, depth, coded(canon.plain), work)
    return True


def _apart(parts: list[Part]) -> list[Part]:
    """Parts that do not overlap, by their place."""
    kept: list[Part] = []
    for each in sorted(parts, key=lambda part: (part[1], -part[2])):
        if not kept or each[1] >= kept[-1][2]:
            kept.append(each)
    return kept


def _windows(spans: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """What is around these spans, in one where they meet."""
    starts, ends = np.array(spans, np.int64).reshape(-1, 2).T
    starts = np.maximum(starts - AROUND, 0)
    ends = np.maximum.accumulate(np.minimum(ends + AROUND, size))
    apart = np.flatnonzero(starts[1:] > ends[:-1])
    return [*zip(starts[[0, *(apart + 1)]].tolist(), ends[[*apart, -1]].tolist(), strict=True)] if spans else []


def _in_place(text: str, parts: list[Part]) -> list[Part]:
    """The text with these parts instead of what they were decoded from, as far as it is near them."""
    placed: list[Part] = []
    queue = iter([*parts, ("", len(text) + 1, len(text) + 1)])
    part = next(queue)
    for start, end in _windows([(first, last) for _, first, last in parts], len(text)):
        at = start
        while part[1] < end:
            placed += [(text[at : part[1]], at, part[1]), part]
            at = part[2]
            part = next(queue)
        placed += [(text[at:end], at, end), ("\n", end - 1, end)]
    return [each for each in placed if each[0]]


# --- codes of which a piece stands in the text --------------------------------------------------------------------


_PRINTED = " \n\r\t.,;:!?'\"-_/()<>{}[]=@#&*%+\\$|"
_ALNUM = (_LETTERS + _LETTERS.upper() + "0123456789").encode()
_PRINTS = _ALNUM + _PRINTED.encode()


def _readable(text: str) -> bool:
    """Whether most of it is letters and digits, and next to nothing does not print."""
    size = len(text)
    if size < 4:
        return False
    some = text if size < 4000 else text[:2000] + text[-2000:]
    if some.isascii():
        bare = some.encode()
        solid = len(bare) - len(bare.translate(None, _ALNUM))
        good = len(bare) - len(bare.translate(None, _PRINTS))
    else:
        good = sum(each.isprintable() or each in _PRINTED for each in some)
        solid = sum(each.isalnum() or unicodedata.category(each)[0] == "M" for each in some)
    return good >= 0.93 * len(some) and solid >= 0.55 * len(some)


def _said(data: bytes) -> str | None:
    """Bytes as text, if they are."""
    if data[:2] == b"\x1f\x8b" or data[:2] in (b"x\x01", b"x\x9c", b"x\xda", b"x^"):
        try:
            data = zlib.decompressobj(wbits=47).decompress(data, INFLATED)
        except zlib.error:
            return None
    try:
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            text = data.decode("utf-16")
        elif len(data) > 7 and len(data) % 2 == 0 and data[1::2].count(0) * 4 > len(data):
            text = data.decode("utf-16-le")
        else:
            text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if len(text) < 12 and not text.isascii():
        return None
    return text if _readable(canonical(text).plain if not text.isascii() else text) else None


def _ascii(text: str) -> bytes:
    """One byte for each character, so places stay."""
    return text.encode("ascii", "replace")


def _matches(name: str, text: str) -> Iterator[tuple[str, int, int]]:
    for each in islice(_finder(name).finditer(_ascii(text)), PIECES):
        yield each.group().decode(), each.start(), each.end()


def _base64(text: str) -> list[Part]:
    found: list[Part] = []
    runs: list[list[tuple[str, int, int]]] = []
    for each in _BASE64.finditer(text):
        piece = (each.group(), each.start(), each.end())
        last = runs[-1][-1] if runs else ("", 0, 0)
        follows = len(last[0]) > 15 and 0 < piece[1] - last[2] < 3 and text[last[2] : piece[1]].isspace()
        if follows and len(last[0]) % 4 == 0 and last[0][-1] != "=":
            runs[-1].append(piece)
        else:
            runs.append([piece])
    if len(runs) > PIECES:
        runs = sorted(runs, key=lambda run: run[0][1] - run[-1][2])[:PIECES]
    for run in runs:
        whole = _of_base64("".join(piece for piece, _, _ in run))
        if whole:
            found.append((whole, run[0][1], run[-1][2]))
        elif len(run) > 1:
            found.extend((said, start, end) for piece, start, end in run if (said := _of_base64(piece)))
    for code, start, end in _matches("base32", text):
        bare = code.rstrip("=")
        try:
            said = _said(base64.b32decode(bare + "=" * (-len(bare) % 8)))
        except binascii.Error:
            continue
        if said:
            found.append((said, start, end))
    return found


def _of_base64(piece: str) -> str | None:
    bare = piece.rstrip("=")
    if len(bare) % 4 == 1:
        bare = bare[:-1]
    if len(bare) < 16:
        if bare.isalpha() and (bare.islower() or bare.istitle() or bare.isupper()):
            return None
    elif bare.islower() or bare.isdigit():
        return None
    try:
        data = binascii.a2b_base64(bare.replace("-", "+").replace("_", "/") + "=" * (-len(bare) % 4))
    except binascii.Error:
        return None
    said = _said(data)
    if said and len(bare) < 16 and not all(each.isalpha() or each in " .,!?'" for each in said):
        return None
    return said


def _hex(text: str) -> list[Part]:
    found: list[Part] = []
    for piece, start, end in _matches("hex", text):
        digits = piece.replace("0x", "").replace("\\x", "").replace("%", "")
        data = bytes.fromhex("".join([each for each in digits if each.isalnum()]))
        said = _said(data) or _said(data.strip(_HIGH))  # what stood beside it can look like a part of it
        if said:
            found.append((said, start, end))
    return found


def _binary(text: str) -> list[Part]:
    found: list[Part] = []
    for piece, start, end in _matches("binary", text):
        groups = piece.replace(",", " ").split()
        bits = "".join(groups)
        if not all(len(each) in (7, 8) for each in groups):
            groups = [bits[at : at + 8] for at in range(0, len(bits) - 7, 8)]
        said = _said(bytes(int(each, 2) for each in groups))
        if said:
            found.append((said, start, end))
    return found


def _numbers(text: str) -> list[Part]:
    found: list[Part] = []
    for piece, start, end in _matches("numbers", text):
        codes = [int(each) for each in piece.replace(",", " ").replace(";", " ").replace("-", " ").split()]
        if all(9 <= each < 256 for each in codes) and max(codes) > 90:
            said = _said(bytes(codes))
            if said and sum(each.isalpha() or each == " " for each in said) > 0.8 * len(said):
                found.append((said, start, end))
        elif all(0 < each < 27 for each in codes):
            said = _worded("".join(_LETTERS[each - 1] for each in codes))
            if said:
                found.append((said, start, end))
    return found


def _worded(letters: str) -> str:
    """Letters that came without spaces, as words; nothing if there are none in it."""
    words = words_in(letters[:4000]) + letters[4000:]
    known = sum(len(each) for each in words.split() if len(each) > 2 and each in COMMON)
    return words if known * 2 > len(letters) else ""


def _morse(text: str) -> list[Part]:
    found: list[Part] = []
    for piece, start, end in _matches("morse", text):
        gaps = piece.replace("_", "-").replace("*", ".").replace("|", "/").replace("\n", " / ").replace("   ", " / ")
        words = ["".join(_MORSE.get(each, "?") for each in word.split()) for word in gaps.split("/")]
        said = " ".join(each for each in words if each)
        if " " not in said:
            said = words_in(said[:4000]) + said[4000:]
        if any(len(each) > 2 and each in COMMON for each in said.split()):
            found.append((said, start, end))
    return found


def _alphabet(text: str) -> list[Part]:
    found: list[Part] = []
    for piece, start, end in _matches("spelling alphabet", text):
        words: list[str] = []
        for group in "".join(each if each.isalnum() or each in "- " else "\n" for each in piece).split("\n"):
            letters = "".join(each[0] for each in group.casefold().split() if each[0].isalpha())
            if letters:
                words.append(letters if letters in COMMON else words_in(letters[:4000]))
        if words and all(len(each) == 1 for each in words):
            words = words_in("".join(words)[:4000]).split()
        found.append((" ".join(words), start, end))
    return found


def _ascii85(text: str) -> list[Part]:
    found: list[Part] = []
    for piece, start, end in _matches("ascii85", text):
        try:
            said = _said(base64.a85decode(piece, adobe=True))
        except ValueError:
            continue
        if said:
            found.append((said, start, end))
    return found


_PIECES: dict[str, Callable[[str], list[Part]]] = {
    "base64": _base64, "hex": _hex, "binary": _binary, "numbers": _numbers, "morse": _morse,
    "spelling alphabet": _alphabet, "ascii85": _ascii85,
}  # fmt: skip


# --- codes of single characters, undone where they stand ----------------------------------------------------------


def _unescaped(text: str, mark: str, read: Callable[[str], tuple[bytes | str, int]]) -> list[Part]:
    """What stands for other characters from a mark on. ``read`` says what, and how many characters it takes behind
    the mark (0: it is none). Bytes that follow each other are one text."""
    parts: list[Part] = []
    data, begin, end = b"", 0, -1
    place = text.find(mark)
    count = 0
    while place >= 0 and count < ESCAPES:
        count += 1
        what, size = read(text[place + 1 : place + 36])
        if data and (place != end or not isinstance(what, bytes) or not size):
            parts.append((data.decode("utf-8", "replace"), begin, end))
            data = b""
        if size:
            after = place + 1 + size
            if isinstance(what, bytes):
                begin = begin if data else place
                data += what
            elif what:
                parts.append((what, place, after))
            end = after
        place = text.find(mark, max(place + 1, end))
    if data:
        parts.append((data.decode("utf-8", "replace"), begin, end))
    return parts


_PAIRS = {high + low: bytes.fromhex(high + low) for high in _DIGITS for low in _DIGITS}


def _two_digits(text: str) -> tuple[bytes | str, int]:
    data = _PAIRS.get(text[:2])
    return (b"", 0) if data is None else (data, 2)


def _equals(text: str) -> tuple[bytes | str, int]:
    if text[:1] == "\n":
        return b"", 1
    return _two_digits(text)


_unescape = lru_cache(4096)(html.unescape)


def _entity(text: str) -> tuple[bytes | str, int]:
    end = text.find(";")
    if text[:1] == "#":
        size = 1 + (text[1:2] in ("x", "X"))
        while size < len(text) and text[size].isalnum() and text[size].isascii():
            size += 1
        said = _unescape("&" + text[:size])
        return (said, size + (text[size : size + 1] == ";")) if len(said) == 1 else ("", 0)
    said = _unescape("&" + text[: end + 1]) if end > 0 else ""
    return (said, end + 1) if (said and said[0] != "&") or said == "&" else ("", 0)


def _backslash(text: str) -> tuple[bytes | str, int]:
    kind, digits = text[:1], ""
    if kind in ("n", "r", "t"):
        return "\n", 1
    if kind == "x":
        what, size = _two_digits(text[1:])
        return what, size and 3
    if kind in ("u", "U"):
        if text[1:2] == "{":
            digits, closed, _ = text[2:10].partition("}")
            size = len(digits) + 3
            digits = digits if closed else ""
        else:
            size = 5 if kind == "u" else 9
            digits = text[1:size] if len(text) >= size else ""
    elif len(text) > 2 and text[:3].isdigit() and text[:3].isascii():
        return (bytes([int(text[:3], 8)]), 3) if max(text[:3]) < "8" and int(text[:3], 8) < 256 else (b"", 0)
    try:
        code = int(digits, 16) if digits.isalnum() else -1
    except ValueError:
        code = -1
    return (chr(code), size) if 0 <= code < 0x110000 else ("", 0)


def _percent(text: str) -> list[Part]:
    """The same as `_unescaped` with `_two_digits`, many at once."""
    parts: list[Part] = []
    left = ESCAPES
    for match in _PERCENT.finditer(text):
        start, end = match.span()
        if (number := min((end - start) // 3, left)) > 0:
            data = bytes.fromhex(text[start : start + 3 * number].replace("%", ""))
            parts.append((data.decode("utf-8", "replace"), start, start + 3 * number))
        left -= number or 1
        if left <= 0:
            break
    return parts


_ESCAPES: dict[str, Callable[[str], list[Part]]] = {
    "percent": _percent,
    "entities": lambda text: _unescaped(text, "&", _entity),
    "backslash": lambda text: _unescaped(text, "\\", _backslash),
    "quoted printable": lambda text: _unescaped(text, "=", _equals),
}


# --- codes of a whole text ----------------------------------------------------------------------------------------


def _hits(text: str, known: Callable[[str], int]) -> dict[int, list[tuple[str, int, int]]]:
    """Words that are known, by what they tell."""
    told: dict[str, tuple[int, str]] = {}
    for each in set(text.split()):
        word = each.strip(".,;:!?\"'()*-<>[]").casefold()
        if what := known(word):
            told[each] = what, word
    found: dict[int, list[tuple[str, int, int]]] = {}
    if told:
        for span, token in zip(token_spans(text), text.split(), strict=True):
            if (mark := told.get(token)) is not None:
                found.setdefault(mark[0], []).append((mark[1], *span))
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
    for start, end in _windows([(start, end) for _, start, end in hits], len(text)):
        spans.append((start, min(end, start + left)))
        left -= end - start
        if left <= 0:
            break
    return spans


def _tokens(text: str, start: int, end: int) -> Iterator[tuple[str, tuple[int, int]]]:
    return zip(text[start:end].split(), token_spans(text, start, end), strict=True)


def _shifts(text: str) -> list[tuple[str, list[Part]]]:
    images = _shifted()
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
    images = _mirrored()
    hits = _hits(text, lambda word: int(word in images)).get(1, [])
    if not _sure(hits, text):
        return []
    spans = _spans(hits, text)
    words = [(f"{token[::-1]} ", *place) for span in spans for token, place in _tokens(text, *span)]
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
    images = _pigs()
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


_WHOLE: dict[str, Callable[[str], list[tuple[str, list[Part]]]]] = {
    "shift": _shifts, "mirror": _mirrors, "pig latin": _pig_latin, "braille": _braille,
}  # fmt: skip
