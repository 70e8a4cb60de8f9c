"""What an alert sends people to: pages that there are, and commands that can be run as they are told."""

from __future__ import annotations

import inspect
import shlex
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import typer
from nicegui import app as pages_app
from starlette.routing import Match

from circuit_script.cli import app
from circuit_script.dashboard import pages
from circuit_script.dashboard.pages import load_pages
from circuit_script.events.looking.executions import TROUBLE
from circuit_script.settings_see import AlertSettings
from circuit_script.telemetry.alerts.blind import blindness
from circuit_script.telemetry.alerts.look import (
    Aged,
    BudgetUse,
    Counted,
    Doubts,
    Down,
    HotLead,
    Letters,
    Look,
    Mute,
    Rate,
    Unread,
)
from circuit_script.telemetry.alerts.rules import judge
from circuit_script.telemetry.guardian import Finding

AT = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
BURNT = {300: (100, 90), 1800: (100, 90), 3600: (100, 90), 21_600: (100, 90), 259_200: (100, 90)}
LOOK = Look(
    at=AT,
    rates=[Rate("score", None, 20, 20, 20), Rate("score", "acme", 20, 20, 20)],
    counted=[Counted("errors", "score", BURNT), Counted("scoring", "score", BURNT), Counted("availability", "", BURNT)],
    letters=[Letters("score", "acme", 2, "x"), Letters("webhook/post", "two words", 1, "y", effects=True)],
    doubts=[Doubts("webhook", "post", "acme", 1)],
    budgets=[BudgetUse("tenant day", "acme", "", 9, 10, AT), BudgetUse("trigger", "", "score", 10, 10, AT)],
    down=[Down("webhook", "crm", "acme", 3, "503")],
    aged=[Aged("score", "acme", 3, 900.0)],
    leads=[HotLead("acme", "a/b ?#é", "A", AT)],
    findings=[Finding("disk:/@h", "critical", "Full.", AT, "Free some.")],
    mute=[Mute("on call", 9, "500")],
    unread=[Unread("dead letters", "QueryCanceled")],
)


def source_of(path: str) -> str:
    """The text of the module whose page stands there; nothing where there is none."""
    scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": []}
    found = [route for route in pages_app.routes if route.matches(scope)[0] is Match.FULL]
    modules = {name for route in found for name in _modules(getattr(route, "endpoint", None), 4)}
    return "".join(inspect.getsource(sys.modules[name]) for name in modules)


def _modules(function: Any, deep: int) -> Iterator[str]:
    """Of the pages that a route's function calls."""
    module = getattr(function, "__module__", "")
    if module.startswith(pages.__name__):
        yield module
    elif deep and inspect.isfunction(function):
        for each in inspect.getclosurevars(function).nonlocals.values():
            yield from _modules(each, deep - 1)


def parsed(words: list[str]) -> str:
    """The name of the verb. Raises UsageError for what is no command."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("circuit-script", words)
    while hasattr(command, "resolve_command") and (left := [*context._protected_args, *context.args]):
        name, command, rest = command.resolve_command(context, left)
        context = command.make_context(name, rest, parent=context)
    return str(context.command_path)


def test_each_link_leads_to_a_page_that_reads_what_it_says_and_each_command_can_be_run() -> None:
    load_pages()
    signals = judge(LOOK, AlertSettings()).signals
    assert {each.rule for each in signals} == {
        "errors", "latency", "slo", "dead", "doubt", "budget", "vendor", "queue", "lead", "guardian", "channel",
        "monitor",
    }  # fmt: skip
    for each in signals:
        link = urlsplit(each.link)
        source = source_of(link.path)
        assert source, each.link
        asked = parse_qs(link.query)
        assert all(f'"{name}"' in source for name in asked if name != "tenant"), each.link
        assert asked.get("status", [TROUBLE]) == [TROUBLE]
        if each.tenant is not None:
            assert asked["tenant"] == [each.tenant]
    assert source_of("/leads-of-nobody") == ""


def test_each_next_act_can_be_typed_as_it_is_told() -> None:
    told = [each.next for each in judge(LOOK, AlertSettings()).signals]
    told += [f"circuit-script alerts ack {shlex.quote(each.key)}" for each in judge(LOOK, AlertSettings()).signals]
    told.append(blindness(OSError(), AT, 20.0).next)
    commands = [each[each.index("circuit-script") :] for each in told if "circuit-script" in each]
    assert len(commands) > 20
    verbs = {parsed(shlex.split(each)[1:]) for each in commands}
    assert {"circuit-script dead list", "circuit-script alerts test", "circuit-script logs"} <= verbs
