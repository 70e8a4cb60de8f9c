"""Totals over tables that only grow, for metrics: each row is counted once, however often one looks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from circuit_script.db.pool import Connection
from circuit_script.telemetry.metrics import OTHER

Key = tuple[Any, ...]
Totals = Mapping[Key, list[float]]

# Where nobody has looked for so long, what came meanwhile is left out: to count it all at once could take too long, and
# would show as a peak that never was.
GAP = timedelta(minutes=10)
MOST = 5_000  # keys that are counted apart; what of those that come later has a name is counted as OTHER


class Tally:
    """What has come into a table since the first look, which counts nothing: who starts again must not count twice.

    ``statement`` reads the rows that are as old as ``%(counted)s`` or younger, grouped. Its columns: whether they are
    as young as ``%(settled)s``, then the keys, then ``values`` numbers. Rows younger than ``slack`` seconds are counted
    again each time, as others of their age may still be on their way.
    """

    def __init__(self, statement: str, *, values: int, slack: float, **parameters: Any) -> None:
        self.slack = slack
        self._statement = statement.encode()
        self._values = values
        self._parameters = parameters
        self._keys: set[Key] = set()
        self._told: Totals = {}
        self._begin()

    def _begin(self) -> None:
        """Count from the next look on, upon what was told before."""
        self._carried = {key: list(values) for key, values in self._told.items()}
        self._settled: dict[Key, list[float]] = {}
        self._before: Totals | None = None
        self._counted: datetime | None = None
        self._looked: datetime | None = None

    async def read(self, connection: Connection, now: datetime) -> Totals:
        """The totals by key; ``now`` is the database's. Raises psycopg.Error, and then has counted nothing."""
        boundary = now - timedelta(seconds=self.slack)
        if self._looked is not None and abs(now - self._looked) > GAP:  # also where a clock was set back
            self._begin()
        counted = self._counted or boundary
        settled = max(boundary, counted)
        parameters = self._parameters | {"counted": counted, "settled": settled}
        rows = await (await connection.execute(self._statement, parameters, prepare=False)).fetchall()
        self._counted, self._looked = settled, now
        found: dict[Key, list[float]] = defaultdict(self._nothing)
        for young, *row in rows:
            key, values = self._key(row[: -self._values]), row[-self._values :]
            _add(found[key] if young else self._settled.setdefault(key, self._nothing()), values)
        for key, values in self._settled.items():
            _add(found[key], values)
        if self._before is None:
            self._before = {key: list(values) for key, values in found.items()}
        for key, values in self._before.items():
            found[key] = [max(0.0, new - old) for new, old in zip(found[key], values, strict=True)]
        for key, values in self._carried.items():
            _add(found[key], values)
        self._told = found
        return found

    def _key(self, said: list[Any]) -> Key:
        """Names come from strangers, and there may be a new one in each row."""
        key = tuple(said)
        if key not in self._keys and len(self._keys) >= MOST:
            return tuple(OTHER if isinstance(each, str) else each for each in said)
        self._keys.add(key)
        return key

    def _nothing(self) -> list[float]:
        return [0.0] * self._values


def _add(total: list[float], values: list[Any]) -> None:
    for place, value in enumerate(values):
        total[place] += float(value or 0)
