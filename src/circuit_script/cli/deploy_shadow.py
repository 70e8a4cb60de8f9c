"""``circuit-script deploy --shadow``: beside what is live, in the place of taking it live."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from datetime import timedelta

import typer

from circuit_script.cli.deploy_steps import Step
from circuit_script.config import Settings
from circuit_script.db.pool import Connection
from circuit_script.errors import DeployRefused
from circuit_script.releases.moving import hosts_of
from circuit_script.releases.shadows import COMING, Shadow, close, current, open_shadow
from circuit_script.releases.store import ReleaseRow
from circuit_script.settings_spans import seconds_of

EVERY = 0.1  # seconds between looks
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)\s*%|(0(?:\.\d{1,8})?|1(?:\.0+)?)")


@dataclass(frozen=True, slots=True)
class Asked:
    """How it is to be compared: for how long, how much of the live executions, and what may differ of it to go live by
    itself once ``least`` records were compared."""

    span: timedelta | None
    sample: float
    promote_below: float | None
    least: int


def asked_for(
    settings: Settings, shadow: bool, span: str | None, sample: str | None, below: str | None, least: int
) -> Asked | None:
    """What the options say; None without ``--shadow``. Raises BadParameter for what is none, and without it."""
    if not shadow:
        if span is not None or sample is not None or below is not None:
            raise typer.BadParameter("--for, --sample and --promote-below go with --shadow")
        return None
    if below is not None and span is None:
        raise typer.BadParameter("--promote-below needs an end: --for 1h", param_hint="--promote-below")
    try:
        lasts = None if span is None else timedelta(seconds=seconds_of(span))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--for") from None
    part = settings.shadow.sample if sample is None else share_of(sample, "--sample")
    if part <= 0:
        raise typer.BadParameter("of nothing, nothing is compared", param_hint="--sample")
    return Asked(lasts, part, None if below is None else share_of(below, "--promote-below"), least)


def share_of(said: str, option: str) -> float:
    """``0.1%`` → 0.001, ``0.2`` → 0.2. Raises BadParameter."""
    found = _SHARE.fullmatch(said.strip())
    share = -1.0 if found is None else float(found[2]) if found[1] is None else float(found[1]) / 100
    if not 0 <= share <= 1:
        raise typer.BadParameter(f"{said!r} must be like 0.1% or 0.2", param_hint=option)
    return share


async def open_it(
    connection: Connection, release: ReleaseRow, asked: Asked, *, by: str, message: str, patience: float, step: Step
) -> Shadow:
    """Open the shadow, and return when a worker records. Raises DeployRefused where none runs, or none can run it: then
    it is closed again; ReleaseRefused."""
    workers = len(await hosts_of(connection, 0))
    if not workers:
        raise DeployRefused(f"No worker runs that could compare {release.name}.", cure="circuit-script serve")
    opened = await open_shadow(
        connection, release, by=by, message=message, sample=asked.sample, span=asked.span,
        promote_below=asked.promote_below, least=asked.least,
    )  # fmt: skip
    await _ready(connection, opened, patience, step)
    part = "all live executions" if asked.sample == 1 else f"{asked.sample:.3g} of the live executions"
    until = "" if opened.until is None else f", until {opened.until.astimezone():%H:%M}"
    step.detail = f"beside {opened.against_name}, on {part}{until}"
    return opened


async def _ready(connection: Connection, opened: Shadow, patience: float, step: Step) -> None:
    deadline = time.monotonic() + patience
    while (now := await current(connection)) is not None and now.id == opened.id and now.note:
        failed = now.note != COMING
        if failed or time.monotonic() > deadline:
            await close(connection, opened, now.note)
            why = now.note.rstrip(".") if failed else f"After {patience:g} s {COMING}"
            raise DeployRefused(f"{why}.", cure="Mend that and deploy again. What is live goes on.")
        step.now(COMING)
        await asyncio.sleep(EVERY)
