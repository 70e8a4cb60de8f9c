"""Tenants: what each has used of its quotas and budgets, and for one of them who used it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial

from circuit_script.access import Act
from circuit_script.dashboard.afterwards import tell, then
from circuit_script.dashboard.asking import whole
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
    head,
    link,
    moment,
    pager,
    panel,
    stat,
    table,
)
from circuit_script.dashboard.reading import acting, reading
from circuit_script.dashboard.words import number
from circuit_script.db.pool import Connection
from circuit_script.events.status import Waiting, waiting
from circuit_script.governor.money import NANO, dollars, nanos
from circuit_script.governor.spending import Spent, accounts, spent
from circuit_script.llm.budgets import Budgeted, held
from circuit_script.telemetry.usage import User, users_of
from circuit_script.tenants import Tiers, pauses
from circuit_script.tenants.leases import Period, Used, read_use
from circuit_script.tenants.pauses import Pause, read_pauses
from circuit_script.tenants.tiers import QUOTAS, Tier

PATH = "/tenants"
PAGE = 12  # tenants that are read for one page: each as itself
DAYS = 7
NEWEST = 3_000  # executions of which "who uses most" is told
MOST = 10


@dataclass(frozen=True, slots=True)
class _Look:
    """What is known of one tenant."""

    tenant: str
    tier: Tier | None
    periods: Sequence[tuple[str, Period]]
    budgets: Sequence[Budgeted]
    pauses: Sequence[Pause]

    @property
    def paused(self) -> bool:
        return any(each.kind in ("everything", "tenant") for each in self.pauses)


@page(PATH, title="Tenants")
async def tenants(view: View) -> None:
    tell(view)
    at = whole(view, "page", 10_000) or 0
    shown = view.tenants[at * PAGE : (at + 1) * PAGE]
    looks = [await _look(view, each) for each in shown]
    head("Tenants", "What each has used of what its tier allows, and of its budgets.")
    if not looks:
        empty("No tenant is here.", "Tenants stand in circuit.toml, each in a table [tenants.NAME].")
        return
    if len(view.tenants) == 1:
        await _one(view, looks[0])
        return
    with el("div", "columns cards"):
        for each in looks:
            _card(view, each)
    pager(view.here(page=None) if at else "", view.here(page=at + 1) if (at + 1) * PAGE < len(view.tenants) else "")


@page(PATH + "/usage", title="Tenant")
async def tenant(view: View) -> None:
    """The tenant of the page."""
    tell(view)
    await _one(view, await _look(view, view.tenant))


async def _look(view: View, name: str) -> _Look:
    async with reading(name) as connection:
        today, used = await read_use(connection, [name])
        budgets = await _budgets(view, connection)
        paused = await read_pauses(connection)
    tier = Tiers.of_settings(view.settings).of(name)
    return _Look(name, tier, _periods(name, tier, used, today), budgets, paused)


async def _budgets(view: View, connection: Connection) -> list[Budgeted]:
    """The tenant's own: those of handlers and of all tenants together are not its to see."""
    return held(await accounts(connection), view.settings, {})


def _periods(tenant: str, tier: Tier | None, used: Used, today: date) -> list[tuple[str, Period]]:
    if tier is None:
        return []
    return [
        (
            quota,
            Period(name, today if name == "day" else today.replace(day=1), used.get((tenant, quota, name), 0), most),
        )
        for quota in QUOTAS
        for name, most in zip(("day", "month"), tier.ceilings(quota), strict=True)
        if most is not None
    ]


def _card(view: View, look: _Look) -> None:
    with panel() as made:
        made.classes("card")
        with el("h2", "panel-title"):
            with el("span"):
                link(look.tenant, view.link(f"{PATH}/usage", tenant=look.tenant), "row-link")
            with el("span", "pick"):
                if look.paused:
                    chip("paused", "warn")
                el("small", "muted", f"tier {look.tier.name}" if look.tier else "no tier")
        _bars(view, look)


def _bars(view: View, look: _Look) -> None:
    if not look.periods and not look.budgets:
        words = "No model was called." if look.tier else "Nothing bounds what it uses, and no model was called."
        el("p", "muted", words)
    with el("div", "limit-bars"):
        for quota, period in look.periods:
            words = f"{number(period.used)} of {number(period.ceiling)}"
            bar(f"{quota.replace('_', ' ')}, {period.name}", period.used, period.ceiling, words)
        for each in look.budgets:
            total = each.spent + each.reserved
            bar(f"models, {each.scope.split()[-1]}", total, each.ceiling, f"{_cents(total)} of {_cents(each.ceiling)}")


def _cents(amount: int) -> str:
    return f"${amount / NANO:,.2f}" if amount >= NANO // 100 or amount == 0 else dollars(amount)


