from __future__ import annotations

import inspect
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
import typer

from circuit_script.cli.limits import LimitLine
from circuit_script.cli.logs import moment
from circuit_script.cli.verbs import VERBS, Verb, load

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_the_line_of_a_verb_is_the_beginning_of_its_own_help(verb: Verb) -> None:
    command = load(verb)
    told = " ".join(inspect.cleandoc(command.help or "").split())
    assert told.startswith(verb.help.removesuffix(".")), told


def test_every_verb_speaks_to_scripts_too() -> None:
    """`serve` and `dev` go on until they are stopped: what they say is for people and for the log."""
    for verb in VERBS:
        command = load(verb)
        commands = list(getattr(command, "commands", {}).values()) or [command]
        for each in commands:
            options = {option for parameter in each.params for option in parameter.opts}
            assert verb.name in ("serve", "dev") or "--json" in options, f"{verb.name} {each.name}"


@pytest.mark.parametrize(
    ("module", "never"),
    [
        ("cli", "asyncio msgspec rich pydantic psycopg structlog httpx fastapi cryptography email"),
        ("cli.serve", "rich structlog httpx fastapi cryptography nacl"),
        ("cli.logs", "httpx fastapi cryptography nacl"),
        ("cli.dead", "fastapi uvicorn cryptography nacl"),
        ("cli.worker", "fastapi uvicorn pydantic_ai"),
    ],
)
def test_a_process_imports_only_what_it_needs(module: str, never: str) -> None:
    script = f"import circuit_script.{module}, sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert set(never.split()) & set(ran.stdout.split()) == set()


@pytest.mark.parametrize(
    ("said", "ago"),
    [
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("2h", timedelta(hours=2)),
        ("1d", timedelta(days=1)),
        ("2w", timedelta(weeks=2)),
    ],
)
def test_a_moment_is_so_long_ago(said: str, ago: timedelta) -> None:
    assert moment(said, NOW) == NOW - ago


def test_a_moment_is_a_date_with_or_without_an_offset() -> None:
    assert moment("2026-05-01T08:00+02:00", NOW) == datetime(2026, 5, 1, 6, tzinfo=UTC)
    assert moment("2026-05-01T08:00", NOW) == datetime(2026, 5, 1, 8).astimezone(UTC)


@pytest.mark.parametrize("said", ["", "yesterday", "2 h", "-1h", "1y", "9999999h", "999999w", "2026-13-01"])
def test_anything_else_is_no_moment(said: str) -> None:
    with pytest.raises(typer.BadParameter, match="is no moment"):
        moment(said, NOW)


@pytest.mark.parametrize(("most", "near"), [(None, False), (0.0, False), (7.9, False), (8.0, True), (12.0, True)])
def test_a_limit_is_near_from_four_fifths_on(most: float | None, near: bool) -> None:
    assert LimitLine("score", "wall_time", 10.0, 3, most, most).near is near
