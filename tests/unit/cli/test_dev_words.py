"""What `dev` shows and says, without running anything."""

from __future__ import annotations

import asyncio
import io
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from circuit_script.cli.control import Line, Reload, Running, Said, Wrong, readable, running
from circuit_script.cli.dev.keys import role_environment
from circuit_script.cli.dev.terminal import Screen, TerminalTap, show_error
from circuit_script.clock import uuid7
from circuit_script.config import Settings, load_settings
from circuit_script.errors import AppError, ConfigError
from circuit_script.execution.outcome import EndpointSpec, HandlerSpec
from circuit_script.execution.pool import Manifest
from circuit_script.execution.pool import Pool as Children
from circuit_script.releases import Release
from circuit_script.wiring import Live


@pytest.fixture
def seen() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def screen(seen: io.StringIO) -> Screen:
    return Screen(Console(file=seen, color_system=None, highlight=False, width=200))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/api/chat", "/api/chat"),
        (r"^/api/leads/(?P<lead_id>[^/]+)$", "/api/leads/{lead_id}"),
        (r"/files/(?P<name>(?:a|b).*)/v1\.0", "/files/{name}/v1.0"),
    ],
)
def test_a_path_is_shown_as_its_author_wrote_it(path: str, words: str) -> None:
    assert readable(path) == words


def test_a_release_is_told_with_its_endpoints() -> None:
    endpoint = EndpointSpec(methods=("GET", "POST"), paths=("/api/chat",))
    handlers = {1: HandlerSpec("greet", ()), 2: HandlerSpec("chat", (), endpoint=endpoint)}
    children = Children(app_folder=Path(), app="app", size=1, on_change=lambda: None)
    undocumented = Live(Release(7, "", handlers), children, Manifest((), ()))
    assert running(undocumented) == Running(7, 1, ["GET,POST /api/chat"])
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
