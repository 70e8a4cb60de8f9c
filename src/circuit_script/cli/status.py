"""``circuit-script status``: what a running gateway says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from circuit_script.cli.output import add_rows, console, print_json, table
from circuit_script.config import Settings, load_settings
from circuit_script.errors import NotRunning

NAME = "status"
EXAMPLES = "Examples:  circuit-script status  ·  circuit-script status --json | jq .queue_depth"


def run(
    folder: Annotated[Path, typer.Option(help="The app's folder.")] = Path(),
    url: Annotated[str | None, typer.Option(help="Address of the gateway, if not the one in circuit.toml.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Show deliveries, queue, executions and dead letters."""
    found = fetch(url or address_of(load_settings(folder)))
    if as_json:
        print_json(found)
        return
    rows = table("what", "now")
    console().print(add_rows(rows, _flat(found)))


def fetch(address: str) -> dict[str, Any]:
    """The gateway's status document. Raises NotRunning when no gateway answers there."""
    try:
        answer = httpx.get(f"{address}/api/status", timeout=5.0)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise NotRunning(f"No gateway answers at {address}: {error}.", cure="Start it: circuit-script dev.") from None
    return found


def address_of(settings: Settings) -> str:
    """Where the app's gateway is reached from this host."""
    gateway = settings.gateway
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(gateway.host, gateway.host)
    return f"http://[{host}]:{gateway.port}" if ":" in host else f"http://{host}:{gateway.port}"


def _flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [row for name, each in value.items() for row in _flat(each, f"{prefix}.{name}" if prefix else name)]
    if isinstance(value, list):
        return [(prefix, f"{len(value)} shown with --json")] if value else [(prefix, "none")]
    return [(prefix, str(value))]
