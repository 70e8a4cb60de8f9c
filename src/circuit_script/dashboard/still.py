"""Parts of a page that nobody acts on, drawn by one component.

Each element of NiceGUI can be changed and listened to, for which it keeps a lot: a thousand of them take half a second.
What only shows something is made of these instead; when it is made afresh, the browser changes what differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from html import escape
from typing import Any, NoReturn, Self

from nicegui import ui

VOID = ("input", "br", "hr", "img")
EATS = ("pre", "textarea")

# Tag, attributes, text or children. Lists and what is in them NiceGUI would watch for changes, one by one.
Drawn = tuple[str, Mapping[str, Any], Any]


class Still:
    """An element as far as it is drawn. It takes classes and style as NiceGUI's do, and no listeners."""

    __slots__ = ("_attributes", "_before", "_inside", "_tag", "_text")

    def __init__(self, tag: str, classes: str, text: str | None, attributes: dict[str, Any]) -> None:
        self._tag = tag
        self._attributes = attributes
        self._text = text
        self._inside: list[Still] = []
        self._before: list[Still | None] = []
        if classes:
            attributes["class"] = classes
        within = _within.get()
        if within is not None:
            within._inside.append(self)

    def __enter__(self) -> Self:
        self._before.append(_within.get())
        _within.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _within.set(self._before.pop())

    def classes(self, add: str) -> Self:
        self._attributes["class"] = f"{self._attributes.get('class', '')} {add}".strip()
        return self

    def style(self, add: str) -> Self:
        self._attributes["style"] = f"{self._attributes.get('style', '')}{add};"
        return self

    @property
    def props(self) -> dict[str, Any]:
        return self._attributes

    def on(self, *_: object, **__: object) -> NoReturn:
        raise RuntimeError("nobody acts on what is in a still part: build it outside")

    def drawn(self) -> Drawn:
        """As the component takes it."""
        if not self._inside:
            return self._tag, self._attributes, self._text or ""
        children = tuple([each.drawn() for each in self._inside])
        return self._tag, self._attributes, (("span", {}, self._text), *children) if self._text else children


def html_of(drawn: Drawn) -> str:
    """As HTML: text and attributes may be anybody's data, tags and names are ours."""
    tag, attributes, inside = drawn
    return html_tag(tag, attributes, escape(inside) if isinstance(inside, str) else "".join(map(html_of, inside)))


def html_tag(tag: str, attributes: Mapping[str, Any], inside: str) -> str:
    """One element around ``inside``, which is HTML."""
    said = "".join(
        f" {name.removeprefix('^')}" if value is True else f' {name.removeprefix("^")}="{escape(str(value))}"'
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    if tag in VOID:
        return f"<{tag}{said}>"
    eaten = "\n" if tag in EATS and inside.startswith("\n") else ""  # a parser drops the first one
    return f"<{tag}{said}>{eaten}{inside}</{tag}>"


_within: ContextVar[Still | None] = ContextVar("still", default=None)


class Part(ui.element, component="static/still.js"):
    """The component. What it draws at first is in the page itself; only what comes later is sent to it."""

    def __init__(self) -> None:
        super().__init__()
        self.tree: tuple[Drawn, ...] = ()
        self.props["part"] = self.id

    def draw(self, tree: tuple[Drawn, ...]) -> None:
        """Draw this from now on."""
        self.tree = tree
        self.props["tree"] = tree

    def is_sent(self) -> None:
        """What it draws stands in the page: it need not be sent again, nor kept."""
        self.tree = ()
        self.props.pop("tree", None)


class StillPart:
    """A place for a still part, which can be made afresh."""

    def __init__(self) -> None:
        self._element = Part()

    @contextmanager
    def made(self) -> Iterator[None]:
        """What is built within the block stands there from its end on."""
        root = Still("div", "", None, {})
        with root:
            yield
        self._element.draw(root.drawn()[2] or ())


def in_still() -> bool:
    """Whether what is built now is a still part."""
    return _within.get() is not None


@contextmanager
def still() -> Iterator[None]:
    """What is built within the block is a still part; one within another is just more of it."""
    if in_still():
        yield
        return
    with StillPart().made():
        yield