async def _one(view: View, look: _Look) -> None:
    async with reading(look.tenant) as connection:
        cost = await spent(connection, DAYS)
        users = await users_of(connection, DAYS, MOST, newest=NEWEST)
        put_off = await waiting(connection)
    with head(look.tenant, f"Tier {look.tier.name}" if look.tier else "It has no tier: no quota bounds it."):
        if look.paused:
            chip("paused", "warn")
        if view.may(Act.pause):
            _pausing(view, look)
    _figures(look, cost, users)
    with el("div", "columns"):
        with el("div", "stack"):
            with panel("Quotas and budgets", "they begin anew at midnight UTC"):
                _bars(view, look)
            _waiting(view, put_off)
            _pauses(view, look)
        with el("div", "stack"):
            _money(cost)
    _users(users)


def _figures(look: _Look, cost: Sequence[Spent], users: Sequence[User]) -> None:
    total = sum(each.settled + each.unknown + each.reserved for each in cost)
    nearest = max((period.percent for _, period in look.periods), default=None)
    tone = "" if nearest is None or nearest < 80 else "bad" if nearest >= 100 else "warn"
    with el("div", "stats"):
        stat("Spent on models", _cents(total), f"in {DAYS} days")
        stat("Model calls", number(sum(each.calls for each in cost)), f"in {DAYS} days")
        stat(
            "Executions",
            number(sum(each.executions for each in users)),
            f"of the latest {number(NEWEST)} in {DAYS} days",
        )
        stat("Nearest quota", "–" if nearest is None else f"{nearest} %", "of what its tier allows", tone)


def _pausing(view: View, look: _Look) -> None:
    own = any(each.kind == "tenant" and each.value == look.tenant for each in look.pauses)

    async def turn() -> None:
        words = "What waits of it goes on." if own else "Nothing new of it starts; what comes is taken in and waits."
        name = "Resume" if own else "Pause"
        answer = await confirm(f"{name} {look.tenant}?", words, name, reason=not own, danger=not own)
        if answer is None:
            return
        async with acting(view, Act.pause, look.tenant) as connection:
            if own:
                await pauses.resume(connection, "tenant", look.tenant)
            else:
                await pauses.pause(connection, "tenant", look.tenant, reason=answer, by=view.person.name)
        then(view, view.here(), f"{look.tenant} is {'going on' if own else 'paused'}.")

    button("Resume" if own else "Pause", turn, kind="main" if own else "danger")


def _pauses(view: View, look: _Look) -> None:
    if not look.pauses:
        return
    with panel("Paused", classes="flush"):
        columns = [Column("What"), Column("Why", wide=True), Column("By"), Column("Since")]
        rows = [Row([each.shown, each.reason or "–", each.by, partial(moment, each.at, view)]) for each in look.pauses]
        table(columns, rows, label="Pauses")


def _waiting(view: View, put_off: Sequence[Waiting]) -> None:
    if not put_off:
        return
    with panel("Waits for money or a quota", classes="flush"):
        columns = [Column("Handler"), Column("Events", right=True), Column("Until"), Column("For", wide=True)]
        rows = [Row([each.handler, number(each.n), partial(moment, each.first, view), each.reason]) for each in put_off]
        table(columns, rows, label="What waits")


def _money(cost: Sequence[Spent]) -> None:
    with panel("Models", f"the last {DAYS} days", classes="flush"):
        if not cost:
            empty("No model was called.")
            return
        together: dict[tuple[str, str], list[int]] = {}
        for each in cost:
            sums = together.setdefault((each.model, each.handler), [0, 0, 0])
            sums[0] += each.calls
            sums[1] += each.tokens_in + each.tokens_out
            sums[2] += each.settled + each.unknown + each.reserved
        columns = [Column("Model"), Column("Handler", wide=True), Column("Calls", right=True),
                   Column("Tokens", right=True, minor=True), Column("Cost", right=True)]  # fmt: skip
        dearest = sorted(together.items(), key=lambda each: -each[1][2])[:MOST]
        rows = [Row([*key, number(n), number(tokens), _cents(amount)]) for key, (n, tokens, amount) in dearest]
        table(columns, rows, label="Cost of models")


def _users(users: Sequence[User]) -> None:
    if not users:
        return
    with panel("Who uses most", f"of the latest {number(NEWEST)} executions", classes="flush"):
        columns = [
            Column("Handler", wide=True), Column("Executions", right=True), Column("Wall time", right=True),
            Column("CPU", right=True, minor=True), Column("Callouts", right=True, minor=True),
            Column("Tokens", right=True, minor=True), Column("Cost", right=True),
        ]  # fmt: skip
        rows = [
            Row([
                each.handler, number(each.executions), f"{each.wall_time:,.1f} s", f"{each.cpu_time:,.1f} s",
                number(each.callouts), number(each.llm_tokens), _cents(nanos(each.llm_cost)),
            ])
            for each in users
        ]  # fmt: skip
        table(columns, rows, label="Who uses most")
