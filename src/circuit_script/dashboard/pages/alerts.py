"""Alerts: what is wrong now, whom it hits, what to do next; and what was."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from urllib.parse import parse_qsl

from circuit_script.access import ALL, Act
from circuit_script.dashboard.afterwards import tell, then
from circuit_script.dashboard.frame import View, page
from circuit_script.dashboard.pieces import (
    Choice,
    Column,
    Row,
    button,
    chip,
    dialog,
    el,
    empty,
    head,
    link,
    moment,
    panel,
    table,
    tabs,
)
from circuit_script.dashboard.reading import acting, borrowed, reading
from circuit_script.dashboard.words import number, span
from circuit_script.telemetry.alerts import Alert, acknowledge, alerts_of, silence

PATH = "/alerts"
EVERY = 5.0  # seconds between two looks
HISTORY = 100
SPANS = (("1", "1 hour"), ("4", "4 hours"), ("24", "1 day"), ("168", "7 days"))


@page(PATH, title="Alerts")
async def alerts(view: View) -> None:
    tell(view)
    everything = view.query.get("of") != "tenant" and view.person.may(Act.see, ALL)
    head("Alerts", "What is wrong, whom it hits, and what to do next.")
    if view.person.may(Act.see, ALL):
        with tabs("Whose") as tab:
            tab("All tenants", view.here(of=None), everything, "")
            tab(f"Only {view.tenant}", view.here(of="tenant"), not everything, "")

    async def build() -> None:
        found = await _found(view, everything)
        _show(view, [each for each in found if each.resolved is None], everything)
        _history(view, [each for each in found if each.resolved is not None])

    await view.live(EVERY, build)


async def _found(view: View, everything: bool) -> list[Alert]:
    if everything:
        async with borrowed() as connection:
            return await alerts_of(connection, None, limit=HISTORY)
    async with reading(view.tenant) as connection:
        return await alerts_of(connection, view.tenant, limit=HISTORY)


def _show(view: View, found: Sequence[Alert], everything: bool) -> None:
    if not found:
        empty("Nothing is wrong.", "When something is, it stands here, and the channels of [alerts.channels] are told.",
              "circuit-script doctor")  # fmt: skip
        return
    with el("div", "stack"):
        for each in found:
            _card(view, each, everything)


def _card(view: View, alert: Alert, everything: bool) -> None:
    tone = {"critical": "bad", "warning": "warn"}.get(alert.severity, "wait")
    with panel(classes=f"alert {tone}"):
        with el("div", "alert-head"):
            chip(alert.severity, tone)
            el("span", "muted", f"for {span((datetime.now(UTC) - alert.since).total_seconds())}, since")
            moment(alert.since, view)
            if alert.tenant is not None and everything:
                el("span", "muted", f"tenant {alert.tenant}")
        el("p", "alert-what", alert.what)
        _hits(alert)
        if alert.next:
            el("code", "command", alert.next)
        _stands(view, alert)
        with el("div", "card-acts"):
            if alert.link.startswith("/"):
                link("Look", _followed(view, alert), "button")
            _acts(view, alert)


def _followed(view: View, alert: Alert) -> str:
    path, _, query = alert.link.partition("?")
    said = dict(parse_qsl(query))
    if alert.tenant is not None and alert.tenant in view.tenants:
        said["tenant"] = alert.tenant
    return view.link(path, **said)


def _hits(alert: Alert) -> None:
    if alert.handlers or alert.hits:
        with el("p", "muted"):
            if alert.handlers:
                el("span", text=f"Handlers: {', '.join(alert.handlers[:8])}. ")
            if alert.hits:
                told = ", ".join(
                    f"{each.tenant} ({each.said})" if each.said else each.tenant for each in alert.hits[:8]
                )
                more = f" and {number(len(alert.hits) - 8)} more" if len(alert.hits) > 8 else ""
                el("span", text=f"Tenants: {told}{more}.")


def _stands(view: View, alert: Alert) -> None:
    silenced = alert.silenced_until is not None and alert.silenced_until > datetime.now(UTC)
    if alert.acknowledged_by is None and not silenced:
        return
    with el("p", "muted"):
        if alert.acknowledged_by is not None:
            el("span", text=f"{alert.acknowledged_by} looks after it since ")
            moment(alert.acknowledged_at, view)
            el("span", text=". ")
        if silenced:
            el("span", text=f"Silenced by {alert.silenced_by} until ")
            moment(alert.silenced_until, view)


def _acts(view: View, alert: Alert) -> None:
    """Who may act for the alert's tenant; what is about none of them is the business of who may act for all."""
    whose = alert.tenant or ALL

    async def take() -> None:
        async with acting(view, Act.acknowledge, whose) as connection:
            done = await acknowledge(connection, alert.key, view.person.name, tenant=alert.tenant)
        then(view, view.here(), "You look after it." if done else "It is over.", "good" if done else "warn")

    async def hush() -> None:
        hours = await _how_long(alert)
        if hours is None:
            return
        until = datetime.now(UTC) + timedelta(hours=hours)
        async with acting(view, Act.silence, whose) as connection:
            done = await silence(connection, alert.key, until, view.person.name, tenant=alert.tenant)
        then(
            view,
            view.here(),
            f"Nobody is told of it for {hours} h." if done else "It is over.",
            "good" if done else "warn",
        )

    if view.person.may(Act.acknowledge, whose) and alert.acknowledged_by is None:
        button("I look after it", take, kind="main")
    if view.person.may(Act.silence, whose):
        button("Silence", hush, kind="quiet")


async def _how_long(alert: Alert) -> int | None:
    """Hours; None when they thought better of it."""
    with dialog("Silence") as asked:
        el(
            "p",
            "dialog-words",
            f"Nobody is told of this alert for so long, also when it ends and comes again: {alert.what}",
        )
        choice = Choice("For", SPANS, "4")
        with el("div", "dialog-acts"):
            button("Cancel", lambda: asked.submit(None), kind="quiet")
            button("Silence", lambda: asked.submit(choice.value), kind="main")
    answer = await asked
    asked.delete()
    return int(answer) if isinstance(answer, str) and answer.isdigit() else None


def _history(view: View, found: Sequence[Alert]) -> None:
    if not found:
        return
    with panel("Over", "the latest first", classes="flush"):
        columns = [Column("Alert", wide=True), Column("Severity"), Column("Tenant", minor=True), Column("Began"),
                   Column("Ended", minor=True), Column("Looked after by", minor=True)]  # fmt: skip
        rows = [
            Row([
                each.what, each.severity, each.tenant or "–", partial(moment, each.since, view),
                partial(moment, each.resolved, view), each.acknowledged_by or "–",
            ])
            for each in found
        ]  # fmt: skip
        table(columns, rows, label="Alerts that are over")
