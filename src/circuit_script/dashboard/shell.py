"""What stands around every page: the rail or, on a telephone, the bar; the person, the tenant, the keys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from nicegui import ui
from starlette.responses import HTMLResponse, Response

from circuit_script.access import Act
from circuit_script.dashboard import theme
from circuit_script.dashboard.pieces import el
from circuit_script.dashboard.still import still

if TYPE_CHECKING:
    from circuit_script.dashboard.frame import View


@dataclass(frozen=True, slots=True)
class Section:
    """A page in the rail. ``key`` opens it after ``g``."""

    name: str
    path: str
    key: str
    group: str
    act: Act = Act.see
    first: bool = False  # stands in the telephone's bar


SECTIONS = (
    Section("Overview", "/", "o", "Road", first=True),
    Section("Executions", "/executions", "e", "Road", first=True),
    Section("Records", "/records", "r", "Road", first=True),
    Section("Logs", "/logs", "l", "Road", first=True),
    Section("Shadow", "/shadow", "h", "Road"),
    Section("Alerts", "/alerts", "a", "Care"),
    Section("Dead letters", "/dead-letters", "d", "Care"),
    Section("In doubt", "/in-doubt", "i", "Care"),
    Section("Judgment", "/judgment", "j", "Care"),
    Section("Leads", "/leads", "s", "Business"),
    Section("Tenants", "/tenants", "t", "Business"),
    Section("Vendors", "/vendors", "v", "Business"),
    Section("Limits", "/limits", "m", "Business"),
    Section("People", "/people", "p", "Business", Act.manage_people),
)


@contextmanager
def frame(view: View, title: str) -> Iterator[None]:
    """The frame; what is built within the block is the page."""
    ui.add_head_html(theme.head_html(view.theme))
    ui.context.client.content.classes("frame")
    el("a", "skip", "To the page", href="#page")
    with still():
        _rail(view)
    with el("main", "main", id="page", tabindex="-1"), el("div", "column"):
        yield
    with still():
        _bar(view)
        _keys()


def _rail(view: View) -> None:
    with el("aside", "rail", id="rail"):
        with el("div", "brand"):
            el("span", "mark", aria_hidden="true")
            el("span", "brand-name", "Circuit Script")
        _tenant(view)
        with el("nav", "sections", aria_label="Pages"):
            group = ""
            for section in SECTIONS:
                if not view.may(section.act):
                    continue
                if section.group != group:
                    group = section.group
                    el("span", "group", group)
                _entry(view, section)
        with el("div", "rail-foot"):
            el("span", "person", view.person.name, title=view.person.name)
            with el("div", "foot-acts"):
                el("button", "foot-act", "Theme", type="button", data_theme="1", title="Light or dark (t)")
                el("button", "foot-act", "Keys", type="button", data_keys="1", title="Keyboard (?)")
                with el("form", "sign-out", method="post", action="/sign-out"):
                    el("input", type="hidden", name="csrf", value=view.csrf)
                    el("button", "foot-act", "Sign out", type="submit")


def _tenant(view: View) -> None:
    if len(view.tenants) == 1:
        el("div", "tenant one", view.tenant, title="Tenant")
        return
    with el("label", "tenant"):
        el("span", "hidden", "Tenant")
        with el("select", "input", data_tenant="1", aria_label="Tenant"):
            for name in view.tenants:
                el("option", text=name, value=name, selected=name == view.tenant or None)


def _entry(view: View, section: Section) -> None:
    here = view.at == section.path or (section.path != "/" and view.at.startswith(section.path + "/"))
    with el("a", "entry here" if here else "entry", href=view.link(section.path), data_key=section.key,
            aria_current="page" if here else None, title=f"g {section.key}"):  # fmt: skip
        icon = section.name.lower().replace(" ", "-")
        el("span", f"icon icon-{icon}", aria_hidden="true")
        el("span", "entry-name", section.name)


def _bar(view: View) -> None:
    """The telephone's way around."""
    with el("nav", "phone-bar", aria_label="Pages"):
        for section in SECTIONS:
            if section.first:
                _entry(view, section)
        with el("button", "entry", type="button", data_menu="1", aria_label="All pages"):
            el("span", "icon icon-more", aria_hidden="true")
            el("span", "entry-name", "More")


def _keys() -> None:
    with el("dialog", "keys", id="keys", aria_label="Keyboard"):
        el("h2", text="Keyboard")
        with el("dl", "key-list"):
            for keys, what in (
                ("/", "Search"), ("j k", "Down and up a list"), ("Enter", "Open what is chosen"),
                ("[ ]", "Newer, older"), ("t", "Light or dark"), ("Esc", "Close"), ("?", "This"),
                *((f"g {section.key}", section.name) for section in SECTIONS),
            ):  # fmt: skip
                with el("div"):
                    with el("dt"):
                        for key in keys.split():
                            el("kbd", text=key)
                    el("dd", text=what)


def plain_page(title: str, body: str, status: int = 200, *, theme_name: str = "") -> Response:
    """A page without the frame. ``body`` is HTML of our own: whoever writes it escapes what is not."""
    head = theme.head_html(theme_name)
    return HTMLResponse(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)} · Circuit Script</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">{head}</head>'
        f'<body class="plain"><main class="door"><div class="brand"><span class="mark"></span>'
        f'<span class="brand-name">Circuit Script</span></div>{body}</main></body></html>',
        status,
        headers={"cache-control": "no-store"},
    )


def away() -> Response:
    """Without the database nobody is known."""
    words = "The road keeps what was accepted. This page looks again by itself."
    page = plain_page("Away", f'<h1>The database is away.</h1><p class="muted">{words}</p>', 503)
    page.headers["refresh"] = "5"
    page.headers["retry-after"] = "5"
    return page


def too_many() -> Response:
    """More pages stand open than are kept."""
    words = "Close some of yours, and look again in a moment."
    page = plain_page("Too many", f'<h1>Too many pages are open.</h1><p class="muted">{words}</p>', 503)
    page.headers["retry-after"] = "10"
    return page


def no_tenant(status: int) -> Response:
    """The person has no such tenant, or there is none: both look alike."""
    words = "Ask an owner for a role there, or go back to <a href='/'>your own</a>."
    return plain_page("Not found", f'<h1>There is no such tenant for you.</h1><p class="muted">{words}</p>', status)
