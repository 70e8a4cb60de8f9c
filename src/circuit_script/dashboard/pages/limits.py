"""Limits: how near each handler came to its own, what nearly crossed one, what did, and who uses most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from circuit_script.dashboard.frame import View, page
from circuit_script.dashboard.pieces import Cell, Column, Row, bar, chip, el, empty, head, ident, panel, table, tabs
from circuit_script.dashboard.reading import reading
from circuit_script.dashboard.still import still
from circuit_script.dashboard.words import measure, number, percent
from circuit_script.governor import PER_RECORD, limits_of
from circuit_script.governor.governor import CircuitGovernor
from circuit_script.releases import Declared, live_handlers
from circuit_script.telemetry.usage import (
    NEAR,
    Breach,
    Ceiling,
    NearMiss,
    Used,
    User,
    breaches_of,
    near_misses,
    usage_of,
    users_of,
)

PATH = "/limits"
SPANS = {"1": "A day", "7": "7 days", "30": "30 days"}
NEWEST = 3_000  # executions that are looked at, the newest
MOST = 12

Usage = Mapping[tuple[str, str], Used]


@page(PATH, title="Limits")
async def limits(view: View) -> None:
    days = view.query.get("days", "7")
    days = days if days in SPANS else "7"
    governor = CircuitGovernor.of_settings(view.settings)
    async with reading(view.tenant) as connection:
        handlers = await live_handlers(connection)
        used = await usage_of(connection, float(days), newest=NEWEST)
        ceilings = [
            Ceiling(each.name, limit, None, value)
            for each in handlers
            for limit, value in governor.limits(each.limits, view.tenant).as_dict().items()
        ]
        near = await near_misses(connection, float(days), ceilings, PER_RECORD, MOST, newest=NEWEST)
        over = await breaches_of(connection, float(days), MOST, newest=NEWEST)
        users = await users_of(connection, float(days), MOST, newest=NEWEST)
    head("Limits", "What one execution may use, and how near each handler came.")
    with tabs("Days") as tab:
        for span, name in SPANS.items():
            tab(name, view.here(days=None if span == "7" else span), span == days, "")
    if not handlers:
        empty(
            "No release is live.", "Start the app, and its handlers stand here with their limits.", "circuit-script dev"
        )
        return
    with still():
        _over(view, over)
        _near(view, near)
        _handlers(view, handlers, governor, used, bool(view.query.get("all")))
        _users(users)


def _handlers(
    view: View, handlers: Sequence[Declared], governor: CircuitGovernor, used: Usage, everything: bool
) -> None:
    defaults = limits_of(view.settings.limits).as_dict()
    quiet = []
    with el("div", "columns cards"):
        for each in handlers:
            ceilings = governor.limits(each.limits, view.tenant).as_dict()
            shown = {
                limit: ceiling
                for limit, ceiling in ceilings.items()
                if everything or _worth(limit, ceiling, defaults, used.get((each.name, limit)))
            }
            if shown:
                _handler(each, shown, used)
            else:
                quiet.append(each.name)
    if quiet:
        el("p", "muted", f"Nothing but the defaults, and nothing used: {', '.join(quiet)}")
    link = view.here(all=None if everything else 1)
    el("a", "text-link", "Only what was used" if everything else "All limits of all handlers", href=link)


def _worth(limit: str, ceiling: float, defaults: Mapping[str, float], found: Used | None) -> bool:
    was_used = found is not None and found.most > (1 if limit == "depth" else 0)  # each execution is at least its own
    return was_used or ceiling != defaults.get(limit)


def _handler(each: Declared, shown: Mapping[str, float], used: Usage) -> None:
    times = max((found.executions for (name, _), found in used.items() if name == each.name), default=0)
    with panel(each.name, f"{number(times)} executions" if times else "did not run"), el("div", "limit-bars"):
        for limit, ceiling in shown.items():
            found = used.get((each.name, limit))
            most = found.most if found else 0.0
            words = f"{measure(limit, most)} of {measure(limit, ceiling)}"
            made = bar(limit.replace("_", " "), most, ceiling, words)
            if found is not None:
                made.props["title"] = f"at most {words}; 95 % used no more than {measure(limit, found.p95)}"


def _near(view: View, near: Sequence[NearMiss]) -> None:
    if not near:
        return
    with panel("Came near", f"{NEAR:.0%} of a limit and more", classes="flush"):
        columns = [Column("Handler"), Column("Limit", wide=True), Column("Times", right=True),
                   Column("Nearest", right=True), Column("Execution", minor=True)]  # fmt: skip
        rows = [
            Row(
                [
                    each.handler,
                    each.limit.replace("_", " "),
                    number(each.times),
                    percent(each.share),
                    _execution(view, each),
                ]
            )
            for each in near
        ]
        table(columns, rows, label="Near misses")


def _over(view: View, over: Sequence[Breach]) -> None:
    if not over:
        return
    with panel("Went over", "or ran in a loop", classes="flush"):
        columns = [Column("Handler"), Column("Limit"), Column("Times", right=True), Column("The last one", wide=True),
                   Column("Execution", minor=True)]  # fmt: skip
        rows = [
            Row([
                each.handler, partial(chip, each.limit.replace("_", " ") or "limit", "bad"), number(each.times),
                each.reason, _execution(view, each),
            ])
            for each in over
        ]  # fmt: skip
        table(columns, rows, label="Breaches")


def _execution(view: View, each: NearMiss | Breach) -> Cell:
    return partial(ident, each.execution, view.execution(each.execution))


def _users(users: Sequence[User]) -> None:
    if not users:
        return
    with panel("Who uses most", f"of the latest {number(NEWEST)} executions", classes="flush"):
        columns = [
            Column("Handler", wide=True), Column("Executions", right=True), Column("Wall time", right=True),
            Column("CPU", right=True, minor=True), Column("Callouts", right=True, minor=True),
            Column("Cost", right=True),
        ]  # fmt: skip
        rows = [
            Row([
                each.handler, number(each.executions), f"{each.wall_time:,.1f} s", f"{each.cpu_time:,.1f} s",
                number(each.callouts), measure("llm_cost", each.llm_cost),
            ])
            for each in users
        ]  # fmt: skip
        table(columns, rows, label="Who uses most")
