"""Vendors: how each one is, what holds its effects up, how much of its rates is used, and what the guardian found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial

from circuit_script.access import ALL, Act
from circuit_script.connectors.connector import Rate
from circuit_script.dashboard.afterwards import tell, then
from circuit_script.dashboard.declared import operations_of
from circuit_script.dashboard.frame import View, page
from circuit_script.dashboard.pieces import (
    Column,
    Row,
    bar,
    button,
    chip,
    confirm,
    el,
    empty,
    facts,
    head,
    link,
    moment,
    panel,
    table,
)
from circuit_script.dashboard.reading import acting, borrowed, reading
from circuit_script.dashboard.words import money, number, short, span
from circuit_script.effects.rates import rates_of
from circuit_script.effects.vendors import Headroom, Held, Vendor, headroom, held_up, vendors
from circuit_script.effects.waits import Waiting, effects_waiting
from circuit_script.events.chores import GUARDIAN, notes_of
from circuit_script.execution.outcome import JOBS
from circuit_script.governor.spending import Answering, providers_of
from circuit_script.settings_spans import seconds_of
from circuit_script.telemetry.guardian import Finding, carried
from circuit_script.tenants import pauses
from circuit_script.tenants.pauses import Pause, read_pauses

PATH = "/vendors"
EVERY = 5.0  # seconds between two looks
WAITS = 40  # lines of what waits
ROUNDS = 3  # of the guardian, after which what it found counts no more
WHY = {
    "behind": "another effect of its record comes first", "reference": "the id that it uses is not made yet",
    "paused": "somebody paused it", "asked": "the vendor asked for time", "open": "the circuit is open",
    "rate": "its rate is used up", "retry": "its next attempt", "due": "it is due",
}  # fmt: skip
KINDS = {"open": ("circuit open", "bad"), "asked": ("vendor asked", "warn"), "rate": ("rate used up", "wait")}


@dataclass(frozen=True, slots=True)
class _Look:
    vendors: Sequence[Vendor]
    held: Sequence[Held]
    rates: Sequence[Headroom]
    waits: Sequence[Waiting]
    paused: Sequence[Pause]
    providers: Sequence[Answering]
    findings: Sequence[Finding] | None


@page(PATH, title="Vendors")
async def show_vendors(view: View) -> None:
    tell(view)
    head("Vendors", "Who is well, what waits for whom, and how much of each rate is used.")

    async def build() -> None:
        _show(view, await _look(view))

    await view.live(EVERY, build)


def _declared(view: View) -> tuple[list[str], dict[tuple[str, str], Rate]]:
    """The connectors that there are, and the rates of their operations: those of circuit.toml, or else their own."""
    operations = operations_of(view.settings)
    own = {key: each.rate for key, each in operations.items() if each.rate is not None}
    return sorted({name for name, _ in operations} - {JOBS}), own | rates_of(view.settings)


async def _look(view: View) -> _Look:
    known, rates = _declared(view)
    async with reading(view.tenant) as connection:
        look = _Look(
            vendors=[each for each in await vendors(connection, known, tenant=view.tenant) if each.connector != JOBS],
            held=await held_up(connection, tenant=view.tenant),
            rates=await headroom(connection, rates, tenant=view.tenant),
            waits=await effects_waiting(connection, tenant=view.tenant, limit=WAITS),
            paused=[each for each in await read_pauses(connection) if each.kind == "connector"],
            providers=await providers_of(connection),
            findings=None,
        )
    return look if not view.person.may(Act.see, ALL) else replace(look, findings=await _findings(view))


def _show(view: View, look: _Look) -> None:
    if look.findings is not None:
        _show_findings(view, look.findings)
    if look.vendors:
        with el("div", "columns cards"):
            for each in look.vendors:
                _card(view, each, look)
    else:
        empty("No vendor is known.", "Addresses of effects stand in circuit.toml, each in a table [addresses.NAME].")
    _show_held(view, look.held)
    with el("div", "columns"):
        _show_rates(look.rates)
        _show_providers(view, look.providers)
    _show_waits(view, look.waits)


def _health(each: Vendor, look: _Look) -> tuple[str, str]:
    if any(one.value == each.connector for one in look.paused):
        return "paused", "warn"
    if any(one.connector == each.connector and one.kind == "open" for one in look.held):
        return "down", "bad"
    if any(one.connector == each.connector for one in look.held):
        return "slowed down", "warn"
    if each.failed:
        return ("failing", "bad") if each.failed > each.delivered else ("some fail", "warn")
    return ("well", "good") if each.delivered else ("nothing sent lately", "plain")


def _card(view: View, each: Vendor, look: _Look) -> None:
    with panel() as made:
        made.classes("card")
        with el("h2", "panel-title"):
            el("span", text=each.connector)
            chip(*_health(each, look))
        doubt, dead = view.link("/in-doubt", connector=each.connector), view.link("/dead-letters", kind="effect")
        facts([
            ("Delivered", f"{number(each.delivered)} in the last hour"),
            ("Not taken", f"{number(each.failed)} in the last hour"),
            ("Waiting", number(each.waiting)),
            ("In doubt", _linked(each.in_doubt, doubt)),
            ("Dead", _linked(each.dead, dead)),
            ("Last delivered", partial(moment, each.last_delivered, view)),
        ])  # fmt: skip
        if each.last_said:
            el("p", "note warn", each.last_said)
        if view.may(Act.pause):
            with el("div", "card-acts"):
                _pausing(view, each.connector, look.paused)


def _linked(n: int, href: str) -> Callable[[], object] | str:
    return (lambda: link(number(n), href, "text-link")) if n else "0"


def _pausing(view: View, connector: str, paused: Sequence[Pause]) -> None:
    """Of this tenant only: what is paused for all is resumed where it was paused."""
    own = any(each.value == connector and each.tenant == view.tenant for each in paused)

    async def turn() -> None:
        words = (
            "What waits for it leaves."
            if own
            else f"Nothing of {view.tenant} leaves for it; it waits, and costs no attempt."
        )
        name = "Resume" if own else "Pause"
        answer = await confirm(f"{name} {connector} for {view.tenant}?", words, name, reason=not own)
        if answer is None:
            return
        async with acting(view, Act.pause) as connection:
            if own:
                await pauses.resume(connection, "connector", connector, tenant=view.tenant)
            else:
                by = view.person.name
                await pauses.pause(connection, "connector", connector, tenant=view.tenant, reason=answer, by=by)
        then(view, view.here(), f"{connector} is {'going on' if own else 'paused'} for {view.tenant}.")

    button("Resume" if own else "Pause", turn, kind="" if own else "quiet")


def _show_held(view: View, held: Sequence[Held]) -> None:
    if not held:
        return
    with panel("Held up", "as the workers tell", classes="flush"):
        columns = [
            Column("Vendor"),
            Column("What"),
            Column("Target", minor=True),
            Column("Why", wide=True),
            Column("Until"),
        ]
        rows = [
            Row([
                f"{each.connector} {each.operation}", partial(chip, *KINDS.get(each.kind, (each.kind, ""))),
                each.target, each.reason, partial(moment, each.until, view),
            ])
            for each in held
        ]  # fmt: skip
        table(columns, rows, label="Held up")


def _show_rates(rates: Sequence[Headroom]) -> None:
    with panel("Rates", "used in their span, at most"):
        if not rates:
            empty("No rate is said.", "Rates stand in circuit.toml: [connectors.NAME.rates.OPERATION].")
        with el("div", "limit-bars"):
            for each in rates:
                words = f"{number(each.used)} of {number(each.rate.calls)} in {span(each.rate.seconds)}"
                bar(f"{each.connector} {each.operation}", each.used, each.rate.calls, words)


def _show_providers(view: View, providers: Sequence[Answering]) -> None:
    with panel("Models", "today", classes="flush"):
        if not providers:
            empty("No model was called today.")
            return
        columns = [Column("Provider", wide=True), Column("Calls", right=True), Column("Unknown", right=True),
                   Column("Cost", right=True), Column("Last", minor=True)]  # fmt: skip
        rows = [
            Row([
                f"{each.provider} {each.model}", number(each.calls), number(each.unknown),
                money(Decimal(each.cost).scaleb(-9)), partial(moment, each.last, view),
            ])
            for each in providers
        ]  # fmt: skip
        table(columns, rows, label="Providers of models")


def _show_waits(view: View, waits: Sequence[Waiting]) -> None:
    if not waits:
        return
    with panel("Effects that wait", classes="flush"):
        columns = [
            Column("Effects", right=True),
            Column("For"),
            Column("Why"),
            Column("Until", minor=True),
            Column("Said", wide=True, minor=True),
        ]
        rows = [
            Row([
                number(each.n), short(f"{each.connector} {each.operation} → {each.target}", 60),
                WHY.get(each.why, each.why), partial(moment, each.until, view), each.reason or "–",
            ])
            for each in waits
        ]  # fmt: skip
        table(columns, rows, label="Effects that wait")


def _show_findings(view: View, findings: Sequence[Finding]) -> None:
    if not findings:
        el(
            "p",
            "note good",
            "The guardian found nothing wrong with vendors, credentials, database, disk, clock and workers.",
        )
        return
    with panel("What the guardian found", "of the whole installation", classes="flush"):
        columns = [Column("Finding"), Column("What", wide=True), Column("Next", wide=True, minor=True), Column("Since")]
        rows = [
            Row([
                partial(chip, each.severity), each.what, each.next, partial(moment, each.since, view),
            ])
            for each in findings
        ]  # fmt: skip
        table(columns, rows, label="Findings")


async def _findings(view: View) -> list[Finding]:
    """What the guardians of all hosts have found, the worst first."""
    fresh = max(ROUNDS * seconds_of(view.settings.guardian.every), 60.0)
    async with borrowed() as connection:
        notes = await notes_of(connection, GUARDIAN, fresh)
    found = []
    for note in notes.values():
        for row in note.get("findings", ()):
            with suppress(KeyError, TypeError, ValueError):  # of another version of the platform
                found.append(Finding.of_row(row))
    return carried(found, ())
