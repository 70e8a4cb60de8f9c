"""Executions: each run of a handler, newest first."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from circuit_script.dashboard import pieces
from circuit_script.dashboard.asking import Ask, filters, said
from circuit_script.dashboard.frame import View, page
from circuit_script.dashboard.pieces import Column, Row, chip, el, ident, moment
from circuit_script.dashboard.reading import reading
from circuit_script.dashboard.still import still
from circuit_script.dashboard.words import number, short, span
from circuit_script.events.looking import ExecutionQuery, Listed, handler_names, list_executions
from circuit_script.events.looking.executions import STATUSES, TROUBLE
from circuit_script.telemetry.traces import find_executions

SHOWN = 50


@page("/executions", title="Executions")
async def show(view: View) -> None:
    """What fits the filter; an id goes straight to what it is of."""
    text, status, handler = said(view, "q"), said(view, "status"), said(view, "handler")
    async with reading(view.tenant) as connection:
        handlers = await handler_names(connection)
        meant = _id_of(text)
        found: list[UUID] = [] if meant is None else await find_executions(connection, meant, view.tenant)
        query = ExecutionQuery(
            handler=handler,
            status=status if status in (*STATUSES, TROUBLE) else None,
            record=text if not found else None,
            before=_id_of(said(view, "before")),
            limit=SHOWN,
        )
        listed = await list_executions(connection, query) if not found else None
    pieces.head("Executions", "Each run of a handler, the newest first.")
    filters(
        view,
        [
            Ask("q", "Record or id", "a record, execution, delivery, effect or trace"),
            Ask("status", "Status", options=_options()),
            Ask("handler", "Handler", options=[("", "every handler"), *((each, each) for each in handlers)]),
        ],
    )
    if listed is None:
        await _of_id(view, found)
        return
    if not listed.rows:
        _nothing(filtered=bool(text or status or handler))
        return
    with pieces.panel(classes="flush"):
        listing(view, listed.rows, whole=True)
    newest = view.here(before=None) if query.before else ""
    pieces.pager(newest, view.here(before=listed.older) if listed.older else "")


def _options() -> list[tuple[str, str]]:
    return [("", "every status"), (TROUBLE, "with trouble"), *((each, each) for each in STATUSES)]


def _id_of(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None


async def _of_id(view: View, found: Sequence[UUID]) -> None:
    with pieces.panel("What this id leads to", classes="flush"):
        pieces.table([Column("Execution", wide=True)], [Row([str(each)], href=view.execution(each)) for each in found])


def _nothing(*, filtered: bool) -> None:
    if filtered:
        pieces.empty("No execution fits.", "A record is looked up by its exact id. Clear the filter to see all.")
    else:
        pieces.empty("Nothing has run yet.", "Send a sample through the app:", "circuit-script send gohighlevel")


def listing(view: View, rows: Sequence[Listed], *, reasons: bool = False, whole: bool = False) -> None:
    """Executions as a table, a still part."""
    columns = [
        Column("Handler"),
        Column("Status"),
        *([Column("Why", wide=True, minor=True)] if reasons or whole else []),
        *([Column("Event", minor=True)] if whole else []),
        *([] if reasons else [Column("Records", right=True, minor=True)]),
        Column("Took", right=True),
        Column("Ended", right=True),
        *([Column("Id", minor=True)] if whole else []),
    ]
    with still():
        pieces.table(columns, [_row(view, each, reasons, whole) for each in rows], label="Executions")


def _row(view: View, each: Listed, reasons: bool, whole: bool) -> Row:
    name = each.handler.rpartition(".")[2]
    return Row(
        [
            short(name, 40),
            lambda: chip(each.status),
            *([lambda: el("span", "muted", short(each.reason or "", 160), title=(each.reason or "")[:1000] or None)]
              if reasons or whole else []),
            *([f"{each.object} {each.event}"] if whole else []),
            *([] if reasons else [number(each.records)]),
            span(each.took.total_seconds()),
            lambda: moment(each.ended_at, view),
            *([lambda: ident(each.id)] if whole else []),
        ],
        href=view.execution(each.id),
    )  # fmt: skip
