"""``circuit-script enqueue``: let a job run by itself, now or later."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from circuit_script.cli.app_database import looking
from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import print_json
from circuit_script.clock import now
from circuit_script.config import Settings, load_settings
from circuit_script.errors import ConfigError
from circuit_script.execution.authoring.jobs import refused
from circuit_script.execution.timing import WrongTime, due_at
from circuit_script.jobs.outside import Asked, enqueue_now, whoever
from circuit_script.jobs.store import Taken
from circuit_script.tenants import DEFAULT
from circuit_script.tenants.accounts import unknown_tenant_cure

NAME = "enqueue"
EXAMPLES = (
    "Examples:  circuit-script enqueue send_report --arg contact=4711  ·  "
    "circuit-script enqueue send_report --arg 'days=[1, 2]' --delay 5m --unique report-4711 --json"
)

Arguments = Annotated[
    list[str] | None,
    typer.Option(
        "--arg", metavar="NAME=VALUE", help="An argument, maybe several: text where the job wants str, else JSON."
    ),
]
Delay = Annotated[str | None, typer.Option(help="Run it so much later: 90s, 5m, 1h30m, 2d.")]
Unique = Annotated[str | None, typer.Option(help="Make none while one with this key waits or runs.")]
By = Annotated[str | None, typer.Option(help="Who asks, if not this user.")]
Tenant = Annotated[str, typer.Option(help="Whose job it is.")]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]


def run(
    name: Annotated[str, typer.Argument(help="The job: the name of a @queueable or @scheduled function.")],
    arg: Arguments = None,
    delay: Delay = None,
    unique: Unique = None,
    tenant: Tenant = DEFAULT,
    by: By = None,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Let a job run by itself, now or later. The app may be down: then it runs when it is up again."""
    settings = load_settings(app_folder(folder))
    must_be_there(tenant, settings)
    asked = Asked(name, {}, _due(delay), unique, tenant, by or whoever(), arguments_of(arg or ()))
    taken = asyncio.run(commit(settings, asked))
    tell(name, taken, as_json)


def must_be_there(tenant: str, settings: Settings) -> None:
    """A job of a tenant that there is not would see nobody's data. Raises RequestRefused."""
    known = settings.tenant_names
    if tenant != DEFAULT and tenant not in known:
        raise refused(f"there is no tenant {tenant!r}.", unknown_tenant_cure(tenant, known))


async def commit(settings: Settings, asked: Asked) -> Taken:
    """Raises RequestRefused for a job that there is not, or that does not take these arguments."""
    async with looking(settings, NAME) as connection:
        return await enqueue_now(connection, asked)


def tell(name: str, taken: Taken, as_json: bool) -> None:
    """What became of it."""
    if as_json:
        print_json({"job": name, "id": str(taken.id), "made": taken.kind != "held", "kind": taken.kind})
    elif taken.kind == "held":
        print(f"{name} was not enqueued: {taken.id} with this key waits or runs")
    else:
        print(f"enqueued: {name} {taken.id}\nwhat became of it: circuit-script logs --record {taken.id}")


def arguments_of(said: list[str] | tuple[str, ...]) -> dict[str, str]:
    """Names and values as they were typed. Raises ConfigError for what has no ``=``."""
    found: dict[str, str] = {}
    for each in said:
        name, equals, value = each.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(
                f"--arg {each!r} is no argument.", cure="Write --arg name=value, like --arg contact=4711."
            )
        found[name] = value
    return found


def _due(delay: str | None) -> float | None:
    try:
        due = due_at(delay, now())
    except WrongTime as error:
        raise ConfigError(f"--{error.wrong}", cure=error.cure) from None
    return None if due is None else due.timestamp()
