"""How long it takes from a cause on a running platform to the message at a receiver: the slowest of the rules."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import app, postgres
from benchmarks.faults.taking_in import contact, take_in
from benchmarks.processes import free_port, http_get, python, running, until
from circuit_script.cli.demo.vendor import Vendor

TRIGGERS = """
import asyncio

from circuit_script import CircuitDB, send_webhook, trigger


@trigger("Contact", ["afterInsert"], batch_size=1)
async def handle(context):
    for contact in context.new_records:
        match contact.get("what"):
            case "fail":
                raise ValueError("it fails")
            case "slow":
                await asyncio.sleep(2)
            case "send":
                await send_webhook("crm", {"id": contact["id"]})
            case "score":
                score = {"contactId": contact["id"], "grade": "A", "total": 97}
                await CircuitDB.insert("LeadScore", score)
"""
CONFIG = """
[addresses.crm]
url = "http://127.0.0.1:{closed}/hook"

[alerts]
latency = 1.0
queue_age = 3.0
hot_lead = "1s"

[alerts.channels.ops]
url = "json://127.0.0.1:{port}/"
at_least = "notice"
"""
DOUBT = """
INSERT INTO circuit.effects (id, tenant, execution, release, lane, order_hash, connector, operation, target, payload,
                             status)
VALUES (gen_random_uuid(), 'acme', gen_random_uuid(), 1, 0, 0, 'webhook', 'post', 'crm', '{}', 'in_doubt')
"""
BUDGET = """
INSERT INTO circuit.budgets (scope, tenant, handler, period, spent)
VALUES ('tenant day', 'acme', '', circuit.budget_day(), 4500000000)
"""
PATIENCE = 90.0


@dataclass
class Heard:
    """What was received, and when (seconds since 1970)."""

    port: int = 0
    messages: list[tuple[float, str]] = field(default_factory=list)

    def when(self, key: str) -> float | None:
        """When the first message about that alert came."""
        return next((at for at, text in self.messages if f"alerts ack {key}\n" in text + "\n"), None)

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode("latin-1").lower().split("\r\n")
                length = next(int(line[15:]) for line in lines if line.startswith("content-length:"))
                body = json.loads(await reader.readexactly(length))
                self.messages.append((time.time(), body["message"]))
                writer.write(b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def measure() -> dict[str, Any]:
    """``alert_delay_s``: of all rules the slowest, with the settings as they come. ``of`` has each."""
    delays: dict[str, float] = {}
    async with _platform() as (database, heard):
        for cause, rules in _causes():
            began = await cause(database)
            for key, after in rules.items():
                came = await _came(heard, key)
                delays[key.partition(":")[0]] = round(came - began - after, 1)
    return {"alert_delay_s": max(delays.values()), "of": delays}


async def _came(heard: Heard, key: str) -> float:
    await until(lambda: heard.when(key) is not None, seconds=PATIENCE, what=f"the alert {key}")
    came = heard.when(key)
    assert came is not None
    return came


def _causes() -> list[tuple[Callable[[str], Awaitable[float]], dict[str, float]]]:
    """What brings alerts about and says when; the alerts' keys, and after how many seconds it is wrong by the rule."""
    return [
        (lambda url: _sent(url, "fail", 5), {"dead:handle": 0, "errors:handle": 0, "slo:errors@handle": 0}),
        (lambda url: _sent(url, "send", 20), {"vendor:webhook/crm": 0}),
        (lambda url: _written(url, DOUBT), {"doubt:webhook/post": 0}),
        (lambda url: _written(url, BUDGET), {"budget:tenant-day@acme": 0}),
        (lambda url: _sent(url, "score", 1), {"lead:score-0@acme": 1}),
        (lambda url: _sent(url, "slow", 40), {"latency:handle": 2, "queue:handle": 3}),
    ]


async def _sent(url: str, what: str, n: int) -> float:
    """Contacts that the handler treats so; when they came."""
    began = time.time()
    await take_in(url, [contact("acme", f"{what}-{nth}", what=what) for nth in range(n)])
    return began


async def _written(url: str, statement: str) -> float:
    await postgres.execute(url, statement)
    return time.time()


@asynccontextmanager
async def _platform() -> AsyncIterator[tuple[str, Heard]]:
    """`serve` on a fresh database, with a channel that is a receiver here."""
    heard = Heard()
    server = await asyncio.start_server(heard.take, "127.0.0.1", 0)
    heard.port = server.sockets[0].getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="cs-", dir="/tmp"))
    folder.chmod(0o711)
    port = free_port()
    try:
        async with server, postgres.one_postgres(folder / "pg") as url:
            key = Vendor(seed=1, location="benchLocation0000001", now=datetime.now(UTC)).public_key
            place = app.scaffold(folder / "app", triggers=TRIGGERS, port=port, public_key=key)
            config = place / "circuit.toml"
            text = config.read_text().replace("children = 2", "children = 2\nattempts = 2\nbackoff = 0.05")
            config.write_text(text + CONFIG.format(closed=free_port(), port=heard.port))

            async def ready() -> bool:
                return (await http_get(port, "/readyz"))[0] == 200

            command = [python(), "-m", "circuit_script.cli", "serve"]
            env = {"DATABASE_URL": url, "CIRCUIT_DASHBOARD__ENABLED": "false"}
            async with running(command, log=place / "serve.log", cwd=place, env=env, ready=ready):
                yield url, heard
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure()), indent=2))
