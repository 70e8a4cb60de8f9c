"""What pause, resume and cancel have in common: how a person says what is meant."""

from __future__ import annotations

from typing import Annotated

import httpx
import typer

from circuit_script.cli.app_database import do as do
from circuit_script.cli.completion import complete_handler
from circuit_script.config import Settings
from circuit_script.connectors.registry import make_registry, make_vendors
from circuit_script.errors import ControlRefused
from circuit_script.events.controls import Selection
from circuit_script.execution.outcome import JOBS

Trigger = Annotated[
    str | None,
    typer.Option(help="This trigger or job; the end of its name is enough.", autocompletion=complete_handler),
]
Tenant = Annotated[str | None, typer.Option(help="This tenant; with another option, that of this tenant only.")]
Connector = Annotated[str | None, typer.Option(help="What goes out by this connector (webhook, …).")]
Record = Annotated[str | None, typer.Option(help="This record, by its id.")]
All = Annotated[bool, typer.Option("--all", help="Everything.")]
Reason = Annotated[str, typer.Option(help="Why; it is shown wherever it waits.")]
By = Annotated[str | None, typer.Option(help="Who does it; your login where nothing is said.")]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]


def selected(
    trigger: str | None, tenant: str | None, connector: str | None, record: str | None, everything: bool
) -> Selection:
    """The one thing that the options name. Raises BadParameter for none and for several."""
    named = [("trigger", trigger), ("connector", connector), ("record", record)]
    for kind, value in [*named, ("tenant", tenant)]:
        if value is not None and not value.strip():
            raise typer.BadParameter("it names nothing", param_hint=f"--{kind}")
    said = [(kind, value) for kind, value in named if value is not None]
    if len(said) > 1 or (everything and (said or tenant)):
        raise typer.BadParameter("say one of --trigger, --connector, --record, --tenant and --all")
    match said:
        case [("trigger", str(value))]:
            return Selection("trigger", value, tenant)
        case [("connector", str(value))]:
            return Selection("connector", value, tenant)
        case [("record", str(value))]:
            return Selection("record", value, tenant)
    if tenant is not None:
        return Selection("tenant", tenant)
    if everything:
        return Selection("everything")
    raise typer.BadParameter("say what: --trigger, --tenant, --connector, --record or --all")


async def must_be_a_connector(settings: Settings, selection: Selection, waiting: int) -> None:
    """Who mistypes one at night must not believe that nothing leaves. Raises ControlRefused for a connector that this
    app does not have and of which nothing waits."""
    if selection.kind != "connector" or waiting:
        return
    async with httpx.AsyncClient() as client:
        known = sorted([*make_registry(settings.addresses, client, *make_vendors(settings, client)), JOBS])
    if selection.value not in known:
        raise ControlRefused(
            f"There is no connector {selection.value!r}, and nothing waits for one.", cure=f"Known: {', '.join(known)}."
        )
