"""The road's figures for Prometheus: deliveries, events, executions, outcomes, the queue, dead letters.

They cross tenants. What is counted is counted from the first look on, and each row once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from circuit_script.db.pool import Connection
from circuit_script.events.dropped import CHORE, KINDS, dropped
from circuit_script.events.status import DEEPEST
from circuit_script.governor import Limits
from circuit_script.telemetry.metrics import BATCHES, DELAYS, DURATIONS, MOST, Figures, Spread, add
from circuit_script.telemetry.tally import Tally, Totals

INTAKE_SLACK = 15.0  # seconds from a delivery's id to its commit, at most
SLACK = 60.0  # seconds from an execution's end to its commit, at most
LONGEST = 3600.0  # seconds: executions that last longer may be missed
LEAST = 60.0
SEEDED = ("succeeded", "partial", "failed", "breached", "held")  # so that the first failure is seen to come

_NOW = """
    SELECT clock_timestamp(), (
        SELECT max((h -> 'limits' ->> 'wall_time')::float8)
        FROM circuit.live l JOIN circuit.releases r ON r.id = l.release,
             jsonb_array_elements(CASE jsonb_typeof(r.manifest) WHEN 'array' THEN r.manifest ELSE '[]' END) h)
"""
_HANDLERS = "SELECT name FROM circuit.handlers ORDER BY id DESC LIMIT %s"
_DELIVERIES = """
    SELECT d.id >= circuit.uuid_floor(%(settled)s), d.source,
           CASE WHEN d.tenant IS NULL THEN 'unassigned' ELSE 'accepted' END, count(*)
    FROM circuit.deliveries d WHERE d.id >= circuit.uuid_floor(%(counted)s) GROUP BY 1, 2, 3
"""
_EVENTS = """
    SELECT e.delivery >= circuit.uuid_floor(%(settled)s), e.object,
           CASE WHEN e.handled = 0 THEN 'unrouted' ELSE 'routed' END, count(*)
    FROM circuit.events e WHERE e.delivery >= circuit.uuid_floor(%(counted)s) GROUP BY 1, 2, 3
"""
_EXECUTIONS = """
    SELECT x.young, coalesce(h.name, 'gone'), x.status, x.broken, width_bucket(x.seconds, %(durations)s::float8[]),
           width_bucket(x.records, %(batches)s::float8[]), count(*), sum(x.seconds), sum(x.records)
    FROM (
        SELECT x.id >= circuit.uuid_floor(%(settled)s) AS young, x.handler, x.status,
               CASE WHEN x.status = 'breached' THEN coalesce(
                   substring(x.reason FROM '^limit (\\w+) exceeded'), substring(x.reason FROM '^(loop|deadline) '),
                   'other') ELSE '' END AS broken,
               greatest(0, date_part('epoch', x.ended_at - x.started_at)) AS seconds,
               x.records::float8 AS records
        FROM circuit.executions x WHERE x.id >= circuit.uuid_floor(%(counted)s) AND x.status <> 'echo'
    ) x LEFT JOIN circuit.handlers h ON h.id = x.handler GROUP BY 1, 2, 3, 4, 5, 6
"""
# The first 48 bits of a delivery's id are its millisecond.
_OUTCOMES = """
    SELECT o.young, coalesce(h.name, 'gone'), o.status, width_bucket(o.delay, %(delays)s::float8[]), count(*),
           sum(o.delay)
    FROM (
        SELECT o.execution >= circuit.uuid_floor(%(settled)s) AS young, o.handler, o.status,
               greatest(0, date_part('epoch', o.at)
                        - ('x' || left(replace(o.delivery::text, '-', ''), 12))::bit(48)::bigint / 1e3::float8) AS delay
        FROM circuit.outcomes o WHERE o.execution >= circuit.uuid_floor(%(counted)s)
    ) o LEFT JOIN circuit.handlers h ON h.id = o.handler GROUP BY 1, 2, 3, 4
