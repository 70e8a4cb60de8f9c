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

from circuit_script.judgment.canon import form_of
from circuit_script.judgment.compiled import CODES
from circuit_script.judgment.english import COMMON, words_in
from circuit_script.judgment.parts import Part
from circuit_script.judgment.rules import spans

PIECES = 500  # of one code in one text
INFLATED = 16 * 1024
LONG_PRINTED = 12  # characters that all print, and so are a text though few of them are letters

_IN_FORM = re.compile("[!-~А-я]+(?: [!-~А-я]+)*")  # what canonical form makes as many other letters of
_WORD = re.compile("[a-z]{2,}")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{8,}={0,2}")
_USUAL = bytes.maketrans(b"-_", b"+/")
_SIX = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_CODES = """
    .- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- -..- -.-- --..
    ----- .---- ..--- ...-- ....- ..... -.... --... ---.. ----. .-.-.- --..-- ..--.. ---...
"""
_SPOKEN = """
    alpha alfa bravo charlie delta echo foxtrot golf hotel india juliet juliett kilo lima mike november oscar papa
    quebec romeo sierra tango uniform victor whiskey whisky xray x-ray yankee zulu
"""
_NOT_HEX = b"%\t\n\f\r ,:;-"
_HIGH = bytes(range(128, 256))
BESIDE = 6  # bytes
_APART = bytes.maketrans(b",;-", b"   ")
_NTH = bytes(each + 96 if 0 < each < 27 else 0 for each in range(256))
_PACKED = frozenset((b"\x1f\x8b", b"x\x01", b"x\x9c", b"x\xda", b"x^"))
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_MORSE = dict(
    zip(
        _CODES.split(),
        _LETTERS + "0123456789.,?:",
        strict=True,
    )
)
_DRAWN = str.maketrans({"_": "-", "*": ".", "|": "/", "\n": " / "})


class _Morse(dict[str, str]):
    """What signs say; others than those are not kept."""

    def __missing__(self, signs: str) -> str:
        return "?"


_read = _Morse(_MORSE, **{"/": " "})
_read.update({"".join(each): _read["".join(each)] for size in range(1, 7) for each in product(".-", repeat=size)})
_SIGNALS = b"?" * 2 + b"".join(  # by their bits, behind a one
    [_read["".join(each)].encode() for size in range(1, 7) for each in product(".-", repeat=size)]
)
ALPHABET = _SPOKEN.split()
_GAPS = bytes(code if chr(code).isalnum() or chr(code) in "- " else 10 for code in range(128)).lower() + bytes(128)
_PRINTED = " \n\r\t.,;:!?'\"-_/()<>{}[]=@#&*%+\\$|`~^"
_FIVE = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"0123456789abcdefghijklmnopqrstuv")
_ALNUM = (_LETTERS + _LETTERS.upper() + "0123456789").encode()
_PRINTS = _ALNUM + _PRINTED.encode()


@cache
def _finder(name: str) -> re.Pattern[bytes] | re2._Regexp:
    if name == "base32":  # this and the next take linear time: what follows a repeat cannot be a part of it
        return re.compile(rb"[A-Z2-7]{16,}={0,6}")
    if name == "ascii85":
        return re.compile(rb"<~[!-uz\t\n\f\r ]{5,}~>")
    return re2.compile(
        {
            "hex": rb"(?:(?:0x|\\x|%)?[0-9a-fA-F]{2}[\s,:;\-]{0,2}){8,}",
            "binary": rb"(?:[01]{7,8}[\s,]{0,2}){4,}",
            "numbers": rb"(?:\d{1,3}[\s,;\-]{1,3}){6,}\d{1,3}",
            "morse": rb"(?:[.\-_*]{1,6}[\s/|]{1,5}){6,}[.\-_*]{0,6}",
            "spelling alphabet": (r"(?i)(?:\b(?:" + "|".join(ALPHABET) + r")\b\W*){4,}").encode(),
        }[name]
    )


def _readable(text: str) -> bool:
    """Whether most of it is letters and digits, and next to nothing does not print."""
    size = len(text)
    if size < 4:
        return False
    some = text if size < 4000 else text[:2000] + text[-2000:]
    if some.isascii():
        return _prints(some.encode())
    if CODES is not None:
        told: bool = CODES.readable(some, LONG_PRINTED, _is_mark)
        return told
    counts = Counter(some)
    good = sum(count for each, count in counts.items() if each.isprintable() or each in _PRINTED)
    solid = sum(count for each, count in counts.items() if each.isalnum() or _is_mark(each))
    return _is_enough(len(some), good, solid)


def _is_mark(each: str) -> bool:
    return unicodedata.category(each)[0] == "M"


