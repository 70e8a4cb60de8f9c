"""The platform as an operator runs it: the real command in a process of its own, found, signalled and read.

A `Platform` is one folder with an app. `Load` is a vendor that sends signed deliveries over real HTTP and repeats
whatever was not acknowledged, so that what it says was acknowledged can be held against the database.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg

from circuit_script.db.embedded import EmbeddedPostgres
from tests.servers import TEMPLATE, Server, until

COMMAND = str(Path(sys.executable).with_name("circuit-script"))
START = 60.0
END = 45.0

CONFIG = """
{top}
[gateway]
port = {port}

[worker]
children = 2
{worker}

[sources.gohighlevel]
public_key = "{public_key}"
{more}
"""


def free_port() -> int:
    """A loopback port that nobody holds now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_app(
    folder: Path,
    triggers: str,
    *,
    public_key: str,
    top: str = "",
    worker: str = "lease = 1\nbackoff = 0.05",
    more: str = "",
) -> int:
    """An app as `init` makes it, with these triggers and settings; the port that its gateway will have.

    ``top`` and ``more`` are lines of circuit.toml before and after the sections that every test needs.
    """
    port = free_port()
    shutil.copytree(_made_by_init(), folder, dirs_exist_ok=True)
    config = CONFIG.format(top=top, port=port, worker=worker, public_key=public_key, more=more)
    (folder / "circuit.toml").write_text(config)
    (folder / "app" / "triggers.py").write_text(triggers)
    (folder / "app" / "endpoints.py").unlink()
    folder.chmod(0o755)
    return port


@functools.cache
def _made_by_init() -> Path:
    """What the real command makes; once for all the tests of a process."""
    parent = Path(tempfile.mkdtemp(prefix="cs-init-"))
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    ran = subprocess.run([COMMAND, "init", str(parent / "app")], capture_output=True, text=True, timeout=START)
    assert ran.returncode == 0, ran.stderr
    return parent / "app"


