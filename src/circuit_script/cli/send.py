"""``circuit-script send``: a sample webhook, signed as the vendor would sign it."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import httpx
import msgspec
import typer

from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import console, print_json
from circuit_script.cli.samples import MAKERS, Sample, check_event, make_sample
from circuit_script.cli.status import address_of
from circuit_script.config import load_settings
from circuit_script.errors import IntakeRefused, NotRunning

NAME = "send"
EXAMPLES = (
    "Examples:  circuit-script send gohighlevel  ·  "
    'circuit-script send standard --event Opportunity.afterUpdate --data \'{"id": "o1", "stage": "won"}\'  ·  '
    "circuit-script send gohighlevel --count 50"
)
OBJECT = '{"id": "c1"}'
PATIENCE = 30.0  # seconds for one answer

SourceName = StrEnum("SourceName", {name: name for name in MAKERS})  # type: ignore[misc]  # the sources are known there


@dataclass(frozen=True, slots=True)
class Sent:
    """What the gateway answered. ``delivery`` is the first one's id when it was a ``duplicate``, and empty where an
    old service has answered."""

    status: int
    delivery: str
    record: str
    duplicate: bool


def run(
    source: Annotated[SourceName, typer.Argument(help="Whose webhook.")],
    event: Annotated[str, typer.Option(help="Object and event.")] = "Contact.afterInsert",
    data: Annotated[str | None, typer.Option(help="Fields of the record: JSON, a file of it, or - to read it.")] = None,
    count: Annotated[int, typer.Option(min=1, max=100_000, help="How many, each about another record.")] = 1,
    account: Annotated[str | None, typer.Option(help="The vendor's account that it comes from.")] = None,
    url: Annotated[str | None, typer.Option(help="Address of the gateway, if not the one in circuit.toml.")] = None,
    folder: Folder = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON Lines, for scripts.")] = False,
) -> None:
    """Sign and send a sample webhook, as the vendor would."""
    fields = read_fields(data)
    check_event(event)
    settings = load_settings(app_folder(folder))
    out = console()
    sent: Sent | None = None
    with httpx.Client(base_url=url or address_of(settings), timeout=PATIENCE) as client:
        for _ in range(count):
            mirrored = source.value in settings.mirror
            sent = post(client, make_sample(settings, source.value, event, fields, account), mirrored=mirrored)
            if as_json:
                print_json(asdict(sent), lines=True)
            elif not sent.delivery:
                out.print(f"{sent.status} answered by the old service  record {sent.record}", markup=False)
            else:
                what = "duplicate of" if sent.duplicate else "accepted as"
                out.print(f"{sent.status} {what} delivery {sent.delivery}  record {sent.record}", markup=False)
    if sent is not None and sent.delivery and not as_json:
        which = f"--delivery {sent.delivery}" if count == 1 else "--since 1m"
        out.print(f"what became of it: circuit-script logs {which}", markup=False)


def post(client: httpx.Client, sample: Sample, *, mirrored: bool = False) -> Sent:
    """Send it; for a ``mirrored`` source an old service may answer. Raises NotRunning when nobody answers,
    IntakeRefused when it is not accepted."""
    try:
        answer = client.post(sample.path, content=sample.signed.body, headers=dict(sample.signed.headers))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NotRunning(
            f"No gateway answers at {client.base_url}: {error}.",
            cure="Start it: circuit-script dev.",
            page="not-running",
        ) from None
    said = _object(answer.content)
    if mirrored and answer.is_success and said.keys() != {"id"}:
        return Sent(answer.status_code, "", sample.record, False)
    if answer.status_code in (200, 202) and "id" in said:
        return Sent(answer.status_code, str(said["id"]), sample.record, answer.status_code == 200)
    detail = f"The gateway answered {answer.status_code}: {said.get('detail') or 'is it Circuit Script?'}"
    if answer.status_code == 401:
        detail += " Only an app that runs by `circuit-script dev` accepts its test keys; `serve` knows the real ones."
    raise IntakeRefused(answer.status_code, str(said.get("reason", "")), detail)


def read_fields(data: str | None) -> dict[str, Any]:
    """The record's fields: JSON, the file that has them, or standard input. Raises BadParameter."""
    if data is None:
        return {}
    try:
        text = sys.stdin.read() if data == "-" else data if _looks_like_json(data) else Path(data).read_text()
        fields = msgspec.json.decode(text)
    except OSError as error:
        said = f"{data[:80]!r} is no JSON, and no file that can be read ({error.strerror})."
        raise typer.BadParameter(f"{said} Give an object, like {OBJECT}.", param_hint="--data") from None
    except ValueError as error:
        raise typer.BadParameter(f"{data[:80]!r}: {error}.", param_hint="--data") from None
    if not isinstance(fields, dict):
        kind = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}.get(type(fields), "a number")
        said = f"It is {kind}, and a record is an object, like {OBJECT}. Send several one by one, or with --count."
        raise typer.BadParameter(said, param_hint="--data")
    return fields


def _looks_like_json(data: str) -> bool:
    try:
        msgspec.json.decode(data)
    except ValueError:
        return data.lstrip().startswith(("{", "[", '"'))
    return True


def _object(body: bytes) -> dict[str, Any]:
    try:
        said = msgspec.json.decode(body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
