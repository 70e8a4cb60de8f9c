"""One execution: what it was given, what it did, what it used, what it said, and to run it again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from uuid import UUID

from nicegui import ui

from circuit_script.access import Act
from circuit_script.dashboard import pieces
from circuit_script.dashboard.frame import View, page
from circuit_script.dashboard.pages.executions import listing
from circuit_script.dashboard.pages.logs import show_line
from circuit_script.dashboard.pieces import Column, Row, chip, el, ident, moment
from circuit_script.dashboard.reading import acting, borrowed, reading
from circuit_script.dashboard.spans import waterfall
from circuit_script.dashboard.still import still
from circuit_script.dashboard.words import measure, money, number, short, span
from circuit_script.errors import ReplayRefused
from circuit_script.events.looking import (
    EffectSeen,
    EventSeen,
    ExecutionQuery,
    ExecutionStory,
    Listed,
    effect_payloads,
    list_executions,
    payload_of_event,
    read_execution,
)
from circuit_script.events.replay import replays
from circuit_script.events.replay.choosing import Choice, Filter, live_routes
from circuit_script.events.replay.replays import Replay
from circuit_script.telemetry import LogLine, LogQuery, LogReader
from circuit_script.telemetry.traces import Trace, read_trace
from circuit_script.tenants import TenantMap

LINES = 200
EVENTS = 50
FOLLOWED = 2.0  # seconds between two looks at a replay

_beginning = asyncio.Lock()  # it takes two of the three connections


@dataclass(frozen=True, slots=True)
class _Seen:
    story: ExecutionStory
    chosen: EventSeen | None
    payload: object
    fault: str
    effects: dict[UUID, object]
    trace: Trace | None
    lines: list[LogLine]
    attempts: list[Listed]


@page("/executions/{id}", title="Execution")
async def show(view: View) -> None:
    """All of it, read at once."""
    seen = await _read(view)
    if seen is None:
        pieces.head("Execution")
        pieces.empty("There is no such execution.", "Retention has dropped it, or its id is another's.")
        return
    story = seen.story
    with pieces.head(story.handler.rpartition(".")[2], f"{story.object} {story.event}"):
        if view.may(Act.replay) and seen.story.events:
            pieces.button("Replay", lambda: _replay(view, story), kind="main", title="Run its events again")
    await _replayed(view)
    _figures(view, story)
    if story.reason:
        el("p", "note bad" if story.status in ("failed", "breached", "partial") else "note", story.reason[:4000])
    with el("div", "columns two-one"):
        with el("div", "stack"):
            _trace(seen.trace)
            _events(view, seen)
            _effects(view, seen)
            _log(view, seen)
        with el("div", "stack"):
            _facts(view, story)
            _limits(story)
            _calls(story)
            if story.detail:
                with pieces.panel("Stack"):
                    pieces.text_block(story.detail, "stack")


async def _read(view: View) -> _Seen | None:
    try:
        id_ = UUID(view.path["id"])
    except ValueError:
        return None
    async with reading(view.tenant) as connection:
        story = await read_execution(connection, id_)
        if story is None:
            return None
        chosen = _chosen(view, story)
        payload: object = None
        fault, effects, attempts = "", {}, []
        if chosen is not None:
            query = ExecutionQuery(delivery=chosen.delivery, limit=20)
            attempts = (await list_executions(connection, query)).rows
            if view.may(Act.see_payload):
                payload, fault = await payload_of_event(connection, chosen.delivery, chosen.ordinal)
        if view.may(Act.see_payload):
            effects = await effect_payloads(connection, id_)
        trace = await read_trace(connection, id_, view.tenant)
    async with borrowed() as connection:
        lines = await LogReader(connection, LogQuery(execution=id_, tenant=view.tenant, limit=LINES)).latest()
    return _Seen(story, chosen, payload, fault, effects, trace, lines, attempts)


def _chosen(view: View, story: ExecutionStory) -> EventSeen | None:
    """The event whose payload is shown: that of the URL, or the first; those with trouble come first."""
    wanted = view.query.get("event", "")
    found = (each for each in story.events if f"{each.delivery}.{each.ordinal}" == wanted)
    return next(found, story.events[0] if story.events else None)


def _figures(view: View, story: ExecutionStory) -> None:
    took = (story.ended_at - story.started_at).total_seconds()
    cost = sum((each.cost or 0 for each in story.calls), start=0)
    with el("div", "stats"):
        tone = pieces.TONES.get(story.status, "")
        pieces.stat("Status", story.status, f"release {story.release}", tone if tone in ("bad", "warn") else "")
        pieces.stat("Took", span(max(took, 0)))
        pieces.stat("Records", number(story.records), "in its batch")
        pieces.stat("Effects", number(len(story.effects)), "writes it asked for")
        pieces.stat("Models", money(cost), f"{number(len(story.calls))} calls")


def _facts(view: View, story: ExecutionStory) -> None:
    with pieces.panel("About it"):
        pieces.facts([
            ("Execution", lambda: el("span", "ident", str(story.id))),
            ("Handler", story.handler),
            ("Began", lambda: moment(story.started_at, view)),
            ("Ended", lambda: moment(story.ended_at, view)),
            ("Tenant", story.tenant),
            ("Log", lambda: pieces.link("its lines", view.link("/logs", q=f"execution:{story.id}"), "text-link")),
        ])  # fmt: skip


def _limits(story: ExecutionStory) -> None:
    with pieces.panel("Limits", "what it used"):
        shown = {name: pair for name, pair in story.used.items() if name != "depth" or pair[0] > 1}
        if not shown:
            el("p", "muted", "It used nothing that counts.")
        with el("div", "limit-bars"), still():
            for name, (used, ceiling) in shown.items():
                of = "" if ceiling is None else f" of {measure(name, ceiling)}"
                pieces.bar(name.replace("_", " "), used, ceiling, measure(name, used) + of)


def _calls(story: ExecutionStory) -> None:
    if not story.calls:
        return
    with pieces.panel("Model calls", classes="flush"):
        columns = [Column("Model", wide=True), Column("Tokens", right=True), Column("Cost", right=True)]
        rows = [
            Row([short(each.model, 60), number((each.tokens_in or 0) + (each.tokens_out or 0)), money(each.cost)])
            for each in story.calls
        ]
        pieces.table(columns, rows, label="Model calls")


def _trace(trace: Trace | None) -> None:
    with pieces.panel("Trace", "from delivery to effect"):
        if trace is None or not trace.spans:
            el("p", "muted", "No trace was kept of it.")
            return
        waterfall(trace)
        if not trace.complete:
            el("p", "muted", "What its handler asked for was not kept: of those that succeed, some are.")


def _events(view: View, seen: _Seen) -> None:
    story = seen.story
    with pieces.panel("Events", f"{number(len(story.events))} of its batch", classes="flush"):
        if not story.events:
            pieces.empty("No event is known any more.", "Retention has dropped them, or it was called by an endpoint.")
            return
        columns = [Column("Record", wide=True), Column("Event", minor=True), Column("Became"), Column("", right=True)]
        with still():
            pieces.table(columns, [_event_row(view, seen, each) for each in story.events[:EVENTS]], label="Events")
        if len(story.events) > EVENTS:
            el("p", "muted", f"The first {EVENTS}, those with trouble before the others.")
    if seen.chosen is not None:
        with pieces.panel("Payload", _name_of(seen.chosen)):
            if not view.may(Act.see_payload):
                pieces.empty("Payloads are not for your role.", "An owner of the tenant can change it under People.")
            else:
                if seen.fault:
                    el("p", "muted", seen.fault)
                if seen.payload is not None:
                    pieces.text_block(seen.payload, f"payload-{seen.chosen.delivery}")
    if len(seen.attempts) > 1:
        with pieces.panel("Attempts", "of this delivery", classes="flush"):
            listing(view, seen.attempts)


def _name_of(event: EventSeen) -> str:
    return short(f"{event.object or ''} {event.record or ''}", 60) if event.record is not None else ""


def _event_row(view: View, seen: _Seen, each: EventSeen) -> Row:
    here = seen.chosen is each
    known = each.object is not None and each.record is not None
    return Row(
        [
            short(each.record if each.record is not None else "gone", 60),
            short(each.event or "", 40),
            lambda: chip(each.status),
            lambda: (
                el("span", "muted", "shown below")
                if here
                else pieces.link("payload", view.here(event=f"{each.delivery}.{each.ordinal}"), "text-link")
            ),
        ],
        href=view.record(str(each.object), str(each.record)) if known else "",
    )


def _effects(view: View, seen: _Seen) -> None:
    if not seen.story.effects:
        return
    with pieces.panel("Effects", "in the order they leave", classes="flush"):
        columns = [
            Column("Write", wide=True),
            Column("Through", minor=True),
            Column("Status"),
            Column("At", right=True),
        ]
        rows = [_effect_row(view, each) for each in seen.story.effects]
        pieces.table(columns, rows, label="Effects")
        if seen.effects:
            with el("details", "more inset"):
                el("summary", text="What was written")
                for effect, payload in seen.effects.items():
                    ident(effect)
                    pieces.text_block(payload, f"effect-{effect}")


def _effect_row(view: View, each: EffectSeen) -> Row:
    return Row(
        [
            short(f"{each.operation} {each.target}", 80),
            each.connector,
            lambda: chip(each.status),
            lambda: moment(each.settled_at or each.next_at, view),
        ]
    )


def _log(view: View, seen: _Seen) -> None:
    with pieces.panel("Log", f"{number(len(seen.lines))} lines" if seen.lines else "", classes="flush"):
        if not seen.lines:
            pieces.empty("It said nothing.", "In a handler:", 'log.info("scored", lead=id, score=78)')
            return
        with el("div", "lines"), still():
            for line in seen.lines:
                show_line(view, line, within=True)


async def _replay(view: View, story: ExecutionStory) -> None:
    """Count, ask, begin."""
    wanted = Filter(execution=story.id, tenant=view.tenant)
    async with acting(view, Act.replay) as connection:
        choice = Choice(wanted, await live_routes(connection), TenantMap(view.settings.accounts))
        counted = await choice.count(connection)
    items = sum(line.items for line in counted if line.left_out is None)
    left = "".join(f"\nLeft out: {number(line.items)}, as {line.left_out}" for line in counted if line.left_out)
    if not items:
        raise ReplayRefused("Nothing of it can be replayed now.", cure=left.strip())
    what = "1 event goes" if items == 1 else f"{number(items)} events go"
    words = f"{what} through the live release again, behind live traffic.{left}"
    if await pieces.confirm("Replay for real?", words, "Replay") is None:
        return
    async with _beginning, acting(view, Act.replay) as writing, borrowed() as connection:
        begun = await replays.begin(connection, writing, choice, by=view.person.name)
    ui.navigate.to(view.here(replayed=begun.id))


async def _replayed(view: View) -> None:
    """How the replay does that was begun here."""
    try:
        id_ = UUID(view.query.get("replayed", ""))
    except ValueError:
        return

    async def build() -> None:
        async with borrowed() as connection:
            found = await replays.look(connection, id_)
            became = await replays.became(connection, id_)
        if found.filter.get("tenant") == view.tenant:
            _tell(found, became)

    await view.live(FOLLOWED, build, still=True)


def _tell(found: Replay, became: dict[str, int]) -> None:
    ended = ", ".join(f"{number(count)} {what}" for what, count in became.items())
    settled = f"{number(found.settled)} of {number(found.chosen)} are settled"
    words = f"Replay {found.status}: {settled}{f' ({ended})' if ended else ''}."
    tone = "good" if found.status == "done" and set(became) <= {"succeeded"} else ""
    el("p", f"note {tone}".strip(), words, role="status")
