"""Rate limits: how many requests of an operation may leave for a tenant.

A token bucket for each, in the worker's memory. Workers share a rate as they share the lanes: who holds half of them
has half of it, so that all together never have more than all of it, and a worker that goes leaves its share to who
takes its lanes. Where records are few, some of a rate can lie idle; what a vendor itself asks for holds for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from circuit_script.config import Settings
from circuit_script.connectors.connector import Rate
from circuit_script.effects.due import Group

MAX_BUCKETS = 10_000  # beyond, full ones are forgotten: they would be made full again
OFTEN = 0.25  # seconds
LANES = 64

Key = tuple[str, str, str, str]


def rates_of(settings: Settings) -> dict[tuple[str, str], Rate]:
    """The rates that circuit.toml says, by connector and operation."""
    return {
        (connector, operation): Rate(rate.calls, rate.seconds, rate.burst, rate.of)
        for connector, each in settings.connectors.items()
        for operation, rate in each.rates.items()
    }


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float
    full_at: float = 0.0


class Rates:
    """The buckets of one worker. ``said`` are rates that replace what connectors declare; ``share`` is the worker's,
    from 0 to 1; ``clock`` is in seconds and only rises."""

    def __init__(
        self, said: Mapping[tuple[str, str], Rate], share: Callable[[], float], clock: Callable[[], float]
    ) -> None:
        self._said = said
        self._share = share
        self._clock = clock
        self._buckets: dict[Key, _Bucket] = {}

    def rate_of(self, group: Group, declared: Rate | None) -> Rate | None:
        return self._said.get((group.connector, group.operation), declared)

    def left(self, group: Group, rate: Rate) -> int:
        """How many requests may leave now."""
        return max(0, math.floor(self._filled(group, rate).tokens + 1e-9))

    def wait(self, group: Group, rate: Rate) -> float:
        """Seconds until the next request may leave."""
        missing = 1.0 - self._filled(group, rate).tokens
        return 0.0 if missing <= 0 else missing * rate.seconds / (rate.calls * max(self._share(), 1 / LANES))

    def refilled(self, group: Group, rate: Rate) -> float:
        """Seconds until it is worth to look again: a quarter of a second, or less if all that may leave at once is half
        there by then, so that nothing of the rate is lost; or more, until the next one may leave."""
        per_second = rate.calls * max(self._share(), 1 / LANES) / rate.seconds
        missing = max(1.0, min(self._most(rate) / 2, OFTEN * per_second)) - self._filled(group, rate).tokens
        return max(0.0, missing / per_second)

    def take(self, group: Group, rate: Rate, calls: int = 1) -> None:
        """So many requests leave; more than there were are paid back by waiting."""
        bucket = self._filled(group, rate)
        bucket.tokens -= calls
        per_second = rate.calls * max(self._share(), 1 / LANES) / rate.seconds
        bucket.full_at = bucket.at + (self._most(rate) - bucket.tokens) / per_second

    def _filled(self, group: Group, rate: Rate) -> _Bucket:
        now, most = self._clock(), self._most(rate)
        key = _key(group, rate)
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= MAX_BUCKETS:
                self._buckets = {known: each for known, each in self._buckets.items() if each.full_at > now}
            bucket = self._buckets[key] = _Bucket(most, now)
        grown = (now - bucket.at) * rate.calls * self._share() / rate.seconds
        bucket.tokens, bucket.at = min(most, bucket.tokens + grown), now
        return bucket

    def _most(self, rate: Rate) -> float:
        return max(1.0, (rate.calls if rate.burst is None else rate.burst) * self._share())


def _key(group: Group, rate: Rate) -> Key:
    match rate.of:
        case "connector":
            return group.tenant, group.connector, "", ""
        case "operation":
            return group.tenant, group.connector, group.operation, ""
        case "target":
            return group.tenant, group.connector, group.operation, group.target
