"""How an execution's attempts, log lines and vendors' answers are told beside a letter or an effect in doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from circuit_script.access import Act
from circuit_script.dashboard.pieces import Column, Row, bar, chip, el, empty, ident, moment, panel, table, text_block
from circuit_script.dashboard.still import still
from circuit_script.dashboard.words import measure, number, payload_text, short
from circuit_script.events.letters import Answer, Attempt, Fate, Line

if TYPE_CHECKING:
    from circuit_script.dashboard.frame import View

DEPTH = "depth"  # each execution is at least its own


def payload_panel(view: View, value: object, title: str, *, fault: str = "", name: str = "payload") -> None:
    """A payload as text, for whoever may see payloads."""
    with panel(title):
        if not view.may(Act.see_payload):
            empty("Payloads are not for your role.", "An owner of the tenant can change it under People.")
        elif value is None:
            empty(fault[:1].upper() + fault[1:] if fault else "Nobody knows it any more.")
        else:
            if fault:
                el("p", "muted", fault)
            text_block(value, name)


def attempts_panel(view: View, title: str, attempts: Sequence[Attempt]) -> None:
    """Each attempt: when, how it ended, its stack, and its limits as bars."""
    with panel(title, f"{len(attempts)}" if len(attempts) > 1 else ""):
        if not attempts:
            empty("No execution is known any more.", "Retention has dropped it.")
        for each in attempts:
            with el("article", "attempt"):
                with el("div", "attempt-head"):
                    chip(each.status)
                    moment(each.at, view)
                    ident(each.execution, view.execution(each.execution))
                    if each.records > 1:
                        el("span", "muted", f"{number(each.records)} records in its batch")
                if each.reason:
                    el("p", "attempt-reason", each.reason[:2000])
                if each.detail:
                    text_block(each.detail, "stack", "stack")
                _limits(each.used)


def _limits(used: Mapping[str, tuple[float, float | None]]) -> None:
    shown = {name: pair for name, pair in used.items() if name != DEPTH or pair[0] > 1}
    if shown:
        with el("div", "limit-bars"), still():
            for name, (value, ceiling) in shown.items():
                of = "" if ceiling is None else f" of {measure(name, ceiling)}"
                bar(name.replace("_", " "), value, ceiling, measure(name, value) + of)


def answers_panel(view: View, answers: Sequence[Answer]) -> None:
    """What the vendor said, attempt by attempt."""
    if not answers:
        return
    with panel("The vendor's answers", classes="flush"):
        columns = [Column("When"), Column("Attempt", right=True), Column("Then"), Column("It said", wide=True)]
        table(columns, [_answer(view, each) for each in answers], label="The vendor's answers")


def _answer(view: View, each: Answer) -> Row:
    return Row([lambda: moment(each.at, view), each.attempt, lambda: chip(each.status), each.said or "–"])


def lines_panel(view: View, lines: Sequence[Line]) -> None:
    """What the executions logged about the record."""
    if not lines:
        return
    with panel("Log", classes="flush"), el("div", "lines"):
        for each in lines:
            with el("div", f"line {each.level}"):
                moment(each.at, view)
                chip(each.level, "bad" if each.level in ("error", "critical") else "")
                with el("div"):
                    el("div", "line-words", each.message[:4000])
                    if each.context and view.may(Act.see_payload):
                        with el("div", "line-more"):
                            el("span", "pair", _context(each.context))


def _context(context: Mapping[str, Any]) -> str:
    words = (
        f"{name}={payload_text(value) if isinstance(value, str) else short(value, 200)}"
        for name, value in context.items()
    )
    return "  ".join(words)[:4000]


def said_of(fates: Sequence[Fate]) -> tuple[str, str]:
    """What became of letters, in a sentence, and its tone."""
    count: dict[str, int] = {}
    for fate in fates:
        count[fate.done] = count.get(fate.done, 0) + 1
    words = {"before": "closed before", "refused": "refused"}
    told = ", ".join(f"{n:,} {words.get(done, done)}" for done, n in count.items()) or "no letter fits"
    first = next((fate for fate in fates if fate.done in ("refused", "before")), None)
    why = f" (letter {first.letter}: {first.said})" if first is not None else ""
    return f"{told[:1].upper()}{told[1:]}{why}.", "warn" if first is not None else "good"
