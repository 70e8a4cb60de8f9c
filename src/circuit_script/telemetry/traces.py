"""A trace as it is read: from the delivery to its effects.

Only what the broker served was written for it. The rest is told by what the road stores anyway: when a delivery was
taken in, when its execution began and ended, what became of each effect. So there is a trace of every execution, also
of one whose spans were not kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg.pq import TransactionStatus

from circuit_script.clock import now, time_of
from circuit_script.db.pool import Connection, tenant_reading
from circuit_script.telemetry.spans import CONSUMER, ERROR, INTERNAL, OK, PRODUCER, SERVER
from circuit_script.telemetry.w3c import span_id

MOST_DELIVERIES = 5  # of a batch that are shown, the oldest
MOST_EFFECTS = 200
PENDING = "pending"
_INTAKE, _QUEUE = -1, -2  # numbers of the spans of a batch's first delivery; those of the next are two less

_EXECUTION = """
SELECT x.id, x.tenant, coalesce(h.name, x.handler::text) AS handler, x.object, x.event, x.records, x.status, x.reason,
       x.started_at, x.ended_at, x.release, x.usage, t.trace, t.parent, t.links, t.spans
FROM circuit.executions x LEFT JOIN circuit.handlers h ON h.id = x.handler
LEFT JOIN circuit.traces t ON t.execution = x.id AND t.tenant = x.tenant
WHERE x.id = %(execution)s AND (%(tenant)s::text IS NULL OR x.tenant = %(tenant)s)
"""
_DELIVERIES = """
SELECT d.id, d.source, d.received_at, d.vendor_id, e.object || '.' || e.event, o.status, o.number
FROM (SELECT o.*, count(*) OVER () AS number FROM circuit.outcomes o
      WHERE o.execution = %(execution)s AND o.tenant = %(tenant)s
      ORDER BY o.delivery, o.ordinal LIMIT %(most)s) o
CROSS JOIN LATERAL (SELECT d.id, d.source, d.received_at, d.vendor_id FROM circuit.deliveries d
                    WHERE d.id = o.delivery LIMIT 1) d
LEFT JOIN LATERAL (SELECT e.object, e.event FROM circuit.events e
                   WHERE e.delivery = o.delivery AND e.ordinal = o.ordinal LIMIT 1) e ON true
ORDER BY o.delivery, o.ordinal
"""
_EFFECTS = """
SELECT id, connector, operation, target, status, attempts, settled_at, reason
FROM circuit.effects WHERE execution = %(execution)s AND tenant = %(tenant)s ORDER BY seq LIMIT %(most)s
"""
# An id that a person has: of an execution, a delivery, an effect, or of a trace that others gave.
_LATEST = """
    SELECT id FROM circuit.executions WHERE (%(tenant)s::text IS NULL OR tenant = %(tenant)s) ORDER BY id DESC LIMIT 1
"""
_FOUND = """
SELECT DISTINCT f.id FROM (
    SELECT x.id FROM circuit.executions x WHERE x.id = %(id)s AND (%(tenant)s::text IS NULL OR x.tenant = %(tenant)s)
    UNION ALL
    SELECT o.execution FROM circuit.outcomes o
    WHERE o.delivery = %(id)s AND (%(tenant)s::text IS NULL OR o.tenant = %(tenant)s)
    UNION ALL
    SELECT e.execution FROM circuit.effects e
    WHERE e.id = %(id)s AND (%(tenant)s::text IS NULL OR e.tenant = %(tenant)s)
    UNION ALL
    SELECT t.execution FROM circuit.traces t WHERE t.trace = %(id)s AND t.trace <> t.execution
    AND (%(tenant)s::text IS NULL OR t.tenant = %(tenant)s)
    UNION ALL
    SELECT t.execution FROM circuit.traces t WHERE t.links @> ARRAY[%(id)s::uuid] AND t.links IS NOT NULL
    AND (%(tenant)s::text IS NULL OR t.tenant = %(tenant)s)
) f ORDER BY f.id LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class Span:
    """One step. ``id`` and ``parent`` are 16 hex digits; ``kind`` is server, consumer, internal, client or producer;
    ``status`` is ok, or why it is not; a step that is ``pending`` has lasted until now."""

    id: str
    parent: str | None
    name: str
    kind: str
    start: datetime
    duration_us: int
    status: str = OK
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def end(self) -> datetime:
        return self.start + timedelta(microseconds=self.duration_us)


@dataclass(frozen=True, slots=True)
class Trace:
    """The steps of one execution, from its deliveries to its effects, by their start. ``trace_id`` is 32 hex digits;
    ``links`` are the traces of a batch whose events came with several. Of one that is not ``complete`` the requests of
    the handler were not kept."""

    execution: UUID
    trace_id: str
    spans: Sequence[Span]
    tenant: str = ""
    handler: str = ""
    status: str = ""
    reason: str | None = None
    links: Sequence[str] = ()
    complete: bool = True


