"""Runs schedules one after the other on a platform that goes on running, and has each one audited."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import psycopg

from tests.faults import auditor
from tests.faults.again import Again
from tests.faults.fleet import APP, CONFIG, START, Fleet
from tests.faults.proxy import Proxy
from tests.faults.schedule import TENANTS, Fault, Schedule
from tests.faults.sender import Sender
from tests.faults.story import HANDLERS, Acked, Findings
from tests.faults.vendor import Mood, Vendor
from tests.servers import remove

TAKEN_WITHIN = 60.0  # seconds from the first delivery until all are acknowledged
STILL = 60.0  # seconds in which nothing at all is done about what waits: it is stuck
QUIET_WITHIN = 300.0  # seconds from then until nothing is left to do, however busy the machine
LOOK = 0.05


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one schedule; ``timeline`` tells what happened, ``stuck`` what never ended."""

    schedule: Schedule
    seconds: float
    findings: Findings
    stuck: str
    timeline: list[str]
    unreached: int  # failpoints that nobody came by

    @property
    def good(self) -> bool:
        return self.findings.none and not self.stuck


class Timeline:
    """What happened, each with its seconds since the schedule began."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.lines: list[str] = []

    def begin(self) -> None:
        self.began, self.lines = time.monotonic(), []

    def say(self, words: str) -> None:
        self.lines.append(f"{time.monotonic() - self.began:7.3f} {words}")


class Server(Protocol):
    """The database of a stand. ``url`` goes straight to it, ``url_at`` by a proxy on a loopback port."""

    own_disk: bool

    @property
    def url(self) -> str: ...
    @property
    def socket(self) -> str: ...
    def url_at(self, port: int) -> str: ...
    async def fill(self, *, wal: bool) -> None: ...
    async def free(self) -> None: ...
    async def ensure(self) -> None: ...


@dataclass
class Rig:
    """The whole stand: platform, database, vendor, and the wires between them."""

    database: Server
    fleet: Fleet
    vendor: Vendor
    wires: dict[str, Proxy]
    secrets: dict[str, bytes]
    port: int
    timeline: Timeline
    failpoints: Path
    past: Again | None = None  # what may be replayed
    _progress: tuple[int, ...] = ()

    async def run(self, schedule: Schedule, seed: int) -> Result:
        """Deliver, let the accidents happen, mend everything, wait until it is quiet, audit."""
        chance = random.Random(f"{seed}/{schedule.number}/victims")
        await self.fleet.become(schedule.stage, self.port)
        await self._until_routed()
        self.vendor.forget()
        self.timeline.begin()
        sender = Sender(self.port, self.secrets)
        again = replace(self.past, kind=schedule.replay) if self.past is not None and schedule.replay else None
        faults = [asyncio.create_task(self._fault(each, chance)) for each in schedule.faults]
        faults += [asyncio.create_task(self._replay(again))] if again is not None else []
        stuck = ""
        try:
            async with asyncio.timeout(TAKEN_WITHIN):
                await asyncio.gather(sender.send(schedule.streams), *faults)
        except TimeoutError:
            stuck = f"only {len(sender.acked)} of {schedule.size} were acknowledged, answers {dict(sender.statuses)}"
        finally:
            for task in faults:
                task.cancel()
            await asyncio.gather(*faults, return_exceptions=True)
        unreached = await self._mend()
        self.timeline.say(f"{len(sender.acked)} are acknowledged, answers {dict(sender.statuses)}")
        stuck = stuck or await self._until_quiet(sender.acked)
        prefix = f"s{seed}-{schedule.number}-"  # stands in no other mark: a replay chooses by it
        findings = await self._audit(sender, prefix, again, ended=not stuck)
        if stuck:
            await self.fleet.end()
            await asyncio.to_thread(auditor.give_up, self.database.url)
        self.past = Again(sender.acked, prefix, "") if findings.none and not stuck else None
        spent = time.monotonic() - self.timeline.began
        return Result(schedule, spent, findings, stuck, list(self.timeline.lines), unreached)

    async def _replay(self, again: Again) -> None:
        code = await again.begin(self.fleet.folders[0], self.fleet.database, self.fleet.log)
        self.timeline.say(f"{again.kind} replay of {again.prefix}: the command ended with {code}")

    async def _fault(self, fault: Fault, chance: random.Random) -> None:
        await asyncio.sleep(fault.at)
        match fault.kind:
            case "kill":
                self.fleet.strike(fault.what, chance)
            case "freeze":
                await self.fleet.freeze(fault.what, fault.seconds, chance)
            case "failpoint":
                name, _, action = fault.what.partition("=")
                self._write(name, action)
            case "clock":
                self._write("clock", fault.what)
                await asyncio.sleep(fault.seconds)
                (self.failpoints / "clock").unlink(missing_ok=True)
            case "database":  # restart, terminate, or what else its server can suffer
                await getattr(self.database, fault.what)()
            case "disk":
                await self._full_disk(fault)
            case "wire":
                await self._break_wire(fault)
            case "vendor":
                ways = dict(each.split("=") for each in fault.what.split())
                self.vendor.mood = Mood({way: int(percent) for way, percent in ways.items()})
                await asyncio.sleep(fault.seconds)
                self.vendor.mood = Mood()
        self.timeline.say(f"over: {fault}")

    def _write(self, name: str, text: str) -> None:
        """A whole file at once: who reads it must not find it empty."""
        self.timeline.say(f"arm {name} {text}")
        draft = self.failpoints / f".{name}"
        draft.write_text(text)
        draft.rename(self.failpoints / name)

    async def _full_disk(self, fault: Fault) -> None:
        if not self.database.own_disk:
            self._write("settle.before", "full@1")
            return
        self.timeline.say("the disk is full")
        try:
            await self.database.fill(wal=fault.what != "full")
            await asyncio.sleep(fault.seconds)
        finally:
            await self.database.free()

    async def _break_wire(self, fault: Fault) -> None:
        how, _, where = fault.what.partition(" ")
        wire = self.wires[where]
        self.timeline.say(f"{how} the wire to the {where}")
        match how:
            case "stall":
                wire.stall()
            case "reset":
                wire.reset()
            case "cut":
                wire.cut()
            case "slow":
                wire.slow(0.02)
        await asyncio.sleep(fault.seconds)
        wire.heal()

    async def _mend(self) -> int:
        """All accidents are over. How many failpoints were armed and nobody came by."""
        for wire in self.wires.values():
            wire.heal()
        armed = [each for each in self.failpoints.iterdir() if each.name != "clock"]
        for each in self.failpoints.iterdir():
            each.unlink(missing_ok=True)
        self.vendor.mood = Mood()
        await self.database.free()
        return len(armed)

    async def _until_quiet(self, acked: list[Acked]) -> str:
        """ "" once the vendor has seen all and nothing waits; else what is stuck."""
        wanted = {(each.mark, caller) for each in acked for caller in each.callers}
        try:
            async with asyncio.timeout(QUIET_WITHIN), asyncio.timeout(STILL) as still:
                while wanted - {(each.mark, each.handler) for each in self.vendor.seen}:
                    self.vendor.came.clear()
                    try:
                        await asyncio.wait_for(self.vendor.came.wait(), 0.5)
                        still.reschedule(asyncio.get_running_loop().time() + STILL)
                    except TimeoutError:
                        if not await self._left(still) - Counter(dead=10**9):
                            break  # nothing will come any more: the audit says what is missing
                self.timeline.say("the vendor has seen all")
                while left := await self._left(still):
                    if set(left) == {"dead"}:
                        return ""
                    await asyncio.sleep(LOOK)
        except TimeoutError:
            missing = wanted - {(each.mark, each.handler) for each in self.vendor.seen}
            left = await self._left()
            said = f"nothing was done for {STILL:g} s, or all took over {QUIET_WITHIN:g} s: there are still"
            return f"{said} {dict(left)}, and {len(missing)} did not come to the vendor"
        return ""

    async def _until_routed(self) -> None:
        """What comes before any release was live is kept and runs nothing; it is no accident of this schedule."""
        async with asyncio.timeout(START):
            while await asyncio.to_thread(auditor.routed, self.database.url) < len(HANDLERS):
                await asyncio.sleep(LOOK)

    async def _left(self, still: asyncio.Timeout | None = None) -> Counter[str]:
        """What waits. While something is done about it, ``still`` is put off."""
        try:
            left, progress = await asyncio.to_thread(auditor.waiting, self.database.url)
        except psycopg.OperationalError:
            await self.database.ensure()
            return Counter(database=1)
        progress = (*progress, len(self.vendor.seen))
        if still is not None and progress != self._progress:
            still.reschedule(asyncio.get_running_loop().time() + STILL)
        self._progress = progress
        return +left

    async def _audit(self, sender: Sender, prefix: str, again: Again | None, *, ended: bool) -> Findings:
        """What is wrong. Of a replay that has not ended nothing can be said."""
        marks = [each.mark for each in sender.acked]
        seen = [each for each in self.vendor.seen if each.mark.startswith(prefix)]  # not what came late of those before
        kept = await asyncio.to_thread(auditor.read, self.database.url, marks)
        findings = auditor.audit(sender.acked, seen, kept)
        findings.doubled += [each for each in self.vendor.doubled if again is None or not each.startswith(again.prefix)]
        if again is not None and ended:
            seen = [each for each in self.vendor.seen if each.mark.startswith(again.prefix)]
            kept = await asyncio.to_thread(auditor.read, self.database.url, [each.mark for each in again.acked])
            times = await asyncio.to_thread(again.times, self.database.url)
            self.timeline.say(f"the {again.kind} replay was done {times} times")
            findings.add(again.audit(seen, kept, self.vendor.keys, times))
        findings.strange += sender.wrong
        return findings


@contextlib.asynccontextmanager
async def rig(database: Server, parent: Path, seed: int) -> AsyncIterator[Rig]:
    """A stand with nothing started but its wires; everything that it started is gone afterwards."""
    timeline = Timeline()
    keys = {tenant: secrets.token_bytes(24) for tenant in TENANTS}
    failpoints = parent / "failpoints"
    failpoints.mkdir(mode=0o777)
    folders = [parent / "one", parent / "two"]
    vendor = Vendor(seed)
    async with (
        vendor.listening(),
        Proxy(database.socket).listening() as to_database,
        Proxy(vendor.port).listening() as to_vendor,
    ):
        port = _free_port()
        for folder in folders:
            _write_app(folder, port, to_vendor.port, keys)
        fleet = Fleet(folders, parent / "log", database.url_at(to_database.port), failpoints, timeline.say)
        stand = Rig(
            database, fleet, vendor, {"database": to_database, "vendor": to_vendor}, keys, port, timeline, failpoints
        )
        try:
            yield stand
        finally:
            await fleet.end()
            for folder in folders:
                await remove(folder)


def _write_app(folder: Path, port: int, vendor: int, keys: dict[str, bytes]) -> None:
    (folder / "app").mkdir(parents=True)
    (folder / "app" / "__init__.py").write_text("")
    (folder / "app" / "triggers.py").write_text(APP)
    config = CONFIG.format(
        port=port,
        vendor=vendor,
        secrets="\n".join(f'shop-{name} = "whsec_{b64encode(key).decode()}"' for name, key in keys.items()),
        tenants="\n".join(f'[tenants.{name}]\nstandard = ["shop-{name}"]\n' for name in keys),
    )
    (folder / "circuit.toml").write_text(config)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def run_all(
    database: Server, parent: Path, schedules: list[Schedule], seed: int, tell: Callable[[Result], None]
) -> list[Result]:
    """Run them in their order; ``tell`` hears of each."""
    results = []
    async with rig(database, parent, seed) as stand:
        for schedule in schedules:
            result = await stand.run(schedule, seed)
            results.append(result)
            tell(result)
    return results
