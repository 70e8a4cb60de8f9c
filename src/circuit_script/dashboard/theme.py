"""The looks: one style sheet and one script of our own, told apart by their content so that browsers keep them."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

STATIC = Path(__file__).parent / "static"
PREFIX = "/look/"
THEMES = ("light", "dark")


def _named(name: str) -> str:
    stem, _, kind = name.partition(".")
    return f"{stem}.{sha256((STATIC / name).read_bytes()).hexdigest()[:12]}.{kind}"


NAMES = {_named(name): name for name in ("circuit.css", "circuit.js", "mark.svg")}
_CSS, _JS, _MARK = NAMES
MARK = PREFIX + _MARK


def head_html(theme: str) -> str:
    """What goes into the head of every page; ``theme`` is what the person chose, if it is one of `THEMES`."""
    chosen = theme if theme in THEMES else ""
    return (
        f'<script>document.documentElement.dataset.theme = "{chosen}";</script>'
        f'<link rel="stylesheet" href="{PREFIX}{_CSS}"><script src="{PREFIX}{_JS}" defer></script>'
    )
