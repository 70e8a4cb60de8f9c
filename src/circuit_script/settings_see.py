"""Settings of what is seen: log, traces, errors that are reported, alerts, guardian, dashboard."""

from __future__ import annotations

import re
from typing import Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from circuit_script.settings_spans import SPAN, seconds_of

Level = Literal["debug", "info", "warning", "error", "critical"]
Severity = Literal["notice", "warning", "critical"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LogSettings(_Section):
    """The author's log. ``stdout`` also writes each line as JSON on standard output. ``keep`` is days by level: 0 are
    not stored at all, and a level that is not named is kept for ever. ``redact_keys`` (fields whose value is blanked)
    and ``redact_patterns`` (regular expressions) add to those that are always redacted; ``redact_personal`` also
    blanks e-mail addresses, telephone and card numbers."""

    stdout: bool = True
    keep: dict[Level, int] = {}
    redact_keys: tuple[str, ...] = ()
    redact_patterns: tuple[str, ...] = ()
    redact_personal: bool = True

    @field_validator("keep")
    @classmethod
    def _days(cls, value: dict[Level, int]) -> dict[Level, int]:
        for level, days in value.items():
            if days < 0:
                raise ValueError(f"{level}: a number of days, or 0 to store none")
        return value

    @property
    def unkept(self) -> frozenset[str]:
        """Levels that are not stored."""
        return frozenset(level for level, days in self.keep.items() if days == 0)

    @field_validator("redact_patterns")
    @classmethod
    def _patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            try:
                re.compile(each)
            except re.error as error:
                raise ValueError(f"{each!r} is no regular expression: {error}") from None
        return value


class TraceSettings(_Section):
    """Traces. ``per_second`` is how many of succeeded executions a worker keeps in a second, the others' are dropped;
    those of failed ones are all kept. With ``propagate`` callouts and effects tell those who get them which trace they
    belong to (the header ``traceparent``). ``otlp_url`` is where they are sent, too (OTLP over HTTP, an address like
    ``https://host/v1/traces``), with ``otlp_headers``; empty for nowhere. ``service`` names this installation there."""

    enabled: bool = True
    per_second: float = Field(default=20.0, ge=0, le=100_000)
    propagate: bool = True
    otlp_url: str = Field(default="", pattern=r"^(https?://.+)?$")
    otlp_headers: dict[str, str] = {}
    service: str = "circuit-script"


class SentrySettings(_Section):
    """Errors that go to Sentry, or to what speaks its protocol. Empty ``dsn``: none."""

    dsn: str = ""
    environment: str = "production"


class SloSettings(_Section):
    """What a handler owes. ``handlers`` are patterns of names; ``p95`` in seconds (95 % of executions are not slower),
    ``errors`` the share of executions that may fail, ``availability`` the share of deliveries that must be accepted.
    Of ``days`` the error budget is counted."""

    handlers: tuple[str, ...] = ("*",)
    p95: float | None = Field(default=None, gt=0)
    errors: float | None = Field(default=None, gt=0, lt=1)
    availability: float | None = Field(default=None, gt=0, lt=1)
    days: int = Field(default=30, ge=1, le=90)


DEFAULT_SLOS = {
    "scoring": SloSettings(handlers=("*score*",), p95=5.0),
    "errors": SloSettings(errors=0.001),
    "availability": SloSettings(availability=0.999),
}


class ChannelSettings(_Section):
    """Where alerts go: an address of apprise (``slack://…``, ``mailto://…``, ``json://…``), or the name of the
    environment variable that holds it. It gets what is ``at_least`` so severe, of ``tenants`` (all, if none is named),
    once it has lasted ``after`` without being acknowledged: the next step of an escalation has a later one. ``quiet``
    says whether it keeps the quiet hours."""

    url: str = ""
    url_env: str = Field(default="", pattern=r"^[A-Za-z_]\w*$|^$")
    at_least: Severity = "warning"
    after: str = Field(default="", pattern=rf"{SPAN}|^$")
    tenants: tuple[str, ...] = ()
    quiet: bool = True

    @property
    def delay(self) -> float:
        """``after`` in seconds."""
        return seconds_of(self.after) if self.after else 0.0


class QuietSettings(_Section):
    """Hours of the day in which only what is critical is told; the rest is told at their end. Both empty: none."""

    start: str = Field(default="", pattern=r"^(([01]\d|2[0-3]):[0-5]\d)?$")
    end: str = Field(default="", pattern=r"^(([01]\d|2[0-3]):[0-5]\d)?$")
    timezone: str = "UTC"

    @model_validator(mode="after")
    def _whole(self) -> QuietSettings:
        if bool(self.start) != bool(self.end):
            raise ValueError("quiet hours have a start and an end: give both, or none")
        return self

    @field_validator("timezone")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except Exception:
            raise ValueError(f"{value!r} is no time zone; write one like Europe/Berlin") from None
        return value


class AlertSettings(_Section):
    """When somebody is told. ``error_rate`` is the share of a handler's executions of the last 5 minutes that fail,
    ``latency`` the seconds of their 95th percentile, ``queue_age`` the seconds for which the oldest event that could
    run has waited, ``hot_lead`` how long a lead of ``hot_grade`` may go untouched. ``budget`` are shares of a budget at
    which it is told. What goes on is told again every ``repeat``. ``url`` is the dashboard's address in what is told.
    ``every`` and ``group`` are seconds: between two looks, and for which what is new is gathered into one message."""

    channels: dict[str, ChannelSettings] = {}
    quiet: QuietSettings = QuietSettings()
    slos: dict[str, SloSettings] = DEFAULT_SLOS
    every: float = Field(default=5.0, ge=0.5, le=60)
    group: float = Field(default=10.0, ge=0, le=300)
    repeat: str = Field(default="4h", pattern=SPAN)
    error_rate: float = Field(default=0.05, gt=0, le=1)
    latency: float = Field(default=10.0, gt=0)
    queue_age: float = Field(default=60.0, gt=0)
    budget: tuple[float, ...] = (0.8, 1.0)
    hot_lead: str = Field(default="15m", pattern=SPAN)
    hot_grade: str = "A"
    url: str = Field(default="", pattern=r"^(https?://.+)?$")


class GuardianSettings(_Section):
    """What is looked after ``every`` so often. ``apis`` are vendors' addresses by name: any answer below 500 is well.
    ``heartbeat_url`` is fetched every ``heartbeat`` while all goes well: who waits there tells when it stays out.
    ``disk_free`` is the least free share of the disk; ``expires_in`` says how early the end of a credential is told,
    ``expiries`` are moments (dates) at which credentials end, by name."""

    every: str = Field(default="5m", pattern=SPAN)
    apis: dict[str, str] = {}
    heartbeat_url: str = Field(default="", pattern=r"^(https?://.+)?$")
    heartbeat: str = Field(default="1m", pattern=SPAN)
    disk_free: float = Field(default=0.1, gt=0, lt=1)
    expires_in: str = Field(default="14d", pattern=SPAN)
    expiries: dict[str, str] = {}


class DashboardSettings(_Section):
    """The web page for people. ``url`` is the address by which they reach it, if it stands behind a proxy that speaks
    TLS; ``session`` is how long a sign-in lasts."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: int = Field(default=8002, ge=0, le=65535)
    url: str = Field(default="", pattern=r"^(https?://.+)?$")
    session: str = Field(default="12h", pattern=SPAN)
