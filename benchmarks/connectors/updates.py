"""Ten thousand contacts of GoHighLevel updated by the whole courier path, at the vendor's limit, with its stand-in.

An event for each contact starts a trigger, whose `CircuitDB.update` becomes an effect, which the courier delivers.
Half way the worker is killed (kill -9) and started again. The limit is the vendor's, 100 requests in a window, with a
window of half a second in the place of its ten. The courier's own rates, made for ten seconds, would then be spent
long before it looks again (once a second), so here they are wider, and the connector's pace keeps the limit. Nothing
else is scaled: what a start, a lease of two seconds, a round of the courier and a request take, they take in full.
Therefore the same is measured once more with the vendor's own window, fewer contacts, the connector's own rates, and
nobody killed.

    python -m benchmarks.connectors.updates --quick
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psutil

from benchmarks import postgres
from benchmarks.faults.taking_in import contact, take_in
from benchmarks.processes import python, running, until
from circuit_script.cli import init
from circuit_script.clock import uuid7
from circuit_script.events.intake import order_hash
from circuit_script.events.ledger import LedgerRow
from circuit_script.events.sources import EventDraft
from circuit_script.testing.stand_ins.gohighlevel import LOCATION, GoHighLevelStandIn
from circuit_script.testing.stand_ins.gohighlevel import running as vendor_running

CALLS, WINDOW = 100, 0.5
FULL = 10_000
LEASE = 2.0  # seconds; ten where nothing is said
PATIENCE = 600.0
REAL = 10.0  # the vendor's own window
UNSCALED = 1000  # contacts
TENANT = "default"
HELD = "SELECT count(*) FROM circuit.lanes WHERE owner IS NOT NULL"

TRIGGERS = """
from circuit_script import CircuitDB, trigger


@trigger("Contact", ["afterInsert"], batch_size=200)
async def update(context):
    await CircuitDB.update("Contact", [{"id": each["id"], "city": "Waco"} for each in context.new_records])


@trigger("Form", ["afterInsert"], batch_size=50)
async def insert(context):
    for each in context.new_records:
        await CircuitDB.insert("Contact", {"email": each["email"], "firstName": "Ada"})
"""
CONFIG = """
objects = ["Form"]

[worker]
children = 2
lease = {lease}
backoff = 0.2

[crm]
home = "gohighlevel"

[connectors.gohighlevel]
url = "{url}"
account = "{location}"
"""
RATES = """
[connectors.gohighlevel.rates]
update = {{ calls = {calls}, seconds = {window}, burst = {burst}, of = "connector" }}
insert = {{ calls = {calls}, seconds = {window}, burst = {burst}, of = "connector" }}
"""


@dataclass(slots=True)
class Stage:
    """The vendor, the app's folder and database; workers come and go."""

    vendor: GoHighLevelStandIn
    folder: Path
    database: str

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[psutil.Process]:
        """One that is ready."""
        log = self.folder / "worker.log"
        env = {"DATABASE_URL": self.database, "CIRCUIT_SECRET_GOHIGHLEVEL_TOKEN": self.vendor.token}
        command = [python(), "-m", "circuit_script.cli", "serve", "--role", "worker", "--folder", str(self.folder)]

        async def ready() -> bool:
            there = await postgres.one(self.database, "SELECT to_regclass('circuit.lanes') IS NOT NULL")
            return bool(there and await postgres.one(self.database, HELD))

        async with running(command, log=log, cwd=self.folder, env=env, ready=ready) as process:
            yield process

    async def with_a_kill(self, begin: Callable[[], Awaitable[None]], half: Callable[[], bool], done: str) -> float:
        """Start a worker, ``begin``, kill the worker at ``half``, go on with another until ``done`` (a query) is 0. The
        seconds for which nothing was asked of the vendor around the kill."""
        async with AsyncExitStack() as stack:
            process = await stack.enter_async_context(self.worker())
            await begin()
            await until(half, seconds=PATIENCE, what="half of it is done", every=0.005)
            family = [process, *process.children(recursive=True)]
            for each in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.send_signal(signal.SIGKILL)
            killed, heard = time.monotonic(), len(self.vendor.heard)
        async with self.worker() as process:

            def goes_on() -> bool:
                if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                    raise RuntimeError(
                        "the second worker has ended: " + (self.folder / "worker.log").read_text()[-1000:]
                    )
                return len(self.vendor.heard) > heard + 1

            await until(goes_on, seconds=PATIENCE, what="it goes on", every=0.005)
            gap = time.monotonic() - killed

            async def left() -> bool:
                return bool(await postgres.one(self.database, done) == 0)

            await until(left, seconds=PATIENCE, what="all is delivered", every=0.5)
        return gap


