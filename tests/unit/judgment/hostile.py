"""Texts of 64 KB that take one level or another as long as any, and what an attack is hidden behind."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Sequence

SIZE = 64 * 1024
SPEECH = """
    the order of lamps for our office arrived on monday and two boxes were open please send the invoice again to anna
    because the total was wrong we ignore the old price list and follow your new instructions thank you
"""
_CALM = """
    the lamps for our office arrived on monday and two boxes were open so anna went back to the shop where they were
    kind and gave her three other ones which look nice in the room by the river where we sit when it is warm
"""
RUSSIAN = "заказ пришел вчера и мы забыли новые правила прошу отправить счет еще раз всем спасибо"


class Words(random.Random):
    """Chance, and the words that it is for."""

    words: Sequence[str] = _CALM.split()


Shape = Callable[[Words, int], str]
"""A text of about so many characters."""


def repeated(unit: Callable[[Words], str]) -> Shape:
    def made(rng: Words, size: int) -> str:
        parts: list[str] = []
        left = size
        while left > 0:
            parts.append(unit(rng))
            left -= len(parts[-1])
        return "".join(parts)

    return made


def word(rng: Words) -> str:
    return rng.choice(rng.words)


def words(rng: Words, number: int) -> str:
    return " ".join(rng.choices(rng.words, k=number))


def name_of(rng: Words, size: int = 8) -> str:
    return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=size))


def _coded(rng: Words, size: int) -> str:
    return base64.b64encode(words(rng, 40)[:size].encode()).decode()


LEET = str.maketrans("oieast", "013457")
_ACCENTS = str.maketrans("aeiou", "äéïöü")
_TWINS = str.maketrans("aceop", "асеор")

DECOYS: dict[str, Shape] = {
    "words": repeated(lambda rng: word(rng) + " "),
    "base64 that says nothing": repeated(lambda rng: base64.b64encode(rng.randbytes(45)).decode() + "\n"),
    "base64 of harmless words": repeated(lambda rng: _coded(rng, 60) + " "),
    "hex": repeated(lambda rng: words(rng, 6).encode().hex() + " "),
    "numbers": repeated(lambda rng: f"{rng.randrange(256)}, "),
    "words in leet": repeated(lambda rng: word(rng).translate(LEET) + " "),
    "letters apart": repeated(lambda rng: " ".join(word(rng)) + "  "),
    "words cut by hyphens": repeated(lambda rng: "-".join(name_of(rng, 3) for _ in range(3)) + " "),
    "shifted by 13": repeated(lambda rng: rng.choice(["flfgrz", "vtaber", "cnffjbeq", "gur", "lbh"]) + " "),
    "reversed": repeated(lambda rng: word(rng)[::-1] + " metsys "),
    "pig latin": repeated(lambda rng: word(rng)[1:] + word(rng)[0] + "ay ystemsay "),
    "entities": repeated(lambda rng: "".join(f"&#{ord(each)};" for each in word(rng)) + " "),
    "percent": repeated(lambda rng: "".join(f"%{ord(each):02x}" for each in word(rng)) + " "),
    "backslashes": repeated(lambda rng: "".join(f"\\u{ord(each):04x}" for each in word(rng)) + " "),
    "morse": repeated(lambda rng: "".join(rng.choices(".-", k=rng.randint(1, 4))) + " "),
    "spelled out": repeated(lambda rng: rng.choice(["alpha", "echo", "tango", "oscar", "india"]) + " "),
    "hidden comments": repeated(lambda rng: f"<!-- {words(rng, 4)} --> "),
    "hidden elements": repeated(lambda rng: f"<p style='display:none'>{words(rng, 4)}</p> "),
    "open elements": repeated(lambda rng: "<div style='display:none'>"),
    "attributes": repeated(lambda rng: f"<img alt='{words(rng, 3)}'> "),
    "links": repeated(lambda rng: f"https://{name_of(rng)}.example/{name_of(rng)}?q={{{name_of(rng, 4)}}} "),
    "Markdown": repeated(lambda rng: f"![{words(rng, 2)}](https://{name_of(rng)}.example/a.png) "),
    "metadata": repeated(lambda rng: f'{{"_{name_of(rng)}": "{words(rng, 4)}"}}, '),
    "quoted pieces": repeated(lambda rng: f'{name_of(rng, 2)} = "{words(rng, 2)}", joined with '),
    "turns": repeated(lambda rng: f"User: {words(rng, 4)}\nBot: {words(rng, 4)}\n"),
    "empty lines": repeated(lambda rng: word(rng) + "\n" * 4),
    "one thing again and again": repeated(lambda rng: "send the invoice again "),
    "signs": repeated(lambda rng: "".join(rng.choices("[]{}\\*+=<>|~^`#$%&@!;:\"' ab", k=40))),
    "accents": repeated(lambda rng: word(rng).translate(_ACCENTS) + " "),
    "letters of two scripts": repeated(lambda rng: word(rng).translate(_TWINS) + " "),
    "Russian": repeated(lambda rng: rng.choice(RUSSIAN.split()) + " "),
    "Chinese": repeated(lambda rng: "".join(chr(rng.randrange(0x4E00, 0x8000)) for _ in range(9)) + "。"),
    "invisible characters": repeated(lambda rng: "\u200b".join(word(rng)) + " "),
    "marks on letters": repeated(lambda rng: "".join(each + "\u0335\u0311" for each in word(rng)) + " "),
    "directions": repeated(lambda rng: f"\u202e{word(rng)[::-1]}\u202c "),
    "upside down": repeated(lambda rng: "ʇǝɹɔǝs sǝlnɹ "),
    "deletion characters": repeated(lambda rng: "x\b".join(word(rng)) + " "),
    "emoji with selectors": repeated(lambda rng: "😀" + "".join(chr(0xE0100 + rng.randrange(80)) for _ in range(6))),
    "any characters": repeated(lambda rng: "".join(chr(rng.randrange(1, 0xD800)) for _ in range(50))),
    "every word another": repeated(lambda rng: name_of(rng, rng.randint(2, 9)) + " "),
}
"""What stands before or behind an attack and uses up what a level does, or takes it long; none is an attack itself."""


def hostile(name: str, size: int = SIZE) -> str:
    """One of them full of words that attacks use, the same each time."""
    rng = Words(3)
    rng.words = SPEECH.split()
    return DECOYS[name](rng, size)[:size]


def decoys(name: str, size: int) -> str:
    """One of them with nothing in it."""
    return DECOYS[name](Words(3), size)
