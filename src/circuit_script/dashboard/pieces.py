"""The pieces that every page is made of. Text is data and stays text: each piece shows it through `words.visible`."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import psycopg
import structlog
from nicegui import ui
from nicegui.element import Element
from psycopg_pool import PoolTimeout

from circuit_script.dashboard.still import Still, in_still
from circuit_script.dashboard.words import CUT, bars_path, clock_text, exact_text, number, payload_text, size, visible
from circuit_script.errors import CircuitError

if TYPE_CHECKING:
    from circuit_script.dashboard.frame import View

log = structlog.get_logger()

Handler = Callable[[], Awaitable[None] | None]
Cell = str | int | float | None | Callable[[], object]

# What a status means to whoever reads a list of them: good, waiting, warning, bad, or nothing in particular.
TONES = {
    "succeeded": "good", "delivered": "good", "closed": "good", "healthy": "good", "ok": "good", "resolved": "good",
    "partial": "warn", "retry": "warn", "in_doubt": "warn", "deferred": "warn", "warning": "warn", "half_open": "warn",
    "held": "warn",
    "failed": "bad", "breached": "bad", "dead": "bad", "error": "bad", "critical": "bad", "open": "bad",
    "pending": "wait", "waiting": "wait", "notice": "wait", "running": "wait", "info": "plain", "debug": "plain",
}  # fmt: skip


def el(tag: str, classes: str = "", text: object = None, **attributes: object) -> Element:
    """An HTML element. ``text`` and attributes may be anybody's data; an underscore in a name stands for a hyphen."""
    said = {
        name.strip("_").replace("_", "-"): value if isinstance(value, bool | int | float) else visible(value)
        for name, value in attributes.items()
        if value is not None and value is not False
    }
    words = None if text is None else visible(text)
    if in_still():
        return cast(Element, Still(tag, classes, words, said))  # as much of one as whoever builds it may use
    made = ui.element(tag)
    if classes:
        made.classes(classes)
    if words is not None:
        made._text = words  # as NiceGUI's own elements do; it has no public way
    if said:
        made.props.update(said)
    return made


@contextmanager
def afresh(place: Element) -> Iterator[None]:
    """Build the element's content again."""
    place.clear()
    with place:
        yield


# -- what stands on a page ------------------------------------------------------------------------


def head(title: str, words: str = "") -> Element:
    """The page's title and what it is about. Gives the place of its actions: ``with head("…"): button(…)``."""
    with el("header", "head"):
        with el("div", "head-words"):
            el("h1", text=title)
            if words:
                el("p", "muted", words)
        return el("div", "actions")


def panel(title: str = "", note: str = "", *, classes: str = "") -> Element:
    """A part of a page, with a title: ``with panel("Limits"): …``."""
    with el("section", f"panel {classes}".strip()) as made:
        if title:
            with el("h2", "panel-title"):
                el("span", text=title)
                if note:
                    el("small", "muted", note)
    return made


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. ``right`` is for numbers, ``wide`` takes what room is left and is cut there, ``minor`` is
    left out on a telephone."""

    name: str
    right: bool = False
    wide: bool = False
    minor: bool = False

    @property
    def classes(self) -> str:
        return " ".join(word for word in ("right", "wide", "minor") if getattr(self, word))


@dataclass(frozen=True, slots=True)
class Row:
    """A row: a cell is text or a number, or a function that builds it. ``href`` is where its first cell leads."""

    cells: Sequence[Cell]
    href: str = ""
    tone: str = ""


def table(columns: Sequence[Column], rows: Sequence[Row], *, label: str = "") -> Element:
    """Rows under columns; j and k go through them, Enter opens the one."""
    with el("div", "table-room") as room, el("table", "table", aria_label=label or None):
        with el("thead"), el("tr"):
            for column in columns:
                el("th", column.classes, column.name, scope="col")
        with el("tbody"):
            for row in rows:
                with el("tr", f"entry-row {row.tone}".strip(), data_row="1"):
                    for place, (column, cell) in enumerate(zip(columns, row.cells, strict=True)):
                        _cell(column, cell, row.href if place == 0 else "")
    return room


def _cell(column: Column, cell: Cell, href: str) -> None:
    if not href and not callable(cell):
        el("td", column.classes, "–" if cell is None else cell, data_name=column.name)
        return
    with el("td", column.classes, data_name=column.name):
        if callable(cell):
            cell()
        else:
            el("a", "row-link", "–" if cell is None else cell, href=href)


def empty(title: str, words: str = "", command: str = "") -> Element:
    """Nothing is here, and what to do about it."""
    with el("div", "empty") as made:
        el("p", "empty-title", title)
        if words:
            el("p", "muted", words)
        if command:
            el("code", "command", command)
    return made


def chip(status: str, tone: str = "") -> Element:
    """A status as a word with a mark."""
    return el("span", f"chip {tone or TONES.get(status, 'plain')}", status.replace("_", " "))


def moment(at: datetime | None, view: View) -> Element:
    """A moment by the viewer's clock; the exact one as its title."""
    if at is None:
        return el("span", "muted", "–")
    return el("time", "moment", clock_text(at, view.zone), title=exact_text(at, view.zone), datetime=at.isoformat())


