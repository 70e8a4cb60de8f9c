"""Codes of which pieces stand in a text: base64, hex, Morse and the like. Only what then reads like text counts."""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import islice, product

import re2

from circuit_script.judgment.canon import canonical
from circuit_script.judgment.english import COMMON, words_in
from circuit_script.judgment.parts import Part

PIECES = 500  # of one code in one text
INFLATED = 16 * 1024
LONG_PRINTED = 12  # characters that all print, and so are a text though few of them are letters

_WORD = re.compile("[a-z]{2,}")
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-]{8,}={0,2}")
_SIX = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_CODES = """
    .- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- -..- -.-- --..
    ----- .---- ..--- ...-- ....- ..... -.... --... ---.. ----. .-.-.- --..-- ..--.. ---...
"""
_SPOKEN = """
    alpha alfa bravo charlie delta echo foxtrot golf hotel india juliet juliett kilo lima mike november oscar papa
    quebec romeo sierra tango uniform victor whiskey whisky xray x-ray yankee zulu
"""
_HIGH = bytes(range(128, 256))
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_MORSE = dict(
    zip(
        _CODES.split(),
        _LETTERS + "0123456789.,?:",
        strict=True,
    )
)
ALPHABET = _SPOKEN.split()
_GAPS = {code: "\n" for code in range(128) if not chr(code).isalnum() and chr(code) not in "- "}
_PRINTED = " \n\r\t.,;:!?'\"-_/()<>{}[]=@#&*%+\\$|`~^"
_ALNUM = (_LETTERS + _LETTERS.upper() + "0123456789").encode()
_PRINTS = _ALNUM + _PRINTED.encode()


@cache
def _finder(name: str) -> re2._Regexp:
    return re2.compile(
        {
            "base32": rb"[A-Z2-7]{16,}={0,6}",
            "hex": rb"(?:(?:0x|\\x|%)?[0-9a-fA-F]{2}[\s,:;\-]{0,2}){8,}",
            "binary": rb"(?:[01]{7,8}[\s,]{0,2}){4,}",
            "numbers": rb"(?:\d{1,3}[\s,;\-]{1,3}){6,}\d{1,3}",
            "morse": rb"(?:[.\-_*]{1,6}[\s/|]{1,5}){6,}[.\-_*]{0,6}",
            "spelling alphabet": (r"(?i)(?:\b(?:" + "|".join(ALPHABET) + r")\b\W*){4,}").encode(),
            "ascii85": rb"<~[!-uz\s]{5,}~>",
        }[name]
    )


def _readable(text: str) -> bool:
    """Whether most of it is letters and digits, and next to nothing does not print. Where all of it prints, fewer
    letters will do, as in code: of twelve bytes, chance makes no text."""
    size = len(text)
    if size < 4:
        return False
    some = text if size < 4000 else text[:2000] + text[-2000:]
    if some.isascii():
        bare = some.encode()
        solid = len(bare) - len(bare.translate(None, _ALNUM))
        good = len(bare) - len(bare.translate(None, _PRINTS))
    else:
        counts = Counter(some)
        good = sum(count for each, count in counts.items() if each.isprintable() or each in _PRINTED)
        solid = sum(count for each, count in counts.items() if each.isalnum() or unicodedata.category(each)[0] == "M")
    if good == len(some) >= LONG_PRINTED:
        return solid >= 0.3 * len(some)
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


def _six(chosen: Iterable[int]) -> str:
    """The characters that stand for these numbers of six bits."""
    chars = "".join([_SIX[each] for each in sorted(chosen)])
    return "[" + chars.replace("+", r"+\-").replace("/", "/_") + "]"


