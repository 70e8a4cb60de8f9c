"""What Prometheus is told: which metrics there are, and a board that holds their last values.

A label has at most `MOST` values: whatever comes after them is counted as "other". Counters never fall, also where a
row of the last minutes was changed or deleted after it was counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.registry import Collector

MOST = 200  # values of one label
OTHER = "other"
LONGEST = 120  # characters of a label's value

DURATIONS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)  # seconds
BATCHES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)  # records
DELAYS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)  # seconds


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. ``name`` is as Prometheus knows its samples, a histogram's without ``_bucket``. What is ``untyped``
    only rises, too: its name is not one of a counter's."""

    name: str
    kind: Literal["counter", "gauge", "histogram", "untyped"]
    said: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def samples(self) -> tuple[str, ...]:
        """The names that expressions use."""
        if self.kind == "histogram":
            return tuple(f"{self.name}_{part}" for part in ("bucket", "count", "sum"))
        return (self.name,)


FAMILIES = {
    each.name: each
    for each in (
        Family("circuit_up", "gauge", "1 while the database answers; else all figures are those of before."),
        Family("circuit_looked_timestamp_seconds", "gauge", "When these figures were taken, by the database's clock."),
        Family("circuit_build_info", "gauge", "Always 1.", ("version",)),
        # Executions
        Family("agent_invocations_total", "counter", "Executions, by how they ended.", ("agent_type", "status")),
        Family("agent_duration_seconds", "histogram", "How long executions took.", ("agent_type",), DURATIONS),
        Family("circuit_batch_records", "histogram", "Records of an execution.", ("agent_type",), BATCHES),
        Family("circuit_limit_breaches_total", "counter", "Executions that crossed a limit.", ("limit",)),
        Family("circuit_retries_total", "counter", "Records that are tried once more.", ("agent_type",)),
        Family("active_workflows", "gauge", "Jobs that run or are due, and replays that have not ended."),
        # The road
        Family("circuit_deliveries_total", "counter", "Deliveries in the ledger.", ("source", "status")),
        Family("circuit_refusals_total", "counter", "Deliveries that were refused.", ("source", "reason")),
        Family("circuit_events_total", "counter", "Events that deliveries brought.", ("object", "status")),
        Family("circuit_outcomes_total", "counter", "What became of events, per handler and attempt.", ("status",)),
        Family("circuit_event_delay_seconds", "histogram", "From delivery to the last outcome.", (), DELAYS),
        Family("circuit_queue_depth", "gauge", "Events that wait, for each of their handlers; at most 100,000."),
        Family("circuit_queue_age_seconds", "gauge", "How long the oldest event waits that could run."),
        Family("circuit_workers", "gauge", "Workers that live."),
        Family("circuit_dead_letters_total", "counter", "Dead letters that were written.", ("kind",)),
        Family("circuit_dead_letters_open", "gauge", "Dead letters that wait for a person."),
        Family("circuit_dropped_total", "counter", "Log lines and traces that could not be stored.", ("kind",)),
        Family("circuit_chore_failed", "gauge", "1 where the last attempt at upkeep failed.", ("chore",)),
        Family("circuit_chore_age_seconds", "gauge", "Since upkeep was last done.", ("chore",)),
        # Effects
        Family("circuit_effects_total", "counter", "What became of attempts at effects.", ("connector", "status")),
        Family("circuit_vendor_errors_total", "counter", "Attempts at effects that failed.", ("connector",)),
        Family("circuit_effects_pending", "gauge", "Effects that wait to leave; at most 100,000.", ("connector",)),
        Family("circuit_effects_in_doubt", "gauge", "Effects of which nobody knows whether they were done."),
        Family("circuit_open_circuits", "gauge", "Vendors that are left alone, as they fail.", ("connector",)),
        # Texts from outside
        Family("judgment_verdicts_total", "counter", "Verdicts on texts from outside.", ("source", "action")),
        # Models
        Family("llm_cost_dollars", "untyped", "What model calls have cost. It only rises.", ("provider", "model")),
        Family("llm_tokens_total", "counter", "Tokens; cached ones are among input.", ("provider", "model", "type")),
        Family("circuit_llm_calls_total", "counter", "Model calls that ended.", ("provider", "model", "status")),
        Family("circuit_agent_cost_dollars_total", "counter", "What a handler's calls have cost.", ("agent_type",)),
        Family("circuit_tenant_cost_dollars_total", "counter", "What a tenant's calls have cost.", ("tenant",)),
        Family("circuit_spend_dollars", "gauge", "What models cost today, in UTC, and what is reserved.", ("state",)),
        Family("circuit_budget_dollars", "gauge", "What models may cost in a day; absent without a bound."),
    )
}


