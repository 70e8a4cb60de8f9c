"""Logs: what handlers said, by the same questions as on the command line; live, where it is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from circuit_script.dashboard import pieces
from circuit_script.dashboard.asking import said
from circuit_script.dashboard.frame import View, page
from circuit_script.dashboard.pieces import chip, el, ident, moment
from circuit_script.dashboard.reading import borrowed
from circuit_script.dashboard.still import still
from circuit_script.dashboard.words import clock_text, short
from circuit_script.errors import LogQueryRefused
from circuit_script.telemetry import Cursor, LogLine, LogPage, LogQuery, LogReader

SHOWN = 100
EVERY = 3.0  # seconds between two looks, while it is live
LONGEST = 4000  # characters of a line that are shown
HINT = 'level:error  handler:score  record:4711  user:ann  since:2h  lead=4711  "exact phrase"  word'


@page("/logs", title="Logs")
async def show(view: View) -> None:
    """The search box, and the lines that fit."""
    text = (said(view, "q") or "")[:300]
    live = view.query.get("live") == "1" and "before" not in view.query
    with pieces.head("Logs", "What handlers said, and executions that failed."):
        if "before" not in view.query:
            pieces.link("Pause" if live else "Follow live", view.here(live=None if live else 1), "button quiet")
    _box(view, text, live)
    try:
        query = replace(LogQuery.parse(text), tenant=view.tenant, limit=SHOWN)
        if before := view.query.get("before"):
            query = replace(query, before=Cursor.parse(before))
    except LogQueryRefused as error:
        el("p", "note warn", error.detail or str(error))
        return

    async def build() -> None:
        async with borrowed() as connection:
            found = await LogReader(connection, query).page()
        _found(view, found, asked=bool(text))

    if live:
        await view.live(EVERY, build, still=True)
    else:
        with still():
            await build()


def _box(view: View, text: str, live: bool) -> None:
    with el("form", "filters", method="get", action=view.at, role="search"):
        for name, value in (("tenant", view.tenant if len(view.tenants) > 1 else ""), ("live", "1" if live else "")):
            if value:
                el("input", type="hidden", name=name, value=value)
        box = el("input", "input search", type="search", name="q", placeholder=HINT, aria_label="Search the log",
                 autocomplete="off", spellcheck="false", maxlength=300, data_search="1")  # fmt: skip
        box.props["^value"] = text
        el("button", "button", "Search", type="submit")
        if text:
            el("a", "button quiet", "Clear", href=view.link(view.at))


def _found(view: View, found: LogPage, *, asked: bool) -> None:
    if not found.lines and found.before is None:
        if asked:
            pieces.empty("No line fits.", "Words of three letters or more also find what begins with them.")
        else:
            pieces.empty("Nothing was logged yet.", "In a handler:", 'log.info("scored", lead=id, score=78)')
        return
    with pieces.panel(classes="flush"), el("div", "lines"):
        for line in found.lines:
            show_line(view, line)
    words = ""
    if found.looked_back_to is not None:
        words = f"Looked back to {clock_text(found.looked_back_to, view.zone)}; go on for what is older."
    newest = view.here(before=None) if "before" in view.query else ""
    pieces.pager(newest, view.here(before=found.before, live=None) if found.before else "", words)


def show_line(view: View, line: LogLine, *, within: bool = False) -> None:
    """A line; ``within`` its execution's page it need not say whose it is."""
    with el(
        "div", f"line {line.level if line.level in ('warning', 'error', 'critical') else ''}".strip(), data_row="1"
    ):
        moment(line.at, view)
        chip(line.level)
        el("span", "line-words", line.message[:LONGEST])
        el("span")
        el("span")
        with el("div", "line-more"):
            if not within:
                ident(line.execution, view.execution(line.execution))
                el("span", text=short(line.handler.rpartition(".")[2], 60))
            if line.record:
                pieces.link(f"record {short(line.record, 60)}", view.link("/records", q=line.record), "text-link")
            if line.user:
                el("span", text=f"user {short(line.user, 60)}")
            _context(line.context)


def _context(context: Mapping[str, Any] | None) -> None:
    for name, value in list((context or {}).items())[:30]:
        if isinstance(value, str) and "\n" in value.strip():
            with el("details", "more"):
                el("summary", text=short(name, 60))
                el("pre", "payload", value[:LONGEST])
            continue
        with el("span", "pair"):
            el("b", text=f"{short(name, 60)}=")
            el("span", text=short(value, 200))
