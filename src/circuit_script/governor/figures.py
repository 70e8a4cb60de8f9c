"""What models cost, for Prometheus. It crosses tenants."""

from __future__ import annotations

from datetime import datetime

from circuit_script.db.pool import Connection
from circuit_script.governor.money import NANO
from circuit_script.governor.spending import UNDER_WAY
from circuit_script.telemetry.metrics import Figures, add
from circuit_script.telemetry.tally import Tally

# What nobody knows the cost of counts at its worst case, as it does in the budgets.
_CALLS = """
    SELECT c.id >= circuit.uuid_floor(%(settled)s), c.provider, c.model, c.handler, c.tenant, c.status, count(*),
           sum(c.cost), sum(c.tokens_in), sum(c.tokens_out), sum(c.tokens_cached)
    FROM circuit.llm_calls c WHERE c.id >= circuit.uuid_floor(%(counted)s) AND c.status <> 'reserved'
    GROUP BY 1, 2, 3, 4, 5, 6
"""
_TODAY = """
    SELECT coalesce(sum(spent), 0), coalesce(sum(reserved), 0) FROM circuit.budgets
    WHERE scope = 'day' AND period = circuit.budget_day()
"""


class MoneyFigures:
    """Counts model calls. ``day`` is the budget of a day in dollars, None without a bound."""

    def __init__(self, day: float | None) -> None:
        self._day = day
        self._calls = Tally(_CALLS, values=5, slack=UNDER_WAY)

    async def read(self, connection: Connection, now: datetime) -> Figures:
        """The figures. Raises psycopg.Error."""
        figures: Figures = {}
        calls = await self._calls.read(connection, now)
        for (provider, model, handler, tenant, status), (n, cost, put_in, put_out, cached) in calls.items():
            dollars = cost / NANO
            add(figures, "llm_cost_dollars", (provider, model), dollars)
            add(figures, "circuit_agent_cost_dollars_total", (handler,), dollars)
            add(figures, "circuit_tenant_cost_dollars_total", (tenant,), dollars)
            add(figures, "circuit_llm_calls_total", (provider, model, status), n)
            for kind, tokens in (("input", put_in), ("output", put_out), ("cached", cached)):
                add(figures, "llm_tokens_total", (provider, model, kind), tokens)
        row = await (await connection.execute(_TODAY, prepare=False)).fetchone()
        assert row is not None  # an aggregate has one row
        add(figures, "circuit_spend_dollars", ("settled",), float(row[0]) / NANO)
        add(figures, "circuit_spend_dollars", ("reserved",), float(row[1]) / NANO)
        if self._day is not None:
            add(figures, "circuit_budget_dollars", (), self._day)
        return figures
