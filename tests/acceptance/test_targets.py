"""The command lines that `init --target` writes, each run for real: on a port that is given, beside a real PostgreSQL,
until it answers, and then told to stop as its platform does it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from tests.acceptance.command import run
from tests.acceptance.platform import (
    COMMAND,
    END,
    START,
    answers,
    environment,
    family,
    free_port,
    kill,
    left_behind,
    served,
)
from tests.acceptance.promises import TALLY, hooks, kept
from tests.acceptance.vendor import Load, contact_stream, make_vendor, receiving
from tests.servers import TEMPLATE, Server, until

pytestmark = pytest.mark.story

DYNO_STOPS = 30.0  # seconds after which Heroku kills
INSTALLED = "/srv/shop"


@pytest.fixture(scope="module")
def app() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cs-", dir="/tmp") as parent:
        Path(parent).chmod(0o711)
        targets = ["--target", "heroku", "--target", "docker", "--target", "systemd"]
        ran = run("init", "shop", *targets, folder=Path(parent))
        assert ran.code == 0, ran.err
        yield Path(parent) / "shop"


@pytest.fixture
def database(embedded_server: Server) -> Iterator[str]:
    name = embedded_server.create_database(TEMPLATE)
    yield embedded_server.url(name)
    embedded_server.drop_database(name)


@dataclass
class Started:
    process: subprocess.Popen[bytes]
    log_file: Path

    def log(self) -> str:
        return self.log_file.read_text("utf-8", "replace")

    def until_answers(self, port: int, path: str = "/healthz") -> None:
        def there() -> bool:
            assert self.process.poll() is None, self.log()
            return answers(port, path) == 200

        until(there, f"{path} answers", START)

    def ends(self, seconds: float) -> int:
        """Its exit code, which it must have within so many seconds."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end within {seconds:g} s:\n{self.log()}") from None


@contextlib.contextmanager
def started(folder: Path, line: str, database: str, more: Mapping[str, str]) -> Iterator[Started]:
    """A line as a shell runs it, in the app's folder. Of this machine only the place of our command stays."""
    variables = environment(database, measured=False) | {"PATH": f"{Path(COMMAND).parent}:{os.environ['PATH']}"}
    del variables["CIRCUIT_DASHBOARD__ENABLED"]
    log_file = folder.with_name("line.log")
    with log_file.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-c", line],
            cwd=folder,
            env=variables | more,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Started(process, log_file)
    finally:
        everyone = [*family(process.pid), *left_behind(folder)]
        if process.poll() is None:
            process.kill()
        process.wait(END)
        kill([*everyone, *left_behind(folder)])


def procfile(app: Path) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in (app / "Procfile").read_text().splitlines())


# Heroku ------------------------------------------------------------------------------------------


def test_the_release_phase_migrates_an_empty_database(app: Path, embedded_server: Server) -> None:
    name = embedded_server.create_database(None)
    url = embedded_server.url(name)
    try:
        for words in ("applied 0001_", "The database is up to date."):
            with started(app, procfile(app)["release"], url, {}) as line:
                assert line.ends(START) == 0, line.log()
            assert words in line.log()
        with psycopg.connect(url) as connection:
            known = json.loads(run("migrate", "--json", database=url, folder=app).out)["known"]
            assert connection.execute("SELECT count(*) FROM circuit.migrations").fetchone() == (known,)
    finally:
        embedded_server.drop_database(name)


def test_migrate_without_a_database_says_so(app: Path) -> None:
    ran = run("migrate", folder=app)
    assert ran.code == 1
    assert "Start the app (circuit-script dev), or set DATABASE_URL." in ran.err


def test_a_web_dyno_answers_on_its_port_and_ends_when_every_process_is_told(app: Path, database: str) -> None:
    """Heroku signals all processes of a dyno at once, also those that the first one would have ended in order."""
    port = free_port()
    with started(app, procfile(app)["web"], database, {"PORT": str(port)}) as line:
        line.until_answers(port)
        line.until_answers(port, "/readyz")
        with socket.create_connection((socket.gethostbyname(socket.gethostname()), port), timeout=5):
            pass  # from outside, too
        assert not any("dashboard" in each.cmdline() for each in family(line.process.pid))
        tell_everyone(line.process.pid)
        assert line.ends(DYNO_STOPS) == 0, line.log()
        assert left_behind(app) == []
        assert "Traceback" not in line.log()


def test_a_dyno_that_is_told_to_stop_under_load_loses_and_doubles_nothing(embedded_server: Server) -> None:
    """What runs is cut off by the same signal, since Heroku sends it to children, too."""
    vendor = make_vendor()
    streams = [contact_stream(vendor, steps=6) for _ in range(40)]
    with (
        receiving() as receiver,
        served(
            embedded_server,
            TALLY,
            public_key=vendor.public_key,
            worker="lease = 1\nbackoff = 0.05\ndrain = 8",
            more=hooks(receiver),
        ) as dyno,
    ):
        with Load(dyno.port, streams) as load:
            for share in (0.2, 0.6):
                load.wait_for(share)
                tell_everyone(dyno.process.pid)
                assert dyno.wait(DYNO_STOPS) == 0, dyno.log()
                assert "Traceback" not in dyno.log()
                dyno.start()
            load.wait_for(1.0)
        dyno.wait_settled()
        kept(dyno, load, receiver, poisoned=set())


