"""What `dev` shows and says, without running anything."""

from __future__ import annotations

import asyncio
import io
import os
import socket
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from circuit_script.cli.control import Line, Reload, Running, Said, Wrong, running
from circuit_script.cli.dev.keys import role_environment
from circuit_script.cli.dev.terminal import Screen, TerminalTap, show_error
from circuit_script.clock import uuid7
from circuit_script.config import FILE, Settings, load_settings
from circuit_script.effects.settle import Settled, Settlement
from circuit_script.errors import AppError, ConfigError, StartError
from circuit_script.execution.host.pool import Manifest
from circuit_script.execution.host.pool import Pool as Children
from circuit_script.execution.outcome import EndpointSpec, HandlerSpec, Way
from circuit_script.releases import Release
from circuit_script.wiring import Live


@pytest.fixture
def seen() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def screen(seen: io.StringIO) -> Screen:
    return Screen(Console(file=seen, color_system=None, highlight=False, width=200))


def test_a_release_is_told_with_its_endpoints() -> None:
    endpoint = EndpointSpec((Way(("GET", "POST"), r"/api/leads/[^/]+", "/api/leads/{lead_id}"),))
    handlers = {1: HandlerSpec("greet", ()), 2: HandlerSpec("chat", (), endpoint=endpoint)}
    children = Children(app_folder=Path(), app="app", size=1, on_change=lambda: None)
    undocumented = Live(Release(7, "", handlers), children, Manifest((), ()))
    assert running(undocumented) == Running(7, 1, ["GET,POST /api/leads/{lead_id}"])
    document = b'{"paths": {"/api/leads/{id}": {"get": {}}}}'
    documented = replace(undocumented, manifest=Manifest((), (), openapi=document))
    assert running(documented) == Running(7, 1, ["GET /api/leads/{id}"])


async def test_an_order_is_answered_until_the_other_side_ends() -> None:
    ours, theirs = map(Line.open, socket.socketpair())
    dev, worker = await ours, await theirs
    answers: list[Said] = [Wrong("it is wrong", "mend it", "app-error"), Running(2, 1, [])]

    async def reload() -> Said:
        return answers.pop(0)

    obeying = asyncio.create_task(worker.obey(reload))
    await dev.say(Reload())
    assert await dev.hear() == Wrong("it is wrong", "mend it", "app-error")
    await dev.say(Reload())
    assert await dev.hear() == Running(2, 1, [])
    dev.close()
    await obeying
    worker.close()
    assert await dev.hear() is None


def test_an_error_comes_with_its_source_line(tmp_path: Path, screen: Screen, seen: io.StringIO) -> None:
    (tmp_path / "app.py").write_text("import json\n\n    wrong = [red]\n")
    error = AppError(f"{tmp_path}/app.py:3: IndentationError", cure=f"Mend {tmp_path}/app.py:3 and start again.")
    show_error(screen, error, tmp_path, after="still running")
    assert seen.getvalue().splitlines() == [
        "error app.py:3: IndentationError",
        "    wrong = [red]",
        "  Mend app.py:3.",
        "  more: circuit-script explain app-error",
        "  still running",
    ]


def test_what_a_stranger_wrote_does_not_command_the_terminal(screen: Screen, seen: io.StringIO) -> None:
    line = {"level": "info", "message": "\x1b[2J\x07 [bold]hi[/]\n", "record": "\x9b1m", "context": {"a": "\x1b"}}
    TerminalTap(screen).line(uuid7(), "greet", "acme", line)
    shown = seen.getvalue()
    assert not {"\x1b", "\x07", "\x9b"}.intersection(shown)
    assert "[bold]hi[/]" in shown, "markup is text too"


def test_keys_are_made_once_and_only_for_their_owner(tmp_path: Path) -> None:
    settings = load_settings(tmp_path)
    first = role_environment(settings)
    assert role_environment(settings) == first
    for name in ("gohighlevel.key", "standard.secret"):
        assert (tmp_path / ".circuit" / "dev" / name).stat().st_mode & 0o777 == 0o600


