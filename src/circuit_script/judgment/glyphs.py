"""Which character stands for which: tables for the canonical form, made once, when the first text needs them."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.uint32]

SIZE = 0x20000  # beyond are rare ideographs, tags and private characters
LIMIT = 0x110000  # a value from here on is a place in `Tables.strings`

# What a character is, beyond its letter.
INVISIBLE, BIDI, TAG, VARIATION, CONTROL, RUBOUT, MARK, SILENT, FLAG = range(1, 10)

# What a text has to be looked at for if it has such a character, one bit each.
HIDDEN, MARKED, COMBINES, FLAGGED, FOREIGN, LETTER, CHANGES, ACCENT, UPSIDE, WIDE = (1 << nth for nth in range(10))

# Scripts that have letters like the Latin ones, one bit each.
LATIN, CYRILLIC, GREEK, OTHER = 1, 2, 4, 8

_INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180e\u180f\u200b\u200c\u200d\u2060\u2061\u2062"
    "\u2063\u2064\u2065\u206a\u206b\u206c\u206d\u206e\u206f\u3164\ufeff\uffa0\ufff9\ufffa\ufffb\u2800"
)
_BIDI = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u061c"
_MARKS = ((0x300, 0x370), (0x483, 0x48A), (0x1AB0, 0x1B00), (0x1DC0, 0x1E00), (0x20D0, 0x2100), (0xFE20, 0xFE30))
_SILENT = ((0x64B, 0x653), (0x640, 0x641), (0x670, 0x671))  # vowels of Arabic, and the stroke that makes words longer

_PLAIN = {
    "'": "\u2018\u2019\u201a\u201b\u2032\u02bc\u02b9\u00b4\u2035\u02bb\u02bd\u02c8\uff07\u055a\u05f3\u2039\u203a",
    '"': "\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb\u2036\u02ba\u02dd\u301d\u301e\u301f\uff02\u05f4",
    "-": "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2043\u02d7\ufe58\ufe63\uff0d\u2e3a\u2e3b\u058a\u1806\u2796\u06d4",
    "/": "\u2044\u2215\u29f8",
    "|": "\u2223\u2758\u01c0",
    "*": "\u2217\u204e\u066d",
    ":": "\u2236\ua789\u0589",
    "~": "\u223c\u02dc\u301c",
    ".": "\u2024\u0701\u0702",
    ",": "\u201a\ua4f9",
    "_": "\u203f\u2017\u02cd",
    " ": "\u1680\u2028\u2029\u0085\u00a8\u00af\u00b8\u02d8\u02d9\u02da\u02db\u1361\u037a\u0384\u0385\u1fbd\u1fbf\u1fc0",
}

# Letters of Latin script that only look unusual: small capitals, letters turned on their heads and the like.
_ODD = {
    "a": "ᴀɑɐɒ", "b": "ʙɓƀƃ", "c": "ᴄƈɔ", "d": "ᴅɗɖ", "e": "ᴇɛǝəɘɜ", "f": "ꜰƒɟ", "g": "ɢɡɠƃ", "h": "ʜɦɥ", "i": "ɪɩᴉ",
    "j": "ᴊʝɾ", "k": "ᴋƙʞ", "l": "ʟɭɫ", "m": "ᴍɱɯ", "n": "ɴɲŋɳ", "o": "ᴏɵ", "p": "ᴘƥ", "q": "ǫʠ", "r": "ʀɹɼɽ",
    "s": "ꜱʂ", "t": "ᴛʇƭʈ", "u": "ᴜʊ", "v": "ᴠʌʋ", "w": "ᴡʍ", "x": "ᶍ", "y": "ʏʎƴ", "z": "ᴢʐƶ",
}  # fmt: skip
TURNED = "ɐɔǝɟƃɥᴉɾʞɯɹʇʌʍʎ"  # some of them read in the other direction

# Letters of other scripts, exactly like a Latin one ...
_ALIKE = {
    CYRILLIC: ("аАaсСcеЕeоОoрРpхХxуУyіІiјЈjѕЅsԁԀdһҺhӏlӀlɡgԛԚqԝԜwВbМmНhТtКkкkвbмmнhтtѵѴvүҮyҽeзЗzьbԍԌgЅsгrпnѡw"),
    GREEK: "ΑaαaΒbβbΕeεeΖzΗhηnΙiιiΚkκkΜmΝnνvΟoοoΡpρpΤtτtΥyυuΧxχxγyσoϲcϹcωwϳjͿjϱp",
    OTHER: (
        "ԱuՍuՏsՕoօoսuոnցgհhքfզqյjԼlւlՈnꓮaꓐbꓚcꓓdꓰeꓝfꓖgꓧhꓲiꓙjꓗkꓡlꓟmꓠnꓳoꓑpꓣrꓢsꓔtꓴuꓦvꓪwꓫxꓬyꓜz"
        "ᎪaᏴbᏟcᎠdᎬeᎰfᏀgᎻhᎥiᎫjᏦkᏞlᎷmᏢpᏒrᏚsᎢtᏙvᎳwᎩyᏃzᏂhᏁnᎾoᏌuⲀaⲁaⲤcⲥcⲈeⲟoⲞoⲢpⲣpⲦtⲭxᗩaᗷbᑕcᗪdᗴeᖴfᕼhᒍjᒪlᗰmᑎnᑭpᖇrᑌuᐯvᗯw"
    ),
}
# ... and near enough within a word that has Latin ones, too.
_NEAR = {
    CYRILLIC: "иИnйnпПnяЯrшШwщwгГrлЛnдДdбБbфФfцЦuчЧyжxыblэЭeююъbтtўyѓrќkіiїЇiєЄeґrҚkқkңnҢnөoӨoәeӘeҳxљbњhћhђhцuЮo",
    GREEK: "δΔaλΛaπnθΘoφΦoψΨyξΞeζzμuςsςsΣeΠnΩoΓrϑo",
    OTHER: "",
}
_BLOCKS = (
    (0x370, 0x400, GREEK), (0x400, 0x530, CYRILLIC), (0x530, 0x590, OTHER), (0x13A0, 0x1400, OTHER),
    (0x1400, 0x1680, OTHER), (0x1C80, 0x1C90, CYRILLIC), (0x1F00, 0x2000, GREEK), (0x2C80, 0x2D00, OTHER),
    (0x2DE0, 0x2E00, CYRILLIC), (0xA4D0, 0xA500, OTHER), (0xA640, 0xA6A0, CYRILLIC), (0xAB70, 0xABC0, OTHER),
)  # fmt: skip

_FOLLOWERS = [0x9BE, 0x9D7, 0xB3E, 0xB56, 0xB57, 0xBBE, 0xBD7, 0xCC2, 0xCD5, 0xCD6, 0xD3E, 0xD57, 0xDCF, 0xDDF]
UNMARKED = {"ı": "i", "ø": "o", "đ": "d", "ð": "d", "ł": "l", "æ": "ae", "œ": "oe", "þ": "th", "ħ": "h", "ŧ": "t"}


@dataclass(frozen=True, slots=True, eq=False)
class Tables:
    """Of each character its ``kind`` and ``script``; its compatible form (``cased``), that of lower case (``lower``)
    and that without accents (``bare``); its twin in Latin script that is just ``alike`` or only ``near``; what it
    ``needs``, in bits, and whether it can be a part of a ``word``.

    A form of several characters is a number from LIMIT on: they are among ``letters``, from ``starts``, as many as
    ``lengths`` says."""

    kind: NDArray[np.uint8]
    script: NDArray[np.uint8]
    cased: Codes
    lower: Codes
    alike: Codes
    near: Codes
    bare: Codes
    needs: NDArray[np.uint16]
    word: NDArray[np.bool_]
    letters: Codes
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]


def _pairs(text: str) -> dict[str, str]:
    """Each Latin letter is the twin of the ones before it."""
    twins: dict[str, str] = {}
    waiting: list[str] = []
    for each in text:
        if each.isascii():
            twins.update(dict.fromkeys(waiting, each))
            waiting = []
        else:
            waiting.append(each)
    return twins


def _simple(char: str) -> str:
    """A character in its compatible form, without what hangs on a space."""
    form = unicodedata.normalize("NFKC", char)
    if len(form) > 1 and not form.isascii():
        form = "".join(each for each in form if not _is_mark(ord(each)))
    if len(form) > 3 and not form.isascii():
        return char  # whole words of Arabic or Japanese in one character
    return " ".join(form.split()) if form.strip() else " " if form else ""


def _is_mark(code: int) -> bool:
    return any(first <= code < last for first, last in _MARKS)


@cache
def tables() -> Tables:
    kind = np.zeros(SIZE, np.uint8)
    script = np.zeros(SIZE, np.uint8)
    cased = np.arange(SIZE, dtype=np.uint32)
    alike, near = np.zeros(SIZE, np.uint32), np.zeros(SIZE, np.uint32)
    strings: list[str] = []
    known: dict[str, int] = {}

    def code(text: str) -> int:
        if len(text) == 1:
            return ord(text)
        if text not in known:
            known[text] = LIMIT + len(strings)
            strings.append(text)
        return known[text]

    kind[:9] = kind[0x0E:0x20] = kind[0x7F:0xA0] = CONTROL
    kind[0x08] = kind[0x7F] = RUBOUT
    kind[0x85] = 0
    for first, last in _MARKS:
        kind[first:last] = MARK
    for first, last in _SILENT:
        kind[first:last] = SILENT
    kind[[ord(each) for each in _INVISIBLE]] = INVISIBLE
    kind[[ord(each) for each in _BIDI]] = BIDI
    kind[0xFE00:0xFE10] = VARIATION
    kind[0x1F1E6:0x1F200] = FLAG
    for each in map(chr, (*range(0x80, 0xD800), *range(0xF900, SIZE))):
        if not unicodedata.is_normalized("NFKC", each):
            form = code(_simple(each))
            cased[ord(each)] = form if not SIZE <= form < LIMIT else ord(each)
    cased[0xD800:0xE000] = 0xFFFD
    for plain, others in (*_PLAIN.items(), *_ODD.items()):
        cased[[ord(each) for each in others]] = ord(plain)
    for start in (0x1F130, 0x1F150, 0x1F170):
        cased[start : start + 26] = np.arange(97, 123)
    for script_bit, pairs in _ALIKE.items():
        for char, twin in _pairs(pairs).items():
            alike[ord(char)] = near[ord(char)] = ord(twin)
        for char, twin in _pairs(_NEAR[script_bit]).items():
            if not near[ord(char)]:
                near[ord(char)] = ord(twin)
    lower = np.arange(SIZE, dtype=np.uint32)
    for each in map(chr, (*range(0x41, 0x5B), *range(0xB5, 0xD800), *range(0xF900, SIZE))):
        small = each.casefold()
        if small != each:
            lower[ord(each)] = code(_simple(small))
    plain_of = {ord(other): plain for plain, others in _PLAIN.items() for other in others}
    strings[:] = [each.translate(plain_of) for each in strings]
    single = cased < SIZE
    cased[single] = cased[cased[single]]
    bare = np.arange(SIZE, dtype=np.uint32)
    for first, last in ((0xC0, 0x250), (0x1E00, 0x1F00)):
        for char in map(chr, range(first, last)):
            base = unicodedata.normalize("NFD", char)[0]
            bare[ord(char)] = code(UNMARKED.get(base, base))
    word = np.array([chr(each).isalpha() for each in range(SIZE)], dtype=np.bool_)
    latin = np.array(
        [each < 0x250 or 0x1E00 <= each < 0x1F00 for each in range(SIZE)],
        dtype=np.bool_,
    )
    script[latin & word] = LATIN
    for first, last, bit in _BLOCKS:
        script[first:last] = np.where(word[first:last], bit, 0)
    plain_letter = ((cased >= 0x30) & (cased < 0x3A)) | ((cased >= 0x41) & (cased < 0x5B))
    plain_letter |= (cased >= 0x61) & (cased < 0x7B)
    wide = plain_letter & (np.arange(SIZE) >= 0x80)
    wide[[0xAA, 0xB2, 0xB3, 0xB9, 0xBA]] = False  # of ordinary texts: ª ² ³ ¹ º
    letters = np.array([ord(each) for each in "".join(strings)], dtype=np.uint32)
    lengths = np.array([len(each) for each in strings], dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    needs = np.zeros(SIZE, np.uint16)
    needs[(kind > 0) & (kind != MARK) & (kind != FLAG)] = HIDDEN
    needs[kind == MARK] = MARKED
    needs[kind == FLAG] = FLAGGED
    needs[[ord(each) for each in TURNED]] |= UPSIDE
    needs[script > LATIN] |= FOREIGN
    needs[script == LATIN] |= LETTER
    needs[bare != np.arange(SIZE)] |= ACCENT
    needs[wide] |= WIDE
    composes = [unicodedata.combining(chr(each)) > 0 for each in range(SIZE)]
    needs[np.array(composes) & (kind != MARK)] |= COMBINES
    needs[0x1160:0x1200] |= COMBINES
    needs[_FOLLOWERS] |= COMBINES
    of_strings = [int(np.bitwise_or.reduce(needs[[ord(char) for char in each]])) if each else 0 for each in strings]
    changed = np.flatnonzero(cased != np.arange(SIZE))
    for place in changed.tolist():
        long = int(cased[place]) - LIMIT
        needs[place] |= CHANGES | (of_strings[long] if long >= 0 else int(needs[cased[place]]) & ~HIDDEN)
    return Tables(kind, script, cased, lower, alike, near, bare, needs, word, letters, starts, lengths)