async def read_trace(connection: Connection, execution: UUID, tenant: str | None = None) -> Trace | None:
    """The trace of an execution; None where there is none, or where it is another tenant's."""
    async with _reading(connection, tenant):
        cursor = await connection.execute(_EXECUTION, {"execution": execution, "tenant": tenant})
        row = await cursor.fetchone()
        if row is None:
            return None
        mine = {"execution": execution, "tenant": row[1]}
        deliveries = await (await connection.execute(_DELIVERIES, {**mine, "most": MOST_DELIVERIES})).fetchall()
        effects = await (await connection.execute(_EFFECTS, {**mine, "most": MOST_EFFECTS})).fetchall()
    return _composed(row, deliveries, effects)


async def find_executions(
    connection: Connection, identifier: UUID, tenant: str | None = None, limit: int = 20
) -> list[UUID]:
    """The executions that an id leads to, the first one first: that of an execution, a delivery, an effect or a trace.
    A trace that others gave is found by what was kept of it."""
    async with _reading(connection, tenant):
        values = {"id": identifier, "tenant": tenant, "limit": limit}
        return [id_ for (id_,) in await (await connection.execute(_FOUND, values)).fetchall()]


async def latest_execution(connection: Connection, tenant: str | None = None) -> list[UUID]:
    """The one that began last, if there is one."""
    async with _reading(connection, tenant):
        return [id_ for (id_,) in await (await connection.execute(_LATEST, {"tenant": tenant})).fetchall()]


@contextlib.asynccontextmanager
async def _reading(connection: Connection, tenant: str | None) -> AsyncIterator[None]:
    """As that tenant; whoever reads as it already goes on doing so."""
    if tenant is None or connection.info.transaction_status is not TransactionStatus.IDLE:
        yield
        return
    async with tenant_reading(connection, tenant):
        yield


def _composed(row: tuple[Any, ...], deliveries: Sequence[tuple[Any, ...]], effects: Sequence[tuple[Any, ...]]) -> Trace:
    (execution, tenant, handler, object_, event, records, status, reason, started_at, ended_at, release, usage,
     trace, parent, links, stored) = row  # fmt: skip
    root = span_id(execution)
    recorded = [_recorded(execution, started_at, each) for each in stored or ()]
    ready = min([started_at, *(each.start for each in recorded)])
    before = [span for nth, each in enumerate(deliveries) for span in _delivery(execution, nth, each, parent, ready)]
    about = {"handler": handler, "tenant": tenant, "release": release, "records": records, **_used(usage)}
    if object_:
        about["event"] = f"{object_}.{event}"
    elif event:
        about["request"] = event
    if reason:
        about["reason"] = reason
    whole = Span(
        root,
        before[0].id if before else parent,
        handler,
        CONSUMER if object_ else INTERNAL,
        started_at,
        _micros(started_at, ended_at),
        OK if status in ("succeeded", "echo") else status,
        about,
    )
    after = [_effect(root, ended_at, each) for each in effects]
    return Trace(
        execution=execution,
        trace_id=(trace or execution).hex,
        spans=sorted([*before, whole, *recorded, *after], key=lambda each: each.start),
        tenant=tenant,
        handler=handler,
        status=status,
        reason=reason,
        links=[each.hex for each in links or ()],
        complete=stored is not None,
    )


def _delivery(execution: UUID, nth: int, row: tuple[Any, ...], parent: str | None, ready: datetime) -> tuple[Span, ...]:
    """What came before: the delivery was taken in, and then its event waited. That of an endpoint is its request."""
    delivery, source, received_at, vendor_id, name, outcome, of = row
    came = min(time_of(delivery), received_at)
    about = {"delivery": str(delivery), "source": source, "outcome": outcome}
    if vendor_id:
        about["vendor_id"] = vendor_id
    if of > MOST_DELIVERIES and nth == 0:
        about["deliveries"] = of
    first = span_id(execution, _INTAKE - 2 * nth)
    if source == "endpoint":
        return (Span(first, parent, "request", SERVER, came, _micros(came, received_at), OK, about),)
    title = f"intake {name}" if name else "intake"
    return (
        Span(first, parent, title, SERVER, came, _micros(came, received_at), OK, about),
        Span(span_id(execution, _QUEUE - 2 * nth), first, "queue", INTERNAL, received_at, _micros(received_at, ready)),
    )


def _recorded(execution: UUID, started_at: datetime, row: Sequence[Any]) -> Span:
    number, name, kind, began, duration, status, attributes = row
    start = started_at + timedelta(microseconds=began)
    return Span(span_id(execution, number), span_id(execution), name, kind, start, duration, status, attributes)