async def measure(quick: bool) -> dict[str, Any]:
    """``ghl_10k_update_vs_minimum``: seconds from the first request to the last answer, as a part of the least that the
    limit allows; ``provoked_429``; ``repeated``: updates that were done a second time, after the kill."""
    contacts = 1500 if quick else FULL
    async with _stage() as stage:
        world = stage.vendor.world
        ids = [world.contact(LOCATION, {"firstName": f"n{n}"})["id"] for n in range(contacts)]
        at: list[float] = []
        stage.vendor.door.after = lambda: at.append(time.monotonic())

        async def begin() -> None:
            await take_in(stage.database, [contact(TENANT, each, firstName="Ada") for each in ids])

        def puts() -> int:
            return len(stage.vendor.heard)

        done = f"SELECT {contacts} - count(*) FROM circuit.effects WHERE operation = 'update' AND status = 'delivered'"
        gap = await stage.with_a_kill(begin, lambda: puts() >= contacts // 2, done)
        heard = stage.vendor.heard
        times = Counter(each.path for each in heard if each.method == "PUT" and each.status == 200)
        assert set(times) == {f"/contacts/{each}" for each in ids}
        assert all(world.contacts[each]["city"] == "Waco" for each in ids)
        least = contacts / CALLS * WINDOW
        seconds = at[-1] - at[0]
        return {
            "ghl_10k_update_vs_minimum": round(seconds / least, 3),
            "contacts": contacts,
            "seconds": round(seconds, 1),
            "least_seconds": least,
            "without_the_kill": round((seconds - gap) / least, 3),
            "silent_after_the_kill_s": round(gap, 2),
            "requests": len(heard),
            "provoked_429": stage.vendor.limits.refused,
            "repeated": times.total() - len(times),
            "most_often": max(times.values()),
        }


async def measure_unscaled(quick: bool) -> dict[str, Any]:
    """``ghl_update_vs_minimum_unscaled``: with the vendor's own window of ten seconds, and the rates that the connector
    declares; nobody is killed."""
    contacts = 200 if quick else UNSCALED
    async with _stage(REAL) as stage, stage.worker():
        world = stage.vendor.world
        ids = [world.contact(LOCATION, {"firstName": f"n{n}"})["id"] for n in range(contacts)]
        at: list[float] = []
        stage.vendor.door.after = lambda: at.append(time.monotonic())
        await take_in(stage.database, [contact(TENANT, each, firstName="Ada") for each in ids])
        await until(lambda: len(at) >= contacts, seconds=PATIENCE, what="all is delivered", every=0.05)
        least = contacts / CALLS * REAL
        return {
            "ghl_update_vs_minimum_unscaled": round((at[-1] - at[0]) / least, 3),
            "contacts": contacts,
            "seconds": round(at[-1] - at[0], 1),
            "least_seconds": least,
            "provoked_429": stage.vendor.limits.refused,
        }


async def measure_inserts(quick: bool) -> dict[str, Any]:
    """``doubled``: contacts beyond one for each insert, where answers are lost and the worker is killed half way."""
    forms = 60 if quick else 100
    lost = forms // 20
    async with _stage() as stage:
        world = stage.vendor.world
        world.duplicates_allowed = True  # the vendor itself would stop no double
        world.custom_field(LOCATION, "Circuit reference")

        async def begin() -> None:
            await take_in(stage.database, [_form(n) for n in range(forms)])
            await until(lambda: len(world.contacts) > forms // 10, seconds=PATIENCE, what="it has begun")
            stage.vendor.fail_next("drop_after", lost)

        done = f"SELECT {forms} - count(*) FROM circuit.effects WHERE operation = 'insert' AND status = 'delivered'"
        await stage.with_a_kill(begin, lambda: len(world.contacts) >= forms // 2, done)
        times = Counter(str(each["email"]) for each in world.contacts.values())
        return {
            "doubled": times.total() - len(times),
            "inserts": forms,
            "made": len(times),
            "answers_lost": lost,
            "provoked_429": stage.vendor.limits.refused,
        }


def _form(number: int) -> LedgerRow:
    """A form that was filled in, as the source `standard` tells it."""
    record = f"form{number}"
    body = msgspec.json.encode(
        {"type": "Form.afterInsert", "data": {"id": record, "email": f"lead{number}@example.com"}}
    )
    draft = EventDraft("Form", "afterInsert", record, record)
    hashes = (order_hash(TENANT, record),)
    return LedgerRow(uuid7(), "standard", TENANT, TENANT, str(uuid7()), None, b"{}", body, (draft,), hashes)


@asynccontextmanager
async def _stage(window: float = WINDOW) -> AsyncIterator[Stage]:
    folder = Path(tempfile.mkdtemp(prefix="cs-", dir="/tmp"))
    folder.chmod(0o711)  # PostgreSQL's own user must be able to walk through it
    try:
        async with postgres.one_postgres(folder / "pg") as database:
            with vendor_running(window=window, contract=None) as vendor:
                config = CONFIG.format(lease=LEASE, url=vendor.url, location=LOCATION)
                config += "" if window == REAL else RATES.format(calls=CALLS, window=window, burst=CALLS // 2)
                others: dict[str, str | None] = dict.fromkeys(
                    ("app/endpoints.py", "tests/test_triggers.py", "tests/test_endpoints.py")
                )
                app = init.scaffold(folder / "app", others | {"app/triggers.py": TRIGGERS, "circuit.toml": config})
                yield Stage(vendor, app, database)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    found = asyncio.run(measure("--quick" in sys.argv))
    print(json.dumps(found | asyncio.run(measure_inserts("--quick" in sys.argv)), indent=2))
