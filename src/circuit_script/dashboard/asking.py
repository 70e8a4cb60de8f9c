"""What a person asks a list for: a form whose answer is the URL, so that every look can be sent to somebody."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nicegui.element import Element

from circuit_script.dashboard.pieces import el

if TYPE_CHECKING:
    from circuit_script.dashboard.frame import View

LONGEST = 300  # characters of a filter
EDITED = 200_000  # characters that a person may edit in a browser


@dataclass(frozen=True, slots=True)
class Ask:
    """One field of a filter: its name in the URL, and what stands beside it. With ``options`` it is one of these."""

    name: str
    label: str
    hint: str = ""
    options: Sequence[tuple[str, str]] = ()


def filters(view: View, asks: Sequence[Ask], *, keep: Collection[str] = ()) -> Element:
    """The fields with what is asked now; Enter asks. What ``keep`` names stays as it is in the URL."""
    names = {ask.name for ask in asks}
    with el("form", "filters", method="get", action=view.at, role="search") as made:
        kept = {name: view.query[name] for name in keep if name in view.query and name not in names}
        if len(view.tenants) > 1:
            kept["tenant"] = view.tenant
        for name, value in kept.items():
            el("input", type="hidden", name=name, value=value)
        for place, ask in enumerate(asks):
            _field(view, ask, first=place == 0)
        el("button", "button", "Show", type="submit")
        if any(view.query.get(name) for name in names):
            el("a", "button quiet", "Clear", href=view.here(**dict.fromkeys([*names, "before", "page"])))
    return made


def _field(view: View, ask: Ask, *, first: bool) -> None:
    now = said(view, ask.name) or ""
    with el("label", "filter search" if first else "filter"):
        if ask.options:
            with el("select", "input", name=ask.name, aria_label=ask.label, data_submit="1"):
                for key, text in ask.options:
                    el("option", text=text, value=key, selected=key == now or None)
            return
        # As an attribute it is only where the browser begins: what is typed is not taken away when the page moves.
        made = el("input", "input", type="search" if first else "text", name=ask.name,
                  placeholder=ask.hint or ask.label, autocomplete="off", spellcheck="false", maxlength=LONGEST,
                  data_search="1" if first else None, aria_label=ask.label)  # fmt: skip
        made.props["^value"] = now


def said(view: View, name: str) -> str | None:
    """What the URL says, if it is anything that a database can be asked for."""
    text = view.query.get(name, "").strip()[:LONGEST]
    try:
        text.encode()
    except UnicodeEncodeError:
        return None
    return text if text and "\0" not in text else None


def whole(view: View, name: str, most: int = 2**62) -> int | None:
    """A number of the URL, at least 0; None for what is none."""
    text = view.query.get(name, "")
    return min(int(text), most) if re.fullmatch(r"[0-9]{1,19}", text) else None