def ident(id_: UUID | str, href: str = "") -> Element:
    """An id, shortened to what tells it from others; whole as its title."""
    text = str(id_)
    shown = f"{text[:8]}…{text[-6:]}" if len(text) > 20 else text
    if href:
        return el("a", "ident", shown, href=href, title=text)
    return el("span", "ident", shown, title=text)


def link(text: object, href: str, classes: str = "") -> Element:
    """A link within the dashboard; ``href`` is from ``view.link`` or its like."""
    return el("a", classes, text, href=href)


def bar(name: str, used: float, limit: float | None, written: str = "") -> Element:
    """How much of a limit is used."""
    share = 0.0 if not limit else min(max(used / limit, 0.0), 1.0)
    tone = "bad" if limit and used >= limit else "warn" if share >= 0.8 else ""
    words = written or (number(used) + (f" of {number(limit)}" if limit is not None else ""))
    with el("div", f"bar {tone}", title=f"{name}: {words}") as made:
        el("span", "bar-name", name)
        with el("span", "bar-room"):
            el("span", "bar-full").style(f"width:{share * 100:.2f}%")
        el("span", "bar-words", words)
    return made


def stat(name: str, value: str, note: str = "", tone: str = "", href: str = "") -> Element:
    """A figure that matters."""
    with el("a" if href else "div", f"stat {tone}", href=href or None) as made:
        el("span", "stat-name", name)
        el("span", "stat-value", value)
        el("span", "stat-note", note or "\u00a0")
    return made


def bars(values: Sequence[float], top: float, label: str, tone: str = "", titles: Sequence[str] = ()) -> Element:
    """A chart: one bar for each value, ``top`` its full height; each of ``titles`` appears over its bar."""
    box = f"0 0 {max(len(values), 1)} 100"
    with el("svg", f"bars {tone}", viewBox=box, preserveAspectRatio="none", role="img", aria_label=label) as made:
        el("path", d=bars_path(values, top))
        for place, title in enumerate(titles):
            with el("rect", "over", x=place, y=0, width=1, height=100):
                el("title", text=title)
    return made


def facts(pairs: Sequence[tuple[str, Cell]]) -> Element:
    """Names and what they are."""
    with el("dl", "facts") as made:
        for name, value in pairs:
            el("dt", text=name)
            if callable(value):
                with el("dd"):
                    value()
            else:
                el("dd", text="–" if value is None else value)
    return made


def text_block(value: object, name: str = "payload", classes: str = "") -> Element:
    """A payload as text, cut where it is long; the whole of it on demand, or as a file."""
    whole = payload_text(value)
    with el("div", f"text-block {classes}") as made:
        shown = el("pre", "payload", whole[:CUT], tabindex="0")
        if len(whole) > CUT:
            with el("div", "text-more") as more:
                el("span", "muted", f"{number(CUT)} of {number(len(whole))} characters.")

                def show_all() -> None:
                    shown._text = visible(whole)
                    shown.update()
                    more.delete()

                button("Show all", show_all, kind="quiet")
                button(
                    f"Download {size(len(whole.encode('utf-8', 'backslashreplace')))}",
                    lambda: ui.download.content(whole.encode("utf-8", "backslashreplace"), f"{name}.txt", "text/plain"),
                    kind="quiet",
                )
    return made


def pager(newer: str, older: str, words: str = "") -> Element:
    """To the pages beside this one; empty where there is none."""
    with el("nav", "pager", aria_label="Pages") as made:
        for href, text, key in ((newer, "← Newest", "newer"), (older, "Older →", "older")):
            if href:
                el("a", "button quiet", text, href=href, data_page=key)
        if words:
            el("span", "muted", words)
    return made


@contextmanager
def tabs(label: str) -> Iterator[Callable[[str, str, bool, str], None]]:
    """Links of which one is where we are: ``tab(text, href, here, note)``."""

    def tab(text: str, href: str, here: bool, note: str = "") -> None:
        with el("a", "tab here" if here else "tab", href=href, aria_current="page" if here else None):
            el("span", text=text)
            if note:
                el("small", text=note)

    with el("nav", "tabs", aria_label=label):
        yield tab


# -- what people do -------------------------------------------------------------------------------