"""
# Their ids rise with their times, nearly: the latest that is too old ends the search.
_LETTERS = """
    SELECT d.at >= %(settled)s, d.kind, count(*) FROM circuit.dead_letters d
    WHERE d.at >= %(counted)s AND d.id > coalesce((
        SELECT p.id FROM circuit.dead_letters p WHERE p.at < %(counted)s ORDER BY p.id DESC LIMIT 1), 0)
    GROUP BY 1, 2
"""
_REFUSALS = "SELECT day, source, reason, n FROM circuit.refusals WHERE day >= current_date - 1"
# A replayed event has waited since it was put back, and nobody knows since when: it has a depth, but no age.
_QUEUE = f"""
    WITH waiting AS MATERIALIZED (
        SELECT q.delivery, q.not_before, q.past FROM circuit.queue q
        WHERE q.id >= (SELECT min(low_water) FROM circuit.lanes) ORDER BY q.id LIMIT {DEEPEST}
    )
    SELECT count(*), coalesce(max(extract(epoch FROM now()) - greatest(
               ('x' || left(replace(w.delivery::text, '-', ''), 12))::bit(48)::bigint / 1000.0,
               extract(epoch FROM w.not_before)))
               FILTER (WHERE w.past IS NULL AND (w.not_before IS NULL OR w.not_before <= now())), 0)
    FROM waiting w
"""
_WORKFLOWS = f"""
    SELECT (SELECT count(*) FROM (SELECT FROM circuit.queue q WHERE q.object = 'Job'
            AND (q.not_before IS NULL OR q.not_before <= now()) LIMIT {DEEPEST}) j)
           + (SELECT count(*) FROM circuit.replays r WHERE r.status IN ('choosing', 'running'))
"""
_OPEN = """
    SELECT count(*) FROM circuit.dead_letters d WHERE d.status = 'open'
    AND (d.effect = ANY(ARRAY(SELECT e.id FROM circuit.effects e WHERE e.status = 'in_doubt'))) IS NOT TRUE
"""
_WORKERS = "SELECT count(*) FROM circuit.workers WHERE expires_at > now()"
_CHORES = f"""
    SELECT chore, (failed_at IS NOT NULL)::int, extract(epoch FROM now() - succeeded_at) FROM circuit.upkeep
    WHERE chore <> '{CHORE}' ORDER BY chore
"""


class RoadFigures:
    """Counts what goes the road."""

    def __init__(self) -> None:
        self._deliveries = Tally(_DELIVERIES, values=1, slack=INTAKE_SLACK)
        self._events = Tally(_EVENTS, values=1, slack=INTAKE_SLACK)
        # Whole numbers are to lie within their bucket, whose bound is among it.
        batches = [each + 0.5 for each in BATCHES]
        self._executions = Tally(_EXECUTIONS, values=3, slack=SLACK, durations=list(DURATIONS), batches=batches)
        self._outcomes = Tally(_OUTCOMES, values=2, slack=SLACK, delays=list(DELAYS))
        self._letters = Tally(_LETTERS, values=1, slack=SLACK)
        self._longest = LONGEST
        self._refused: Mapping[Any, int] | None = None
        self._dropped: Mapping[Any, int] | None = None
        self._counted: Figures = {}
        for kind in KINDS:
            add(self._counted, "circuit_dropped_total", (kind,), 0)

    async def read(self, connection: Connection) -> tuple[Figures, datetime]:
        """The figures, and the database's time. Raises psycopg.Error."""
        now, longest = (await _rows(connection, _NOW))[0]
        self._executions.slack = self._outcomes.slack = min(self._longest, longest or LONGEST) + SLACK
        figures: Figures = {}
        await self._seed(connection, figures)
        _put_executions(figures, await self._executions.read(connection, now))
        _put_outcomes(figures, await self._outcomes.read(connection, now))
        for tally, name in (
            (self._deliveries, "circuit_deliveries_total"),
            (self._events, "circuit_events_total"),
            (self._letters, "circuit_dead_letters_total"),
        ):
            for key, (n,) in (await tally.read(connection, now)).items():
                add(figures, name, key, n)
        await self._count_changed(connection)
        await _put_gauges(connection, figures)
        return figures | self._counted, now.astimezone(UTC)

    def look_less_far(self) -> None:
        """A look took too long: from now on fewer of the executions are waited for that last very long."""
        self._longest = max(LEAST, self._longest / 2)

    def look_farther(self) -> None:
        """There is time for more again: a lock may have held up the looks, and not how much there was."""
        self._longest = min(LONGEST, self._longest * 2)

    async def _seed(self, connection: Connection, figures: Figures) -> None:
        """What is known to come begins with 0: a counter's first value says nothing of what was before it."""
        for (name,) in await _rows(connection, _HANDLERS, [MOST]):
            for status in SEEDED:
                add(figures, "agent_invocations_total", (name, status), 0)
            add(figures, "circuit_retries_total", (name,), 0)
        for limit in fields(Limits):
            add(figures, "circuit_limit_breaches_total", (limit.name,), 0)
        for kind in ("event", "effect"):
            add(figures, "circuit_dead_letters_total", (kind,), 0)
        for status in ("succeeded", "retry", "dead"):
            add(figures, "circuit_outcomes_total", (status,), 0)

    async def _count_changed(self, connection: Connection) -> None:
        """What others have counted already: of each of their counts only what it has grown by."""
        refused = {(day, *key): n for day, *key, n in await _rows(connection, _REFUSALS)}
        for (_, source, reason), more in _grown(refused, self._refused):
            add(self._counted, "circuit_refusals_total", (source, reason), more)
        self._refused = refused
        told = await dropped(connection)
        for (_, kind), more in _grown(told, self._dropped):
            add(self._counted, "circuit_dropped_total", (kind,), more)
        self._dropped = told


