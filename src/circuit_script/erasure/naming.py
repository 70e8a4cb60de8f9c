"""How a person is known in texts that do not say whose they are: by ids, and by addresses and telephone numbers."""

from __future__ import annotations

import re
from collections.abc import Collection

SHORT = 4  # characters; an id of fewer stands in too many texts that mean something else

# Says so of a text. Two parallel lists: what is looked for, and the pattern that must hold besides; null where it may
# stand anywhere.
NAMES = (
    "EXISTS (SELECT 1 FROM unnest(%(names)s::text[], %(patterns)s::text[]) AS i (name, pattern) "
    "WHERE strpos({text}, i.name) > 0 AND (i.pattern IS NULL OR {text} ~ i.pattern))"
)


def pattern(id_: str) -> str:
    """Where an id stands for itself, as PostgreSQL's regular expression: no letter or digit beside it; if it is short,
    only as a whole value, in quotation marks."""
    escaped = re.sub(r"([^\w])", r"\\\1", id_)
    if len(id_) < SHORT:
        return rf"[\"']{escaped}\\?[\"']"
    return rf"(^|[^[:alnum:]]){escaped}($|[^[:alnum:]])"


class Named:
    """Says whether a value of a job's arguments names somebody: a text that is an id, or has an address in it. A short
    id is none: what uses a record that is blank finds nothing, and too much else would be taken for it."""

    def __init__(self, ids: Collection[str], words: Collection[str]) -> None:
        self.ids = sorted(id_ for id_ in ids if len(id_) >= SHORT)
        self.words = sorted(words)

    def __call__(self, text: str) -> bool:
        return text in self.ids or any(word in text for word in self.words)
