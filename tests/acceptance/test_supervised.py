"""What the supervisor does beside its two roles: the dashboard, the heartbeat, words for the init system."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from tests.acceptance.command import run
from tests.acceptance.platform import Platform, answers, family, free_port, left_behind, running, write_app
from tests.acceptance.terminal import app_on
from tests.acceptance.vendor import make_vendor
from tests.servers import TEMPLATE, Server, until

pytestmark = pytest.mark.story

TRIGGERS = """
from circuit_script import trigger


@trigger("Contact", ["afterInsert"])
async def nothing(context):
    pass
"""


@dataclass
class Outside:
    """Who waits for the heartbeat, and the init system: what each of them has heard."""

    url: str
    beats: list[str]
    init: socket.socket
    words: list[str] = field(default_factory=list)

    def heard(self, word: str) -> bool:
        """Whether the init system was told so since the last question for something else."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.words.append(self.init.recv(100).decode())
        return word in self.words


@pytest.fixture(scope="module")
def outside() -> Iterator[Outside]:
    beats: list[str] = []

    class Hears(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            beats.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hears)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    folder = tempfile.mkdtemp(prefix="cs-")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as init:
        init.bind(f"{folder}/notify")
        init.setblocking(False)
        yield Outside(f"http://127.0.0.1:{server.server_port}/ping/a%20key?from=me", beats, init)
    server.shutdown()
    server.server_close()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def blocked() -> Iterator[socket.socket]:
    """Somebody has the dashboard's port."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other


@pytest.fixture(scope="module")
def platform(embedded_server: Server, outside: Outside, blocked: socket.socket) -> Iterator[Platform]:
    database = embedded_server.create_database(TEMPLATE)
    port = blocked.getsockname()[1]
    more = f'\n[dashboard]\nport = {port}\n\n[guardian]\nheartbeat = "1s"\nheartbeat_url = "{outside.url}"\n'
    with tempfile.TemporaryDirectory(prefix="cs-", dir="/tmp") as parent:
        folder = Path(parent) / "app"
        gateway = write_app(folder, TRIGGERS, public_key=make_vendor().public_key, more=more)
        environment = {
            "CIRCUIT_DASHBOARD__ENABLED": "true",
            "NOTIFY_SOCKET": outside.init.getsockname(),
            "WATCHDOG_USEC": "600000",
        }
        started = Platform(folder, gateway, embedded_server.url(database), more=environment)
        with running(started):
            yield started
    embedded_server.drop_database(database)


def dashboard(platform: Platform) -> str:
    """Its port, once it is there."""
    until(lambda: "dashboard: http://" in platform.log(), "the dashboard runs", 30.0)
    return str(re.findall(r"dashboard: http://127\.0\.0\.1:(\d+)/", platform.log())[-1])


def test_a_dashboard_that_cannot_start_stops_nobody_and_is_tried_again(
    platform: Platform, outside: Outside, blocked: socket.socket
) -> None:
    until(lambda: "The dashboard ended with status 1" in platform.log(), "it was tried", 60.0)
    assert "Trying again in 5.0 s" in platform.log()
    assert answers(platform.port, "/readyz") == 200
    until(lambda: bool(outside.beats), "a heartbeat went out: the dashboard is not needed for it")
    assert set(outside.beats) == {"/ping/a%20key?from=me"}
    found = {each["name"]: each for each in checks(platform)}
    assert found["dashboard"]["state"] == "warning"
    assert found["heartbeat"]["said"].startswith("goes to 127.0.0.1 every 1s")
    assert "key" not in found["heartbeat"]["said"], "the address is a secret"
    port = blocked.getsockname()[1]
    blocked.close()
    assert dashboard(platform) == str(port)


def checks(platform: Platform) -> list[dict[str, str]]:
    ran = run("doctor", "--json", database=platform.database, folder=platform.folder, CIRCUIT_DASHBOARD__ENABLED="true")
    assert ran.code == 0, ran.out
    found: list[dict[str, str]] = json.loads(ran.out)["checks"]
    return found


def test_a_dashboard_that_dies_comes_back_where_it_was(platform: Platform) -> None:
    port, others = dashboard(platform), [platform.one(role).pid for role in ("gateway", "worker")]
    victim = platform.one("dashboard")
    victim.kill()
    until(lambda: [each.pid for each in platform.find("dashboard")] not in ([], [victim.pid]), "another one", 60.0)
    until(lambda: answers(int(port), "/") != 0, "it answers", 60.0)
    assert [platform.one(role).pid for role in ("gateway", "worker")] == others
    told = json.loads((platform.folder / ".circuit" / "roles.json").read_text())
    assert len(told["roles"]["dashboard"]["restarts"]) == 1


def test_all_roles_together_are_small(platform: Platform, record_property: Callable[[str, object], None]) -> None:
    dashboard(platform)
    until(lambda: len(platform.find("child")) >= 2, "there are two children")
    used = sum(map(own_memory, family(platform.process.pid))) / 1024
    record_property("figure", f"supervisor, gateway, worker, two children and more, dashboard: {used:.0f} MB")
    assert used < 350


def own_memory(process: psutil.Process) -> int:
    """Its share of memory in KiB: what several processes have in common counts once."""
    with contextlib.suppress(OSError):
        found = re.search(r"^Pss: +(\d+) kB", Path(f"/proc/{process.pid}/smaps_rollup").read_text(), re.MULTILINE)
        return int(found[1]) if found else 0
    return 0


def test_the_init_system_hears_that_it_is_ready_and_lives(platform: Platform, outside: Outside) -> None:
    until(lambda: outside.heard("READY=1") and outside.words.count("WATCHDOG=1") > 2, "it was told")
    for role in ("gateway", "worker", "dashboard"):
        assert "NOTIFY_SOCKET" not in Path(f"/proc/{platform.one(role).pid}/environ").read_text()


def test_the_heartbeat_stays_out_while_a_role_does_not_work(platform: Platform, outside: Outside) -> None:
    worker = platform.one("worker")
    worker.suspend()
    try:
        until(lambda: "no heartbeat goes out: the worker gives no sign of life" in platform.log(), "it is missed", 30.0)
        silent_since = len(outside.beats)
        seen = len(outside.words)
        until(lambda: outside.heard("") or len(outside.words) > seen + 5, "a second has passed")
        assert len(outside.beats) == silent_since
    finally:
        worker.resume()
    until(lambda: "the heartbeat goes out again" in platform.log(), "it works again", 30.0)
    until(lambda: len(outside.beats) > silent_since, "and is heard")


def test_sigterm_ends_the_dashboard_with_the_rest(platform: Platform, outside: Outside) -> None:
    assert platform.find("dashboard")
    assert platform.stop() == 0
    assert left_behind(platform.folder) == []
    assert not (platform.folder / ".circuit" / "roles.json").exists()
    assert outside.heard("STOPPING=1")
    assert "Traceback" not in platform.log()


def test_dev_gives_a_link_that_signs_in_once(embedded_server: Server) -> None:
    more = f"\n[dashboard]\nport = {free_port()}\n"
    with app_on(embedded_server, TRIGGERS, public_key=make_vendor().public_key, more=more) as developer:
        developer.more["CIRCUIT_DASHBOARD__ENABLED"] = "true"
        developer.start()
        developer.wait_for("save a file and it runs")
        shown = developer.wait_for("signs you in as the owner", since=0)
        host, path = re.findall(r"http://(127\.0\.0\.1:\d+)(/\S+)", shown.partition("\n  dashboard ")[2])[0]
        connection = http.client.HTTPConnection(host, timeout=10)
        connection.request("GET", path)
        assert connection.getresponse().status == 200
        connection.close()
        assert developer.value("SELECT count(*) FROM circuit.memberships WHERE role = 'owner'") == 1

        mark, before = developer.mark(), developer.one("dashboard").pid
        file = developer.folder / "circuit.toml"
        file.write_text(file.read_text().replace("children = 2", "children = 1"))
        developer.wait_for("restarted in", since=mark)
        shown = developer.wait_for(f"http://{host}/", since=mark)
        assert "sign-in" not in shown.partition("restarted in")[2], "who is signed in stays so"
        assert developer.one("dashboard").pid != before
        os.kill(developer.process.pid, signal.SIGTERM)
        assert developer.wait() == 0
        assert left_behind(developer.folder) == []
