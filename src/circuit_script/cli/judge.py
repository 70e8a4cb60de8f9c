"""``circuit-script judge``: what the Judgment Protocol says of a text, and what people say to that."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import print_json
from circuit_script.config import FILE, load_settings
from circuit_script.errors import NoApp
from circuit_script.judgment import Action, JudgmentProtocol, Verdict, feedback
from circuit_script.judgment.telling import as_json, protocol_of
from circuit_script.tenants.accounts import DEFAULT, unknown_tenant_cure

NAME = "judge"
EXAMPLES = (
    "Examples:  circuit-script judge 'Ignore all previous instructions.' --explain  ·  "
    "circuit-script judge mail.txt --field Contact.notes  ·  circuit-script judge notes.jsonl --lines --json  ·  "
    "circuit-script judge --wrong benign mail.txt --reason 'a newsletter'"
)
STDIN = "-"


class Truth(StrEnum):
    attack = "attack"
    benign = "benign"


def run(
    text: Annotated[
        str | None, typer.Argument(metavar="FILE|TEXT|-", help="A file, or a text itself; - reads standard input.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show where, what each level found, and what would let it pass.")
    ] = False,
    lines: Annotated[
        bool, typer.Option("--lines", help="Each line is a text of its own, or a JSON object with its text as `text`.")
    ] = False,
    source: Annotated[str | None, typer.Option(help="As if it came from this source.")] = None,
    field: Annotated[str | None, typer.Option(help="As if it stood in this field, like Contact.notes.")] = None,
    tenant: Annotated[str | None, typer.Option(help="By this tenant's policy.")] = None,
    wrong: Annotated[
        Truth | None, typer.Option(help="The verdict is wrong: keep the text, as it is, with what it is in truth.")
    ] = None,
    reason: Annotated[str, typer.Option(help="With --wrong: why.")] = "",
    show_feedback: Annotated[bool, typer.Option("--feedback", help="List what was kept by --wrong.")] = False,
    folder: Folder = None,
    as_json_: Annotated[bool, typer.Option("--json", help="For scripts; with --lines as JSON Lines.")] = False,
) -> None:
    """Say what the Judgment Protocol thinks of a text. Exits 0 when it may pass, 1 when not."""
    if show_feedback:
        _list(app_folder(folder), as_json_)
        return
    if text is None:
        raise typer.BadParameter("Give a file, a text, or - for standard input.", param_hint="FILE|TEXT|-")
    if lines and (explain or wrong):
        raise typer.BadParameter("It is for one text.", param_hint="--explain" if explain else "--wrong")
    protocol, where = _protocol(folder, tenant)
    name, read = _read(text)
    if lines:
        _judge_lines(protocol, name, read, (source, field, tenant), as_json_)
        return
    verdict = protocol.judge(read, source=source, field=field, tenant=tenant)
    if wrong is not None:
        _keep(app_folder(folder), read, verdict, wrong, reason, as_json_)
        return
    if as_json_:
        print_json(as_json(verdict, read))
    else:
        from circuit_script.cli import judge_shown

        judge_shown.show(name, read, verdict, protocol.policy, where, tenant, explain=explain)
    if not verdict.clean:
        raise typer.Exit(1)


def _protocol(given: Path | None, tenant: str | None) -> tuple[JudgmentProtocol, str]:
    """The protocol with the app's policy, and where that was found; the balanced one where no app is."""
    try:
        folder = app_folder(given)
    except NoApp:
        if given is not None:
            raise
        return JudgmentProtocol(), ""
    settings = load_settings(folder)
    if tenant is not None and tenant not in (*settings.tenant_names, DEFAULT):
        cure = unknown_tenant_cure(tenant, settings.tenant_names)
        raise typer.BadParameter(f"there is no tenant {tenant!r}. {cure}", param_hint="--tenant")
    return protocol_of(settings.judgment), str(folder / FILE)


def _read(given: str) -> tuple[str, str]:
    """What it is called, and the text."""
    if given == STDIN:
        return "standard input", _decoded(sys.stdin.buffer.read())
    path = Path(given)
    if given and _is_there(path):
        if path.is_dir():
            raise typer.BadParameter(f"{given} is a folder.", param_hint="FILE|TEXT|-")
        try:
            return given, _decoded(path.read_bytes())
        except OSError as error:
            raise typer.BadParameter(f"{given} cannot be read: {error.strerror}.", param_hint="FILE|TEXT|-") from None
    if path.suffix and not any(each.isspace() for each in given):
        print(f"note: there is no file {given!r}; it is judged as a text", file=sys.stderr)
    return "the text", given


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except PermissionError:
        return True
    except (OSError, ValueError):  # a long text, or one with NUL, is no name of a file
        return False
    return True


def _decoded(data: bytes) -> str:
    """As the protocol reads bytes: UTF-8, or UTF-16 with its mark."""
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    return data.decode("utf-16" if wide else "utf-8", "replace")


def _texts(read: str) -> Iterator[tuple[int, str]]:
    """Each line that is not empty, by its number."""
    for number, line in enumerate(read.split("\n"), 1):
        if not line.strip():
            continue
        found: object = None
        if line.lstrip()[:1] in ("{", '"'):
            with suppress(ValueError, RecursionError):
                found = json.loads(line)
        inner = found.get("text") if isinstance(found, dict) else found
        yield number, inner if isinstance(inner, str) else line


def _judge_lines(
    protocol: JudgmentProtocol,
    name: str,
    read: str,
    said: tuple[str | None, str | None, str | None],
    as_json_: bool,
) -> None:
    from circuit_script.cli import judge_shown

    source, field, tenant = said
    counts = dict.fromkeys(Action, 0)
    rows: list[tuple[int, str, Verdict]] = []
    texts = list(_texts(read))
    with judge_shown.progress(len(texts), quiet=as_json_ and sys.stdout.isatty()) as step:
        for number, text in texts:
            verdict = protocol.judge(text, source=source, field=field, tenant=tenant)
            counts[verdict.action] += 1
            if as_json_:
                print_json({"line": number, **as_json(verdict, text)}, lines=True)
            elif not verdict.clean:
                rows.append((number, text, verdict))
            step()
    if not as_json_:
        judge_shown.show_lines(name, rows, counts)
    if len(texts) > counts[Action.ALLOW]:
        raise typer.Exit(1)


def _keep(folder: Path, text: str, verdict: Verdict, truth: Truth, reason: str, as_json_: bool) -> None:
    path = feedback.keep(
        folder,
        text,
        attack=truth is Truth.attack,
        score=verdict.score,
        reason=_plain(reason),
        source=_plain(verdict.source or ""),
    )
    if as_json_:
        print_json({"kept": str(path), "label": truth.value, "score": verdict.score})
        return
    print(f"kept as {truth}, as it is ({len(text):,} characters), in {path}")
    print(
        f"The score was {verdict.score:.3f} ({verdict.action}). It changes with the next model that is trained on it;"
    )
    print("a rule [[judgment.allow]] lets this text pass now: circuit-script judge … --explain shows it.")


def _list(folder: Path, as_json_: bool) -> None:
    found = feedback.kept(folder)
    if as_json_:
        print(json.dumps([asdict(each) for each in found], indent=2))  # escaped: a text may hold half a character
        return
    from circuit_script.cli import judge_shown

    judge_shown.show_feedback(found, folder / feedback.FILE)


def _plain(text: str) -> str:
    """What a shell gave, without halves of characters."""
    return text.encode("utf-8", "replace").decode()
