"""Deploys by HTTPS, as from a laptop: the real command, a real platform, and a line between them that is cut."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from circuit_script.cli.demo.vendor import Vendor
from tests.acceptance.bad_releases import PATIENT, TESTS, TRIGGERS
from tests.acceptance.command import Ran, Terminal, run
from tests.acceptance.platform import Platform, served
from tests.acceptance.vendor import contact_stream, make_vendor, send_all
from tests.servers import Server

pytestmark = pytest.mark.story


@pytest.fixture(scope="module")
def platform(embedded_server: Server) -> Iterator[Platform]:
    more = f"[deploy]\nimport_seconds = {PATIENT}\n"
    with served(embedded_server, TRIGGERS, public_key=make_vendor().public_key, more=more) as started:
        yield started


@pytest.fixture
def app(platform: Platform, app_folder: Path) -> Path:
    """The app on a laptop."""
    ignored = shutil.ignore_patterns(".circuit", "__pycache__", "test_*.py")
    folder = Path(shutil.copytree(platform.folder, app_folder / "app", ignore=ignored))
    (folder / "tests").mkdir(exist_ok=True)
    (folder / "tests" / "test_triggers.py").write_text(
        f"{TESTS}\n\ndef test_that_no_token_is_here():\n    import os\n\n    assert 'CIRCUIT_TOKEN' not in os.environ\n"
    )
    (folder / "requirements.txt").write_text("circuit-script[test]\n")
    return folder


def token(platform: Platform, name: str, role: str) -> str:
    """Made on the host, as docs say."""
    at = ("--folder", str(platform.folder))
    assert run("people", "add", name, "--role", role, *at, database=platform.url).code == 0
    made = run("people", "token", name, "laptop", "--json", *at, database=platform.url)
    assert made.code == 0, made.err
    return str(json.loads(made.out)["token"])


@contextlib.contextmanager
def line(port: int) -> Iterator[tuple[int, list[bytes]]]:
    """A line to a port that loses the answer to the first request to go live, and what it has lost."""
    lost: list[bytes] = []
    door = socket.create_server(("127.0.0.1", 0))

    def carry(ours: socket.socket) -> None:
        theirs, goes = socket.create_connection(("127.0.0.1", port)), threading.Event()

        def ask() -> None:
            with contextlib.suppress(OSError):
                while asked := ours.recv(1 << 20):
                    if asked.startswith(b"POST") and b"/live HTTP" in asked:
                        goes.set()
                    theirs.sendall(asked)

        threading.Thread(target=ask, daemon=True).start()
        with ours, theirs, contextlib.suppress(OSError):
            while said := theirs.recv(1 << 20):
                if goes.is_set() and not lost:
                    lost.append(said)
                    return
                ours.sendall(said)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=carry, args=(door.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield door.getsockname()[1], lost
    finally:
        door.shutdown(socket.SHUT_RDWR)
        door.close()


def told(ran: Ran) -> dict[str, object]:
    found: dict[str, object] = json.loads(ran.out)
    return found


def points(platform: Platform, chance: random.Random) -> object:
    """What a contact gets that comes now."""
    vendor: Vendor = make_vendor()
    vendor.random.seed(chance.random())
    send_all(platform.port, contact_stream(vendor, 1))
    platform.wait_settled()
    newest = "SELECT data -> 'score' FROM circuit.records WHERE object = 'Contact' ORDER BY created_at DESC LIMIT 1"
    return platform.value(newest)


@pytest.mark.slow
def test_from_a_laptop_without_a_database_a_release_goes_live_and_back(
    platform: Platform, app: Path, chance: random.Random
) -> None:
    to = ("--to", f"http://127.0.0.1:{platform.port}", "--folder", str(app))
    ann = {"CIRCUIT_TOKEN": token(platform, "ann@example.com", "developer")}
    eve = {"CIRCUIT_TOKEN": token(platform, "eve@example.com", "viewer")}

    ran = run("deploy", *to, "--yes", "--json")
    assert ran.code == 1
    assert "CIRCUIT_TOKEN is not set" in str(told(ran)["refused"])
    ran = run("deploy", *to, "--yes", "--json", **eve)
    assert (ran.code, [each["step"] for each in json.loads(ran.out)["steps"]]) == (1, ["environment"])
    assert "developer for all tenants; you are viewer of all" in str(told(ran)["refused"])

    (app / "app" / "triggers.py").write_text(TRIGGERS.replace('"score": 1', '"score": 2'))
    tests = app / "tests" / "test_triggers.py"
    tests.write_text(tests.read_text().replace("score=1", "score=2"))
    ran = run("deploy", *to, "--validate-only", "--json", "--message", "two points", **ann)
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert (found["release"], found["live"], found["to"]) == ("v1.0.0", False, to[1])
    assert [each["step"] for each in found["steps"]] == [
        "environment", "requirements", "pack", "import", "tests", "coverage", "limits", "unchanged", "release",
    ]  # fmt: skip
    assert platform.rows("SELECT author, message FROM circuit.releases WHERE version = 'v1.0.0'") == [
        ("ann@example.com", "two points")
    ]
    assert points(platform, chance) == 1
    assert not (app / ".circuit" / "postgres").exists(), "no database of the platform was started on the laptop"

    with Terminal.open("deploy", *to, "--quick", "--watch", "0", **ann) as terminal:
        terminal.wait_for("Take v1.0.0 live")
        platform.one("gateway").kill()  # between keeping it and taking it live
        terminal.type(b"y\n")
        assert terminal.wait() == 0, terminal.seen
    assert "v1.0.0 is live" in terminal.seen
    assert f"circuit-script rollback --to {to[1]}" in terminal.seen
    assert points(platform, chance) == 2

    back = run("rollback", *to, "--json", "--reason", "too many points", **ann)
    assert back.code == 0, back.err
    assert (told(back)["before"], told(back)["warm"]) == ("v1.0.0", True)
    assert points(platform, chance) == 1
    assert platform.rows("SELECT kind, by_whom, reason FROM circuit.moves ORDER BY id DESC LIMIT 1") == [
        ("rollback", "ann@example.com", "too many points")
    ]

    shown = json.loads(run("releases", *to, "--json", **ann).out)["releases"]
    assert [(each["release"], each["live"], each["executions"]) for each in shown] == [
        ("v1.0.0", False, 1), (told(back)["release"], True, 2),
    ]  # fmt: skip
    with line(platform.port) as (port, lost):
        there = ("--to", f"http://127.0.0.1:{port}", "--folder", str(app))
        ran = run("deploy", *there, "--quick", "--yes", "--watch", "0", "--json", **ann)
    assert (ran.code, told(ran)["live"]) == (0, True), ran.err
    assert [each.split()[1] for each in lost] == [b"200"], "it went live, and its answer was lost"
    assert platform.value("SELECT count(*) FROM circuit.moves") == 3
    assert points(platform, chance) == 2