def test_the_roles_of_dev_accept_real_secrets_and_the_developers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "circuit.toml").write_text(
        '[sources.standard.secrets]\nacme = "whsec_YWNtZQ=="\ntest = "whsec_dGVzdA=="\n'
    )
    before = load_settings(tmp_path)
    for name, value in role_environment(before).items():
        monkeypatch.setitem(os.environ, name, value)
    secrets = load_settings(tmp_path).sources.standard.secrets
    assert secrets["acme"] == ("whsec_YWNtZQ==",)
    assert secrets["test"][0] == "whsec_dGVzdA=="
    assert secrets["test"][1] == (tmp_path / ".circuit" / "dev" / "standard.secret").read_text().strip()


def test_a_key_file_that_holds_no_key_is_explained(tmp_path: Path) -> None:
    settings: Settings = load_settings(tmp_path)
    role_environment(settings)
    (tmp_path / ".circuit" / "dev" / "gohighlevel.key").write_text("nonsense")
    with pytest.raises(ConfigError, match="Delete the file"):
        role_environment(settings)


def a_settlement(*became: str, status: str, **more: Any) -> Settlement:
    rows = [
        Settled(n, 1, 0, uuid7(), 0, "acme", f"c{n}", each, attempts=1, order_hash=0) for n, each in enumerate(became)
    ]
    return Settlement(
        execution=uuid7(), tenant="acme", release=1, handler=1, object="Contact", event="afterInsert",
        records=9, status=status, started_at=datetime.now(UTC), usage={}, rows=rows, **more,
    )  # fmt: skip


@pytest.mark.parametrize(
    "settlement",
    [
        a_settlement("succeeded", "succeeded", status="partial"),  # a checkpoint
        a_settlement("succeeded", status="succeeded"),
        a_settlement(status="partial"),
        a_settlement(status="echo"),
    ],
)
def test_nothing_is_said_of_what_went_well(screen: Screen, seen: io.StringIO, settlement: Settlement) -> None:
    TerminalTap(screen).settled(settlement, "greet")
    assert seen.getvalue() == ""


@pytest.mark.parametrize(
    ("settlement", "words", "silent"),
    [
        (a_settlement("succeeded", "retry", status="partial"), "1 failed and tried again later of 2 records", "cancel"),
        (a_settlement("dead", status="failed"), "failed   greet    1 failed for good of 1 record", "again"),
        (a_settlement("dead", status="held"), "held     greet    1 held for a person of 1 record", "failed"),
        (a_settlement("succeeded", "cancelled", status="partial"), "cancelled greet    1 cancelled of 2", "failed"),
        (
            a_settlement("succeeded", "deferred", status="deferred"),
            "deferred greet    1 put off of 2 records",
            "failed",
        ),
        (a_settlement("dead", "cancelled", status="failed"), "1 failed for good of 2 records, 1 cancelled", "again"),
        (a_settlement(status="failed", reason="boom"), "boom  execution", "records"),
    ],
)
def test_what_became_of_records_is_counted_and_named(
    screen: Screen, seen: io.StringIO, settlement: Settlement, words: str, silent: str
) -> None:
    TerminalTap(screen).settled(settlement, "greet")
    assert words in seen.getvalue()
    assert silent not in seen.getvalue()


def test_a_line_of_the_settings_is_not_shown_since_it_may_be_a_secret(
    tmp_path: Path, screen: Screen, seen: io.StringIO
) -> None:
    (tmp_path / FILE).write_text("database_url = ['hunter2']\n")
    with pytest.raises(ConfigError) as wrong:
        load_settings(tmp_path)
    show_error(screen, wrong.value, tmp_path, after="")
    assert "circuit.toml:1: database_url must be a text" in seen.getvalue()
    assert "hunter2" not in seen.getvalue()


def test_a_folder_that_cannot_hold_keys_is_no_wrong_setting(tmp_path: Path) -> None:
    settings = load_settings(tmp_path)
    (tmp_path / ".circuit").write_text("in the way")
    with pytest.raises(StartError) as refused:
        role_environment(settings)
    assert refused.value.page == "folder-not-writable"
