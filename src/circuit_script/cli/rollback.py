"""``circuit-script rollback``: the release before, or another one, live again, with the time that it took."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

import typer

from circuit_script.cli.deploy_watch import warm
from circuit_script.cli.environments import Environment
from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import console, print_json
from circuit_script.cli.places import Going, Insecure, Place, Reach, To, reach_of
from circuit_script.config import load_settings
from circuit_script.errors import ReleaseRefused, ReleaseUnknown
from circuit_script.jobs.outside import whoever
from circuit_script.releases.moving import READY, ROLLBACK, HostState, Move
from circuit_script.releases.store import ReleaseRow

NAME = "rollback"
EXAMPLES = (
    "Examples:  circuit-script rollback  ·  circuit-script rollback v1.3.2 --yes  ·  "
    'circuit-script rollback --env production --reason "scores too low"  ·  '
    "circuit-script rollback --to https://ops.example.com"
)
SETTLE = 1.0  # seconds after the move for which executions of the old code are looked for


@dataclass(frozen=True, slots=True)
class _There:
    """What stands when the command begins: what is live, what is to be, and how far workers are with that. ``asked`` is
    when the command was given, by the database's clock."""

    live: ReleaseRow
    target: ReleaseRow
    usual: bool
    hosts: Sequence[HostState]
    asked: datetime

    @property
    def is_warm(self) -> bool:
        return all(each.state == READY for each in self.hosts)


def run(
    release: Annotated[str | None, typer.Argument(help="Like v1.3.2; the one before if not said.")] = None,
    folder: Folder = None,
    env: Environment = None,
    to: To = None,
    insecure: Insecure = False,
    reason: Annotated[str, typer.Option(help="Why; it is kept.")] = "",
    at_once: Annotated[
        bool,
        typer.Option("--at-once", help="Wait for no worker: one that must prepare it starts nothing meanwhile."),
    ] = False,
    by: Annotated[str | None, typer.Option(help="Who does it; your login where nothing is said.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Take the release before, or another one, live again, in under a second where workers have it ready, as they have
    what was live before. What runs already finishes."""
    if to is not None and by is not None:
        raise typer.BadParameter("who does it is whose token it is", param_hint="--by")
    settings, reach = reach_of(load_settings(app_folder(folder)), NAME, env, to, insecure)
    there = reach.ask(lambda place: _look(place, release))
    if not (there.usual or yes):
        _ask(there, reach)
    if not there.is_warm and not at_once:
        from circuit_script.cli.deploy_steps import Steps  # Rich takes its time, and most rollbacks do without

        with Steps(console(stderr=as_json)).step("warm") as step:
            patience = settings.deploy.warm_seconds
            step.detail = reach.ask(lambda place: warm(place, there.target, patience, step))
    move, seconds = reach.ask(lambda place: _move(place, there, by or whoever(), reason.strip()))
    if not as_json:
        print(f"{there.target.name} is live in {reach.name} again, {seconds:.2f} s after the command")
    last = reach.ask(lambda place: _last(place, there))
    if as_json:
        print_json({
            "release": there.target.name, "before": there.live.name, "warm": there.is_warm, "reason": move.reason,
            "live_after_s": round(seconds, 3), "last_of_before_s": None if last is None else round(last, 3),
        })  # fmt: skip
        return
    if last is None:
        print(f"{there.live.name} took no event after the command")
    else:
        print(f"the last event that {there.live.name} took, of those that have ended, began {last:.2f} s after it")
    if to is None:
        print(f"what it did to the world: circuit-script effects --release {there.live.name}{reach.option}")
    else:
        print(f"what it did to the world, on the host: circuit-script effects --release {there.live.name}")


def age_of_process() -> float:
    """Seconds since this command was started, its interpreter included."""
    with open("/proc/self/stat") as file:
        began = int(file.read().rpartition(")")[2].split()[19])  # proc_pid_stat(5): field 22
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began / os.sysconf("SC_CLK_TCK")


async def _look(place: Place, name: str | None) -> _There:
    """Raises ReleaseUnknown, and ReleaseRefused for what is live already."""
    began = age_of_process()
    found = await place.standing()
    asked, live, before = found.now - timedelta(seconds=began), found.live, found.before
    if live is None:
        raise ReleaseUnknown("Nothing is live.", cure="circuit-script deploy")
    if name is None and before is None:
        raise ReleaseUnknown(
            "Nothing was live before what is live now." if found.last else "Nothing was deployed yet.",
            cure="`circuit-script releases` lists what there is.",
        )
    target = before if name is None else await place.find(name)
    assert target is not None
    if target.id == live.id:
        raise ReleaseRefused(f"{target.name} is live.", cure="`circuit-script releases` shows the others.")
    usual = before is not None and target.id == before.id
    return _There(live, target, usual, (await place.readiness(target)).hosts, asked)


def _ask(there: _There, reach: Reach) -> None:
    what = f"{there.target.name} is not what was live before {there.live.name}"
    if not sys.stdin.isatty():
        raise ReleaseRefused(f"{what}.", cure="If it is meant, add --yes.")
    if not typer.confirm(f"{what}. Take it live in {reach.name}?", err=True):
        raise ReleaseRefused("Nobody said yes.", cure="Nothing was changed.")


async def _move(place: Place, there: _There, by: str, reason: str) -> tuple[Move, float]:
    move = await place.go_live(there.target, Going(ROLLBACK, by, there.live.id, reason))
    return move, age_of_process()


async def _last(place: Place, there: _There) -> float | None:
    """Seconds from the command until the old code took an event for the last time, as far as those have ended."""
    await asyncio.sleep(SETTLE if there.hosts else 0.0)
    last = await place.last_started(there.live, there.asked)
    return None if last is None else (last - there.asked).total_seconds()
