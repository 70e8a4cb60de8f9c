"""The page of every error: Markdown in ``troubleshooting/``, shipped with the package.

One text behind three doors: ``circuit-script explain``, the gateway's ``/problems/<page>``, and the documentation.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

_FOLDER = files("circuit_script") / "troubleshooting"


@dataclass(frozen=True, slots=True)
class Page:
    """One page. ``text`` is Markdown; its first line is the title."""

    name: str
    text: str

    @property
    def title(self) -> str:
        return self.text.partition("\n")[0].removeprefix("# ")


def page_names() -> tuple[str, ...]:
    """Every page, by name."""
    names = (each.name for each in _FOLDER.iterdir())
    return tuple(sorted(name.removesuffix(".md") for name in names if name.endswith(".md") and name != "index.md"))


def page_text(name: str) -> str | None:
    """The Markdown of a page; None when there is none of that name."""
    return (_FOLDER / f"{name}.md").read_text("utf-8") if name in page_names() else None


def find_page(name: str) -> Page | None:
    """The page of that name."""
    text = page_text(name)
    return None if text is None else Page(name, text)
