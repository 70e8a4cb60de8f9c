"""``circuit-script demo``: scaffold, start, let people work, settle, compare, show."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import httpx
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from circuit_script.cli.demo import findings, show, traffic
from circuit_script.cli.demo.desk import LOCATION, Desk, open_desk
from circuit_script.cli.demo.findings import Findings
from circuit_script.cli.demo.platform import free_port, serving, status
from circuit_script.cli.demo.receiver import Receiver, receiving
from circuit_script.cli.demo.scaffold import scaffold
from circuit_script.cli.demo.send import PATH, send
from circuit_script.cli.demo.traffic import Act, Plan
from circuit_script.cli.demo.vendor import Vendor
from circuit_script.db.embedded import EmbeddedPostgres
from circuit_script.db.pool import Connection, open_connection

NAME = "demo"
EXAMPLES = "Examples:  circuit-script demo  ·  circuit-script demo --keep  ·  circuit-script demo --json"

SEED = 4711
RATE = 200.0  # of what people do, a second: 12,000 a minute
BATCH = 10  # of it at a time
SETTLE = 40.0  # seconds after the last of it
T = TypeVar("T")


def run(
    keep: Annotated[bool, typer.Option(help="Leave it up until Ctrl-C, to look around.", envvar="KEEP")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
    deliveries: Annotated[int, typer.Option(min=50, help="How many deliveries people and strangers cause.")] = 2000,
) -> None:
    """Start an app and a CRM that sends it signed webhooks; show what became of each. Exits 0 only if all is right."""
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
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    began = time.monotonic()
    async with receiving() as receiver, open_desk(folder.parent, seed=SEED, webhooks=f"{address}{PATH}") as desk:
        scaffold(folder, port=port, alerts_port=receiver.port, desk=desk)
        console.print(f"GoHighLevel's stand-in is on {desk.url}")
        console.print(f"starting PostgreSQL, gateway and worker on {address}")
        async with serving(folder, address, desk.token):
            database = await EmbeddedPostgres(folder).start()
            async with (
                httpx.AsyncClient(base_url=address, timeout=30, trust_env=False) as client,
                await open_connection(database, name="circuit-script demo") as connection,
            ):
                stage = _Stage(client, connection, desk, receiver, console, began)
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
    """The running platform, the CRM at which people work, and where both are watched."""

    client: httpx.AsyncClient
    connection: Connection
    desk: Desk
    receiver: Receiver
    console: Console
    began: float

    async def play(self, plan: Plan) -> Findings:
        """Newcomers, then what they do, strangers among them; wait until all is settled; compare."""
        vendor = Vendor(seed=SEED, location=LOCATION, now=datetime.now(UTC))  # it signs with the CRM's key
        columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
        with Progress(*columns, TimeElapsedColumn(), console=self.console) as progress:
            total = plan.people + plan.forged + plan.malformed  # and the echoes of our own writes, as they come
            watched = _Watched(self.desk, progress, progress.add_task("new contacts, scored", total=total), total)
            contacts = traffic.newcomers(vendor, plan)
            for batch in _cut(contacts):
                for each, identifier in zip(batch, await self.desk.create(batch), strict=True):
                    each["id"] = identifier
                await watched.look("new contacts, scored", pause=BATCH / RATE)
            await self._settled(watched, 0)
            first, second = traffic.rounds(vendor, plan, contacts)
            strangers = traffic.strangers(vendor, plan)
            sending = asyncio.create_task(send(self.client, strangers, rate=RATE / 10, on_sent=watched.sent))
            await self._act(watched, first, "bookings, edits")
            await self._settled(watched, 0)
            await self._act(watched, second, "messages, edits")
            statuses = await sending
            seen = await self._settled(watched, len(strangers))
            report = await watched.look("settled")
        return await self._found(plan, statuses, seen, report)

    async def _act(self, watched: _Watched, acts: Sequence[Act], doing: str) -> None:
        for some in _cut(acts):
            await self.desk.act(some)
            await watched.look(doing, pause=BATCH / RATE)

    async def _found(
        self, plan: Plan, statuses: Mapping[int, int], seen: Mapping[str, Any], report: Mapping[str, Any]
    ) -> Findings:
        contacts = await self.desk.contacts()
        return Findings(
            counts=await findings.counts(self.connection, plan, report, statuses, seen["refused"]),
            best=findings.best_leads(contacts),
            dead=await findings.dead_letters(self.connection, contacts),
            alerts=len(self.receiver.alerts),
            alerts_doubled=sum(1 for times in self.receiver.alerts.values() if times > 1),
            writes=report["echoes"],
            violations=tuple(report["violations"]),
            checked=report["checked"],
            p50_ms=seen["delay_p50_ms"],
            p95_ms=seen["delay_p95_ms"],
            seconds=time.monotonic() - self.began,
        )

    async def _settled(self, watched: _Watched, refused: int) -> dict[str, Any]:
        """Poll until nothing is queued, no effect and no webhook waits and the refusals were counted, or give up."""
        deadline = time.monotonic() + SETTLE
        while True:
            before = await watched.look("waiting until all is settled")
            now = datetime.now(UTC)  # an answer that was remembered from before says nothing
            seen = await status(self.client)
            quiet = seen["queue_depth"] == 0 and seen["effects_pending"] == 0 and seen["refused"] >= refused
            if quiet and datetime.fromisoformat(seen["at"]) > now and not before["waiting"]:
                after = await watched.look("waiting until all is settled")
                if not after["waiting"] and after["requests"] == before["requests"]:
                    return seen
            if time.monotonic() > deadline:
                return seen
            await asyncio.sleep(0.1)


@dataclass(slots=True)
class _Watched:
    """The progress, as the CRM counts what it has sent; ``strangers`` are those that it does not know."""

    desk: Desk
    progress: Progress
    task: TaskID
    total: int
    strangers: int = 0

    def sent(self) -> None:
        self.strangers += 1

    async def look(self, doing: str, pause: float = 0.0) -> dict[str, Any]:
        """The CRM's report, shown; then a pause in seconds."""
        report = await self.desk.report()
        done = sum(report["answers"].values()) + self.strangers
        total = max(self.total + report["echoes"], done)
        self.progress.update(self.task, description=doing, completed=done, total=total)
        await asyncio.sleep(pause)
        return report


def _cut(all_: Sequence[T]) -> Iterator[Sequence[T]]:
    return (all_[start : start + BATCH] for start in range(0, len(all_), BATCH))
