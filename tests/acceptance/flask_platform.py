"""A Flask app as its users run it: under ``serve``, and under gunicorn beside it."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.acceptance.platform import END, START, Platform, answers, environment, family, free_port, kill, running
from tests.servers import TEMPLATE, Server, until

CONFIG = """
{top}
[gateway]
port = {port}

[worker]
lease = 1

[web]
app = "app:app"
{more}
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. Header names are lower-case; of several with one name, the last."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    port: int,
    method: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    patience: float = 60,
) -> Answer:
    """One request; a body that is not bytes is sent as JSON."""
    sent = dict(headers or {})
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        sent.setdefault("content-type", "application/json")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patience)
    try:
        connection.request(method, path, body, sent)
        answer = connection.getresponse()
        named = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, named, answer.read())
    finally:
        connection.close()


@contextlib.contextmanager
def folder_of(files: Mapping[str, str], **settings: str) -> Iterator[tuple[Path, int]]:
    """An app's folder with these files, and the port that its gateway will have."""
    with tempfile.TemporaryDirectory(prefix="cs-", dir="/tmp") as parent:
        Path(parent).chmod(0o711)  # the embedded server's user walks through it
        folder, port = Path(parent) / "app", free_port()
        for name, text in {"circuit.toml": config_of(port, **settings), **files}.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        yield folder, port


def config_of(port: int, top: str = "", more: str = "") -> str:
    return CONFIG.format(top=top, port=port, more=more)


@contextlib.contextmanager
def flask_served(
    server: Server, files: Mapping[str, str], arguments: Sequence[str] = (), **settings: str
) -> Iterator[Platform]:
    """``serve`` with these files, on a fresh database."""
    database = server.create_database(TEMPLATE)
    try:
        with folder_of(files, **settings) as (folder, port):
            with running(Platform(folder, port, server.url(database), arguments)) as platform:
                yield platform
    finally:
        server.drop_database(database)


@dataclass
class Gunicorn:
    """gunicorn with the app in ``folder``, in a process of its own."""

    folder: Path
    arguments: Sequence[str] = ()
    ready: str = "/plain"  # a path that answers, whatever it says
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> Gunicorn:
        with self.log_file.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{self.port}", *self.arguments, "app:app"],
                cwd=self.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(None),
            )
        until(self._ready, "gunicorn answers", START)
        return self

    def _ready(self) -> bool:
        assert self.process.poll() is None, f"gunicorn ended with {self.process.returncode}:\n{self.log()}"
        return answers(self.port, self.ready) != 0

    @property
    def log_file(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.gunicorn{self.port}.log")

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def workers(self) -> list[int]:
        """The processes that serve requests."""
        return sorted(each.pid for each in psutil.Process(self.process.pid).children())

    def end(self) -> None:
        everyone = family(self.process.pid)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(END)
        kill(everyone)


@contextlib.contextmanager
def gunicorn(folder: Path, *arguments: str, ready: str = "/plain") -> Iterator[Gunicorn]:
    server = Gunicorn(folder, arguments, ready)
    try:
        yield server.start()
    finally:
        server.end()
