"""Ten wrong starts: each says in one error what to do, exits non-zero, and leaves nothing running."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from circuit_script.cli.demo.vendor import Vendor
from circuit_script.db.embedded import EmbeddedPostgres
from circuit_script.execution.hardening import drop_privileges
from tests.acceptance.platform import COMMAND, START, environment, kill, left_behind, write_app
from tests.servers import until

ROOT = Path(__file__).parents[2]
TRIGGERS = """
from circuit_script import trigger


@trigger("Contact", ["afterInsert"])
async def nothing(context):
    pass
"""


@dataclass(frozen=True)
class Ended:
    """A start that did not succeed: what it said, and with which status it ended."""

    code: int
    said: str

    def explains(self, *words: str) -> None:
        """One error with these words in it, and nothing that only a developer can read."""
        assert self.code == 1, self.said
        assert "Traceback" not in self.said
        errors = [line for line in self.said.splitlines() if line.startswith("error:")]
        assert len(errors) == 1, self.said
        for word in words:
            assert re.search(word, errors[0]), f"{word!r} is not in: {errors[0]}"


@pytest.fixture
def folder(app_folder: Path, vendor: Vendor) -> Iterator[Path]:
    """A healthy app; what a start leaves running in it is the test's failure."""
    folder = app_folder / "app"
    write_app(folder, TRIGGERS, public_key=vendor.public_key)
    yield folder
    left = left_behind(folder)
    kill(left)
    assert not left, f"still running: {[each.cmdline() for each in left]}"


def serve(folder: Path, database: str | None = None, *arguments: str, lose: Callable[[], None] | None = None) -> Ended:
    ran = subprocess.run(
        [COMMAND, "serve", "--folder", str(folder), *arguments],
        env=environment(database, measured=False),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=START,
        check=False,
        preexec_fn=lose,  # no thread runs here
    )
    return Ended(ran.returncode, ran.stdout)


def settings(folder: Path, old: str, new: str) -> None:
    path = folder / "circuit.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_a_port_that_is_taken(folder: Path, database: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        serve(folder, database, "--port", str(port)).explains(f"Port {port} on 127.0.0.1 is taken", "--port 8080")
    assert not (folder / ".circuit" / "postgres").exists(), "nothing was started"


def test_a_folder_without_the_right_to_write(folder: Path) -> None:
    folder.chmod(0o555)
    # Root may write anywhere; without its capabilities it is a user like others.
    serve(folder, lose=drop_privileges if os.geteuid() == 0 else None).explains(
        "Permission denied", "Let this user write"
    )


def test_a_python_that_is_too_old() -> None:
    faked = "import sys; sys.version_info = (3, 10, 12); exec(open(sys.argv[1]).read())"
    script = ROOT / "scripts" / "python_floor.py"
    ran = subprocess.run([sys.executable, "-c", faked, script], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "needs Python 3.11 or newer" in ran.stderr
    assert "make PYTHON=" in ran.stderr, "it says what to do"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11", "pip refuses it too"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("not a url", "not a PostgreSQL address"),
        ("postgresql://someone@127.0.0.1:1/none", "Start the server"),
        ("postgresql://someone@no.such.host.invalid/none", "Check the host"),
    ],
)
def test_a_database_url_that_leads_nowhere(folder: Path, url: str, words: str) -> None:
    serve(folder, url).explains(words, "DATABASE_URL|postgresql://")


def test_a_database_that_is_newer_than_this_version(folder: Path, database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO circuit.migrations (name, checksum, needs) VALUES ('9999_later.pre', 'x', '9998_then.pre')"
        )
    serve(folder, database).explains("asks for a version that knows 9998_then", "or a newer one")


def test_a_data_folder_of_a_newer_version(folder: Path) -> None:
    data = folder / ".circuit" / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("99\n")
    serve(folder).explains("PostgreSQL 99, newer than", "pip install --upgrade")


def test_an_embedded_database_that_is_newer_is_not_left_running(folder: Path) -> None:
    embedded = EmbeddedPostgres(folder)
    url = asyncio.run(embedded.start())
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA circuit")
        connection.execute(
            "CREATE TABLE circuit.migrations (name text PRIMARY KEY, checksum text NOT NULL, "
            "applied_at timestamptz NOT NULL DEFAULT now())"
        )
        connection.execute("INSERT INTO circuit.migrations (name, checksum) VALUES ('9999_later.pre', 'x')")
    serve(folder).explains("9999_later")
    assert not embedded.running()


def test_an_app_that_does_not_import(folder: Path) -> None:
    (folder / "app" / "triggers.py").write_text("import json\nimport not_there_at_all\n")
    ended = serve(folder)
    ended.explains("app/triggers.py:2", "not_there_at_all")
    assert not EmbeddedPostgres(folder).running()


def test_a_circuit_toml_that_is_wrong(folder: Path, database: str) -> None:
    settings(folder, "children = 2", "children = 'many'")
    serve(folder, database).explains("circuit.toml", "worker.children", "Mend it")
    settings(folder, "children = 'many'", "childern = 2")
    serve(folder, database).explains("circuit.toml", "worker.childern")
    (folder / "circuit.toml").write_text("[gateway\n")
    serve(folder, database).explains("circuit.toml", "line 1")


def test_a_disk_that_is_full(app_folder: Path, vendor: Vendor) -> None:
    with small_disk(app_folder / "disk") as disk:
        folder = disk / "app"
        write_app(folder, TRIGGERS, public_key=vendor.public_key)
        serve(folder).explains("[Nn]o space left", "Free some space")
        assert left_behind(folder) == []


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A file system of 12 MB, less than an empty database needs."""
    place.mkdir()
    mount: Sequence[str] = ("mount", "-t", "tmpfs", "-o", "size=12m,mode=755", "tmpfs", str(place))
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user cannot mount a small disk")
    try:
        yield place
    finally:
        unmounted = ("umount", str(place))
        until(lambda: subprocess.run(unmounted, capture_output=True, check=False).returncode == 0, "it is unmounted")
