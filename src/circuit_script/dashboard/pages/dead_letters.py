"""Dead letters: counted by their cause, the newest, and what to do about one, some, or all that fit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from functools import partial

from circuit_script.access import Act
from circuit_script.dashboard.afterwards import remember, tell, then
from circuit_script.dashboard.asking import Ask, filters, said, whole
from circuit_script.dashboard.frame import View, page
from circuit_script.dashboard.pieces import (
    Cell,
    Column,
    Row,
    Ticks,
    button,
    chip,
    confirm,
    el,
    empty,
    head,
    link,
    moment,
    pager,
    panel,
    table,
    tabs,
    toast,
)
from circuit_script.dashboard.reading import acting, borrowed
from circuit_script.dashboard.still import still
from circuit_script.dashboard.telling import said_of
from circuit_script.dashboard.words import number, short
from circuit_script.db.pool import Connection
from circuit_script.events.letters import (
    CHUNK,
    Cause,
    Fate,
    Letter,
    Wanted,
    causes,
    chosen,
    discard,
    letters,
    retry,
)

PATH = "/dead-letters"
PAGE = 50
CAUSES = 8
STATES = ("open", "retried", "discarded", "all")
SINCE = {"1h": 1, "24h": 24, "7d": 168, "30d": 720}
Do = Callable[[Connection, Sequence[int]], Awaitable[list[Fate]]]


def wanted_of(view: View) -> Wanted:
    """What the URL asks for, of this tenant."""
    status = view.query.get("status", "open")
    hours = SINCE.get(view.query.get("since", ""))
    kind = view.query.get("kind")
    return Wanted(
        status=None if status == "all" else status if status in STATES else "open",
        trigger=said(view, "trigger"),
        tenant=view.tenant,
        record=said(view, "record"),
        reason=said(view, "reason"),
        kind=kind if kind in ("event", "effect") else None,
        since=None if hours is None else datetime.now(UTC) - timedelta(hours=hours),
    )


@page(PATH, title="Dead letters")
async def dead_letters(view: View) -> None:
    tell(view)
    wanted = wanted_of(view)
    async with borrowed() as connection:  # letters are read as the tenant, who is in `wanted`
        counted = await causes(connection, wanted, CAUSES)
        found = await letters(connection, wanted, PAGE + 1, before=whole(view, "before"))
    total = counted[0].of if counted else 0
    ticks = Ticks()
    with head(
        "Dead letters", "What used up its attempts. Nothing of it is lost, and nothing happens until you say so."
    ):
        _acts_on_all(view, wanted, total)
    _narrow(view, wanted, total)
    if not found:
        _nothing(view, wanted)
        return
    if counted and len(found) > 1:
        _causes(view, counted)
    with panel("Letters", f"{number(total)} fit{'s' if total == 1 else ''}", classes="flush"):
        _acts_on_ticked(view, wanted, ticks)
        columns = [
            Column("Letter"), Column("What", minor=True), Column("Record"), Column("Why", wide=True),
            Column("Tries", right=True, minor=True), Column("Died", minor=True),
        ]  # fmt: skip
        open_ = wanted.status == "open" and (view.may(Act.retry) or view.may(Act.discard))
        with ticks.among() if open_ else nullcontext(), still():
            table(columns, [_row(view, each, ticks if open_ else None) for each in found[:PAGE]], label="Dead letters")
        older = view.here(before=found[PAGE - 1].id) if len(found) > PAGE else ""
        pager(view.here(before=None) if view.query.get("before") else "", older)


def _narrow(view: View, wanted: Wanted, total: int) -> None:
    with tabs("Status") as tab:
        for state in STATES:
            here = state == (wanted.status or "all")
            tab(state.capitalize(), view.here(status=None if state == "open" else state, before=None), here,
                number(total) if here else "")  # fmt: skip
    spans = [("", "Any time"), *((span, f"Last {span}") for span in SINCE)]
    asks = [
        Ask("reason", "Why it died", "Why: timeout, KeyError …"),
        Ask("trigger", "Handler"),
        Ask("record", "Record"),
        Ask("kind", "About", options=[("", "Events and effects"), ("event", "Events"), ("effect", "Effects")]),
        Ask("since", "Died", options=spans),
    ]
    filters(view, asks, keep=("status",))


def _nothing(view: View, wanted: Wanted) -> None:
    if wanted == Wanted(tenant=view.tenant):
        empty(
            "No dead letters.",
            "What fails is retried by itself; what still fails after that comes here, with its payload.",
        )
    else:
        empty("No letter fits.", "Ask for less, or look at another status.")


def _causes(view: View, counted: Sequence[Cause]) -> None:
    with panel("Why they died", "numbers, ids and quoted text left out", classes="flush"):
        columns = [
            Column("Cause", wide=True), Column("Handler"), Column("Letters", right=True), Column("First", minor=True),
            Column("Last", minor=True),
        ]  # fmt: skip
        with still():
            table(columns, [_cause(view, each) for each in counted], label="Causes")


def _cause(view: View, each: Cause) -> Row:
    href = view.here(reason=each.cause, trigger=each.handler or None, before=None)
    cells: list[Cell] = [
        each.cause or "no reason",
        each.handler or "–",
        number(each.n),
        partial(moment, each.first, view),
    ]
    return Row([*cells, partial(moment, each.last, view)], href)


def what_of(letter: Letter) -> str:
    """What it was about."""
    if letter.kind == "effect":
        return f"{letter.connector or 'effect'} {letter.operation or ''} → {letter.target or '?'}"
    return f"{letter.object or '?'} {letter.event or ''} · {letter.handler or 'no handler'}"


def _row(view: View, letter: Letter, ticks: Ticks | None) -> Row:
    href = view.link(f"{PATH}/{letter.id}")

    def first() -> None:
        with el("span", "pick"):
            if ticks is not None:
                ticks.tick(str(letter.id))
            link(f"#{letter.id}", href, "row-link")
            if letter.status != "open":
                chip(letter.status, "good" if letter.status == "retried" else "plain")

    record = None if letter.record is None else view.record(letter.object or "Contact", letter.record)
    cells: list[Cell] = [
        first, short(what_of(letter), 60), (lambda: link(short(letter.record, 40), record)) if record else "–",
        letter.reason[:300],
        letter.attempts, partial(moment, letter.at, view),
    ]  # fmt: skip
    return Row(cells)


def _acts_on_ticked(view: View, wanted: Wanted, ticks: Ticks) -> None:
    if wanted.status != "open":
        return
    with el("div", "bulk"):
        if view.may(Act.retry):
            button("Retry ticked", lambda: _ticked(view, ticks, Act.retry))
        if view.may(Act.discard):
            button("Discard ticked", lambda: _ticked(view, ticks, Act.discard), kind="quiet")


async def _ticked(view: View, ticks: Ticks, act: Act) -> None:
    ids = sorted(int(key) for key in ticks.keys)
    if not ids:
        toast("Tick a letter first.", "warn")
        return
    await _do(view, ids, act)


def _acts_on_all(view: View, wanted: Wanted, total: int) -> None:
    if wanted.status != "open" or not total:
        return
    words = f"all {number(total)}" if total > 1 else "it"

    async def everything(act: Act) -> None:
        async with acting(view, act) as connection:
            ids = await chosen(connection, wanted)
        await _do(view, ids, act)

    if view.may(Act.retry):
        button(f"Retry {words}", lambda: everything(Act.retry), kind="main")
    if view.may(Act.discard):
        button(f"Discard {words}", lambda: everything(Act.discard), kind="danger")


async def _do(view: View, ids: Sequence[int], act: Act) -> None:
    """Ask, do it a chunk at a time, and tell; then look again."""
    several = f"{number(len(ids))} letter{'s' if len(ids) != 1 else ''}"
    if act is Act.retry:
        words = (
            "Their events go on the queue again, their effects to the courier, each once. What succeeded since is left."
        )
        answer = await confirm(f"Retry {several}?", words, "Retry")
    else:
        words = "Nobody will try them again. Who, when and why is kept."
        answer = await confirm(f"Discard {several}?", words, "Discard", reason=True, danger=True)
    if answer is None:
        return
    await finish(view, ids, act, answer)
    then(view, view.here())


async def finish(view: View, ids: Sequence[int], act: Act, why: str) -> None:
    """Retry or discard them in chunks, a transaction each, and tell what became of them."""
    who, fates = view.person.name, list[Fate]()
    try:
        for start in range(0, len(ids), CHUNK):
            async with acting(view, act) as connection:
                some = ids[start : start + CHUNK]
                if act is Act.retry:
                    fates += await retry(connection, some, who, tenant=view.tenant)
                else:
                    fates += await discard(connection, some, who, why, tenant=view.tenant)
    except BaseException:
        if fates:  # they were done before it broke off
            toast(*said_of(fates))
        raise
    remember(view, *said_of(fates))
