"""What one execution may use, and what it has used (defaults: Apex's habit, our table)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches

from circuit_script.errors import ConfigError
from circuit_script.governor.money import NANO, dollars

MB = 1024 * 1024
HIGHEST = 2**40
FRACTIONS = ("wall_time", "cpu_time", "llm_cost")
PER_RECORD = frozenset({"messages", "jobs"})  # whose ceiling counts for each record of the batch
LOOP = "loop"  # what a LoopFound gives as its limit, if the loop costs money
REPEATED = "repeats"  # the same for calls that cost nothing
LOOPS = frozenset({LOOP, REPEATED})
BLOCKED = "blocked_loop"  # the limit of who keeps others waiting that share its process

Crossed = tuple[str, float, float, str]  # limit, used, ceiling, what more there is to say


@dataclass(frozen=True, slots=True)
class Limits:
    """Ceilings of one execution. Times in seconds, memory and bodies in bytes, ``llm_cost`` in US dollars, the rest are
    counts; ``messages`` and ``jobs`` are per record of the batch."""

    wall_time: float = 30.0
    cpu_time: float = 10.0
    memory: int = 128 * MB
    callouts: int = 50
    callout_bytes: int = 6 * MB
    db_queries: int = 100
    db_rows: int = 50_000
    dml_statements: int = 150
    dml_rows: int = 10_000
    llm_calls: int = 20
    llm_tokens: int = 200_000
    llm_cost: float = 1.0
    messages: int = 10
    jobs: int = 50
    depth: int = 16
    log_bytes: int = 1 * MB

    def __post_init__(self) -> None:
        for field in fields(self):
            _check(field.name, getattr(self, field.name))

    def lowered(self, **limits: float) -> Limits:
        """These limits with some replaced."""
        return replace(self, **limits)  # type: ignore[arg-type]  # names are checked by replace

    def as_dict(self) -> dict[str, float]:
        return asdict(self)

    def of_batch(self, records: int) -> dict[str, float]:
        """The ceilings of an execution with so many records, by name."""
        times = max(1, records)
        return {name: value * times if name in PER_RECORD else value for name, value in asdict(self).items()}


def limits_of(named: Mapping[str, float]) -> Limits:
    """The default limits with those of ``[limits]`` in circuit.toml instead. Raises ConfigError."""
    return replace(Limits(), **checked(named, "[limits]"))  # type: ignore[arg-type]  # names and values are checked


def checked(named: Mapping[str, float], table: str) -> dict[str, float]:
    """Limits by their names, as they stand in a table of circuit.toml. Raises ConfigError for what is none."""
    known = [each.name for each in fields(Limits)]
    for name, value in named.items():
        if name not in known:
            near = get_close_matches(name, known, n=1)
            cure = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(known)}."
            raise ConfigError(f"{table}: there is no limit {name!r}.", cure=cure, page="unknown-limit")
        _check(name, value, f"{table}: ")
    return dict(named)


def _check(name: str, value: object, where: str = "") -> None:
    whole = name not in FRACTIONS
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value <= HIGHEST:
        kind = "whole number" if whole else "number"
        raise ConfigError(
            f"{where}limit {name} must be a positive {kind} up to {HIGHEST:,}, not {value!r}.", page="unknown-limit"
        )


@dataclass(slots=True)
class Usage:
    """What an execution has used so far, counted on the parent's side."""

    wall_time: float = 0.0
    cpu_time: float = 0.0
    memory: int = 0
    callouts: int = 0
    db_queries: int = 0
    db_rows: int = 0
    dml_statements: int = 0
    dml_rows: int = 0
    llm_calls: int = 0
    llm_tokens: int = 0
    llm_cost: float = 0.0
    messages: int = 0
    jobs: int = 0
    depth: int = 0
    log_bytes: int = 0

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def amount(limit: str, value: float) -> str:
    """A limit's value as people read it: seconds, megabytes, or a count."""
    match limit:
        case "wall_time" | "cpu_time" | "blocked_loop":
            return f"{value:.2f} s"
        case "memory" | "callout_bytes" | "log_bytes" | "effect_bytes" | "answer_bytes":
            return f"{value / MB:.1f} MB"
        case "llm_cost":
            return dollars(round(value * NANO))
        case _:
            return f"{value:,.0f}"


class LimitExceeded(BaseException):
    """An execution crossed one of its limits.

    Derives from BaseException so that ``except Exception`` in a handler does not swallow it. ``where`` is the handler's
    line that crossed it ("triggers/contact.py:12", "" where nobody knows); ``said`` is what more there is to say.
    """

    def __init__(self, limit: str, used: float, ceiling: float, said: str = "", where: str = "") -> None:
        self.limit = limit
        self.used = used
        self.ceiling = ceiling
        self.said = said
        self.where = where
        super().__init__(limit, used, ceiling)

    @property
    def crossed(self) -> Crossed:
        """What it is made of: to be kept in its place, for its traceback holds all who saw it."""
        return self.limit, self.used, self.ceiling, self.said

    def __str__(self) -> str:
        text = f"{self.limit}: used {amount(self.limit, self.used)} of {amount(self.limit, self.ceiling)}"
        return text + (f": {self.said}" if self.said else "") + (f" ({self.where})" if self.where else "")

    def __reduce__(self) -> tuple[type[LimitExceeded], tuple[str, float, float, str, str]]:
        return type(self), (*self.crossed, self.where)


class LoopFound(LimitExceeded):
    """An execution went round in circles: ``said`` names the cycle."""

    def __str__(self) -> str:
        return f"{self.said}" + (f" ({self.where})" if self.where else "")


def breach_of(limit: str, used: float, ceiling: float, said: str = "", where: str = "") -> LimitExceeded:
    """The exception that a ``crossed`` stands for."""
    kind = LoopFound if limit in LOOPS else LimitExceeded
    return kind(limit, used, ceiling, said, where)
