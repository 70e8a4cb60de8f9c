"""Replays of what the schedule before brought, by the operator's command, while the accidents of another happen."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg

from tests.faults.auditor import audit, of_the_database
from tests.faults.story import Acked, Findings, Kept, Seen

ROOT = Path(__file__).resolve().parents[2]
BEGUN = "SELECT count(*) FROM circuit.replays WHERE by_whom = %s AND status = 'done'"
REAL, DRY = "real", "dry"


@dataclass(frozen=True, slots=True)
class Again:
    """A replay of all whose marks begin with ``prefix``, named so that the database tells it from others."""

    acked: Sequence[Acked]
    prefix: str
    kind: str

    @property
    def name(self) -> str:
        return f"faults of {self.prefix}"

    async def begin(self, folder: Path, database: str, log: Path) -> int:
        """Give the command once, whatever comes of it; its exit code. What it says goes to ``log``."""
        command = [sys.executable, "-m", "circuit_script.cli", "replay", "--folder", str(folder), "--trigger", "Tally"]
        command += ["--text", self.prefix, "--by", self.name, "--yes"]
        command += ["--dry-run"] if self.kind == DRY else ["--detach", "--rate", "60"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CIRCUIT_")}
        environment |= {"DATABASE_URL": database}
        with log.open("ab") as said:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=said, stderr=said, env=environment, cwd=ROOT
            )
        try:
            return await process.wait()
        finally:
            if process.returncode is None:
                process.kill()

    def times(self, url: str) -> int:
        """How often it was done for real: a command that met an accident may have begun none."""
        with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
            row = connection.execute(BEGUN, [self.name]).fetchone()
            assert row is not None
            return int(row[0])

    def audit(
        self, seen: Sequence[Seen], kept: Mapping[str, Kept], first: Mapping[tuple[str, str], str], times: int
    ) -> Findings:
        """What it did beyond the first time, of which ``first`` has the keys: once as much, or nothing."""
        new = [each for each in seen if each.key != first.get((each.mark, each.handler))]
        if times:
            return audit(self.acked, new, {mark: _less(each) for mark, each in kept.items()})
        found = Findings()
        found.doubled += [f"{each.mark} came again from {each.handler}, and nobody had replayed it" for each in new]
        for origin in self.acked:
            of_the_database(found, origin, kept.get(origin.mark))
        return found


def _less(kept: Kept) -> Kept:
    """What is kept beyond the first time."""
    succeeded, rows = ({name: count - 1 for name, count in each.items()} for each in (kept.succeeded, kept.rows))
    return replace(kept, succeeded=succeeded, rows=rows)
