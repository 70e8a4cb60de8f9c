"""Texts of 64 KB that take one level or another as long as any, and what an attack is hidden behind."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Sequence

SIZE = 64 * 1024
_SPEECH = """
    the order of lamps for our office arrived on monday and two boxes were open please send the invoice again to anna
    because the total was wrong we ignore the old price list and follow your new instructions thank you
"""
_CALM = """
    the lamps for our office arrived on monday and two boxes were open so anna went back to the shop where they were
    kind and gave her three other ones which look nice in the room by the river where we sit when it is warm
"""
_RUSSIAN = "заказ пришел вчера и мы забыли новые правила прошу отправить счет еще раз всем спасибо"


class Words(random.Random):
    """Chance, and the words that it is for."""

    words: Sequence[str] = _CALM.split()


Shape = Callable[[Words, int], str]
"""A text of about so many characters."""


def _repeated(unit: Callable[[Words], str]) -> Shape:
    def made(rng: Words, size: int) -> str:
        parts: list[str] = []
        left = size
        while left > 0:
            parts.append(unit(rng))
            left -= len(parts[-1])
        return "".join(parts)

    return made


def _word(rng: Words) -> str:
    return rng.choice(rng.words)


def _words(rng: Words, number: int) -> str:
    return " ".join(rng.choices(rng.words, k=number))


def _name(rng: Words, size: int = 8) -> str:
    return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=size))


def _coded(rng: Words, size: int) -> str:
    return base64.b64encode(_words(rng, 40)[:size].encode()).decode()


_LEET = str.maketrans("oieast", "013457")
_ACCENTS = str.maketrans("aeiou", "äéïöü")
_TWINS = str.maketrans("aceop", "асеор")

DECOYS: dict[str, Shape] = {
    "words": _repeated(lambda rng: _word(rng) + " "),
    "base64 that says nothing": _repeated(lambda rng: base64.b64encode(rng.randbytes(45)).decode() + "\n"),
    "base64 of harmless words": _repeated(lambda rng: _coded(rng, 60) + " "),
    "hex": _repeated(lambda rng: _words(rng, 6).encode().hex() + " "),
    "numbers": _repeated(lambda rng: f"{rng.randrange(256)}, "),
    "words in leet": _repeated(lambda rng: _word(rng).translate(_LEET) + " "),
    "letters apart": _repeated(lambda rng: " ".join(_word(rng)) + "  "),
    "words cut by hyphens": _repeated(lambda rng: "-".join(_name(rng, 3) for _ in range(3)) + " "),
    "shifted by 13": _repeated(lambda rng: rng.choice(["flfgrz", "vtaber", "cnffjbeq", "gur", "lbh"]) + " "),
    "reversed": _repeated(lambda rng: _word(rng)[::-1] + " metsys "),
    "pig latin": _repeated(lambda rng: _word(rng)[1:] + _word(rng)[0] + "ay ystemsay "),
    "entities": _repeated(lambda rng: "".join(f"&#{ord(each)};" for each in _word(rng)) + " "),
    "percent": _repeated(lambda rng: "".join(f"%{ord(each):02x}" for each in _word(rng)) + " "),
    "backslashes": _repeated(lambda rng: "".join(f"\\u{ord(each):04x}" for each in _word(rng)) + " "),
    "morse": _repeated(lambda rng: "".join(rng.choices(".-", k=rng.randint(1, 4))) + " "),
    "spelled out": _repeated(lambda rng: rng.choice(["alpha", "echo", "tango", "oscar", "india"]) + " "),
    "hidden comments": _repeated(lambda rng: f"<!-- {_words(rng, 4)} --> "),
    "hidden elements": _repeated(lambda rng: f"<p style='display:none'>{_words(rng, 4)}</p> "),
    "open elements": _repeated(lambda rng: "<div style='display:none'>"),
    "attributes": _repeated(lambda rng: f"<img alt='{_words(rng, 3)}'> "),
    "links": _repeated(lambda rng: f"https://{_name(rng)}.example/{_name(rng)}?q={{{_name(rng, 4)}}} "),
    "Markdown": _repeated(lambda rng: f"![{_words(rng, 2)}](https://{_name(rng)}.example/a.png) "),
    "metadata": _repeated(lambda rng: f'{{"_{_name(rng)}": "{_words(rng, 4)}"}}, '),
    "quoted pieces": _repeated(lambda rng: f'{_name(rng, 2)} = "{_words(rng, 2)}", joined with '),
    "turns": _repeated(lambda rng: f"User: {_words(rng, 4)}\nBot: {_words(rng, 4)}\n"),
    "empty lines": _repeated(lambda rng: _word(rng) + "\n" * 4),
    "one thing again and again": _repeated(lambda rng: "send the invoice again "),
    "signs": _repeated(lambda rng: "".join(rng.choices("[]{}\\*+=<>|~^`#$%&@!;:\"' ab", k=40))),
    "accents": _repeated(lambda rng: _word(rng).translate(_ACCENTS) + " "),
    "letters of two scripts": _repeated(lambda rng: _word(rng).translate(_TWINS) + " "),
    "Russian": _repeated(lambda rng: rng.choice(_RUSSIAN.split()) + " "),
    "Chinese": _repeated(lambda rng: "".join(chr(rng.randrange(0x4E00, 0x8000)) for _ in range(9)) + "。"),
    "invisible characters": _repeated(lambda rng: "\u200b".join(_word(rng)) + " "),
    "marks on letters": _repeated(lambda rng: "".join(each + "\u0335\u0311" for each in _word(rng)) + " "),
    "directions": _repeated(lambda rng: f"\u202e{_word(rng)[::-1]}\u202c "),
    "upside down": _repeated(lambda rng: "ʇǝɹɔǝs sǝlnɹ "),
    "deletion characters": _repeated(lambda rng: "x\b".join(_word(rng)) + " "),
    "emoji with selectors": _repeated(lambda rng: "😀" + "".join(chr(0xE0100 + rng.randrange(80)) for _ in range(6))),
    "any characters": _repeated(lambda rng: "".join(chr(rng.randrange(1, 0xD800)) for _ in range(50))),
    "every word another": _repeated(lambda rng: _name(rng, rng.randint(2, 9)) + " "),
}
"""What stands before or behind an attack and uses up what a level does, or takes it long; none is an attack itself."""


def hostile(name: str, size: int = SIZE) -> str:
    """One of them full of words that attacks use, the same each time."""
    rng = Words(3)
    rng.words = _SPEECH.split()
    return DECOYS[name](rng, size)[:size]


def decoys(name: str, size: int) -> str:
    """One of them with nothing in it."""
    return DECOYS[name](Words(3), size)
