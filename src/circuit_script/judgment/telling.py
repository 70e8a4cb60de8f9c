"""A verdict told: its text with the places marked, what each level found, as JSON, and the rule that lets it pass."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from circuit_script.judgment.configured import policy_of
from circuit_script.judgment.policy import NEVER, OFF, Policy, Thresholds, digest_of
from circuit_script.judgment.protocol import LEVELS, JudgmentProtocol, Level
from circuit_script.judgment.verdict import Finding, Verdict
from circuit_script.settings_judgment import JudgmentSettings

AROUND = 200  # characters that are shown on either side of what is left out
MOST = 4_000  # characters of a text that are shown
WHOLE = 0.8  # of a text: what covers so much of it is no place
MARKS = 500  # findings that are marked, the strongest
FINDINGS = 1_000  # that are told
# How strong a finding is, for people.
BAD, WARNING = 0.6, 0.3


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a text. ``finding`` is the strongest that stands there; ``left_out`` counts characters between the
    part before and the one behind that are not shown, and then there is no text."""

    text: str
    finding: Finding | None = None
    left_out: int = 0


def protocol_of(settings: JudgmentSettings) -> JudgmentProtocol:
    """The protocol by an app's policy, for who asks by hand: where nothing is judged, it has a score and all passes."""
    return JudgmentProtocol(policy_of(settings) or Policy(OFF))


def tone(score: float) -> str:
    """How a finding or a score looks: bad, warn or plain."""
    return "bad" if score >= BAD else "warn" if score >= WARNING else "plain"


def marked(text: str, findings: Sequence[Finding], most: int = MOST) -> list[Part]:
    """The text in parts, in its order, with `places` marked. What is long is shortened, between places and within
    them."""
    findings = places(len(text), findings)
    parts: list[Part] = []
    shown = left_out = 0
    for start, end, finding in _runs(len(text), findings):
        pieces = [(start, end)]
        if end - start > 2 * AROUND + 1:
            pieces = [(start, start + AROUND), (end - AROUND, end)]
        for nth, (first, last) in enumerate(pieces):
            if nth:
                left_out += first - pieces[0][1]
            if shown + last - first > most:
                left_out += last - first
                continue
            if left_out:
                parts.append(Part("", left_out=left_out))
                left_out = 0
            parts.append(Part(text[first:last], finding))
            shown += last - first
    return [*parts, Part("", left_out=left_out)] if left_out else parts


def places(length: int, findings: Sequence[Finding]) -> Sequence[Finding]:
    """Those worth a mark in a text of this length: not what says little, nor what is the whole of the text, unless
    there is nothing else."""
    telling = [each for each in findings if each.score >= WARNING] or findings
    return [each for each in telling if each.span[1] - each.span[0] < WHOLE * length] or telling


def of_rules(findings: Sequence[Finding]) -> list[tuple[Finding, int]]:
    """Of each rule its strongest finding, the strongest first, with how often it found something."""
    best: dict[tuple[str, str], Finding] = {}
    times: dict[tuple[str, str], int] = {}
    for each in dict.fromkeys(findings):  # several readings of a text may say the same
        rule = (each.level, each.pattern or each.why)
        times[rule] = times.get(rule, 0) + 1
        if rule not in best or each.score > best[rule].score:
            best[rule] = each
    return sorted(((each, times[rule]) for rule, each in best.items()), key=lambda each: -each[0].score)


def _runs(length: int, findings: Sequence[Finding]) -> Iterator[tuple[int, int, Finding | None]]:
    """From where to where which finding is the strongest; between two with one finding nothing lies."""
    placed = [each for each in findings if each.score > 0 and each.span[0] < min(each.span[1], length)]
    placed = sorted(sorted(placed, key=lambda each: -each.score)[:MARKS], key=lambda each: each.span)
    edges = sorted({0, length, *(min(at, length) for each in placed for at in each.span)})
    open_: list[tuple[float, int, int]] = []  # minus the score, the number, the end
    following = start = 0
    before: Finding | None = None
    for at, end in pairwise(edges):
        while following < len(placed) and placed[following].span[0] <= at:
            heapq.heappush(open_, (-placed[following].score, following, placed[following].span[1]))
            following += 1
        while open_ and open_[0][2] <= at:
            heapq.heappop(open_)
        now = placed[open_[0][1]] if open_ else None
        if now is not before:
            if at > start:
                yield start, at, before
            start, before = at, now
        if end == length:
            yield start, end, before


def by_level(verdict: Verdict) -> list[tuple[Level, tuple[Finding, ...]]]:
    """Each of the seventeen levels with what it found, the strongest first."""
    found: dict[str, list[Finding]] = {}
    for each in dict.fromkeys(verdict.findings):  # several readings of a text may say the same
        found.setdefault(each.level, []).append(each)
    return [(level, tuple(sorted(found.get(level.name, ()), key=lambda each: -each.score))) for level in LEVELS]


def said_by(level: Level, found: Sequence[Finding], verdict: Verdict, length: int) -> str:
    """What one level says of a text of this length, in a line."""
    match level.name:
        case "intake" if not found:
            return f"{length:,} characters"
        case "residue" if not found:
            return "is asked about what leaves, not about this"
        case "model":
            return f"{verdict.score:.3f}"
        case "tribunal":
            return "; ".join([str(verdict.action), *(f"{each.why} {each.evidence}" for each in found)])
    if not found:
        return "nothing"
    words = found[0].why or found[0].evidence
    return f"{words.removesuffix('.')}, and {len(found) - 1} more" if len(found) > 1 else words


def as_json(verdict: Verdict, text: str) -> dict[str, Any]:
    """A verdict for programs. Places are counted in characters (code points)."""
    return {
        "action": str(verdict.action),
        "score": round(verdict.score, 6),
        "reason": verdict.reason,
        "source": verdict.source,
        "field": verdict.field,
        "digest": digest_of(text),
        "characters": len(text),
        "findings": [asdict(each) for each in list(dict.fromkeys(verdict.findings))[:FINDINGS]],
    }


def rule_for(text: str, *, tenant: str | None = None, field: str | None = None, reason: str = "why it may pass") -> str:
    """What circuit.toml must say for this text to pass, and no other."""
    where = {"tenant": tenant, "field": field}
    lines = [f"{name} = {_quoted(value)}" for name, value in where.items() if value]
    return "\n".join(["[[judgment.allow]]", f'digest = "{digest_of(text)}"', *lines, f"reason = {_quoted(reason)}"])


def _quoted(text: str) -> str:
    """A string as TOML writes it; what cannot be shown is escaped."""
    plain = json.dumps(text.encode("utf-8", "replace").decode(), ensure_ascii=False)
    return "".join(each if each.isascii() and each.isprintable() else f"\\U{ord(each):08X}" for each in plain)


def policy_rows(policy: Policy, tenant: str) -> list[tuple[str, Thresholds]]:
    """What holds where for a tenant: what is closer to a text comes later, and before the rest."""
    rows = [("everywhere", policy.usual)]
    own = {tenant: policy.tenants[tenant]} if tenant in policy.tenants else {}
    for kind, named in (("source", policy.sources), ("field", policy.fields), ("tenant", own)):
        rows += [(f"{kind} {name}", each) for name, each in named.items()]
    return rows


def threshold_words(each: Thresholds) -> str:
    """Neutralize from 0.5, quarantine from 0.9."""
    steps = (("neutralize", each.neutralize), ("quarantine", each.quarantine), ("block", each.block))
    said = ", ".join(f"{name} from {value:g}" for name, value in steps if value < NEVER)
    return said or ("nothing is judged" if each == OFF else "everything passes")
