"""``circuit-script status``: what a running gateway says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.table import Table

from circuit_script.config import load_settings
from circuit_script.errors import StartError

NAME = "status"
EXAMPLES = "Examples:  circuit-script status  ·  circuit-script status --json | jq .queue"


def run(
    folder: Annotated[Path, typer.Option(help="The app's folder.")] = Path(),
    url: Annotated[str | None, typer.Option(help="Address of the gateway, if not the one in circuit.toml.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Show deliveries, queue, executions and dead letters."""
    answer = fetch(url or _address(folder))
    if as_json:
        print(answer.text)
        return
    table = Table(show_header=False, box=None)
    for name, value in _flat(answer.json()):
        table.add_row(name, value)
    Console().print(table)


def fetch(address: str) -> httpx.Response:
    """The gateway's status document. Raises StartError when nobody answers there."""
    try:
        answer = httpx.get(f"{address}/api/status", timeout=5.0)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise StartError(f"{address} does not answer: {error}.", cure="Is `circuit-script serve` running?") from None
    return answer


def _address(folder: Path) -> str:
    gateway = load_settings(folder).gateway
    return f"http://{gateway.host}:{gateway.port}"


def _flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [row for name, each in value.items() for row in _flat(each, f"{prefix}.{name}" if prefix else name)]
    if isinstance(value, list):
        return [(prefix, f"{len(value)} shown with --json")] if value else [(prefix, "none")]
    return [(prefix, str(value))]