@cache
def _hopeful() -> re2._Regexp:
    """What a piece of base64 that says something begins with: twelve bytes of UTF-8, or letters alone if it has less
    than 16 characters; compressed text; the mark of UTF-16, or its zeros. And what may be base32."""
    every = range(64)
    some = r"[A-Za-z0-9+/_\-]"
    # Of each of three bytes the characters that say its first bits: it stands (a)lone, (k)eeps on, (l)eads others.
    classes = [
        {
            "a": _six(each for each in every if each >> shift & 3 < 2),
            "k": _six(each for each in every if each >> shift & 3 == 2),
            "l": _six(each for each in every if each >> shift & 3 == 3),
        }
        for shift in (4, 2, 0)
    ]

    def six_bytes(allowed: str) -> str:
        rows = [row for row in map("".join, product("akl", repeat=6)) if re.fullmatch(allowed, row)]
        of_rows = (
            "".join(classes[nth % 3][kind] + some * (nth % 3 == 2) for nth, kind in enumerate(row)) for row in rows
        )
        return "(?:" + "|".join(of_rows) + ")"

    utf8 = six_bytes("(?:a|lk+)*l?") + six_bytes("k*(?:a|lk+)*l?")
    said = {*" .,!?'", *_LETTERS, *_LETTERS.upper()}
    first = _six({ord(each) >> 2 for each in said})
    second = _six(each for each in every if each & 15 in {ord(letter) >> 4 for letter in said})
    short = rf"(?:{first}{second}{classes[2]['a']}{some}){{2,3}}{some}{{0,3}}(?:$|[^A-Za-z0-9+/_\-])"
    packed = r"H4[s-v]|eA[E-H]|eJ[w-z]|eN[o-r]|eF[4-7]|[/_][/_][4-7]|[/_]v[89+/_\-]"
    low, middle, high = "A[A-P]", "[AQgw][A-D]", _six(each for each in every if not each & 3) + "A"  # a byte of zero
    zeros = f"{some}{middle}{some}{low}|{some}{middle}{some}{{3}}{high}|{some}{{4}}{low}{high}"
    start = r"(?:^|[^A-Za-z0-9+/_\-])"
    return re2.compile(rf"{start}(?:{short}|{utf8}|(?:{some}{{8}})*(?:{zeros})|{packed})|[A-Z2-7]{{16}}".encode())


def _base64(text: str) -> list[Part]:
    return _of_runs(text) + _base32(text) if _hopeful().search(_ascii(text)) else []


def _of_runs(text: str) -> list[Part]:
    """Pieces of base64, those that follow each other as one if they say something as one."""
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
    return found


def _base32(text: str) -> list[Part]:
    found: list[Part] = []
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
        if all(9 <= each < 256 for each in codes) and max(codes) > 26:
            said = _said(bytes(codes))
            if said and _is_worded(said):
                found.append((said, start, end))
        elif all(0 < each < 27 for each in codes):
            said = _worded("".join(_LETTERS[each - 1] for each in codes))
            if said:
                found.append((said, start, end))
    return found


def _is_worded(said: str) -> bool:
    """Whether numbers have become letters and words of English: those of a table say others."""
    if said.isupper() or sum(each.isalpha() or each == " " for each in said) <= 0.8 * len(said):
        return sum(each in COMMON for each in _WORD.findall(said.lower())) > 2
    return True


def _worded(letters: str) -> str:
    """Letters that came without spaces, as words; nothing if there are none in it."""
    words = words_in(letters[:4000]) + letters[4000:]
    known = sum(len(each) for each in words.split() if len(each) > 2 and each in COMMON)
    return words if known * 2 > len(letters) else ""


def _morse(text: str) -> list[Part]:
    found: list[Part] = []
    for piece, start, end in _matches("morse", text):
        gaps = piece.replace("_", "-").replace("*", ".").replace("|", "/").replace("\n", " / ").replace("   ", " / ")
        words = ["".join([_MORSE.get(each, "?") for each in word.split()]) for word in gaps.split("/")]
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
        for group in piece.translate(_GAPS).split("\n"):
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


DECODERS: dict[str, Callable[[str], list[Part]]] = {
    "base64": _base64, "hex": _hex, "binary": _binary, "numbers": _numbers, "morse": _morse,
    "spelling alphabet": _alphabet, "ascii85": _ascii85,
}  # fmt: skip
