"""``circuit-script demo``: scaffold, start, send, settle, compare, show."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from circuit_script.cli.demo import findings, show, traffic
from circuit_script.cli.demo.findings import Findings
from circuit_script.cli.demo.platform import free_port, serving, status
from circuit_script.cli.demo.receiver import Receiver, receiving
from circuit_script.cli.demo.scaffold import scaffold
from circuit_script.cli.demo.send import send
from circuit_script.cli.demo.traffic import Delivery, Plan
from circuit_script.cli.demo.vendor import Vendor
from circuit_script.db.embedded import EmbeddedPostgres
from circuit_script.db.pool import Connection, open_connection

NAME = "demo"
EXAMPLES = "Examples:  circuit-script demo  ·  circuit-script demo --keep  ·  circuit-script demo --json"

SEED = 4711
LOCATION = "ve9EPM428h8vShlRW1KT"
RATE = 200.0  # deliveries a second: 12,000 a minute
SETTLE = 40.0  # seconds after the last delivery


def run(
    keep: Annotated[bool, typer.Option(help="Leave it up until Ctrl-C, to look around.", envvar="KEEP")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
    deliveries: Annotated[int, typer.Option(min=50, help="How many deliveries to send.")] = 2000,
) -> None:
    """Start an app, send it signed webhooks, and show what became of each. Exits 0 only if every number is right."""
    console = Console(stderr=as_json)
    folder = Path(tempfile.mkdtemp(prefix="circuit-demo-")) / "demo"
    folder.parent.chmod(0o711)  # PostgreSQL's own user must be able to walk through it
    try:
        found = asyncio.run(_demo(folder, console, Plan.of(deliveries), keep, as_json))
    except asyncio.CancelledError:
        raise typer.Exit(143) from None
    finally:
        shutil.rmtree(folder.parent, ignore_errors=True)
    if not found.right:
        console.print("[bold red]Not every number is as it must be.[/]")
        raise typer.Exit(1)


async def _demo(folder: Path, console: Console, plan: Plan, keep: bool, as_json: bool) -> Findings:
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)  # leave nothing running
    vendor = Vendor(seed=SEED, location=LOCATION, now=datetime.now(UTC))
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    began = time.monotonic()
    async with receiving() as receiver:
        scaffold(folder, port=port, alerts_port=receiver.port, public_key=vendor.public_key)
        console.print(f"starting PostgreSQL, gateway and worker on {address}")
        async with serving(folder, address):
            database = await EmbeddedPostgres(folder).start()
            limits = httpx.Limits(max_connections=20)
            async with (
                httpx.AsyncClient(base_url=address, timeout=30, limits=limits) as client,
                await open_connection(database, name="circuit-script demo") as connection,
            ):
                stage = _Stage(client, connection, vendor, receiver, console, began)
                found = await stage.play(plan)
            _tell(console, found, as_json)
            show.what_next(console, address, str(folder), keep)
            if keep:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
    return found


def _tell(console: Console, found: Findings, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found.as_json(), indent=2, ensure_ascii=False), flush=True)
    show.show(console, found)


@dataclass(slots=True)
class _Stage:
    """The running platform, the vendor that sends to it, and where both are watched."""

    client: httpx.AsyncClient
    connection: Connection
    vendor: Vendor
    receiver: Receiver
    console: Console
    began: float

    async def play(self, plan: Plan) -> Findings:
        """Send everything, then the echoes of what was written; wait until all is settled; compare."""
        first = traffic.deliveries(self.vendor, plan)
        columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
        with Progress(*columns, TimeElapsedColumn(), console=self.console) as progress:
            task = progress.add_task("signed webhooks over HTTP", total=len(first) + plan.echoes)

            def advance() -> None:
                progress.advance(task)

            statuses = await send(self.client, first, rate=RATE, on_sent=advance)
            progress.update(task, description="waiting until all is settled")
            await self._settled(0)
            progress.update(task, description="echoes of our own writes")
            echoes = await self._echoes(first, plan.echoes)
            statuses += await send(self.client, echoes, rate=RATE, on_sent=advance)
            sent = [*first, *echoes]
            expected = traffic.expected(sent)
            progress.update(task, description="waiting until all is settled")
            seen = await self._settled(sum(1 for each in sent if each.expectation.status in (400, 401)))
            progress.update(task, description="settled")
        doubled = sum(1 for times in self.receiver.alerts.values() if times > 1)
        return Findings(
            counts=await findings.counts(self.connection, statuses, expected, seen["refused"]),
            best=await findings.best_leads(self.connection),
            dead=await findings.dead_letters(self.connection),
            alerts=len(self.receiver.alerts),
            alerts_doubled=doubled,
            p50_ms=seen["delay_p50_ms"],
            p95_ms=seen["delay_p95_ms"],
            seconds=time.monotonic() - self.began,
        )

    async def _echoes(self, sent: Sequence[Delivery], count: int) -> list[Delivery]:
        """The vendor's updates about the scores that we wrote to some of the contacts."""
        contacts = traffic.latest_contacts(sent)
        chosen = sorted(contacts)[:count]
        return [
            traffic.echo(self.vendor, contacts[each], await findings.written(self.connection, each)) for each in chosen
        ]

    async def _settled(self, refused: int) -> dict[str, Any]:
        """Poll until nothing is queued, no effect waits and the refusals were counted, or give up waiting."""
        now = datetime.now(UTC)  # an answer that was remembered from before says nothing
        deadline = time.monotonic() + SETTLE
        while True:
            seen = await status(self.client)
            quiet = seen["queue_depth"] == 0 and seen["effects_pending"] == 0 and seen["refused"] >= refused
            if (quiet and datetime.fromisoformat(seen["at"]) > now) or time.monotonic() > deadline:
                return seen
            await asyncio.sleep(0.1)
