"""Settings of reconciliation: how often CRMs are asked what has changed in them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from circuit_script.settings_spans import seconds_of


class ReconcileSettings(BaseModel):
    """CRMs are asked ``every`` so often ("15m") what has changed, so that a webhook that was lost is made up for. They
    are asked for the objects that a trigger handles; where ``objects`` says so of a connector, for these only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = True
    every: str = Field(default="15m", pattern=r"^[1-9]\d{0,4}[smhd]$")
    objects: dict[str, tuple[str, ...]] = {}

    @property
    def seconds(self) -> float:
        """``every`` as seconds."""
        return seconds_of(self.every)
