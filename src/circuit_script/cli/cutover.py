"""``circuit-script cutover``: from now on this app acts on a source's deliveries, or the old service does again."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from typing import Annotated

import typer

from circuit_script.cli.app_database import do
from circuit_script.cli.environments import Environment, place, settings_in
from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.mirror import mirrored_sources, parity_said, report
from circuit_script.cli.output import day, print_json
from circuit_script.config import load_settings
from circuit_script.db.pool import Connection
from circuit_script.errors import MirrorRefused
from circuit_script.events.mirror_gateways import RESENDING, lost_at
from circuit_script.events.mirror_moves import NEW, OLD, MirrorState, move
from circuit_script.events.mirrors import MirrorReport
from circuit_script.jobs.outside import whoever
from circuit_script.settings_spans import seconds_of

NAME = "cutover"
EXAMPLES = (
    "Examples:  circuit-script cutover gohighlevel  ·  circuit-script cutover gohighlevel --back  ·  "
    "circuit-script cutover hmac --yes --watch 24h"
)
FEWEST = 100  # deliveries on which both sides must have agreed


def run(
    source: Annotated[str, typer.Argument(help="Like gohighlevel: one of [mirror] in circuit.toml.")],
    folder: Folder = None,
    env: Environment = None,
    back: Annotated[bool, typer.Option("--back", help="The old service acts again.")] = False,
    watch: Annotated[str, typer.Option(help="How long our errors are watched; 0 for not at all.")] = "48h",
    force: Annotated[
        bool, typer.Option("--force", help=f"Though the two do not agree on all, or on fewer than {FEWEST}.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why; it is kept.")] = "",
    by: Annotated[str | None, typer.Option(help="Who does it; your login where nothing is said.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Let this app act in place of an old service, or the old service again.

    It takes agreement on every one of at least 100 deliveries. Gateways follow within a second; for 48 hours errors are
    watched, and more of them than the old service had give the source back.
    """
    try:
        span = None if watch == "0" or back else timedelta(seconds=seconds_of(watch))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--watch") from None
    settings = settings_in(load_settings(app_folder(folder)), env)
    if source not in mirrored_sources(settings):
        there = ", ".join(mirrored_sources(settings))
        raise MirrorRefused(f"{source} has no old service.", cure=f"Those that have one: {there}.")

    async def look(connection: Connection) -> tuple[MirrorReport, datetime | None]:
        return await report(connection, source), await lost_at(connection, source)

    found, lost = do(settings, NAME, look)
    if not back:
        _may(found, lost, force)
        if not yes:
            _ask(found, env)

    async def act(connection: Connection) -> MirrorState:
        return await move(
            connection, source, OLD if back else NEW, by=by or whoever(), reason=reason.strip(), watch=span
        )

    state = do(settings, NAME, act)
    if as_json:
        print_json({
            "source": source, "acts": state.acts, "since": state.since, "watch_until": state.watch_until,
            "parity": found.parity, "compared": found.compared,
        })  # fmt: skip
        return
    print(_said(state))


def _may(found: MirrorReport, lost: datetime | None, force: bool) -> None:
    """Raises MirrorRefused while the two sides do not agree."""
    if found.state.acts == NEW:
        raise MirrorRefused(
            f"This app acts on deliveries of {found.state.source} already.", cure="To go back, add --back."
        )
    if force:
        return
    if found.same < found.compared:
        raise MirrorRefused(
            f"Parity is {parity_said(found)}.",
            cure="See which differ: circuit-script mirror. Mend and deploy, or, where that is meant, add --force.",
        )
    if found.compared < FEWEST:
        raise MirrorRefused(
            f"The live release was compared on {found.compared:,} deliveries, and it takes {FEWEST}.",
            cure="Wait for more (circuit-script mirror counts them), or, where that is enough, add --force.",
        )
    if found.pending > found.compared:
        raise MirrorRefused(
            f"{found.pending:,} deliveries wait to be compared, and {found.compared:,} have been.",
            cure="See that a worker runs and keeps up: circuit-script status. Or, where it need not, add --force.",
        )
    if 100 * found.taken_unverified > found.compared:
        raise MirrorRefused(
            f"The old service took {found.taken_unverified:,} deliveries that this app would refuse: "
            "they are not signed as they should be.",
            cure="See why: circuit-script status counts the reasons; often a secret is missing here. Where they are "
            "nobody's, add --force.",
        )
    if lost is not None:
        raise MirrorRefused(
            f"A gateway ended without a word at {day(lost)}: what it had may be sent again, and done twice.",
            cure=f"Try again at {day(lost + RESENDING)}, or, where that does no harm, add --force.",
        )


def _ask(found: MirrorReport, env: str | None) -> None:
    source = found.state.source
    if not sys.stdin.isatty():
        raise MirrorRefused(f"From then on this app acts on {source}.", cure="If it is meant, add --yes.")
    if not typer.confirm(
        f"{parity_said(found)}. Let this app act on {source} in {place(env)}, and the old service no more?", err=True
    ):
        raise MirrorRefused("Nobody said yes.", cure="Nothing was changed.")


def _said(state: MirrorState) -> str:
    if state.acts == OLD:
        return f"the old service acts on {state.source} again; gateways follow within a second"
    watched = f"errors are watched until {day(state.watch_until)}" if state.watch_until else "nobody watches errors"
    return (
        f"this app acts on {state.source} from now on; gateways follow within a second\n"
        f"{watched}; back: circuit-script cutover {state.source} --back"
    )
