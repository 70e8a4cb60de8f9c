"""``circuit-script checklist``: the seven steps of a release, each run or checked, asked for, and remembered."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from circuit_script.cli.checklist_steps import PRODUCTION, STAGING, STEPS, Name, Plan, State, Step, plan_of
from circuit_script.cli.environments import settings_in
from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import BAD, GOOD, add_rows, console, day, print_json, table
from circuit_script.config import load_settings
from circuit_script.errors import DeployRefused
from circuit_script.releases import content_hash

NAME = "checklist"
EXAMPLES = (
    "Examples:  circuit-script checklist  ·  circuit-script checklist --dry-run  ·  "
    "circuit-script checklist --version v1.4.0 --smoke 'python smoke.py'  ·  circuit-script checklist --step smoke"
)
FAILED = 1  # exit code
MARKS = {State.done: GOOD, State.skipped: "[dim]–[/]", State.failed: BAD, State.open: " "}


class Kept(msgspec.Struct, frozen=True):
    """How a step ended, as it is kept."""

    state: State
    detail: str
    at: datetime


class Progress(msgspec.Struct):
    """How far the files of this digest have come. Other files begin anew."""

    digest: str
    version: str | None = None
    steps: dict[Name, Kept] = {}

    def state_of(self, name: Name) -> State:
        kept = self.steps.get(name)
        return State.open if kept is None else kept.state

    def is_open(self, name: Name) -> bool:
        return self.state_of(name) in (State.open, State.failed)

    @property
    def came_back(self) -> bool:
        """Whether they went live and were rolled back."""
        return self.state_of(Name.watch) is State.failed and self.state_of(Name.rollback) is State.done


def run(
    folder: Folder = None,
    env: Annotated[
        str | None,
        typer.Option(
            "--env", help="Where it goes in the end; if not said, production, or else the app's own database."
        ),
    ] = None,
    staging: Annotated[
        str | None, typer.Option(help="Where it is tried first; if not said, staging, where circuit.toml has that.")
    ] = None,
    version: Annotated[str, typer.Option(help="Like v1.4.0; the next one of git's tags if not said.")] = "",
    step: Annotated[list[Name] | None, typer.Option(help="Only this one, whatever was done before.")] = None,
    url: Annotated[str, typer.Option(help="Where staging's gateway answers, if STAGING_URL does not say.")] = "",
    smoke: Annotated[str, typer.Option(help="Your own check of staging: a command; URL is in its environment.")] = "",
    minutes: Annotated[float, typer.Option(min=0, help="How long production is watched at most.")] = 10.0,
    again: Annotated[bool, typer.Option("--again", help="Begin anew.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, and what is done already; do nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="For scripts; what steps say goes to standard error.")
    ] = False,
) -> None:
    """Take the app to production in seven steps: test, tag, staging, smoke, production, watch, roll back.

    Before a step that changes something you are asked. It goes on where it stopped, as long as the files are the same.
    """
    settings = load_settings(app_folder(folder))
    for each in (env, staging):
        settings_in(settings, each)  # who says one must have it
    where = env or PRODUCTION
    file, digest = settings.state / f"checklist-{where}.json", content_hash(settings.folder)
    progress = Progress(digest) if again else load(file, digest, version)
    plan = plan_of(
        settings,
        version=version or progress.version,
        staging=staging or STAGING,
        production=where,
        url=url or None,
        smoke=smoke or None,
        minutes=minutes,
    )
    wanted = [each for each in STEPS if (each.name in step if step else progress.is_open(each.name))]
    if not dry_run:
        if progress.came_back and not step:
            raise DeployRefused(
                f"{plan.version} was rolled back: {progress.steps[Name.watch].detail}.",
                cure="Mend the app, and begin again; as it is: circuit-script checklist --again.",
            )
        if not (yes or sys.stdin.isatty()) and any(each.acts for each in wanted):
            raise DeployRefused("Nobody is there to ask.", cure="Add --yes, or --dry-run to see the plan.")
        plan = _go(plan, wanted, progress, file, yes=yes, alone=bool(step), quiet=as_json)
    failed = [name for name, kept in progress.steps.items() if kept.state is State.failed]
    if as_json:
        print_json(_told(plan, progress))
    elif dry_run:
        _show(plan, progress)
    elif not failed and not step:
        print(f"{plan.version or 'It'} has come through. Once more: circuit-script checklist --again")
    if failed and not dry_run:
        raise typer.Exit(FAILED)


def _go(
    plan: Plan, wanted: Sequence[Step], progress: Progress, file: Path, *, yes: bool, alone: bool, quiet: bool
) -> Plan:
    """Run steps until one fails, and keep how each ended. Raises DeployRefused when somebody says no."""
    from rich.markup import escape

    out = console(stderr=quiet)
    for name, kept in progress.steps.items():
        if not alone and kept.state is not State.failed:
            out.print(f"{MARKS[kept.state]} {name:<11} {escape(kept.detail)} [dim]{day(kept.at)}[/]")
    for step in wanted:
        plan = replace(plan, watched=progress.state_of(Name.watch))
        needed = step.name is not Name.rollback or plan.watched is not State.done
        if step.acts and needed and not yes:
            _ask(step, plan)
        out.print(f"  {step.name:<11} {escape(step.command(plan))}", style="dim")
        result = step.run(plan)
        progress.steps[step.name] = Kept(result.state, result.detail, datetime.now(UTC))
        progress.version = result.version or progress.version
        plan = replace(plan, version=plan.version or result.version)
        save(file, progress)
        out.print(f"{MARKS[result.state]} {step.name:<11} {escape(result.detail)}")
        if result.state is State.failed and step.name is not Name.watch:
            break
    return plan


def _ask(step: Step, plan: Plan) -> None:
    if not typer.confirm(f"{step.name}: {step.command(plan)}?", default=True, err=True):
        raise DeployRefused("Nobody said yes.", cure="It goes on there: circuit-script checklist.")


def _told(plan: Plan, progress: Progress) -> Mapping[str, Any]:
    steps = []
    for step in STEPS:
        kept = progress.steps.get(step.name)
        steps.append({
            "step": step.name, "state": kept.state if kept else State.open, "detail": kept.detail if kept else "",
            "at": kept.at if kept else None, "command": step.command(plan),
        })  # fmt: skip
    done = not any(progress.is_open(step.name) for step in STEPS)
    return {
        "environment": plan.production,
        "version": plan.version,
        "digest": progress.digest,
        "done": done,
        "steps": steps,
    }


def _show(plan: Plan, progress: Progress) -> None:
    rows = []
    for number, step in enumerate(STEPS, 1):
        kept = progress.steps.get(step.name)
        asks = "asks" if step.acts else ""
        rows.append((number, step.name, kept.state if kept else "", asks, kept.detail if kept else step.command(plan)))
    console().print(add_rows(table("", "step", "is", "", "what"), rows))


def load(file: Path, digest: str, version: str = "") -> Progress:
    """What was kept of these files under this version; nothing where it was of others, or cannot be read."""
    try:
        kept = msgspec.json.decode(file.read_bytes(), type=Progress)
    except (OSError, msgspec.DecodeError):
        return Progress(digest)
    same = kept.digest == digest and (not version or kept.version in (None, version))
    return kept if same else Progress(digest)


def save(file: Path, progress: Progress) -> None:
    """Keep it, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(f".{os.getpid()}")
    beside.write_bytes(msgspec.json.encode(progress))
    beside.replace(file)
