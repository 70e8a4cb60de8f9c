"""How a person is known in texts that do not say whose they are: by ids, and by addresses and telephone numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from urllib.parse import quote

SHORT = 4  # characters; an id of fewer stands in too many texts that mean something else
LONG = 200  # characters; no longer one is the end of another, and a pattern of it costs too much

_FOUND = "strpos(lower({text}), lower(i.name)) > 0"
_OF = "EXISTS (SELECT 1 FROM unnest(%(names)s::text[], %(patterns)s::text[]) AS i (name, pattern) WHERE "
# Says so of a text. Two parallel lists: what is looked for, and the pattern that must hold besides; null where it may
# stand anywhere.
NAMES = _OF + _FOUND + " AND (i.pattern IS NULL OR {text} ~ i.pattern))"
# Says so of bytes, in which lengths may stand directly before a text: whatever is not short may stand anywhere.
NAMES_IN_BYTES = (
    _OF + "position(convert_to(i.name, 'UTF8') IN {bytes}) > 0 "
    f"AND (char_length(i.name) >= {SHORT} OR encode({{bytes}}, 'escape') ~ i.pattern))"
)
# A letter that is the end of an escaped character (a line's end in JSON, a slash in an address) is none.
_BEFORE = r"(^|[^[:alnum:]]|\\[bfnrt]|\\u[0-9A-Fa-f]{4}|\\x[0-9A-Fa-f]{2}|%[0-9A-Fa-f]{2})"
_AFTER = r"($|[^[:alnum:]])"


def known_by(ids: Collection[str], words: Collection[str]) -> list[tuple[str, str | None]]:
    """The names by which somebody is looked for, each with its pattern."""
    names: dict[str, str | None] = {}
    for id_ in ids:
        names |= {form: _pattern_of_id(form, short=len(id_) < SHORT) for form in _forms(id_)}
    for word in words:
        names |= {form: _pattern_of_word(form) for form in _forms(word)}
    return list(names.items())


def _forms(text: str) -> Iterator[str]:
    """As it is, as JSON has it, and as an address of the web has it."""
    yield text
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    yield quote(text, safe="")


def _pattern_of_id(id_: str, *, short: bool) -> str | None:
    """Where an id stands for itself, as PostgreSQL's regular expression: no letter or digit beside it; if it is short,
    only as a whole value, in quotation marks."""
    if short:
        return rf"[\"']{_escaped(id_)}\\?[\"']"
    return None if len(id_) > LONG else _BEFORE + _escaped(id_) + _AFTER


def _pattern_of_word(word: str) -> str | None:
    """An address is no part of a longer one. A number may have its country's before it."""
    return "(?i)" + _BEFORE + _escaped(word) + _AFTER if _is_address(word) else None


def _escaped(text: str) -> str:
    return re.sub(r"([^\w])", r"\\\1", text)


def _is_address(word: str) -> bool:
    return "@" in word or "%40" in word


class Named:
    """Says whether a value of a job's arguments names somebody: a text that is an id, or has an address in it. A short
    id is none: what uses a record that is blank finds nothing, and too much else would be taken for it."""

    def __init__(self, ids: Collection[str], words: Collection[str]) -> None:
        self.ids = sorted(id_ for id_ in ids if len(id_) >= SHORT)
        self.words = sorted(words)
        addresses = "|".join(re.escape(word) for word in self.words if _is_address(word))
        self._address = re.compile(rf"(?i)(?<![\w.+%-])(?:{addresses})(?![\w-]|\.\w)") if addresses else None
        self._numbers = [word for word in self.words if not _is_address(word)]

    def __call__(self, text: str) -> bool:
        if text in self.ids or any(number in text for number in self._numbers):
            return True
        return self._address is not None and self._address.search(text) is not None

    def within(self, text: str) -> bool:
        """Whether they stand anywhere in it."""
        return any(name in text for name in (*self.ids, *self.words))
