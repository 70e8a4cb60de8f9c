"""``circuit-script invoke``: one handler by hand, with its outcome, effects, log and limits."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import Progress

from circuit_script.cli.completion import complete_handler
from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import BAD, GOOD, WARNING, add_rows, console, print_json, table
from circuit_script.config import Settings, load_settings
from circuit_script.errors import TrialRefused
from circuit_script.governor import amount

NAME = "invoke"
EXAMPLES = (
    "Examples:  circuit-script invoke score_new_leads --generate 3 --dry-run  ·  "
    "circuit-script invoke score_new_leads --records leads.json  ·  "
    """circuit-script invoke chat --body '{"message": "Hi"}'  ·  circuit-script invoke chat --body @question.json"""
)
SHOWN = 20  # rows of a table; --json has all
BAR = 20  # characters
WIDEST = 90  # characters of one value

Settled = dict[str, Any]


def run(
    handler: Annotated[
        str,
        typer.Argument(
            help="Its name, or the end of it; of an endpoint also the path.", autocompletion=complete_handler
        ),
    ],
    records: Annotated[
        Path | None, typer.Option(help="A file with an object, a list, or JSON Lines; - is stdin.")
    ] = None,
    generate: Annotated[int | None, typer.Option(min=1, max=100_000, help="Make up so many records.")] = None,
    object: Annotated[str | None, typer.Option(help="Where the handler has several.")] = None,
    event: Annotated[str | None, typer.Option(help="Where the handler has several, like afterUpdate.")] = None,
    body: Annotated[str | None, typer.Option(help="For an endpoint: its body, or @FILE.")] = None,
    method: Annotated[str | None, typer.Option(help="For an endpoint.")] = None,
    tenant: Annotated[str, typer.Option(help="For whom.")] = "default",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Store nothing, send nothing, make no callout.")] = False,
    folder: Folder = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Run one handler now and show what it did. Exit codes: 0 it succeeded, 1 it did not (or answered 400 or more)."""
    if records is not None and generate is not None:
        raise TrialRefused("--records and --generate were both given.", cure="Give one of them.")
    settings = load_settings(app_folder(folder))
    found: Any = None if records is None else read_records(records)
    result = asyncio.run(
        _invoke(settings, handler, found, generate, object, event, body, method, tenant, not dry_run, not as_json)
    )
    if as_json:
        print_json(_document(result))
    else:
        _show(result, dry_run)
    raise typer.Exit(0 if _is_good(result) else 1)


def _is_good(result: Any) -> bool:
    """An endpoint that answers no has run well, but whoever asked did not get what they wanted."""
    return bool(result.succeeded and (result.answer is None or result.answer.status < 400))


