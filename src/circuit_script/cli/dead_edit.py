"""The payload of a dead letter in a person's hands: an editor, ``--set``, or a file."""

from __future__ import annotations

import copy
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from circuit_script.cli.output import visible
from circuit_script.errors import LetterRefused
from circuit_script.events.letters import parsed

Fields = dict[str, Any]


def with_settings(before: Mapping[str, Any], from_file: Path | None, said: Sequence[str]) -> Fields:
    """The payload with these fields (``name=value``) set, from a file if one is given; ``a.b`` is the field b of the
    object in a, unless there is a field of just that name. Raises LetterRefused."""
    after = copy.deepcopy(dict(before)) if from_file is None else parsed(_text_of(from_file))
    for each in said:
        name, equals, value = each.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"{each!r} is no FIELD=VALUE", param_hint="--set")
        within, last = _place(after, name)
        within[last] = _value(value)
    return after


def _place(fields: Fields, name: str) -> tuple[Fields, str]:
    """The object that holds the field of this name, and its name there."""
    head, dot, rest = name.partition(".")
    inner = fields.get(head)
    if name in fields or not (dot and rest and isinstance(inner, dict)):
        return fields, name
    return _place(inner, rest)


def edited_by_hand(before: Mapping[str, Any], letter: int, note: str = "") -> Fields:
    """The payload as it stands in the editor when that ends; what is no JSON object is opened again, if the person
    wants that. Raises LetterRefused, with the file that holds the work."""
    folder = Path(tempfile.mkdtemp(prefix="circuit-script-"))  # of this user alone
    file = folder / f"letter-{letter}.json"
    file.write_text(json.dumps(before, indent=2, ensure_ascii=False) + "\n", "utf-8")
    if note:
        print(f"{note}; this is what is known", file=sys.stderr)
    while True:
        _open_editor(file)
        try:
            after = parsed(_text_of(file))
        except LetterRefused as refused:
            print(refused.detail, file=sys.stderr)
            if not sys.stdin.isatty() or not typer.confirm("Open it again?", default=True, err=True):
                raise LetterRefused(
                    refused.detail, cure=f"Mend it and go on: circuit-script dead edit {letter} --from-file {file}"
                ) from None
        else:
            file.unlink()
            folder.rmdir()
            return after


def changed(out: Console, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Each field that is another now."""
    for name in [*before, *(each for each in after if each not in before)]:
        if name not in after:
            out.print(Text(visible(f"- {name}: {_short(before[name])}"), "red"))
        elif name not in before:
            out.print(Text(visible(f"+ {name}: {_short(after[name])}"), "green"))
        elif before[name] != after[name]:
            out.print(Text(visible(f"~ {name}: {_short(before[name])} → {_short(after[name])}"), "yellow"))


def _open_editor(file: Path) -> None:
    command = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    try:
        ended = subprocess.run([*command, str(file)], check=False).returncode
    except OSError as error:
        raise LetterRefused(
            f"The editor {command[0]!r} cannot be started: {error}.", cure="Set EDITOR, or say --set."
        ) from None
    if ended:
        raise LetterRefused(f"The editor ended with {ended}: nothing was sent.", cure=f"Your text: {file}")


def _text_of(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LetterRefused(f"{file} cannot be read: {error}.") from None


def _value(said: str) -> Any:
    try:
        return json.loads(said, parse_constant=_refuse)
    except ValueError:
        return said


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:59]}…"