def _effect(root: str, ended_at: datetime, row: tuple[Any, ...]) -> Span:
    """What an effect waited for and took, from its commit to its end."""
    id_, connector, operation, target, status, attempts, settled_at, reason = row
    start = min(ended_at, settled_at) if settled_at is not None else ended_at
    end = settled_at or now()
    about = {"effect": str(id_), "target": target, "attempts": attempts}
    if reason:
        about["reason"] = reason
    state = {"delivered": OK, "pending": PENDING, "dead": ERROR}.get(status, status)
    last = span_id(id_, max(0, attempts - 1))  # each attempt is a span of its own for who gets it
    return Span(last, root, f"{connector}.{operation}", PRODUCER, start, _micros(start, end), state, about)


def _used(usage: Mapping[str, float] | None) -> dict[str, float]:
    """What of the usage is worth showing beside the time."""
    return {name: value for name, value in (usage or {}).items() if value and name != "wall_time"}


def _micros(start: datetime, end: datetime) -> int:
    """Clocks of several hosts may differ: nothing ends before it begins."""
    return max(0, (end.astimezone(UTC) - start.astimezone(UTC)) // timedelta(microseconds=1))


# -- for a terminal -------------------------------------------------------------------------------

NARROWEST = 60  # columns
_TIME = 10  # columns of the duration
_LONG = 20  # times an execution's own duration, from which on what came before and after it is cut
_BAR, _BEFORE, _AFTER = "█", "◂", "▸"


def waterfall(trace: Trace, width: int = 100) -> list[str]:
    """The trace as lines of text: each step below the one that it belongs to, with its time as a bar. Where waiting
    took far longer than working, bars that reach beyond the picture end in an arrow."""
    width = max(NARROWEST, width)
    names = min(48, width * 2 // 5)
    first, last = drawn(trace)
    lines = []
    for depth, span in steps(trace.spans):
        title = _plain(f"{'  ' * depth}{_title(span)}")
        title = title if len(title) <= names else f"{title[: names - 1]}…"
        bar = _bar(span, first, last, width - names - _TIME - 2)
        lines.append(f"{title:{names}} {bar} {_shown(span):>{_TIME}}".rstrip())
    return lines


def _title(span: Span) -> str:
    said = span.attributes
    what = " ".join(str(said[name]) for name in ("model", "object", "url", "host") if said.get(name))
    if "cost" in said:
        what += f" ${said['cost']:.4f} {said.get('tokens_in', 0)}+{said.get('tokens_out', 0)} tokens"
    title = f"{span.name} {what}".rstrip()
    return title if span.status == OK else f"{title} [{span.status}]"


def _shown(span: Span) -> str:
    if span.status == PENDING:
        return PENDING
    micros = span.duration_us
    if micros < 1000:
        return f"{micros} µs"
    if micros < 1_000_000:
        return f"{micros / 1000:.1f} ms"
    return f"{micros / 1_000_000:,.2f} s"


def drawn(trace: Trace) -> tuple[datetime, datetime]:
    """From when to when a waterfall is drawn: where waiting took far longer than working, that is cut."""
    settled = [each for each in trace.spans if each.status != PENDING]
    first, last = min(each.start for each in settled), max(each.end for each in settled)
    own = next(each for each in trace.spans if each.id == span_id(trace.execution))
    longest = max(timedelta(milliseconds=1), own.end - own.start)
    if last - first <= _LONG * longest:
        return first, max(last, first + timedelta(microseconds=1))
    return max(first, own.start - longest / 2), min(last, own.end + longest / 2)


def _bar(span: Span, first: datetime, last: datetime, columns: int) -> str:
    scale = columns / ((last - first) / timedelta(microseconds=1))

    def place(moment: datetime) -> int:
        return int((moment - first) / timedelta(microseconds=1) * scale)

    begins = min(max(0, place(span.start)), columns - 1)
    ends = min(max(begins + 1, place(span.end)), columns)
    bar = list(" " * begins + _BAR * (ends - begins) + " " * (columns - ends))
    if span.start < first:
        bar[0] = _BEFORE
    if span.end > last:
        bar[-1] = _AFTER
    return "".join(bar)


def steps(spans: Sequence[Span]) -> list[tuple[int, Span]]:
    """Each span with its depth, behind the one that it belongs to."""
    known = {each.id for each in spans}
    below: dict[str | None, list[Span]] = {}
    for each in spans:
        below.setdefault(each.parent if each.parent in known and each.parent != each.id else None, []).append(each)
    found: list[tuple[int, Span]] = []
    waiting = [(0, each) for each in reversed(below.get(None, []))]
    while waiting:
        depth, span = waiting.pop()
        found.append((depth, span))
        waiting += [(depth + 1, each) for each in reversed(below.pop(span.id, []))]
    return found


def _plain(text: str) -> str:
    """Without what a terminal would obey: names and addresses come from strangers."""
    return "".join(each if each.isprintable() else "\ufffd" for each in text)
