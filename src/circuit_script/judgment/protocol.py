"""The Judgment Protocol: seventeen levels that every untrusted text goes through, in this order.

    intake → canon → unmask      what there is to read: fields, invisible and disguised characters, encodings
    override … coercion          what is said: patterns, words of many languages, what is hidden or pieced together
    residue                      what must not leave: for outputs
    model → tribunal             all of it in one score, and what becomes of the text

One place lists them all, and `reading` runs them. It is loaded with the first text: most processes judge none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from circuit_script.judgment import intake
from circuit_script.judgment.policy import Policy, digest_of
from circuit_script.judgment.verdict import Action, Finding, Verdict


class Level(NamedTuple):
    """One of the seventeen. ``maps`` are entries of the OWASP Top 10 for LLM applications of 2025."""

    number: int
    name: str
    checks: str
    maps: str


LEVELS: tuple[Level, ...] = (
    Level(1, "intake", "size, depth and type are bounded; fields and windows keep where they came from", "LLM10"),
    Level(
        2, "canon", "invisible, disguised and spaced characters are undone; places in the original are kept", "LLM01"
    ),
    Level(3, "unmask", "encodings are decoded, nested up to three deep, and judged again", "LLM01"),
    Level(4, "override", "earlier instructions are to be ignored or replaced", "LLM01"),
    Level(5, "persona", "another role, mode or fiction is to be played", "LLM01"),
    Level(6, "leak", "a prompt, hidden rules, secrets or memory are to be told", "LLM07"),
    Level(7, "frame", "delimiters, chat templates, roles or tool answers are forged", "LLM01"),
    Level(8, "markup", "instructions are hidden in HTML, CSS, comments, Markdown or metadata", "LLM01"),
    Level(9, "addressee", "data speaks to a model rather than to a person", "LLM01"),
    Level(10, "action", "tools are to be called, or something done outside the data", "LLM06"),
    Level(11, "exfil", "links, images, webhooks or mails are to carry data to odd places", "LLM02, LLM05"),
    Level(12, "polyglot", "levels 4 to 10 in other languages and mixed scripts", "LLM01"),
    Level(13, "mosaic", "many examples, pieces to be joined, floods, noise that steers", "LLM01"),
    Level(14, "coercion", "authority, urgency, threats, rewards or tests aimed at a model", "LLM01"),
    Level(15, "residue", "secrets, personal data, canaries and active content in what leaves", "LLM02, LLM05"),
    Level(16, "model", "a trained model over words, pieces of words and what the levels found", "all"),
    Level(17, "tribunal", "one score and one action, by policy and provenance", "LLM01, LLM06"),
)
LONGEST_KEPT = 4_000  # characters of a text whose verdict is remembered
KEPT = 4_096
STRONG = 0.3  # a finding below it says little by itself
Read = tuple[float, tuple[Finding, ...]]


class JudgmentProtocol:
    """The protocol with a policy. It asks nobody and waits for nobody, and says of the same text always the same."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy or Policy()

    def judge(
        self, text: str, *, source: str | None = None, field: str | None = None, tenant: str | None = None
    ) -> Verdict:
        """What is to be thought of a text, and done with it."""
        score, findings = _remembered(text) if len(text) <= LONGEST_KEPT else _read(text)
        action = self.policy.thresholds(tenant, source, field).action(score)
        if action is not Action.ALLOW and (reason := self._passes(text, findings, tenant, field)) is not None:
            rule = Finding("tribunal", 0.0, (0, len(text)), reason, "A rule lets it pass.")
            action, findings = Action.ALLOW, (*findings, rule)
        return Verdict(score, action, findings, source, field)

    def scores(self, texts: Sequence[str]) -> list[float]:
        """The scores that `judge` gives these texts, without what was found; many at once cost little each."""
        from circuit_script.judgment.reading import scores

        return scores(texts)

    def judge_value(
        self, value: object, *, source: str | None = None, tenant: str | None = None, within: str = ""
    ) -> dict[str, Verdict]:
        """A verdict for each text of a value of any shape, by its place ("notes", "deal.items[2].title"), and under ""
        one of what was too much to be read. ``within`` is the object that fields belong to ("Contact")."""
        found = intake.read(value)
        prefix = f"{within}." if within else ""
        verdicts = {
            each.path: self.judge(each.text, source=source, field=f"{prefix}{each.path}", tenant=tenant)
            for each in found.pieces
        }
        if found.over:
            verdicts[""] = Verdict(1.0, Action.QUARANTINE, found.over, source, within or None)
        return verdicts

    def judge_output(self, text: str, canaries: Iterable[str] = ()) -> list[Finding]:
        """Level 15: what in an output must not leave."""
        from circuit_script.judgment.residue import residue

        return residue(text, canaries)

    def _passes(self, text: str, findings: Sequence[Finding], tenant: str | None, field: str | None) -> str | None:
        """Why a rule of the policy lets a text pass, if one does."""
        rules = [each for each in self.policy.allow if each.holds(tenant, field)]
        if not rules:
            return None
        digest = digest_of(text)
        strong = {each.pattern for each in findings if each.score >= STRONG and each.pattern}
        for each in rules:
            if each.digest == digest or (each.pattern is not None and strong == {each.pattern}):
                return each.reason
        return None


@lru_cache(KEPT)
def _remembered(text: str) -> Read:
    return _read(text)


def _read(text: str) -> Read:
    from circuit_script.judgment.reading import read

    return read(text)


_usual = JudgmentProtocol()


def judge(text: str, *, source: str | None = None, field: str | None = None) -> Verdict:
    """Judge a text by the balanced policy: `JudgmentProtocol` with nothing configured."""
    return _usual.judge(text, source=source, field=field)