def _prints(some: bytes) -> bool:
    """The same of a text in ASCII."""
    solid = len(some) - len(some.translate(None, _ALNUM))
    good = len(some) - len(some.translate(None, _PRINTS))
    return _is_enough(len(some), good, solid)


def _is_enough(size: int, good: int, solid: int) -> bool:
    """Where all of it prints, fewer letters will do, as in code: of twelve bytes, chance makes no text."""
    if good == size >= LONG_PRINTED:
        return solid >= 0.3 * size
    return good >= 0.93 * size and solid >= 0.55 * size


def _text_of(data: bytes) -> str | None:
    """Bytes as text, if they are."""
    if CODES is None:
        return _said(data)
    said: str | None = CODES.said(data, LONG_PRINTED, _said)
    return said


def _said(data: bytes) -> str | None:
    if data[:2] in _PACKED:
        try:
            data = zlib.decompressobj(wbits=47).decompress(data, INFLATED)
        except zlib.error:
            return None
    if data.isascii() and 0 not in data:
        size = len(data)
        some = data if size < 4000 else data[:2000] + data[-2000:]
        return data.decode() if size > 3 and _prints(some) else None
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
    return text if _readable(text if text.isascii() or _IN_FORM.fullmatch(text) else form_of(text).plain) else None


def _ascii(text: str) -> bytes:
    """One byte for each character, so places stay."""
    return text.encode("ascii", "replace")


def _matches(name: str, text: str) -> Iterator[tuple[bytes, int, int]]:
    return _found(name, _ascii(text))


def _found(name: str, bare: bytes) -> Iterator[tuple[bytes, int, int]]:
    finder = _finder(name)
    places = (each.span() for each in finder.finditer(bare)) if isinstance(finder, re.Pattern) else spans(finder, bare)
    for start, end in islice(places, PIECES):
        yield bare[start:end], start, end


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
    raw = _ascii(text)
    return _of_runs(raw, text) + _base32(raw) if _hopeful().search(raw) else []


def _of_runs(bare: bytes, text: str) -> list[Part]:
    """Pieces of base64, those that follow each other as one if they say something as one."""
    raw = bare.translate(_USUAL)
    if CODES is None:
        return _parts_of(raw, text)
    found: list[Part] = CODES.base64_parts(raw, text, PIECES, LONG_PRINTED, _of_base64, _said)
    return found