@dataclass(frozen=True, slots=True)
class Spread:
    """A histogram's values: how many fell in each bucket (one more than bounds: the last has no bound), their sum."""

    counts: tuple[float, ...]
    total: float

    def and_also(self, other: Spread) -> Spread:
        return Spread(tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)), self.total + other.total)

    def no_less(self, other: Spread) -> Spread:
        counts = tuple(max(a, b) for a, b in zip(self.counts, other.counts, strict=True))
        return Spread(counts, max(self.total, other.total))


Value = float | Spread
Figures = dict[str, dict[tuple[str, ...], Value]]  # by family, then by the values of its labels


def add(figures: Figures, name: str, labels: tuple[str, ...], value: Value) -> None:
    """Count ``value`` in."""
    series = figures.setdefault(name, {})
    series[labels] = _sum(series[labels], value) if labels in series else value


class Board(Collector):
    """The last value of each metric."""

    def __init__(self) -> None:
        self._series: Figures = {}
        self._known: dict[str, set[str]] = defaultdict(set)
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def put(self, figures: Mapping[str, Mapping[tuple[str, ...], Value]]) -> None:
        """Show these. Counters keep series that are not in it; gauges are only what it says."""
        for name, given in figures.items():
            family = FAMILIES[name]
            bounded: Figures = {}
            for labels, value in given.items():
                add(bounded, name, self._bounded(family, labels), value)
            series = bounded.get(name, {})
            if family.kind != "gauge":
                before = self._series.get(name, {})
                series = before | {
                    labels: _most(value, before[labels]) if labels in before else value
                    for labels, value in series.items()
                }
            self._series[name] = series

    def text(self) -> bytes:
        """Prometheus's text format, version 0.0.4."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        for name, series in self._series.items():
            family = FAMILIES[name]
            metric = Metric(name.removesuffix("_total") if family.kind == "counter" else name, family.said, family.kind)
            for values, value in series.items():
                labels = dict(zip(family.labels, values, strict=True))
                if isinstance(value, Spread):
                    _add_spread(metric, family, labels, value)
                else:
                    metric.add_sample(name, labels, value)
            yield metric

    def _bounded(self, family: Family, labels: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(self._one_of(label, value) for label, value in zip(family.labels, labels, strict=True))

    def _one_of(self, label: str, value: str) -> str:
        known, value = self._known[label], value[:LONGEST]
        if value not in known:
            if len(known) >= MOST:
                return OTHER
            known.add(value)
        return value


def _add_spread(metric: Metric, family: Family, labels: dict[str, str], spread: Spread) -> None:
    reached = 0.0
    for bound, count in zip((*map(str, family.buckets), "+Inf"), spread.counts, strict=True):
        reached += count
        metric.add_sample(f"{family.name}_bucket", {**labels, "le": bound}, reached)
    metric.add_sample(f"{family.name}_count", labels, reached)
    metric.add_sample(f"{family.name}_sum", labels, spread.total)


def _sum(one: Value, other: Value) -> Value:
    if isinstance(one, Spread) and isinstance(other, Spread):
        return one.and_also(other)
    assert not isinstance(one, Spread)  # of one family all values are of one kind
    assert not isinstance(other, Spread)
    return one + other


def _most(one: Value, other: Value) -> Value:
    if isinstance(one, Spread) and isinstance(other, Spread):
        return one.no_less(other)
    assert not isinstance(one, Spread)  # of one family all values are of one kind
    assert not isinstance(other, Spread)
    return max(one, other)
