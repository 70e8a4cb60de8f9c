"""Settings of `circuit-script test`: what its gate lets pass."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class TestSettings(BaseModel):
    """What the tests must show. ``coverage`` is the least percent of lines that run, in all and of each handler, 75 or
    more; ``omit`` are files that do not count ("scripts/*"); ``allow_limits`` names limits of which a handler may use
    more than 80 percent ("score.callouts"); ``skip_bulk`` names triggers that need not take 200 records at once."""

    __test__ = False  # not a class of tests

    model_config = ConfigDict(frozen=True, extra="forbid")

    coverage: float = Field(default=75.0, ge=75, le=100)
    omit: tuple[str, ...] = ()
    allow_limits: tuple[str, ...] = ()
    skip_bulk: tuple[str, ...] = ()
