"""A score as a table, and what moved between two."""

from __future__ import annotations

from dataclasses import dataclass

from circuit_script.agents.virtual_lpr.profile import AXES, AXIS_OF, CAPS, PARTS
from circuit_script.agents.virtual_lpr.score import LeadScore
from circuit_script.agents.virtual_lpr.words import TITLES


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that moved: a component, what counts against an axis, or a word such as the band."""

    what: str
    before: float | int | str
    after: float | int | str

    @property
    def moved(self) -> float:
        """Points gained by the lead; 0 for words."""
        if isinstance(self.before, str) or isinstance(self.after, str):
            return 0.0
        gained = self.after - self.before
        return -gained if self.what.startswith("negative ") else gained

    def __str__(self) -> str:
        if isinstance(self.before, str) or isinstance(self.after, str):
            return f"{self.what}: {self.before or 'none'} → {self.after or 'none'}"
        return f"{self.moved:+.3g} {self.what}: {self.before:.4g} → {self.after:.4g}"


def explain(score: LeadScore) -> str:
    """The whole table: unrounded parts less what counts against them give each axis, the axes give the total."""
    axes = (score.fit, score.intent, score.timing)
    lines = [
        f"TOTAL {score.total}/100 = FIT {score.fit} + INTENT {score.intent} + TIMING {score.timing}",
        f"grade {score.grade} · band {score.band} · route {score.route} · profile {score.profile_version}",
        f"known {score.completeness:.0%} of FIT · potential {score.potential}",
    ]
    for axis, name in enumerate(AXES):
        lines += ["", f"{name.upper()} {axes[axis]}/{CAPS[axis]}"]
        for part, of in zip(PARTS, AXIS_OF, strict=True):
            if of == axis:
                points, cap = score.parts[part]
                lines.append(f"  {TITLES[part]:<24}{_exact(points):>20} / {cap:g}")
        lines.append(f"  {'counts against':<24}{_exact(-score.losses[axis]):>20}")
    if score.gates:
        lines += ["", "GATES"] + [f"  {gate}: set by {by}" for gate, by in sorted(score.gated_by.items())]
    lines += ["", "REASONS", *(f"  {reason}" for reason in score.reasons)]
    change = score.next_change_at
    lines += ["", f"next change by itself: {change.isoformat() if change else 'none within 365 days'}"]
    return "\n".join(lines)


def why_changed(a: LeadScore, b: LeadScore) -> tuple[Change, ...]:
    """What moved from score ``a`` to score ``b``: components by points moved, then words."""
    moved = [
        Change(part, a.points[index], b.points[index])
        for index, part in enumerate(PARTS)
        if a.points[index] != b.points[index]
    ]
    moved += [
        Change(f"negative {name}", a.losses[axis], b.losses[axis])
        for axis, name in enumerate(AXES)
        if a.losses[axis] != b.losses[axis]
    ]
    moved.sort(key=lambda change: (-abs(change.moved), change.what))
    words = [
        ("gates", ", ".join(a.gates), ", ".join(b.gates)),
        ("grade", a.grade, b.grade),
        ("band", a.band, b.band),
        ("route", a.route, b.route),
        ("profile", a.profile_version, b.profile_version),
    ]
    return (*moved, *(Change(what, before, after) for what, before, after in words if before != after))


def _exact(points: float) -> str:
    return "0" if points == 0 else f"{points:.15g}"