def _parts_of(raw: bytes, text: str) -> list[Part]:
    found: list[Part] = []
    runs: list[list[tuple[int, int]]] = []
    first, last = 0, -3
    for each in _BASE64.finditer(raw):
        span = start, _ = each.span()
        if start - last < 3 and _goes_on(raw, first, last) and text[last:start].isspace():
            runs[-1].append(span)
        else:
            runs.append([span])
        first, last = span
    if len(runs) > PIECES:
        runs = sorted(runs, key=lambda run: run[0][0] - run[-1][1])[:PIECES]
    for run in runs:
        pieces = [raw[start:end] for start, end in run]
        whole = _of_base64(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if whole:
            found.append((whole, run[0][0], run[-1][1]))
        elif len(run) > 1:
            found += [(said, *span) for piece, span in zip(pieces, run, strict=True) if (said := _of_base64(piece))]
    return found


def _goes_on(raw: bytes, first: int, last: int) -> bool:
    """Whether a piece can be the first part of what stands in two."""
    return last - first > 15 and (last - first) % 4 == 0 and raw[last - 1] != ord("=")


def _base32(raw: bytes) -> list[Part]:
    found: list[Part] = []
    for code, start, end in _found("base32", raw) if CODES is None else CODES.base32_runs(raw, PIECES):
        bare = code.rstrip(b"=")
        left = -len(bare) % 8
        if left in (2, 5, 7):  # no number of bytes has so many characters
            continue
        size = (len(bare) + left) // 8 * 5
        data = (int(bare.translate(_FIVE), 32) << 5 * left).to_bytes(size, "big")
        if said := _text_of(data[: size - (5 * left + 7) // 8]):
            found.append((said, start, end))
    return found


def _of_base64(piece: bytes) -> str | None:
    bare = piece.rstrip(b"=")
    if len(bare) % 4 == 1:
        bare = bare[:-1]
    if len(bare) < 16:
        if bare.isalpha() and (bare.islower() or bare.istitle() or bare.isupper()):
            return None
    elif bare.islower() or bare.isdigit():
        return None
    try:
        data = binascii.a2b_base64(bare + b"=" * (-len(bare) % 4))
    except binascii.Error:
        return None
    said = _text_of(data)
    if said and len(bare) < 16 and not all(each.isalpha() or each in " .,!?'" for each in said):
        return None
    return said


def _hex(text: str) -> list[Part]:
    found: list[Part] = []
    for data, start, end in _hexes(text) if CODES is None else CODES.hexes(_ascii(text), PIECES):
        bare = data.strip(_HIGH)  # what stood beside it can look like a part of it
        if said := _text_of(data) or (_text_of(bare) if len(bare) < len(data) else None) or _within(data):
            found.append((said, start, end))
    return found


def _within(data: bytes) -> str | None:
    """What is text in other letters but for a few bytes at its ends, which were words beside it ("be", "cafe")."""
    whole = data.decode("utf-8", "ignore").encode()
    return _text_of(whole) if 0 < len(data) - len(whole) <= BESIDE and whole in data else None


def _hexes(text: str) -> Iterator[tuple[bytes, int, int]]:
    for piece, start, end in _matches("hex", text):
        digits = piece.replace(b"0x", b"").replace(b"\\x", b"").translate(None, _NOT_HEX)
        yield binascii.a2b_hex(digits), start, end


def _binary(text: str) -> list[Part]:
    found: list[Part] = []
    for piece, start, end in _matches("binary", text):
        groups = piece.replace(b",", b" ").split()
        if {*map(len, groups)} <= {7, 8}:
            bits = b"".join([each if len(each) == 8 else b"0" + each for each in groups])
        else:
            bits = b"".join(groups)
        if said := _text_of((int(bits, 2) >> len(bits) % 8).to_bytes(len(bits) // 8, "big")):
            found.append((said, start, end))
    return found


def _numbers(text: str) -> list[Part]:
    found: list[Part] = []
    numbers = _numbered(text) if CODES is None else CODES.numbers(_ascii(text), PIECES)
    for data, least, most, start, end in numbers:
        if least >= 9 and most > 26:
            said = _text_of(data)
            if said and _is_worded(said):
                found.append((said, start, end))
        elif least > 0 and most < 27:
            said = _worded(data.translate(_NTH).decode())
            if said:
                found.append((said, start, end))
    return found


def _numbered(text: str) -> Iterator[tuple[bytes, int, int, int, int]]:
    """Numbers that are bytes, with the least and the highest."""
    for piece, start, end in _matches("numbers", text):
        codes = [*map(int, piece.translate(_APART).split())]
        if (most := max(codes)) < 256:
            yield bytes(codes), min(codes), most, start, end


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
    for said, start, end in _signalled(text) if CODES is None else CODES.morse(_ascii(text), PIECES, _SIGNALS):
        if " " not in said:
            said = words_in(said[:4000]) + said[4000:]
        if any(len(each) > 2 and each in COMMON for each in said.split()):
            found.append((said, start, end))
    return found


def _signalled(text: str) -> Iterator[tuple[str, int, int]]:
    """What signals say."""
    for piece, start, end in _matches("morse", text):
        gaps = piece.decode().translate(_DRAWN).replace("   ", " / ")
        yield " ".join("".join([*map(_read.__getitem__, gaps.replace("/", " / ").split())]).split()), start, end


def _alphabet(text: str) -> list[Part]:
    found: list[Part] = []
    for piece, start, end in _matches("spelling alphabet", text):
        groups = _initials(piece) if CODES is None else CODES.initials(piece)
        words = [each if each in COMMON else words_in(each[:4000]) for each in groups]
        if {*map(len, words)} == {1}:
            words = words_in("".join(words)[:4000]).split()
        found.append((" ".join(words), start, end))
    return found


def _initials(piece: bytes) -> list[str]:
    """The first letters of words, of each group of them together, which a space or a hyphen does not end."""
    groups = piece.translate(_GAPS).decode().split("\n")
    letters = ["".join([word[0] for word in group.split() if word[0] != "-"]) for group in groups]
    return [each for each in letters if each]


def _ascii85(text: str) -> list[Part]:
    if CODES is None:
        return _ascii85s(text)
    found: list[Part] = CODES.ascii85_parts(_ascii(text), PIECES, LONG_PRINTED, _said)
    return found


def _ascii85s(text: str) -> list[Part]:
    found: list[Part] = []
    for piece, start, end in _matches("ascii85", text):
        data = _of_ascii85(piece)
        if data is not None and (said := _text_of(data)):
            found.append((said, start, end))
    return found


def _of_ascii85(piece: bytes) -> bytes | None:
    try:
        return base64.a85decode(piece, adobe=True)
    except ValueError:
        return None


DECODERS: dict[str, Callable[[str], list[Part]]] = {
    "base64": _base64, "hex": _hex, "binary": _binary, "numbers": _numbers, "morse": _morse,
    "spelling alphabet": _alphabet, "ascii85": _ascii85,
}  # fmt: skip
