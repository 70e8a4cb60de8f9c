"""What the Judgment Protocol says of one untrusted text."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Action(StrEnum):
    """What becomes of a text, the mildest first.

    allow: it is used as it is · neutralize: it is fenced, as data and never as instructions · quarantine: its record
    goes to the dead letters, for a person to look at · block: it is refused.
    """

    ALLOW = "allow"
    NEUTRALIZE = "neutralize"
    QUARANTINE = "quarantine"
    BLOCK = "block"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a level saw. ``score`` is from 0 to 1; ``span`` are the first and the last character, exclusive,
    in the original text; ``evidence`` is what was read there, decoded and cut; ``pattern`` is its rule, if one."""

    level: str
    score: float
    span: tuple[int, int]
    evidence: str
    why: str = ""
    pattern: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """All levels in one. ``score`` is how surely the text is an attack, from 0 to 1 and comparable across texts;
    ``findings`` are ordered by their place."""

    score: float
    action: Action
    findings: tuple[Finding, ...] = ()
    source: str | None = None
    field: str | None = None

    @property
    def clean(self) -> bool:
        return self.action is Action.ALLOW

    @property
    def passed_by(self) -> str | None:
        """The reason of the rule that lets the text pass, where one does."""
        if not self.clean:
            return None
        return next((each.evidence for each in reversed(self.findings) if each.level == "tribunal"), None)

    @property
    def reason(self) -> str:
        """One line for a person: the strongest finding of each level."""
        best: dict[str, Finding] = {}
        for each in self.findings:
            if each.level not in best or each.score > best[each.level].score:
                best[each.level] = each
        told = sorted(best.values(), key=lambda each: -each.score)[:3]
        return "; ".join(f"{each.level}: {(each.why or each.evidence).rstrip('.')}" for each in told)
