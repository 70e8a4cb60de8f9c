"""The platform's processes, as many as a stage has: started, killed, frozen, and started again when they die."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.acceptance.platform import role_of
from tests.faults.schedule import SUPERVISED, TWO

AGAIN = 0.1  # seconds until a role that died is started again
START = 60.0
ROOT = Path(__file__).resolve().parents[2]

APP = """
from circuit_script import CircuitDB, CircuitTrigger, enqueue, queueable, send_webhook, trigger

EVENTS = ["afterInsert", "afterUpdate"]


async def say(context, caller, mark, record):
    row = {"handler": caller, "mark": mark, "record": record, "tenant": context.tenant}
    await CircuitDB.insert("Tally", row)
    await send_webhook(caller, row)


async def ended(context, mark, record, fails):
    if context.job.status == "succeeded":
        await say(context, "ended", mark, record)


@queueable(finalizer=ended)
async def follow(context, mark, record, fails):
    await say(context, "follow", mark, record)
    if context.job.attempt <= fails:
        raise ValueError("it fails at first")


async def tell(context, handler, contact, event):
    letter = event.get("original", contact)  # a replayed record is as it is now
    mark, record, fails = event["vendor_id"], contact["id"], letter["fails"]
    await say(context, handler, mark, record)
    if letter["follows"] == handler:
        await enqueue(follow, delay=letter["delay"] or None, mark=mark, record=record, fails=fails)
    if event["attempt"] <= fails:
        raise ValueError("it fails at first")


class Tally(CircuitTrigger):
    @trigger("Contact", EVENTS, batch_size=50)
    async def at_once(self, context):
        for contact, event in zip(context.new_records, context.events):
            async with context.record(contact):
                await tell(context, "at_once", contact, event)

    @trigger("Contact", EVENTS, batch_size=10)
    async def one_by_one(self, context):
        for contact, event in zip(context.new_records, context.events):
            async with context.record(contact):
                await tell(context, "one_by_one", contact, event)
            await context.checkpoint(upto=contact)
"""

CONFIG = """
[gateway]
port = {port}

[worker]
children = 2
lease = 1
backoff = 0.05
attempts = 30
drain = 5

[addresses.at_once]
url = "http://127.0.0.1:{vendor}/at_once"

[addresses.one_by_one]
url = "http://127.0.0.1:{vendor}/one_by_one"

[addresses.follow]
url = "http://127.0.0.1:{vendor}/follow"

[addresses.ended]
url = "http://127.0.0.1:{vendor}/ended"

[sources.standard.secrets]
{secrets}

{tenants}
"""


@dataclass
class Role:
    """One command that is kept running in its folder. ``process`` is None between two lives."""

    name: str
    command: list[str]
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0


@dataclass
class Fleet:
    """``folders`` are the hosts: the first has the gateway. ``say`` hears of every death and start."""

    folders: list[Path]
    log: Path
    database: str
    failpoints: Path
    say: Callable[[str], None]
    stage: str = ""
    _roles: list[Role] = field(default_factory=list)
    _keeping: list[asyncio.Task[None]] = field(default_factory=list)

    async def become(self, stage: str, port: int) -> None:
        """Run what this stage has; returns when its gateway and workers answer."""
        if stage == self.stage:
            return
        await self.end()
        self.stage = stage
        one, two = self.folders
        if stage == SUPERVISED:
            self._roles = [self._role("supervisor", one)]
        else:
            self._roles = [self._role("worker", one), self._role("gateway", one)]
            if stage == TWO:
                self._roles.insert(1, self._role("worker", two))
        self._keeping = [asyncio.create_task(self._keep(role)) for role in self._roles]
        async with asyncio.timeout(START):
            while not (await _listens(port) and self.find("child")):
                await asyncio.sleep(0.02)

    async def end(self) -> None:
        """Nothing of it runs afterwards."""
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)
        everyone = self._family()
        for role in self._roles:
            if role.process is not None:
                role.process.kill()
                await asyncio.to_thread(role.process.wait)
        for each in everyone:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(everyone, 10)
        self._roles, self.stage = [], ""

    def strike(self, role: str, chance: random.Random) -> None:
        """kill -9 of one process of a role, if there is one at this moment."""
        if found := self.find(role):
            victim = chance.choice(found)
            self.say(f"kill -9 {role} {victim.pid}")
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        else:
            self.say(f"there is no {role} to kill")

    async def freeze(self, role: str, seconds: float, chance: random.Random) -> None:
        """Stop one process of a role for a while, as a host that swaps or migrates does."""
        if not (found := self.find(role)):
            return
        victim = chance.choice(found)
        self.say(f"freeze {role} {victim.pid}")
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.suspend()
            try:
                await asyncio.sleep(seconds)
            finally:
                victim.resume()

    def find(self, role: str) -> list[psutil.Process]:
        found = []
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                if role_of(process) == role:
                    found.append(process)
        return found

    def _family(self) -> list[psutil.Process]:
        found: list[psutil.Process] = []
        for role in self._roles:
            if role.process is not None:
                with contextlib.suppress(psutil.NoSuchProcess):
                    head = psutil.Process(role.process.pid)
                    found += [head, *head.children(recursive=True)]
        return found

    def _role(self, name: str, folder: Path) -> Role:
        served = ["serve", "--folder", str(folder)]
        if name == "supervisor":
            return Role(name, [sys.executable, "-m", "circuit_script.cli", *served])
        served += ["--role", name, "--supervised", str(os.getpid())]
        return Role(name, [sys.executable, "-m", "tests.faults.serve", *served])

    async def _keep(self, role: Role) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CIRCUIT_")}
        environment |= {"DATABASE_URL": self.database, "CIRCUIT_FAILPOINTS": str(self.failpoints)}
        environment["CIRCUIT_DASHBOARD__ENABLED"] = "false"
        while True:
            with self.log.open("ab") as output:
                role.process = subprocess.Popen(
                    role.command, stdout=output, stderr=output, env=environment, cwd=ROOT, start_new_session=True
                )
            role.starts += 1
            self.say(f"{role.name} {role.process.pid} starts")
            code = await _ended(role.process)
            self.say(f"{role.name} {role.process.pid} ended: {_words(code)}")
            await asyncio.sleep(AGAIN)


async def _ended(process: subprocess.Popen[bytes]) -> int:
    while (code := process.poll()) is None:
        await asyncio.sleep(0.02)
    return code


def _words(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"status {code}"


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
