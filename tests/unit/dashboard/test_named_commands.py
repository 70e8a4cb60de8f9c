"""What pages tell people to type is what the command line takes."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import circuit_script.dashboard
from circuit_script.cli import app

NAME = "circuit-script"
PAGES = Path(circuit_script.dashboard.__file__).parent


def _named() -> Iterator[str]:
    for file in sorted(PAGES.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if (text := _text(node)) is not None and file.name != "serve.py":  # which names database connections
                for said in re.findall(rf"{NAME} [^<.,·]+", text):
                    yield said.strip()


def _text(node: ast.AST) -> str | None:
    """A text as a page shows it, with a number for what it fills in."""
    match node:
        case ast.JoinedStr(values):
            return "".join(str(each.value) if isinstance(each, ast.Constant) else "12" for each in values)
        case ast.Constant(str(value)) if not value.endswith(" "):  # else a part of the one above
            return value
    return None


def _parse(words: list[str]) -> None:
    """Raises typer's own error for what it does not take. Nothing runs."""
    command = typer.main.get_command(app)
    context = command.make_context(NAME, list(words), resilient_parsing=False)
    while words := [*context._protected_args, *context.args]:  # what is left for the verb
        name, found, rest = context.command.resolve_command(context, words)  # type: ignore[attr-defined]
        assert found is not None
        context = found.make_context(name, rest, parent=context)
        if not hasattr(found, "resolve_command"):
            return


@pytest.mark.parametrize("said", sorted(set(_named())))
def test_a_command_that_a_page_names_is_one(said: str) -> None:
    _parse(shlex.split(said)[1:])


def test_a_sample_that_is_none_would_be_found() -> None:
    with pytest.raises(Exception, match="is not"):
        _parse(["send", "samples/contact.json"])
