"""Shadow: what a candidate would have done with live events, beside what the live release did."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial

from circuit_script.access import ALL, Act
from circuit_script.dashboard.frame import View, page
from circuit_script.dashboard.pieces import Cell, Column, Row, chip, el, empty, facts, head, ident, moment, panel, stat
from circuit_script.dashboard.pieces import table as rows_in
from circuit_script.dashboard.reading import borrowed
from circuit_script.dashboard.words import number, short
from circuit_script.releases.shadow_report import Figures, Found, ShadowReport, report_of
from circuit_script.releases.shadows import current, latest

PATH = "/shadow"
EVERY = 5.0  # seconds between two looks
MOST = 40  # differences
LONGEST = 80  # letters of a value


@page(PATH, title="Shadow")
async def show_shadow(view: View) -> None:
    head("Shadow", "What a release that is not live would have done with live events.")
    if not view.person.may(Act.see, ALL):
        empty("Of the whole installation.", "Releases belong to all tenants: ask who looks after them.")
        return

    async def build() -> None:
        async with borrowed() as connection:
            found = await current(connection) or await latest(connection)
            report = None if found is None else await report_of(connection, found, MOST)
        if report is None:
            words = "Let a new release run beside the live one: what it does is compared, and never leaves."
            empty("No release was compared yet.", words, "circuit-script deploy --shadow --for 1h")
        else:
            _show(view, report)

    await view.live(EVERY, build)


def _show(view: View, report: ShadowReport) -> None:
    shadow = report.shadow
    state = "open" if shadow.closed is None else "closed"
    with panel(f"{shadow.name} beside {shadow.against_name}"):
        with el("div", "stats"):
            stat("Records", number(report.records), f"{number(report.waiting)} executions wait")
            stat("Same", number(report.same), tone="good" if report.records and not report.share else "")
            stat("Different", number(report.different), tone="bad" if report.different else "")
            stat("Not comparable", number(report.incomparable), tone="warn" if report.incomparable else "")
            stat("Not the same", f"{report.share:.2%}" if report.records else "–")
        lines: list[tuple[str, Cell]] = [
            ("State", partial(chip, state, "good" if state == "open" else "plain")),
            ("Since", partial(moment, shadow.opened, view)),
            ("By", shadow.by),
        ]
        if shadow.until is not None and shadow.closed is None:
            lines.append(("Until", partial(moment, shadow.until, view)))
        lines += [("For", shadow.message)] if shadow.message else []
        if shadow.promote_below is not None and shadow.closed is None:
            most = f"at most {shadow.promote_below:.2%} of {number(shadow.least)} records or more are not the same"
            lines.append(("Goes live", f"by itself when its time is up, if {most}"))
        lines += [] if shadow.closed is None else [("Closed", f"{shadow.closed_why}")]
        if any(report.skipped.values()):
            words = {"sample": "by the sample", "rate": "too many in a second", "size": "too large"}
            left = ", ".join(f"{number(n)} {words[why]}" for why, n in report.skipped.items() if n)
            lines.append(("Not recorded", left))
        lines += (
            [("Not compared", f"only in {shadow.name}: {', '.join(report.only_there)}")] if report.only_there else []
        )
        lines += [("Missing", f"not in {shadow.name}: {', '.join(report.only_live)}")] if report.only_live else []
        facts(lines)
        if shadow.note:
            el("p", "note warn", shadow.note)
    _took(report)
    _handlers(report)
    if view.person.may(Act.see_payload, ALL):
        _found(view, report, "What differs", report.differences)
        _found(view, report, "What could not be compared", report.unanswered)
    elif report.differences or report.unanswered:
        el("p", "note", "What differs is somebody's data: operators see it.")


def _took(report: ShadowReport) -> None:
    if not report.executions:
        return
    live, candidate, shadow = report.live, report.candidate, report.shadow
    columns = [Column(""), Column(shadow.against_name, right=True), Column(shadow.name, right=True)]
    with panel("What both took", classes="flush"):
        rows_in(columns, [
            Row(["Median", _ms(live.p50), _ms(candidate.p50)]),
            Row(["Slowest of 20", _ms(live.p95), _ms(candidate.p95)]),
            Row(["Models", _dollars(live), _dollars(candidate)]),
            Row(["Calls", number(live.calls), number(candidate.calls)]),
        ], label="What both took")  # fmt: skip


def _handlers(report: ShadowReport) -> None:
    if not report.handlers:
        return
    columns = [Column("Handler", wide=True), Column("Executions", right=True, minor=True),
               Column("Records", right=True),
               Column("Different", right=True), Column("Not comparable", right=True)]  # fmt: skip
    with panel("Handlers", classes="flush"):
        rows_in(columns, [
            Row([each.name, number(each.executions), number(each.records), number(each.different),
                 number(each.incomparable)])
            for each in report.handlers
        ], label="Handlers")  # fmt: skip


def _found(view: View, report: ShadowReport, title: str, found: Sequence[Found]) -> None:
    if not found:
        return
    shadow = report.shadow
    columns = [Column("Execution"), Column("Record", minor=True), Column("What"), Column("Field"),
               Column(shadow.against_name, wide=True), Column(shadow.name, wide=True)]  # fmt: skip
    with panel(title, f"the first {len(found)}", classes="flush"):
        rows_in(columns, [
            Row([partial(ident, each.execution, view.link(f"/executions/{each.execution}")), each.record or "all",
                 short(each.what), each.field or "–", _value(each.live), _value(each.candidate)])
            for each in found
        ], label=title)  # fmt: skip


def _value(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return short(text, LONGEST)


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f} ms"


def _dollars(figures: Figures) -> str:
    return f"${figures.cost:,.4f}"
