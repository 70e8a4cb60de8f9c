"""The courier's figures for Prometheus: what became of effects, what waits, which vendors fail. They cross tenants."""

from __future__ import annotations

from datetime import datetime

from circuit_script.connectors.webhook import WebhookConnector
from circuit_script.db.pool import Connection
from circuit_script.execution.outcome import JOBS
from circuit_script.telemetry.metrics import Figures, add
from circuit_script.telemetry.tally import Tally

LOCAL = "local"  # what an outcome writes itself
SLACK = 60.0  # seconds from an answer to its commit, at most
DEEPEST = 100_000  # effects that wait are counted up to here

_DELIVERED = """
    SELECT e.settled_at >= %(settled)s, e.connector, count(*) FROM circuit.effects e
    WHERE e.status = 'delivered' AND e.settled_at >= %(counted)s GROUP BY 1, 2
"""
# Of those that were delivered at once there is none.
_ANSWERS = """
    SELECT a.at >= %(settled)s, coalesce(e.connector, 'gone'),
           CASE a.status WHEN 'pending' THEN 'retry' ELSE a.status END, count(*)
    FROM circuit.effect_answers a LEFT JOIN circuit.effects e ON e.id = a.effect
    WHERE a.at >= %(counted)s AND a.status <> 'delivered' GROUP BY 1, 2, 3
"""
_PENDING = f"""
    SELECT p.connector, count(*) FROM (
        SELECT e.connector FROM circuit.effects e WHERE e.status = 'pending' LIMIT {DEEPEST}) p GROUP BY 1
"""
_IN_DOUBT = "SELECT count(*) FROM circuit.effects WHERE status = 'in_doubt'"
_OPEN = """
    SELECT w.connector, count(DISTINCT w.target) FROM circuit.courier_waits w
    WHERE w.kind = 'open' AND w.until > now() GROUP BY 1
"""


class EffectFigures:
    """Counts what the courier does."""

    def __init__(self) -> None:
        self._delivered = Tally(_DELIVERED, values=1, slack=SLACK)
        self._answers = Tally(_ANSWERS, values=1, slack=SLACK)

    async def read(self, connection: Connection, now: datetime) -> Figures:
        """The figures. Raises psycopg.Error."""
        figures: Figures = {"circuit_effects_pending": {}, "circuit_open_circuits": {}}
        for connector in (LOCAL, WebhookConnector.name, JOBS):
            for status in ("delivered", "retry", "dead", "in_doubt"):
                add(figures, "circuit_effects_total", (connector, status), 0)
            add(figures, "circuit_vendor_errors_total", (connector,), 0)
            add(figures, "circuit_effects_pending", (connector,), 0)
            add(figures, "circuit_open_circuits", (connector,), 0)
        for (connector,), (n,) in (await self._delivered.read(connection, now)).items():
            add(figures, "circuit_effects_total", (connector, "delivered"), n)
        for (connector, status), (n,) in (await self._answers.read(connection, now)).items():
            add(figures, "circuit_effects_total", (connector, status), n)
            add(figures, "circuit_vendor_errors_total", (connector,), n)
        for name, statement in (("circuit_effects_pending", _PENDING), ("circuit_open_circuits", _OPEN)):
            for connector, n in await (await connection.execute(statement.encode(), prepare=False)).fetchall():
                add(figures, name, (connector,), n)
        row = await (await connection.execute(_IN_DOUBT, prepare=False)).fetchone()
        assert row is not None  # an aggregate has one row
        add(figures, "circuit_effects_in_doubt", (), row[0])
        return figures