def button(text: str, do: Handler, *, kind: str = "", title: str = "") -> Element:
    """Does something; ``kind`` is "", main, danger or quiet. What it raises is told, not lost."""
    made = el("button", f"button {kind}", text, type="button", title=title or None)

    async def pressed() -> None:
        made.props["disabled"] = True
        try:
            await guarded(do)
        finally:
            if not made.is_deleted:
                del made.props["disabled"]

    return made.on("click", pressed, args=[])


async def guarded(do: Handler) -> bool:
    """Do it, and tell what goes wrong. True when nothing did."""
    try:
        result = do()
        if inspect.isawaitable(result):
            await result
    except CircuitError as error:
        toast(str(error), "bad")
    except (psycopg.Error, PoolTimeout, OSError, TimeoutError) as error:
        log.warning("dashboard.act_failed", error=str(error))
        toast("The database did not answer. Look whether it was done before you try again.", "bad")
    else:
        return True
    return False


def toast(words: str, tone: str = "good") -> None:
    """Says what happened, for a while, in a corner."""
    ui.notify(
        visible(words), position="bottom-right", classes=f"toast {tone}", timeout=8000 if tone == "bad" else 4000,
        close_button="Close" if tone == "bad" else False,
    )  # fmt: skip


class Field:
    """What a person types: ``value`` is what stands there now. It is exact: what is to be edited, and may hold
    what cannot be seen, goes through `words.editable` first."""

    def __init__(self, name: str, value: str = "", *, lines: int = 1, hint: str = "", kind: str = "text") -> None:
        self.value = value.encode("utf-8", "replace").decode()
        attributes: dict[str, Any] = {"placeholder": hint or None, "spellcheck": "false", "autocomplete": "off"}
        with el("label", "field"):
            el("span", "field-name", name)
            # What is set is where it starts from; what stands there is the browser's, and reaches us as it changes.
            if lines > 1:
                self.element = el("textarea", "input", rows=lines, **attributes)
                self.element._text = self.value
            else:
                self.element = el("input", "input", type=kind, **attributes)
                self.element.props["^value"] = self.value
        self.element.on("input", self._typed, js_handler="(e) => emit(e.target.value)")

    def _typed(self, event: Any) -> None:
        self.value = event.args if isinstance(event.args, str) else ""


class Choice:
    """One of several: ``value`` is the one."""

    def __init__(self, name: str, options: Sequence[tuple[str, str]], value: str = "") -> None:
        self._known = {key for key, _ in options}
        self.value = value or (options[0][0] if options else "")
        with el("label", "field"):
            el("span", "field-name", name)
            with el("select", "input") as self.element:
                for key, text in options:
                    el("option", text=text, value=key, selected=key == self.value or None)
        self.element.on("change", self._chosen, js_handler="(e) => emit(e.target.value)")

    def _chosen(self, event: Any) -> None:
        if event.args in self._known:
            self.value = event.args


class Ticks:
    """Rows that a person has ticked: ``keys`` of those boxes of ``tick`` that stand within the block of ``among``."""

    def __init__(self) -> None:
        self.keys: set[str] = set()

    @contextmanager
    def among(self) -> Iterator[None]:
        """One listener for all of the boxes, which may stand in a still part."""
        with el("div", "among") as made:
            yield
        ticked = "[...event.currentTarget.querySelectorAll('.tick:checked')].map((each) => each.value)"
        made.on("change", self._ticked, js_handler=f"(event) => emit({ticked})")

    def tick(self, key: str) -> Element:
        """A box for one of them."""
        return el("input", "tick", type="checkbox", value=key, autocomplete="off", aria_label="Choose")

    def _ticked(self, event: Any) -> None:
        self.keys = {each for each in event.args if isinstance(each, str)} if isinstance(event.args, list) else set()


@contextmanager
def dialog(title: str) -> Iterator[ui.dialog]:
    """A dialog to be awaited: ``with dialog("…") as asked: … asked.submit(value)``, then ``await asked``."""
    # Beside the page, not in it: what is built afresh meanwhile would take the dialog along.
    with ui.context.client, ui.dialog() as made, el("div", "dialog", role="dialog", aria_label=title):
        el("h2", text=title)
        yield made


async def confirm(title: str, words: str, do: str, *, reason: bool = False, danger: bool = False) -> str | None:
    """Ask a person. What they typed as the reason ("" where none is asked), or None when they thought better of it."""
    with dialog(title) as asked:
        el("p", "dialog-words", words)
        typed = Field("Reason (kept with your name)", lines=2) if reason else None

        def go() -> None:
            said = typed.value.strip() if typed is not None else ""
            if typed is not None and not said:
                toast("Type a reason first.", "warn")
                return
            asked.submit(said)

        with el("div", "dialog-acts"):
            button("Cancel", lambda: asked.submit(None), kind="quiet")
            button(do, go, kind="danger" if danger else "main")
    answer = await asked
    asked.delete()
    return answer if isinstance(answer, str) else None
