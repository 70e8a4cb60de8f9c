"""A platform in trouble, for the pages on which people act: letters, doubts, leads, budgets, alerts, people.

Letters and effects in doubt come from real workers and couriers; what would take days to happen is written down.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from psycopg.types.json import Jsonb

from circuit_script.access import ALL, Role, add_person, grant
from circuit_script.clock import uuid7
from circuit_script.connectors.connector import Effect, InDoubt, Refused, Unknown
from circuit_script.events.letters import Wanted, letters
from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.outcome import Breached, Failed, HandlerSpec, Outcome, Succeeded, Work
from circuit_script.governor import Usage
from tests.acceptance.platform import COMMAND, answers, free_port
from tests.integration.courier_vendor import Office, Vendor
from tests.road import Incoming, Road, open_road
from tests.servers import TEMPLATE, Server, until

CONFIG = """
[dashboard]
port = {port}
url = "http://127.0.0.1:{port}"
[tenants.acme]
tier = "paid"
[tenants.globex]
tier = "free"
[addresses.alerts]
url = "https://alerts.example.com/hook"
[connectors.webhook.rates.post]
calls = 10
seconds = 3600
"""


HOSTILE = "<img src=x onerror=\"document.body.dataset.hacked='1'\">"
TURNED = "abc\u202etxt.exe"  # reads backwards where nobody takes care
HANDLERS = (
    HandlerSpec("score", (("Contact", "afterInsert"),), budget=2.0),
    HandlerSpec("notify", (("Deal", "afterInsert"),)),
)
TENANTS: dict[str, Any] = {"acme": {"tier": "paid"}, "globex": {"tier": "free"}}
RATES = {"webhook": {"rates": {"post": {"calls": 10, "seconds": 3600}}}}
ADDRESSES = {"alerts": {"url": "https://alerts.example.com/hook"}}
REASONS = ("Just visited the pricing page twice", "Company of 200 people fits", HOSTILE)
PARTS = {"industry": 18.0, "size": 12.5, "visits": 21.0, "reply": 9.0, "budget": 0.0}


async def handle(work: Work, broker: ExecutionBroker) -> Outcome:
    """Ends as each record says."""
    record = dict(work.records[0])
    used = Usage(wall_time=2.1, cpu_time=0.4, callouts=int(record.get("callouts", 41)), db_queries=12, llm_cost=0.02)
    match record.get("ends"):
        case "dead":
            return Failed(
                f"KeyError: no field {record['id']!r}", used, detail=f"Traceback (most recent …)\n  {HOSTILE}"
            )
        case "over":
            return Breached("callouts", 51, 50, used, detail="the stack", where="app.py:7")
    return Succeeded(used)


@contextlib.contextmanager
def dashboard(server: Server) -> Iterator[tuple[str, str]]:
    """A filled database, and the dashboard's own process before it: its address, and the database's URL."""
    name = server.create_database(TEMPLATE)
    url, port = server.url(name), free_port()
    with ThreadPoolExecutor(1) as thread:  # in this one a browser's loop may run
        thread.submit(asyncio.run, _everything(url)).result()
    with tempfile.TemporaryDirectory(prefix="cs-") as folder:
        place = Path(folder)
        (place / "circuit.toml").write_text(CONFIG.format(port=port))
        (place / "app.py").write_text("")
        said = (place / "said.txt").open("wb")
        command = [COMMAND, "serve", "--role", "dashboard", "--folder", folder]
        process = subprocess.Popen(command, env={**os.environ, "DATABASE_URL": url}, stdout=said, stderr=said)
        try:
            until(lambda: process.poll() is not None or answers(port, "/healthz") == 200, "the dashboard is ready", 60)
            assert process.poll() is None, (place / "said.txt").read_text()
            yield f"http://127.0.0.1:{port}", url
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
            said.close()
            told = (place / "said.txt").read_text()
    assert process.returncode == 0, told
    assert "Traceback" not in told, told
    server.drop_database(name)


async def _everything(url: str) -> None:
    async with open_road(url) as road:
        await fill(road)
        await people(road)


async def fill(road: Road) -> None:
    """Everything, for the tenants acme and globex."""
    await road.live(*HANDLERS)
    await _letters(road)
    await _effects(road)
    for tenant in TENANTS:
        await _leads(road, tenant, 3 if tenant == "acme" else 1)
    await _money(road)
    await _alerts(road)


async def _letters(road: Road) -> None:
    worker = await road.start(handle, attempts=2, backoff=0.01)
    hostile = {"email": HOSTILE, "name": TURNED, "long": "x" * 50_000, "n": 2**60}
    incoming = [
        *(Incoming(f"c{n}", fields={"ends": "dead", "email": f"ada{n}@example.com"}) for n in range(4)),
        Incoming("c-hostile", fields={"ends": "dead", **hostile}),
        Incoming("c-over", fields={"ends": "over"}),
        Incoming("secret-of-globex", tenant="globex", fields={"ends": "dead"}),
        *(Incoming(f"ok{n}", fields={"callouts": n}) for n in range(5)),
    ]
    await road.take_in(*incoming)
    await road.done()
    await worker.stop()


async def _effects(road: Road) -> None:
    office = Office(road)
    await office.hold()
    ends = {"dead": Refused("422 no such channel"), "doubt": Unknown("read timeout after 15 s")}

    def answer(effects: Sequence[Effect]) -> Refused | Unknown:
        return ends[str(effects[0].payload["n"])]

    vendor = Vendor(answer, in_doubt=InDoubt.ASK_A_PERSON)
    ids = [await office.effect(n, key=key, note=HOSTILE) for key, n in enumerate(("dead", "doubt", "doubt"))]
    ids.append(await office.effect("doubt", key=9, tenant="globex"))
    async with office.delivering(vendor):
        await road.until("SELECT count(*) FROM circuit.effects WHERE status = 'pending'", [0])
    await road.run(
        "INSERT INTO circuit.courier_waits (tenant, connector, target, kind, worker, until, reason) "
        "VALUES ('acme', 'vendor', 'alerts', 'open', %s, now() + interval '1 hour', '5 failures in a row: refused')",
        office.worker,
    )
    for n in range(8):
        id_ = await office.effect(n, key=20 + n, connector="webhook")
        await road.run(
            "UPDATE circuit.effects SET status = 'delivered', attempts = 1, settled_at = now() WHERE id = %s", id_
        )
    await office.effect(1, key=40)


async def _leads(road: Road, tenant: str, leads: int) -> None:
    for n in range(leads):
        person = {
            "firstName": "Ada" if n else HOSTILE,
            "lastName": f"Lovelace {n}",
            "email": f"ada{n}@{tenant}.example",
        }
        await _record(road, tenant, "Contact", f"lead{n}", person)
        for round_ in range(4):
            total = 30 + 15 * round_ + 5 * n
            grade = "A" if total >= 75 else "B" if total >= 55 else "C"
            await _record(road, tenant, "LeadScore", str(uuid7()), {
                "contactId": f"lead{n}", "at": f"2026-05-0{round_ + 1}T08:00:00+00:00", "total": total, "fit": 60 + n,
                "intent": 20 * round_, "timing": 50, "grade": grade, "route": "sales",
                "band": {"A": "hot", "B": "warm"}.get(grade, "cool"),
                "parts": PARTS, "negative": -4, "reasons": list(REASONS), "profile": "default 3",
            })  # fmt: skip
    strange = {
        "contactId": "strange",
        "total": "NaN",
        "at": "yesterday",
        "parts": ["x"],
        "reasons": 7,
        "grade": {"a": 1},
    }
    await _record(road, tenant, "LeadScore", str(uuid7()), strange)


async def _record(road: Road, tenant: str, object_: str, id_: str, data: dict[str, Any]) -> None:
    await road.run(
        "INSERT INTO circuit.records (tenant, object, id, data) VALUES (%s, %s, %s, %s)",
        tenant, object_, id_, Jsonb(data),
    )  # fmt: skip


async def _money(road: Road) -> None:
    for tenant, spent in (("acme", 4_300_000_000), ("globex", 700_000_000)):
        await road.run(
            "INSERT INTO circuit.budgets (scope, tenant, handler, period, spent) "
            "VALUES ('tenant day', %s, '', circuit.budget_day(), %s)",
            tenant, spent,
        )  # fmt: skip
        await road.run(
            "INSERT INTO circuit.quota_use (tenant, quota, period, starts, granted) VALUES "
            "(%s, 'executions', 'day', (circuit.quota_now() AT TIME ZONE 'UTC')::date, %s)",
            tenant, 8_400 if tenant == "acme" else 120,
        )  # fmt: skip
        await road.run(
            "INSERT INTO circuit.llm_calls (id, execution, tenant, handler, provider, model, requested, tokens_worst, "
            "worst, cost, tokens_in, tokens_out, status, day, settled_at) "
            "VALUES (%s, %s, %s, 'score', 'openai', 'gpt-4o-mini', 'gpt-4o-mini', "
            "10, 10, %s, 900, 120, 'settled', circuit.budget_day(), now())",
            uuid7(), uuid7(), tenant, spent,
        )  # fmt: skip


async def _alerts(road: Road) -> None:
    for key, severity, tenant, what in (
        ("dead letters acme", "warning", "acme", f"5 dead letters of score: KeyError {HOSTILE}"),
        ("budget globex", "critical", "globex", "globex has used 100 % of its budget of the day"),
        ("vendor down", "critical", None, "The vendor alerts is down for all tenants"),
    ):
        await road.run(
            "INSERT INTO circuit.alerts (key, rule, severity, tenant, what, hits, handlers, next, link, since, last) "
            "VALUES (%s, %s, %s, %s, %s, %s, '{score}', 'circuit-script dead list', '/dead-letters?status=open', "
            "now() - interval '20 minutes', now())",
            key, key.split()[0], severity, tenant, what, Jsonb([[tenant or "acme", "5 of 40"]]),
        )  # fmt: skip
    await road.run(
        "INSERT INTO circuit.alerts (key, rule, severity, tenant, what, since, last, resolved) "
        "VALUES ('latency score', 'latency', 'notice', 'acme', 'score was slow', "
        "now() - interval '1 day', now(), now() - interval '23 hours')"
    )


PEOPLE = (
    *((f"{role.value}@acme.example", "acme", role) for role in Role),
    ("boss@example.com", ALL, Role.owner),
    ("owner@globex.example", "globex", Role.owner),
)


async def people(road: Road) -> None:
    """One of each role for acme, an owner of everything, and somebody of globex."""
    async with road.pool.connection() as connection:
        for name, tenant, role in PEOPLE:
            await add_person(connection, name, "test")
            await grant(connection, name, tenant, role, "test")


async def numbers(road: Road, tenant: str = "acme") -> dict[str, int]:
    """The open letters of a tenant by their record, or by "effect"."""
    async with road.pool.connection() as connection:
        found = await letters(connection, Wanted(tenant=tenant), 100)
    return {each.record if each.kind == "event" and each.record else each.kind: each.id for each in found}
