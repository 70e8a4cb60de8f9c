"""Settings of the Judgment Protocol: how untrusted texts are judged, for whom, and which ones pass."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Preset = Literal["balanced", "strict", "monitor", "off"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PlaceSettings(_Section):
    """How texts are judged: by a ``preset``, or from which score on (0 to 1) they are neutralized, quarantined and
    blocked. A threshold that is given replaces the preset's."""

    preset: Preset | None = None
    neutralize: float | None = Field(default=None, gt=0, le=1)
    quarantine: float | None = Field(default=None, gt=0, le=1)
    block: float | None = Field(default=None, gt=0, le=1)

    @property
    def own(self) -> dict[str, float]:
        """The thresholds that are given."""
        said = {"neutralize": self.neutralize, "quarantine": self.quarantine, "block": self.block}
        return {name: value for name, value in said.items() if value is not None}

    @model_validator(mode="after")
    def _in_order(self) -> PlaceSettings:
        if self.preset == "off" and self.own:
            raise ValueError('preset = "off" judges nothing: leave the thresholds out, or name another preset')
        given = list(self.own.items())
        for (milder, low), (graver, high) in pairwise(given):
            if low > high:
                raise ValueError(f"{milder} ({low}) must not be above {graver} ({high})")
        return self


class AllowSettings(_Section):
    """A rule that lets texts pass: one text by its ``digest`` (``circuit-script judge`` shows it), or all in which
    nothing but the rule ``pattern`` is found. ``reason`` is logged each time; ``tenant`` and ``field`` are where it
    holds, everywhere if not given."""

    reason: str = Field(min_length=3, max_length=500)
    digest: str | None = Field(default=None, pattern=r"^[0-9a-f]{32}$")
    pattern: str | None = Field(default=None, pattern=r"^[a-z]+\.[\w.-]+$")
    tenant: str | None = None
    field: str | None = None

    @model_validator(mode="after")
    def _one_thing(self) -> AllowSettings:
        if (self.digest is None) == (self.pattern is None):
            raise ValueError("a rule lets one thing pass: give a digest or a pattern")
        return self


class JudgmentSettings(PlaceSettings):
    """What is done with untrusted texts. ``preset`` is "balanced", "strict", "monitor" (only tells) or "off". What
    goes to a model and what tools return is judged always; ``records`` are judged before a handler sees them: "auto"
    is where the app can ask a model, as its key is there. It costs about a quarter of the highest rate of events.
    ``canary`` puts a mark into system prompts, by which an answer that tells them is known; as each execution has its
    own, no provider's cache serves two of them behind it. Of what fits a text, its tenant's (``tenants``) holds before
    its field's (``fields``, by "Contact.notes" or "notes"), and that before its source's (``sources``)."""

    preset: Preset = "balanced"
    records: bool | Literal["auto"] = "auto"
    canary: bool = False
    fields: dict[str, PlaceSettings] = {}
    sources: dict[str, PlaceSettings] = {}
    tenants: dict[str, PlaceSettings] = {}
    allow: tuple[AllowSettings, ...] = ()

    @property
    def off(self) -> bool:
        """Whether nothing is judged, whatever it is."""
        places = [*self.fields.values(), *self.sources.values(), *self.tenants.values()]
        return self.preset == "off" and all(each.preset == "off" or each == PlaceSettings() for each in places)
