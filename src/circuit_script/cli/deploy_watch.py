"""What a deploy waits for: until every worker has the release ready, and then for what it does to errors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from circuit_script.cli.output import visible
from circuit_script.db.pool import Connection
from circuit_script.errors import DeployRefused
from circuit_script.releases.figures import Counts, counts_of
from circuit_script.releases.moving import AUTOMATIC, FAILED, READY, HostState, Move, hosts_of, moves, wanted, warm_up
from circuit_script.releases.store import ReleaseRow, release_of

if TYPE_CHECKING:
    from circuit_script.cli.deploy_steps import Step

EVERY = 0.1  # seconds between looks at workers
LOOK = 1.0  # and at errors
VERDICT = 5.0  # seconds after the end of a watch in which the workers say what came of it
SHOWN = 5
NOBODY = "no worker runs: it goes live there when one starts"


@dataclass(frozen=True, slots=True)
class Watched:
    """How the watch ended. ``next`` is the move that came meanwhile, if one did."""

    counts: Counts
    next: Move | None = None

    @property
    def rolled_back(self) -> bool:
        return self.next is not None and self.next.kind == AUTOMATIC


async def warm(connection: Connection, release: ReleaseRow, patience: float, step: Step) -> str:
    """Ask every worker to have it ready and wait for them. Raises DeployRefused, with who is missing or why one cannot:
    what is live goes on."""
    await warm_up(connection, release)
    deadline = time.monotonic() + patience
    while True:
        hosts = await hosts_of(connection, release)
        if not hosts:
            return NOBODY
        ready = [each for each in hosts if each.state == READY]
        if failed := [each for each in hosts if each.state == FAILED]:
            why = visible(failed[0].detail).rstrip(".")
            raise DeployRefused(
                f"{_names(failed)} cannot run it: {why}.",
                cure="Mend that and deploy again. What was live goes on.",
            )
        if len(ready) == len(hosts):
            return f"ready on {_workers(len(hosts))}"
        await _check_wanted(connection, release)
        missing = [each for each in hosts if each.state != READY]
        if time.monotonic() > deadline:
            raise DeployRefused(
                f"After {patience:g} s it is ready on {len(ready)} of {_workers(len(hosts))}; missing: "
                f"{'; '.join(f'{each.host}, {visible(each.detail) or each.state}' for each in missing[:SHOWN])}.",
                cure="See their logs; restart workers of an earlier version. Or raise [deploy] warm_seconds.",
            )
        step.now(f"{len(ready)} of {len(hosts)} workers; waiting for {_names(missing)}")
        await asyncio.sleep(EVERY)


async def _check_wanted(connection: Connection, release: ReleaseRow) -> None:
    """Workers have few releases ready at a time. Raises DeployRefused where later ones have taken this one's place:
    nobody prepares it any more."""
    now = await wanted(connection)
    if release.id == now.live or release.id in now.warm:
        return
    later = [await release_of(connection, each) for each in now.warm]
    raise DeployRefused(
        f"Somebody deploys at the same time: workers make {' and '.join(each.name for each in later)} ready instead.",
        cure=f"When that has ended, and if it is meant: circuit-script deploy --quick. {release.name} is kept.",
    )


async def watch(connection: Connection, move: Move, step: Step) -> Watched:
    """Show executions and errors until the watch is over, or another move has come."""
    while True:
        found = await counts_of(connection, [move.release], move.at)
        counts = found.get(move.release, Counts())
        latest = (await moves(connection, 1))[0]
        if latest.id != move.id:
            return Watched(counts, latest)
        left = (move.watch_until - datetime.now(UTC)).total_seconds() if move.watch_until else 0.0
        if left <= -VERDICT or latest.watched is not None:
            return Watched(counts)
        step.now(f"{counted(counts)}, {max(0, left):,.0f} s to go; Ctrl-C: workers go on")
        await asyncio.sleep(LOOK)


def counted(counts: Counts) -> str:
    """Executions and errors, for people."""
    many = "" if counts.executions == 1 else "s"
    errors = f"{counts.errors:,} error{'' if counts.errors == 1 else 's'}"
    return f"{counts.executions:,} execution{many}, {errors}" + (f" ({counts.share:.2%})" if counts.errors else "")


def _workers(number: int) -> str:
    return f"{number} worker{'' if number == 1 else 's'}"


def _names(hosts: Sequence[HostState]) -> str:
    more = f" and {len(hosts) - SHOWN} more" if len(hosts) > SHOWN else ""
    return f"{', '.join(f'{each.host} ({str(each.worker)[:8]})' for each in hosts[:SHOWN])}{more}"
