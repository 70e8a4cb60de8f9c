"""What a deploy waits for: until every worker has the release ready, and then for what it does to errors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from circuit_script.cli.output import visible
from circuit_script.cli.places import Place
from circuit_script.errors import DatabaseUnavailable, DeployRefused, ElsewhereAway
from circuit_script.releases.figures import Counts
from circuit_script.releases.moving import AUTOMATIC, FAILED, READY, HostState, Move
from circuit_script.releases.store import ReleaseRow

if TYPE_CHECKING:
    from circuit_script.cli.deploy_steps import Step

T = TypeVar("T")
EVERY = 0.1  # seconds between looks at workers
RESTART = 60.0  # seconds for which a database that was there may be away
LOOK = 1.0  # and at errors
VERDICT = 5.0  # seconds after the end of a watch in which the workers say what came of it
SHOWN = 5
AWAY = "the database is away: trying again"
NOBODY = "no worker runs: it goes live there when one starts"


@dataclass(frozen=True, slots=True)
class Watched:
    """How the watch ended. ``next`` is the move that came meanwhile, if one did."""

    counts: Counts
    next: Move | None = None

    @property
    def rolled_back(self) -> bool:
        return self.next is not None and self.next.kind == AUTOMATIC


async def warm(place: Place, release: ReleaseRow, patience: float, step: Step) -> str:
    """Ask every worker to have it ready and wait for them. Raises DeployRefused, with who is missing or why one cannot:
    what is live goes on."""
    await place.warm_up(release)
    deadline = time.monotonic() + patience
    while True:
        found = await place.readiness(release)
        hosts = found.hosts
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
        if found.instead:
            raise _replaced(release, found.instead)
        missing = [each for each in hosts if each.state != READY]
        if time.monotonic() > deadline:
            raise DeployRefused(
                f"After {patience:g} s it is ready on {len(ready)} of {_workers(len(hosts))}; missing: "
                f"{'; '.join(f'{each.host}, {visible(each.detail) or each.state}' for each in missing[:SHOWN])}.",
                cure="See their logs; restart workers of an earlier version. Or raise [deploy] warm_seconds.",
            )
        step.now(f"{len(ready)} of {len(hosts)} workers; waiting for {_names(missing)}")
        await asyncio.sleep(EVERY)


def _replaced(release: ReleaseRow, later: Sequence[str]) -> DeployRefused:
    """Workers have few releases ready at a time: later ones have taken this one's place, and nobody prepares it."""
    return DeployRefused(
        f"Somebody deploys at the same time: workers make {' and '.join(later)} ready instead.",
        cure=f"When that has ended, and if it is meant: circuit-script deploy --quick. {release.name} is kept.",
    )


async def check_still_live(place: Place, release: ReleaseRow) -> None:
    """Raises DeployRefused where another has gone live since it was looked."""
    now = (await place.standing()).live
    if now is None or now.id != release.id:
        name = "nothing" if now is None else now.name
        cure = f"See who did: circuit-script releases. {release.name} is kept: circuit-script deploy --quick."
        raise DeployRefused(f"Meanwhile {name} went live in the place of {release.name}.", cure=cure)


async def moved(place: Place, release: ReleaseRow, since: int) -> Move | None:
    """The move that made it live, if it is the first after the one with the id ``since``."""
    latest = [each for each in await place.moves() if each.id > since]
    return latest[-1] if latest and latest[-1].release == release.id else None


def through_restarts(do: Callable[[], T], step: Step) -> T:
    """Do what may be done again, also where the database or the platform there restarts meanwhile. Raises
    DatabaseUnavailable, or ElsewhereAway, when it stays away."""
    ends = time.monotonic() + RESTART
    while True:
        began = time.monotonic()
        try:
            return do()
        except (DatabaseUnavailable, ElsewhereAway) as error:
            if time.monotonic() - began > RESTART:
                ends = time.monotonic() + RESTART  # it was there: nobody waits so long for a connection
            if time.monotonic() > ends:
                raise
            step.now("the platform is away: trying again" if isinstance(error, ElsewhereAway) else AWAY)
            time.sleep(LOOK)


async def watch(place: Place, move: Move, step: Step) -> Watched:
    """Show executions and errors until the watch is over, or another move has come."""
    while True:
        found = await place.course(move)
        counts, latest = found.counts, found.latest
        if latest.id != move.id:
            return Watched(counts, latest)
        left = (move.watch_until - found.now).total_seconds() if move.watch_until else 0.0
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
