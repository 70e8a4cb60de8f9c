"""Judgment: a text that a person brings and what each level says of it, the policy, and what came of late."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from circuit_script.dashboard.asking import EDITED, LONGEST
from circuit_script.dashboard.frame import View, page
from circuit_script.dashboard.pieces import (
    Cell,
    Column,
    Field,
    Row,
    afresh,
    button,
    chip,
    el,
    empty,
    head,
    link,
    moment,
    panel,
    table,
)
from circuit_script.dashboard.reading import borrowed
from circuit_script.dashboard.still import still
from circuit_script.dashboard.words import number, short
from circuit_script.judgment.policy import NEVER, Policy
from circuit_script.judgment.protocol import LEVELS, JudgmentProtocol
from circuit_script.judgment.telling import (
    by_level,
    marked,
    of_rules,
    policy_rows,
    protocol_of,
    rule_for,
    said_by,
    threshold_words,
    tone,
)
from circuit_script.judgment.verdict import Action, Finding, Verdict
from circuit_script.telemetry import LogLine, LogQuery, LogReader

PATH = "/judgment"
LINES = "circuit.judgment"  # under which the road logs its verdicts
RECENT = 12
FIRST = 8  # rules that are listed at once
MOST = 60  # and on demand
TONES: Mapping[str, str] = {
    Action.ALLOW: "good",
    Action.NEUTRALIZE: "warn",
    Action.QUARANTINE: "bad",
    Action.BLOCK: "bad",
}
DOES = {
    Action.ALLOW: "It is used as it is.",
    Action.NEUTRALIZE: "It is fenced: data, and never instructions.",
    Action.QUARANTINE: "Its record goes to the dead letters, for a person to look at.",
    Action.BLOCK: "It is refused.",
}
# More than a page takes is cut here, and said. Half a character cannot be sent: without this nothing would be.
TAKE = f"(e) => emit(e.target.value.slice(0, {EDITED + 1}).replace(/\\p{{Surrogate}}/gu, '\\ufffd'))"
ASIDE = ("intake", "model", "tribunal")  # levels that always say something

_one_judges = asyncio.Lock()  # it computes: two at once are not faster


@page(PATH, title="Judgment")
async def judgment(view: View) -> None:
    protocol = await asyncio.to_thread(protocol_of, view.settings.judgment)
    lines = await _lines(view)
    with head("Judgment", "What the Judgment Protocol says of a text, and why. Nothing that you try here is kept."):
        if any(each.block < NEVER for _, each in policy_rows(protocol.policy, view.tenant)):
            link("Blocked records", view.link("/dead-letters", reason="blocked:"), "button quiet")
        link("Quarantined records", view.link("/dead-letters", reason="quarantined:"), "button quiet")
    with el("div", "columns two-one"):
        with el("div", "stack"):
            asked = _Asked(view, protocol)
            if lines:
                with still():
                    _late(view, lines)
        with el("div", "stack"):
            asked.levels = el("div", "stack")
            with afresh(asked.levels), still():
                _levels(None, 0)
            with still():
                _policy(protocol.policy, view.tenant)


async def _lines(view: View) -> Sequence[LogLine]:
    query = replace(LogQuery.parse(f"handler:{LINES}"), tenant=view.tenant, limit=RECENT)
    async with borrowed() as connection:
        return (await LogReader(connection, query).page()).lines


def _late(view: View, lines: Sequence[LogLine]) -> None:
    columns = [
        Column("When"), Column("Action"), Column("Score", right=True), Column("Field", minor=True), Column("Record"),
        Column("Why", wide=True, minor=True),
    ]  # fmt: skip
    rows = []
    for line in lines:
        said = line.context or {}
        action = str(said.get("action", ""))
        score = said.get("score")
        words = line.message.partition(": ")[2] or line.message
        rows.append(
            Row([
                partial(moment, line.at, view), partial(chip, action or line.level, TONES.get(action, "warn")),
                f"{score:.3f}" if isinstance(score, float | int) else None, short(said.get("field") or "", 60),
                partial(_record, view, line.record), short(words, 200),
            ])
        )  # fmt: skip
    with panel("Of late", "what came in and was not harmless", classes="flush"):
        table(columns, rows, label="Of late")
        with el("div", "card-acts inset"):
            link("All of them, in the log", view.link("/logs", q=f"handler:{LINES}"), "text-link")


def _record(view: View, record: str | None) -> None:
    if record:
        link(short(record, 30), view.link("/records", q=record), "text-link")


class _Asked:
    """The text that a person brings, and what is said of it."""

    def __init__(self, view: View, protocol: JudgmentProtocol) -> None:
        self._view, self._protocol = view, protocol
        self._text = ""
        self.levels: Any = None
        with panel("A text"):
            area = el("textarea", "input judged-text", rows=7, spellcheck="false", aria_label="The text",
                      placeholder="Paste an e-mail, a note, a web page, an answer of a tool …")  # fmt: skip
            area.on("change", self._took, js_handler=TAKE)
            with el("div", "judged-ask"):
                self._source = Field("Source", hint="any")
                self._field = Field("Field", hint="any, like Contact.notes")
                button("Judge it", self._judge, kind="main")
        self._place = el("div", "stack")

    def _took(self, event: Any) -> None:
        self._text = event.args if isinstance(event.args, str) else ""

    async def _judge(self) -> None:
        text, cut = self._text[:EDITED], len(self._text) > EDITED
        source, field = self._source.value.strip()[:LONGEST], self._field.value.strip()[:LONGEST]
        if not text:
            with afresh(self._place):
                empty("There is no text.", "Paste one above.")
            return
        judge = partial(self._protocol.judge, source=source or None, field=field or None, tenant=self._view.tenant)
        async with _one_judges:
            verdict = await asyncio.to_thread(judge, text)
        with afresh(self._place), still():
            _verdict(text, verdict, cut)
            _found(verdict)
            if not verdict.clean:
                _rule(text, verdict, self._view.tenant)
        with afresh(self.levels), still():
            _levels(verdict, len(text))


def _verdict(text: str, verdict: Verdict, cut: bool) -> None:
    with panel(classes="verdict"):
        with el("div", "alert-head", role="status"):
            chip(str(verdict.action), TONES[verdict.action])
            el("span", "score", f"{verdict.score:.3f}")
            el("span", "muted", DOES[verdict.action])
        if cut:
            el("p", "note warn", f"Only the first {number(EDITED)} characters were judged. All of a longer text: "
               "circuit-script judge FILE")  # fmt: skip
        with el("pre", "payload judged", tabindex="0", aria_label="The text, with what was found marked"):
            for part in marked(text, verdict.findings):
                _part(part.text, part.finding, part.left_out)


def _part(text: str, finding: Finding | None, left_out: int) -> None:
    if left_out:
        el("span", "left-out", f" … {number(left_out)} characters … ")
    elif finding is None:
        el("span", text=text)
    else:
        words = f"{finding.level} {finding.score:.2f}: {short(finding.why or finding.evidence)}"
        el("mark", f"found {tone(finding.score)}", text, title=words)


def _found(verdict: Verdict) -> None:
    found = of_rules(verdict.findings)
    if not found:
        return
    with panel("What was found", f"{number(len(found))} rules", classes="flush"):
        _rows(found[:FIRST])
        if len(found) > FIRST:
            with el("details", "more inset"):
                el("summary", text=f"{number(len(found) - FIRST)} more, less sure")
                _rows(found[FIRST : FIRST + MOST])


def _rows(found: Sequence[tuple[Finding, int]]) -> None:
    columns = [
        Column("Level"), Column("Score", right=True), Column("What was read, and why it counts", wide=True),
        Column("Place", right=True, minor=True),
    ]  # fmt: skip
    rows = [
        Row([
            partial(chip, each.level, tone(each.score)), f"{each.score:.2f}", _read(each),
            f"{number(each.span[0])}-{number(each.span[1])}" + (f", {number(times)} times" if times > 1 else ""),
        ])
        for each, times in found
    ]  # fmt: skip
    table(columns, rows, label="What was found")


def _read(each: Finding) -> Cell:
    def build() -> None:
        with el("div", "evidence"):
            el("span", "evidence-words", short(each.evidence, 160))
            el("small", "muted", " · ".join(part for part in (each.why, each.pattern) if part))

    return build


def _rule(text: str, verdict: Verdict, tenant: str) -> None:
    with panel("Let it pass", "in circuit.toml; each time is logged"):
        el("pre", "payload", rule_for(text, tenant=tenant, field=verdict.field))
        el("p", "muted", "Is the verdict wrong? This keeps the text in the app's folder, for the next training:")
        el("code", "command", "circuit-script judge --wrong benign FILE").classes("alone")


def _levels(verdict: Verdict | None, length: int) -> None:
    heard = {} if verdict is None else dict(by_level(verdict))
    with panel("The 17 levels", "in their order"), el("ol", "levels"):
        for level in LEVELS:
            found = heard.get(level, ())
            says = verdict is not None and (bool(found) or level.name in ASIDE)
            strongest = found[0].score if found else 0.0
            look = tone(strongest) if found and strongest > 0 else "said" if says else "quiet"
            if verdict is not None and level.name == "tribunal":
                look = {"good": "said", "warn": "warn", "bad": "bad"}[TONES[verdict.action]]
            with el("li", f"level {look}"):
                el("span", "level-number", level.number)
                with el("div", "level-words"):
                    with el("div", "level-head"):
                        el("b", text=level.name)
                        if found and strongest > 0:
                            el("span", "level-score", f"{strongest:.2f}")
                    el(
                        "span",
                        "level-says",
                        said_by(level, found, verdict, length) if says and verdict else level.checks,
                    )


def _policy(policy: Policy, tenant: str) -> None:
    rules = [each for each in policy.allow if each.tenant in (None, tenant)]  # others' are not this one's business
    with panel("Policy", "of several, the last one holds"):
        with el("dl", "facts"):
            for name, thresholds in policy_rows(policy, tenant):
                el("dt", text=short(name, 60))
                el("dd", text=threshold_words(thresholds))
        for each in rules:
            where = ", ".join(part for part in (each.tenant and f"tenant {each.tenant}", each.field) if part)
            with el("p", "muted"):
                el("span", text=f"Passes: {each.pattern or each.digest}{f' ({where})' if where else ''}. ")
                el("span", text=short(each.reason))
        if not rules:
            el("p", "muted", "No rule lets a text pass.")
