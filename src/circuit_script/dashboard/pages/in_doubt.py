"""Effects in doubt: whether the vendor did them nobody knows. A person looks there, and says."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from uuid import UUID

from circuit_script.access import Act
from circuit_script.connectors.connector import InDoubt
from circuit_script.dashboard.afterwards import remember, tell, then
from circuit_script.dashboard.asking import Ask, filters, said
from circuit_script.dashboard.declared import operations_of
from circuit_script.dashboard.frame import View, page
from circuit_script.dashboard.pieces import (
    Column,
    Field,
    Row,
    Ticks,
    button,
    chip,
    dialog,
    el,
    empty,
    facts,
    head,
    ident,
    link,
    moment,
    pager,
    panel,
    table,
    toast,
)
from circuit_script.dashboard.reading import acting, borrowed
from circuit_script.dashboard.still import still
from circuit_script.dashboard.telling import answers_panel, attempts_panel, lines_panel, payload_panel
from circuit_script.dashboard.words import number, short
from circuit_script.errors import LetterRefused
from circuit_script.events.letters import Decision, Doubt, Known, doubts, find_doubt, known_of, settle_doubt

PATH = "/in-doubt"
PAGE = 50
RULES = {
    InDoubt.REPEAT: "may be sent again: the vendor knows its key, or to do it twice does no harm",
    InDoubt.LOOK_UP: "the connector can look it up at the vendor",
    InDoubt.ASK_A_PERSON: "look at the vendor's first: sent again, it may be done twice",
    None: "no connector of this app has such an operation any more",
}
WORDS = {
    Decision.done: ("It was done", "The vendor did it: it counts as delivered, and nothing is sent."),
    Decision.repeat: ("Send it again", "The vendor did not do it: it leaves again under the same key."),
    Decision.discard: ("Leave it", "Done or not, it is left as it is, and nothing is sent."),
}
DONE = {Decision.done: "delivered", Decision.repeat: "on the way again", Decision.discard: "left"}


def _rule(view: View, doubt: Doubt) -> InDoubt | None:
    found = operations_of(view.settings).get((doubt.connector, doubt.operation))
    return found.in_doubt if found else None


@page(PATH, title="In doubt")
async def in_doubt(view: View) -> None:
    tell(view)
    record, connector, before = said(view, "record"), said(view, "connector"), _id(view.query.get("before", ""))
    async with borrowed() as connection:  # read as the tenant
        found = await doubts(
            connection, PAGE + 1, tenant=view.tenant, record=record, connector=connector, before=before
        )
    head("In doubt", "The request left, and no answer came. Look at the vendor's, then say what happened.")
    if found or record or connector:
        filters(view, [Ask("connector", "Connector"), Ask("record", "Record")])
    if not found:
        empty("No effect is in doubt.", "Every write has been answered: done, refused, or on its way.")
        return
    ticks, several = Ticks(), {str(each.id): each for each in found[:PAGE]}
    with panel("Effects", f"{number(len(several))}{' and more' if len(found) > PAGE else ''}", classes="flush"):
        if view.may(Act.settle):
            with el("div", "bulk"):
                el("span", "muted", "Of the ticked ones:")
                for decision, (name, _) in WORDS.items():
                    button(name, partial(_settle_ticked, view, ticks, several, decision),
                           kind="" if decision is not Decision.discard else "quiet")  # fmt: skip
        columns = [
            Column("Effect"), Column("What"), Column("Record", minor=True), Column("Last heard", wide=True),
            Column("Rule", minor=True), Column("Since", minor=True),
        ]  # fmt: skip
        with ticks.among() if view.may(Act.settle) else nullcontext(), still():
            table(columns, [_row(view, each, ticks) for each in found[:PAGE]], label="Effects in doubt")
        pager(
            view.here(before=None) if view.query.get("before") else "",
            view.here(before=found[PAGE - 1].id) if len(found) > PAGE else "",
        )


def _id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _row(view: View, doubt: Doubt, ticks: Ticks) -> Row:
    def first() -> None:
        with el("span", "pick"):
            if view.may(Act.settle):
                ticks.tick(str(doubt.id))
            ident(doubt.id, view.link(f"{PATH}/{doubt.id}")).classes("row-link")

    rule = _rule(view, doubt)
    tone = "good" if rule is InDoubt.REPEAT else "warn"
    named = {
        InDoubt.REPEAT: "may repeat",
        InDoubt.LOOK_UP: "looked up",
        InDoubt.ASK_A_PERSON: "ask a person",
        None: "unknown",
    }
    return Row([
        first,
        short(f"{doubt.connector} {doubt.operation} → {doubt.target}", 60),
        short(doubt.record or "–", 40),
        (doubt.reason or "nothing")[:300],
        lambda: chip(named[rule], tone),
        partial(moment, doubt.at, view),
    ])  # fmt: skip


@page(PATH + "/{effect}", title="In doubt")
async def effect_in_doubt(view: View) -> None:
    tell(view)
    if _id(view.path["effect"]) is None:
        raise LetterRefused("There is no such effect.", cure="Look in the list of those in doubt.")
    async with borrowed() as connection:
        doubt = await find_doubt(connection, view.path["effect"], view.tenant)
        known = await known_of(connection, doubt, view.tenant)
    rule = _rule(view, doubt)
    with head("Effect in doubt", f"{doubt.connector} {doubt.operation} → {doubt.target}"):
        chip("in doubt", "warn")
        if view.may(Act.settle):
            for decision, (name, _) in WORDS.items():
                kind = {Decision.done: "main", Decision.discard: "quiet"}.get(decision, "")
                button(name, partial(_settle, view, [doubt], decision), kind=kind)
    with el("div", "columns two-one"):
        with el("div", "stack"):
            payload_panel(view, doubt.payload, "Payload, as it left", name=f"effect-{doubt.id}")
            answers_panel(view, known.answers)
            attempts_panel(view, "Who asked for it", known.attempts)
            lines_panel(view, known.lines)
        with el("div", "stack"), panel("About it"):
            _about(view, known, rule)


def _about(view: View, known: Known, rule: InDoubt | None) -> None:
    doubt = known.doubt
    where = view.record("Contact", doubt.record) if doubt.record else ""
    facts([
        ("Since", partial(moment, doubt.at, view)),
        ("Last heard", doubt.reason or "nothing"),
        ("By its rule", RULES[rule]),
        ("Attempts", number(doubt.attempts)),
        ("Record", (lambda: link(doubt.record, where)) if where else "of none"),
        ("Handler", doubt.handler or "no longer known"),
        ("Execution", partial(ident, doubt.execution, view.execution(doubt.execution))),
        ("Idempotency key", str(doubt.id)),
    ])  # fmt: skip


async def _settle_ticked(view: View, ticks: Ticks, found: dict[str, Doubt], decision: Decision) -> None:
    chosen = [found[key] for key in sorted(ticks.keys) if key in found]
    if chosen:
        await _settle(view, chosen, decision)
    else:
        toast("Tick an effect first.", "warn")


async def _settle(view: View, several: Sequence[Doubt], decision: Decision) -> None:
    """Ask how the person knows, settle each, and tell."""
    asked = await _asked(view, several, decision)
    if asked is None:
        return
    why, vendor_id = asked
    done, refused = 0, ""
    async with acting(view, Act.settle) as connection:
        for each in several:
            try:
                await settle_doubt(connection, each, decision, view.person.name, why, vendor_id=vendor_id or None)
                done += 1
            except LetterRefused as error:
                refused = error.detail
    if done:
        remember(view, f"{number(done)} {'is' if done == 1 else 'are'} {DONE[decision]}.")
    if refused:
        remember(view, refused, "warn")
    then(view, view.link(PATH))


async def _asked(view: View, several: Sequence[Doubt], decision: Decision) -> tuple[str, str] | None:
    """How the person knows, and the id that the vendor made; None when they thought better of it."""
    name, words = WORDS[decision]
    twice = decision is Decision.repeat and any(_rule(view, each) is not InDoubt.REPEAT for each in several)
    with dialog(name if len(several) == 1 else f"{name}: {number(len(several))} effects") as asked:
        el("p", "dialog-words", words)
        if twice:
            el(
                "p",
                "dialog-words warn",
                "It takes no idempotency key: if the vendor has done it, it will be done twice.",
            )
        reason = Field("How you know (kept with your name)", lines=2)
        made = Field("The id that the vendor made, if others refer to it") if _makes(decision, several) else None

        def go() -> None:
            if not reason.value.strip():
                toast("Say how you know.", "warn")
                return
            asked.submit((reason.value.strip(), made.value.strip() if made else ""))

        with el("div", "dialog-acts"):
            button("Cancel", lambda: asked.submit(None), kind="quiet")
            button(name, go, kind="danger" if twice else "main")
    answer = await asked
    asked.delete()
    return answer if isinstance(answer, tuple) else None


def _makes(decision: Decision, several: Sequence[Doubt]) -> bool:
    return decision is Decision.done and len(several) == 1