def _grown(found: Mapping[Any, int], before: Mapping[Any, int] | None) -> Iterator[tuple[Any, int]]:
    """By how much each count has grown; the first time by nothing."""
    for key, n in found.items():
        yield key, 0 if before is None else max(0, n - before.get(key, 0))


def _put_executions(figures: Figures, totals: Totals) -> None:
    for (handler, status, broken, duration, batch), (n, seconds, records) in totals.items():
        add(figures, "agent_invocations_total", (handler, status), n)
        if status == "held":  # no handler ran: an attack must not make it look quick
            continue
        add(figures, "agent_duration_seconds", (handler,), _spread(len(DURATIONS), duration, n, seconds))
        add(figures, "circuit_batch_records", (handler,), _spread(len(BATCHES), batch, n, records))
        if broken:
            add(figures, "circuit_limit_breaches_total", (broken,), n)


def _put_outcomes(figures: Figures, totals: Totals) -> None:
    add(figures, "circuit_event_delay_seconds", (), _spread(len(DELAYS), 0, 0, 0))
    for (handler, status, bucket), (n, delay) in totals.items():
        add(figures, "circuit_outcomes_total", (status,), n)
        if status == "retry":
            add(figures, "circuit_retries_total", (handler,), n)
        elif status != "deferred":
            add(figures, "circuit_event_delay_seconds", (), _spread(len(DELAYS), bucket, n, delay))


async def _put_gauges(connection: Connection, figures: Figures) -> None:
    (depth, age) = (await _rows(connection, _QUEUE))[0]
    add(figures, "circuit_queue_depth", (), depth)
    add(figures, "circuit_queue_age_seconds", (), max(0.0, float(age)))
    for name, statement in (
        ("active_workflows", _WORKFLOWS),
        ("circuit_dead_letters_open", _OPEN),
        ("circuit_workers", _WORKERS),
    ):
        add(figures, name, (), (await _rows(connection, statement))[0][0])
    figures |= {"circuit_chore_failed": {}, "circuit_chore_age_seconds": {}}
    for chore, failed, age in await _rows(connection, _CHORES):
        add(figures, "circuit_chore_failed", (chore,), failed)
        if age is not None:
            add(figures, "circuit_chore_age_seconds", (chore,), float(age))


def _spread(bounds: int, bucket: int, n: float, total: float) -> Spread:
    """``n`` values of one bucket."""
    return Spread(tuple(n if place == bucket else 0.0 for place in range(bounds + 1)), total)


async def _rows(connection: Connection, statement: str, parameters: list[Any] | None = None) -> list[tuple[Any, ...]]:
    return await (await connection.execute(statement.encode(), parameters, prepare=False)).fetchall()