def tell_everyone(pid: int) -> None:
    """As Heroku ends a dyno."""
    for each in family(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(each.pid, signal.SIGTERM)


def test_a_worker_dyno_works_beside_it_and_ends(app: Path, database: str) -> None:
    with started(app, procfile(app)["worker"], database, {}) as line, psycopg.connect(database) as connection:
        connection.autocommit = True

        def there() -> bool:
            assert line.process.poll() is None, line.log()
            row = connection.execute("SELECT count(*) FROM circuit.workers WHERE expires_at > now()").fetchone()
            return row == (1,)

        until(there, "the worker tells the database that it lives", START)
        until(lambda: len(family(line.process.pid)) > 1, "it has children", START)
        tell_everyone(line.process.pid)
        assert line.ends(DYNO_STOPS) == 0, line.log()


def test_a_database_that_speaks_in_the_open_is_refused(app: Path) -> None:
    """PGSSLMODE=require of the line: what answers in the clear is not spoken to."""
    with socket.create_server(("127.0.0.1", 0)) as plain:
        url = f"postgresql://circuit:secret@127.0.0.1:{plain.getsockname()[1]}/circuit"
        with started(app, procfile(app)["release"], url, {}) as line:
            asked, _ = plain.accept()
            with asked:
                assert asked.recv(100)[4:8] == bytes.fromhex("04d2162f"), "SSLRequest, before anything else is said"
                asked.sendall(b"N")
                assert asked.recv(100) == b"", "it hangs up, without a word about user or database"
            assert line.ends(START) == 1
        assert "server does not support SSL" in line.log()
        assert "secret" not in line.log()


# Docker ------------------------------------------------------------------------------------------


def instructions(app: Path) -> list[tuple[str, str]]:
    text = (app / "Dockerfile").read_text("utf-8").rpartition("\nFROM ")[2]
    joined = re.sub(r"\\\n\s*", "", text).splitlines()[1:]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined) if word and word != "#"]


def test_what_the_container_runs_answers_its_own_health_check(app: Path, database: str) -> None:
    variables: dict[str, str] = {}
    for word, rest in instructions(app):
        if word == "ENV":
            variables |= dict(each.split("=", 1) for each in shlex.split(rest))
    del variables["PATH"]  # the image's
    ports = {"8000": str(free_port()), "8002": str(free_port())}  # the container's own, here among others
    variables = {name: ports.get(value, value) for name, value in variables.items()}
    last = dict(instructions(app))
    check = json.loads(last["HEALTHCHECK"].partition("CMD ")[2].replace("8000", ports["8000"]))
    command = json.loads(last["CMD"])
    with started(app, f"exec {shlex.join(command)}", database, variables) as line:
        line.until_answers(int(ports["8000"]))
        checked = subprocess.run([shutil.which("python3") or "python3", *check[1:]], capture_output=True, text=True)
        assert (check[0], checked.returncode) == ("python", 0), checked.stderr
        line.process.send_signal(getattr(signal, last["STOPSIGNAL"]))
        assert line.ends(60) == 0, line.log()
    checked = subprocess.run([shutil.which("python3") or "python3", *check[1:]], capture_output=True, text=True)
    assert checked.returncode != 0, "nobody answers any more"


# systemd -----------------------------------------------------------------------------------------


def of_unit(app: Path, name: str, what: str) -> str:
    found = re.search(rf"^{what}=(.*)$", (app / "systemd" / name).read_text("utf-8"), re.MULTILINE)
    assert found is not None
    return found[1].replace(f"{INSTALLED}/.venv/bin/circuit-script", COMMAND)


def test_the_service_says_that_it_is_ready_reloads_and_ends_in_time(app: Path, database: str) -> None:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="cs-") as place, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as init:
        init.bind(f"{place}/notify")
        init.settimeout(START)
        more = {
            "NOTIFY_SOCKET": f"{place}/notify",
            "WATCHDOG_USEC": str(int(of_unit(app, "shop.service", "WatchdogSec")) * 1_000_000),
            "CIRCUIT_GATEWAY__PORT": str(port),
            "CIRCUIT_DASHBOARD__ENABLED": "false",
        }
        with started(app, f"exec {of_unit(app, 'shop.service', 'ExecStart')}", database, more) as line:
            assert init.recv(100) == b"READY=1", line.log()
            assert answers(port, "/healthz") == 200
            reload = of_unit(app, "shop.service", "ExecReload").replace("$MAINPID", str(line.process.pid))
            subprocess.run(["sh", "-c", reload], check=True)
            until(lambda: "release.unchanged" in line.log(), "it has looked at its files again", START)
            line.process.send_signal(signal.SIGTERM)  # KillMode=mixed: to the first process alone
            assert line.ends(float(of_unit(app, "shop.service", "TimeoutStopSec"))) == 0, line.log()


def test_the_backup_of_the_night_is_written_and_old_ones_go(app: Path, database: str) -> None:
    with tempfile.TemporaryDirectory(prefix="cs-") as place:
        old, young = Path(place) / "old.backup", Path(place) / "young.backup"
        for path, days in ((old, 16), (young, 3)):
            path.touch()
            os.utime(path, (time.time() - days * 86_400,) * 2)
        for what in ("ExecStart", "ExecStartPost"):
            line = of_unit(app, "shop-backup.service", what)
            assert line.startswith("/"), "systemd asks for a whole path"
            with started(app, f"exec {line}", database, {"STATE_DIRECTORY": place}) as command:
                assert command.ends(START) == 0, command.log()
        names = sorted(path.name for path in Path(place).iterdir())
        assert len(names) == 2
        assert "young.backup" in names
        assert re.fullmatch(r"circuit-\w+-\w+\.backup", names[0])
