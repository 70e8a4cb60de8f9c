"""Records: everything that ever happened to one contact, or whatever else."""

from __future__ import annotations

from typing import Any

from circuit_script.access import Act
from circuit_script.dashboard import pieces
from circuit_script.dashboard.asking import Ask, filters, said, whole
from circuit_script.dashboard.frame import View, page
from circuit_script.dashboard.pieces import Column, Row, chip, el, ident, moment
from circuit_script.dashboard.reading import reading
from circuit_script.dashboard.still import still
from circuit_script.dashboard.words import number, short, size
from circuit_script.events.looking import (
    Chapter,
    RecordFound,
    RecordStory,
    find_records,
    latest_records,
    payload_of_event,
    story_of_record,
)

TONES = {"event": "wait", "waiting": "wait", "letter": "bad", "closed": ""}


@page("/records", title="Records")
async def show(view: View) -> None:
    """Look one up, or see those that were handled last."""
    text = said(view, "q")
    async with reading(view.tenant) as connection:
        if text:
            found = await find_records(connection, text, view.settings.objects)
        else:
            found = await latest_records(connection)
    pieces.head("Records", "Everything that ever happened to one of them.")
    filters(view, [Ask("q", "Record", "the record's id, as the vendor writes it")])
    if not found:
        if text:
            pieces.empty("No record has this id.", "It is looked up exactly; capitals count.")
        else:
            pieces.empty("No record was handled yet.", "Send one:", "circuit-script send gohighlevel")
        return
    with pieces.panel("Found" if text else "Handled last", classes="flush"):
        columns = [Column("Record", wide=True), Column("Object"), Column("Became"), Column("At", right=True)]
        with still():
            pieces.table(columns, [_row(view, each) for each in found], label="Records")


def _row(view: View, each: RecordFound) -> Row:
    return Row(
        [
            short(each.record, 80),
            short(each.object, 40),
            lambda: chip(each.status) if each.status else el("span", "muted", "–"),
            lambda: moment(each.at, view),
        ],
        href=view.record(each.object, each.record),
    )


@page("/records/{object}/{record:path}", title="Record")
async def story(view: View) -> None:
    """Its story, the newest first, beside what is known of it now."""
    object_, record = view.path["object"], view.path["record"]
    before = whole(view, "before")
    found = None
    payload: tuple[object, str] | None = None
    if not any(sign in object_ + record for sign in "\0") and _storable(object_ + record):
        async with reading(view.tenant) as connection:
            found = await story_of_record(connection, object_, record, before=before)
            if found is not None and view.may(Act.see_payload):
                payload = await _payload(view, connection, found)
    pieces.head(short(record, 100), short(object_, 60))
    if found is None:
        pieces.empty("Nothing is known of this record.", "It never came, or retention has dropped its events.")
        return
    with el("div", "columns two-one"):
        with el("div", "stack"):
            if payload is not None:
                with pieces.panel("Payload"):
                    if payload[1]:
                        el("p", "muted", payload[1])
                    pieces.text_block(payload[0], "payload")
            with pieces.panel("What happened", "the newest first", classes="flush"), el("div", "story"), still():
                for chapter in found.chapters:
                    _chapter(view, chapter)
            newest = view.here(before=None) if before else ""
            pieces.pager(newest, view.here(before=found.older, payload=None) if found.older else "")
        _state(view, found)


def _storable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


async def _payload(view: View, connection: Any, found: RecordStory) -> tuple[object, str] | None:
    """The payload that the URL asks for, if it is of an event of this record."""
    wanted = view.query.get("payload", "")
    for each in found.chapters:
        if each.kind == "event" and wanted and str(each.more["number"]) == wanted:
            return await payload_of_event(connection, each.more["delivery"], each.more["ordinal"])
    return None


def _chapter(view: View, each: Chapter) -> None:
    tone = TONES.get(each.kind, pieces.TONES.get(each.status, ""))
    with el("article", f"chapter {tone}".strip(), data_row="1"):
        with el("div", "chapter-at"):
            moment(each.at, view)
        el("div", "knot", aria_hidden="true")
        with el("div", "chapter-words"):
            with el("div", "chapter-title"):
                el("b", text=_title(each))
                if each.status and each.kind != "event":
                    chip(each.status)
                _links(view, each)
            el("div", "muted", _words(each))
            if each.reason:
                el("div", "reason", each.reason)


def _title(each: Chapter) -> str:
    match each.kind:
        case "event":
            return f"{short(each.title, 60)} came in"
        case "outcome":
            return short(each.title.rpartition(".")[2], 60)
        case "effect":
            return (
                f"Wrote: {short(each.title, 80)}" if each.status == "delivered" else f"Write: {short(each.title, 80)}"
            )
        case "waiting":
            return f"Waits for {short(each.title.rpartition('.')[2], 60)}"
        case _:
            return short(each.title, 80)


def _words(each: Chapter) -> str:
    more = each.more
    match each.kind:
        case "event":
            fro = f"from {short(more['source'] or 'a delivery that is gone', 40)}"
            taken = "no trigger wanted it" if each.status else f"event {more['number']}"
            return f"{fro} · {size(more['bytes'])} · {taken}"
        case "effect":
            tries = f" · {number(more['attempts'])} attempts" if more["attempts"] else ""
            return f"through {short(more['connector'], 40)}{tries}"
        case "waiting":
            return f"event {more['number']} · {number(more['attempts'])} attempts so far"
        case "letter":
            return f"after {number(more['attempts'])} attempts · {more['status']}"
        case _:
            return ""


def _links(view: View, each: Chapter) -> None:
    if each.execution is not None:
        ident(each.execution, view.execution(each.execution))
    if each.kind == "event" and view.may(Act.see_payload) and each.more["source"]:
        pieces.link("payload", view.here(payload=each.more["number"]), "text-link")
    if each.kind == "letter":
        pieces.link("open", view.link(f"/dead-letters/{each.more['letter']}"), "text-link")


def _state(view: View, found: RecordStory) -> None:
    with el("div", "stack"):
        with pieces.panel("Now"):
            pieces.facts([
                ("Object", short(found.object, 60)),
                ("Record", found.record[:500]),
                ("First seen", lambda: moment(found.created_at, view)),
                ("Last changed", lambda: moment(found.updated_at, view)),
                ("Log", lambda: pieces.link("its lines", view.link("/logs", q=_asked(found.record)), "text-link")),
                *([("State", "deleted")] if found.deleted else []),
            ])  # fmt: skip
        if found.data is not None:
            with pieces.panel("As it was last seen"):
                if view.may(Act.see_payload):
                    pieces.text_block(found.data, f"{found.object}")
                else:
                    el("p", "muted", "Its fields are not for your role.")


def _asked(record: str) -> str:
    quoted = record.replace("\\", "\\\\").replace('"', '\\"')
    return f'record:"{quoted}"' if any(sign.isspace() or sign in '":' for sign in record) else f"record:{record}"