def read_records(path: Path) -> list[Any]:
    """The records in a file: one JSON object, a list of them, or one a line. Raises TrialRefused with the line."""
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TrialRefused(f"{path}: {getattr(error, 'strerror', None) or error}.") from None
    try:
        whole = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise TrialRefused(
                f"{path}:{error.lineno}: {error.msg}.", cure="Give JSON, or one object a line."
            ) from None
        return [_line(path, number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    return whole if isinstance(whole, list) else [whole]


def _line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise TrialRefused(f"{path}:{number}: {error.msg}.", cure="Each line is one JSON object.") from None


def _body(given: str | None) -> bytes:
    if given is None or not given.startswith("@"):
        return (given or "").encode()
    try:
        return Path(given[1:]).read_bytes()
    except OSError as error:
        raise TrialRefused(f"{given[1:]}: {error.strerror}.") from None


async def _invoke(
    settings: Settings,
    handler: str,
    records: list[Any] | None,
    generate: int | None,
    object_: str | None,
    event: str | None,
    body: str | None,
    method: str | None,
    tenant: str,
    commit: bool,
    bars: bool,
) -> Any:
    from circuit_script.execution.hardening import hide_from_children
    from circuit_script.testing.factories import Factory
    from circuit_script.wiring.trial import Trial

    hide_from_children()
    async with app_database(settings) as url, Trial(settings, url, source="invoke") as trial:
        if body is not None or method is not None or (records is None and generate is None):
            return await trial.call(handler, method=method, body=_body(body), tenant=tenant, commit=commit)
        spec, object_, event = trial.route(handler, object_, event)
        if records is None:
            factory = Factory(os.urandom(4).hex())
            records = [factory.record(object_) for _ in range(generate or 1)]
        with Progress(console=console(stderr=True), transient=True, disable=not bars) as progress:
            task = progress.add_task(spec.name, total=len(records), visible=len(records) > spec.batch_size)
            return await trial.run(
                spec.name,
                records,
                object=object_,
                event=event,
                tenant=tenant,
                commit=commit,
                on_batch=lambda batch: progress.advance(task, len(batch.records)),
            )


@contextlib.asynccontextmanager
async def app_database(settings: Settings) -> AsyncIterator[str]:
    """The app's database. An embedded server that we started is stopped again, unless a `serve` has begun meanwhile."""
    from circuit_script.cli.supervisor import database_of
    from circuit_script.db.embedded import EmbeddedPostgres

    embedded = None if settings.database_url else EmbeddedPostgres(settings.folder)
    ours = embedded is not None and not embedded.running()
    url = await database_of(settings)
    try:
        yield url
    finally:
        if embedded is not None and ours and not _served(settings):
            await embedded.stop()


def _served(settings: Settings) -> bool:
    """Whether a supervisor runs in this folder: it holds the lock."""
    try:
        lock = os.open(settings.state / "serve.lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _document(result: Any) -> Settled:
    answer = result.answer
    return {
        "handler": result.handler,
        "object": result.object,
        "event": result.event,
        "tenant": result.tenant,
        "status": result.status,
        "reason": result.reason,
        "committed": result.committed,
        "duration": result.duration,
        "errors": result.errors,
        "decided": result.decided,
        "held": result.held,
        "effects": result.writes,
        "sends": result.sends,
        "discarded": result.discarded,
        "log": result.log,
        "usage": result.usage,
        "limits": result.ceilings,
        "executions": [batch.execution for batch in result.batches],
        "answer": None if answer is None else {
            "status": answer.status, "headers": dict(answer.headers), "body": answer.text
        },
    }  # fmt: skip


def _show(result: Any, dry: bool) -> None:
    out = console()
    mark = GOOD if _is_good(result) else WARNING if result.status in ("partial", "succeeded", "held") else BAD
    size = f"{len(result.records)} records, " if result.records else ""
    many = f" in {len(result.batches)} batches" if len(result.batches) > 1 else ""
    out.print(f"{mark} [bold]{escape(result.handler)}[/] {result.status}: {size}{result.duration:.3f} s{many}")
    if result.reason:
        out.print(f"  {escape(result.reason)}")
    if result.detail:
        out.print(escape(result.detail.rstrip()), style="dim")
    if result.answer is not None:
        out.print(f"\n[bold]answer {result.answer.status}[/]\n{escape(result.answer.text)}")
    _show_errors(out, result)
    _show_left(out, result, dry)
    if result.log:
        lines = [(line.level, line.message, _fields(line.fields), line.record or "") for line in result.log]
        _rows(out, table("level", "message", "fields", "record", title="log"), lines)
    _show_limits(out, result)
    if result.execution is not None and result.committed:
        out.print(f"\nexecution {result.execution}", style="dim")


def _show_errors(out: Any, result: Any) -> None:
    if not result.errors:
        return
    rows = []
    for key, reason in result.errors.items():
        after = result.decided.get(key, 0)
        failed = "held" if key in result.held else "failed"
        what = "cancelled" if after is None else f"again after {after:g} s" if key in result.decided else failed
        rows.append((key, what, reason))
    _rows(out, table("record", "became", "reason", title="errors"), rows)
    suspect = next((batch.suspect for batch in result.batches if batch.suspect), None)
    if suspect and len(result.records) > 1:
        out.print(f"It worked on {escape(suspect)}: on the road that one would run alone, and then the others.")


def _show_left(out: Any, result: Any, dry: bool) -> None:
    done = "would be done" if dry else "done" if result.committed else "not done"
    for title, each in ((f"effects, {done}", [*result.writes, *result.sends]), ("discarded", result.discarded)):
        if each:
            _rows(out, table("what", "where", "id", "fields", title=title), map(_left, each))
    if result.sends and not dry:
        out.print("Messages leave when `circuit-script serve` runs.", style="dim")


def _left(each: Any) -> tuple[str, str, str, str]:
    if hasattr(each, "op"):
        where = each.object if each.home == "local" else f"{each.home} {each.object}"
        return each.op, where, each.id, _fields(each.fields)
    return "send", f"{each.connector} {each.target}", each.record or "", _fields(each.payload)


def _show_limits(out: Any, result: Any) -> None:
    usage, ceilings = result.usage, result.ceilings
    rows = []
    for name, ceiling in ceilings.items():
        if (value := usage.get(name, 0)) and ceiling:
            full = min(BAR, max(1, round(BAR * value / ceiling)))
            rows.append((name, "█" * full + "░" * (BAR - full), amount(name, value), amount(name, ceiling)))
    if rows:
        _rows(out, table("limit", "", "used", "of", title="limits", right=("used", "of")), rows)


def _rows(out: Any, to: Any, rows: Iterable[Any]) -> None:
    listed = list(rows)
    out.print()
    out.print(add_rows(to, listed[:SHOWN]))
    if len(listed) > SHOWN:
        out.print(f"… and {len(listed) - SHOWN} more: --json shows all", style="dim")


def _fields(fields: Any) -> str:
    text = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False, default=str)}" for name, value in fields.items())
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"
