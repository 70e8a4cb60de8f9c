"""VirtualLPR: the lead score as an author calls it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import circuit_script
from circuit_script.agents.virtual_lpr import explain as explaining
from circuit_script.agents.virtual_lpr.explain import Change
from circuit_script.agents.virtual_lpr.profile import Profile
from circuit_script.agents.virtual_lpr.profile_file import load_profile, preset
from circuit_script.agents.virtual_lpr.rows import row_of, worth_writing
from circuit_script.agents.virtual_lpr.score import LeadScore, calculate, settle

Record = Mapping[str, Any]
PROFILE_FILE = "lpr.toml"


class VirtualLPR:
    """Scores leads from 0 to 100: FIT (40) + INTENT (40) + TIMING (20), with reasons.

    ``profile`` is used where a call names none. Until it is set it is ``lpr.toml`` of the app's folder, or the
    preset ``local_service`` where there is no such file: ``VirtualLPR.profile = load_profile("licensing")``.
    """

    profile: ClassVar[Profile | None] = None

    @staticmethod
    def calculate(
        lead: Record,
        enriched: Record | None = None,
        signals: object = None,
        now: datetime | float | None = None,
        profile: Profile | str | None = None,
    ) -> LeadScore:
        """Score one lead. With ``now`` and ``profile`` given it is pure: same input, same score."""
        stored = stored_signals(lead, profile_of(profile)) if signals is None else signals
        return calculate(lead, enriched, stored, instant_or_start(now), profile_of(profile))

    @staticmethod
    def score(
        records: Iterable[Record],
        enriched: Mapping[Any, Record] | Sequence[Record | None] | None = None,
        *,
        signals: Mapping[Any, object] | Sequence[object] | None = None,
        now: datetime | float | None = None,
        profile: Profile | str | None = None,
    ) -> list[dict[str, Any]]:
        """Score contacts; returns the rows to update, of those whose score, band, route or top reason changed.

        ``enriched`` and ``signals`` are by record id, or parallel to ``records``; without ``signals`` each record's
        own ``lpr_signals`` count. ``now`` is by default when the running execution started.
        """
        at, chosen, rows = instant_or_start(now), profile_of(profile), []
        for index, record in enumerate(records):
            found = stored_signals(record, chosen) if signals is None else _of(signals, index, record)
            score = calculate(record, _of(enriched, index, record), found, at, chosen)
            score = settle(score, previous_band(record))
            row = row_of(record, score, score.reasons)
            if worth_writing(record, row):
                rows.append(row)
        return rows

    scoreLeads = score  # for people who know that spelling

    @staticmethod
    def settle(score: LeadScore, previous_band: str | None) -> LeadScore:
        """The score with the band it has, coming from ``previous_band``; kept apart, so that calculate is pure."""
        return settle(score, previous_band)

    @staticmethod
    def explain(
        lead: Record | LeadScore,
        enriched: Record | None = None,
        signals: object = None,
        now: datetime | float | None = None,
        profile: Profile | str | None = None,
    ) -> str:
        """The whole score of a lead as a table."""
        if isinstance(lead, LeadScore):
            return explaining.explain(lead)
        return explaining.explain(VirtualLPR.calculate(lead, enriched, signals, now, profile))

    @staticmethod
    def why_changed(a: LeadScore, b: LeadScore) -> tuple[Change, ...]:
        """What moved between two scores, the most points first."""
        return explaining.why_changed(a, b)


def profile_of(given: Profile | str | None) -> Profile:
    """The profile itself, a preset by its name, or the default."""
    if isinstance(given, Profile):
        return given
    return preset(given) if given is not None else VirtualLPR.profile or default_profile(os.getcwd())


@cache
def default_profile(folder: str | Path) -> Profile:
    """What the app's folder says, else ``local_service``."""
    file = Path(folder) / PROFILE_FILE
    return load_profile(file) if file.is_file() else preset("local_service")


def stored_signals(record: object, profile: Profile) -> object:
    """The signals that a contact carries."""
    if not isinstance(record, Mapping):
        return None
    for name in profile.fields["signals"]:
        if (found := record.get(name)) is not None:
            return found
    return None


def previous_band(record: Record) -> str | None:
    band = record.get("lpr_band")
    return band if isinstance(band, str) else None


def instant_or_start(now: datetime | float | None) -> datetime | float:
    """``now``, or when the running execution started. Raises RuntimeError outside of one."""
    if now is not None:
        return now
    running = getattr(circuit_script, "current_context", None)
    context = running() if running is not None else None
    if context is None:
        raise RuntimeError("there is no running execution whose start could be the time: pass now=")
    return float(context.started_at)


def _of(given: Any, index: int, record: Record) -> Any:
    """What belongs to this record, of a mapping by id or a list that is parallel to the records."""
    if isinstance(given, Mapping):
        return given.get(record.get("id"))
    return given[index] if given is not None and index < len(given) else None