def environment(database: str | None, *, measured: bool = True) -> dict[str, str]:
    """Ours, without what would configure the platform, with the database's URL if it is not the embedded one.

    One that is not ``measured`` tells nothing to coverage. There is no dashboard: few tests want one, all would pay.
    """
    theirs = ("CIRCUIT_", "DATABASE_URL") if measured else ("CIRCUIT_", "DATABASE_URL", "COVERAGE_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    kept["CIRCUIT_DASHBOARD__ENABLED"] = "false"
    return kept if database is None else {**kept, "DATABASE_URL": database}


@dataclass
class Platform:
    """One ``serve`` in ``folder``; ``database`` None is the embedded PostgreSQL."""

    folder: Path
    port: int
    database: str | None = None
    arguments: Sequence[str] = ()
    measured: bool = False  # coverage makes it half as fast, and what is killed tells nothing
    more: dict[str, str] = field(default_factory=dict)  # of its environment
    process: subprocess.Popen[bytes] = field(init=False)
    url: str = field(init=False, default="")
    _said: int = field(init=False, default=0)
    _connection: psycopg.Connection[tuple[Any, ...]] | None = field(init=False, default=None)

    def start(self, *, wait: bool = True) -> Platform:
        """Start it; return when its gateway (or, for a worker alone, its release) is ready."""
        with self.log_file.open("ab") as output:
            self._said = output.tell()
            self.process = subprocess.Popen(
                [COMMAND, "serve", "--folder", str(self.folder), *self.arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(self.database, measured=self.measured) | self.more,
                start_new_session=True,  # a terminal's Ctrl-C reaches the whole group: `interrupt`
            )
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self) -> None:
        until(self._ready, "the platform is ready", START)
        self.url = self.database or asyncio.run(EmbeddedPostgres(self.folder).start())

    def _ready(self) -> bool:
        assert self.process.poll() is None, f"serve ended with {self.process.returncode}:\n{self.log()}"
        if "worker" in self.arguments:
            return bool(self.workers())
        return answers(self.port, "/readyz") == 200

    def workers(self) -> list[psutil.Process]:
        """A worker without a supervisor, once it has forked its children."""
        zygotes = self.find("zygote")
        return [self.supervisor] if any(zygote.children() for zygote in zygotes) else []

    @property
    def supervisor(self) -> psutil.Process:
        return psutil.Process(self.process.pid)

    @property
    def log_file(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.log")

    def log(self) -> str:
        """What the present run has said so far."""
        return self.log_file.read_bytes()[self._said :].decode(errors="replace")

    def find(self, role: str) -> list[psutil.Process]:
        """Our living processes of a role: supervisor, gateway, worker, zygote or child."""
        found = []
        for process in family(self.process.pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                if role_of(process) == role:
                    found.append(process)
        return found

    def one(self, role: str) -> psutil.Process:
        """The one process of a role; waits for it, since the role may just be starting again."""
        found: list[psutil.Process] = []

        def stands() -> bool:
            found[:] = self.find(role)
            return bool(found)

        until(stands, f"there is a {role}", START)
        return found[0]

    def signal(self, number: signal.Signals) -> None:
        """To the supervisor alone, as an init system does."""
        self.process.send_signal(number)

    def interrupt(self) -> None:
        """Ctrl-C: the terminal signals the whole group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def wait(self, seconds: float = END) -> int:
        """The exit code, once it has ended by itself."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"serve did not end within {seconds:g} s:\n{self.log()}") from None

    def stop(self) -> int:
        """End it as an operator does; the exit code."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait()

    def end(self) -> None:
        """After a test, whatever became of it: nothing of it may stay."""
        if self._connection is not None:
            self._connection.close()
        everyone = [*family(self.process.pid), *left_behind(self.folder)]
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(END)
        kill(everyone)
        if not left_behind(self.folder):
            return
        kill(left_behind(self.folder))
        until(lambda: not left_behind(self.folder), "nothing is left of the platform")

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Read its database, as the road does. Raises psycopg.OperationalError while it is away."""
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self.url, autocommit=True, prepare_threshold=None, connect_timeout=10)
        return self._connection.execute(statement.encode(), values).fetchall()

    def value(self, statement: str, *values: Any) -> Any:
        return self.rows(statement, *values)[0][0]

    def settled(self) -> bool:
        """Whether nothing is left to do: no event waits, no effect is on its way."""
        with contextlib.suppress(psycopg.OperationalError):
            return bool(
                self.value(
                    "SELECT NOT EXISTS (SELECT FROM circuit.queue) AND "
                    "NOT EXISTS (SELECT FROM circuit.effects WHERE status = 'pending')"
                )
            )
        return False

    def wait_settled(self, seconds: float = 60.0) -> None:
        try:
            until(self.settled, "the queue is empty", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.account()}\n{self.log()[-4000:]}") from None

    def account(self) -> str:
        """What a stall would be explained by."""
        queue = self.rows("SELECT lane, id, attempts, not_before, record FROM circuit.queue ORDER BY id LIMIT 10")
        lanes = self.rows("SELECT owner, count(*), min(low_water) FROM circuit.lanes GROUP BY owner")
        workers = self.rows("SELECT id, pid, expires_at - now(), asleep FROM circuit.workers")
        processes = [(each.pid, role_of(each), each.status()) for each in family(self.process.pid)]
        return f"queue {queue}\nlanes {lanes}\nworkers {workers}\nprocesses {processes}"


def family(pid: int) -> list[psutil.Process]:
    """A process and everything below it that still lives."""
    try:
        head = psutil.Process(pid)
        return [each for each in (head, *head.children(recursive=True)) if lives(each)]
    except psutil.NoSuchProcess:
        return []


def lives(process: psutil.Process) -> bool:
    """Whether it runs, or at least is not dead and only waiting for its parent to notice."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def left_behind(folder: Path) -> list[psutil.Process]:
    """Living processes that work for the app in ``folder``, wherever they stand in the tree."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if any(str(folder) in each for each in process.cmdline()) and lives(process):
                found.append(process)
    return found


def kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def answers(port: int, path: str) -> int:
    """The status of a GET, 0 while nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def role_of(process: psutil.Process) -> str:
    """What a process of a platform is: gateway, worker, zygote, child, supervisor, or other."""
    command = process.cmdline()
    if "circuit_script.execution.zygote.zygote" in command:
        parent = process.parent()
        below = parent is not None and "circuit_script.execution.zygote.zygote" in parent.cmdline()
        return "child" if below else "zygote"
    if "--role" in command:
        return command[command.index("--role") + 1]
    return "supervisor" if {"serve", "dev"}.intersection(command) else "other"


@contextlib.contextmanager
def running(platform: Platform) -> Iterator[Platform]:
    """The platform, started; it and everything that it started is gone afterwards."""
    try:
        yield platform.start()
    finally:
        platform.end()


@contextlib.contextmanager
def three_hosts(place: Path, database: str, triggers: str, **settings: str) -> Iterator[list[Platform]]:
    """Two workers, and a gateway in front of them, as three hosts would have them, in folders of ``place``."""
    with contextlib.ExitStack() as stack:
        started = []
        for name, role in (("one", "worker"), ("two", "worker"), ("door", "gateway")):
            port = write_app(place / name, triggers, **settings)
            started.append(stack.enter_context(running(Platform(place / name, port, database, ["--role", role]))))
        yield started


@contextlib.contextmanager
def served(server: Server | None, triggers: str, *, measured: bool = False, **settings: str) -> Iterator[Platform]:
    """A platform for the tests of a module: on a fresh database of ``server``, or on a PostgreSQL of its own."""
    database = None if server is None else server.create_database(TEMPLATE)
    with tempfile.TemporaryDirectory(prefix="cs-", dir="/tmp") as parent:
        Path(parent).chmod(0o711)  # the embedded server's user walks through it
        folder = Path(parent) / "app"
        port = write_app(folder, triggers, **settings)
        url = server.url(database) if server is not None and database is not None else None
        with running(Platform(folder, port, url, measured=measured)) as platform:
            yield platform
    if server is not None and database is not None:
        server.drop_database(database)
