"""A bucket of which the server dies midway, or says that it has what it has not."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from circuit_script.backup import open_place
from circuit_script.errors import BackupRefused

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
SIZE = 100_000


class Faulty(ThreadingHTTPServer):
    """As much of S3 as one small file needs. Of what it gets, it loses ``loses`` bytes; of what it gives, it sends
    ``sends``, whatever it says."""

    daemon_threads = True
    loses = 0
    sends: int | None = None
    kept = b""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.removed: list[str] = []


class Asked(BaseHTTPRequestHandler):
    server: Faulty
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        self.server.kept = self.rfile.read(int(self.headers["content-length"]))[self.server.loses :]
        self._say()

    def do_DELETE(self) -> None:
        self.server.removed.append(self.path)
        self._say()

    def do_HEAD(self) -> None:
        self._say(len(self.server.kept))

    def do_GET(self) -> None:
        self._say(len(self.server.kept))
        self.wfile.write(self.server.kept[: self.server.sends])
        if self.server.sends is not None:
            self.close_connection = True

    def _say(self, length: int = 0) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.send_header("ETag", '"x"')
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    for name, value in {**CREDENTIALS, "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    with Faulty(("127.0.0.1", 0), Asked) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield made
        made.shutdown()
        thread.join(30)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    made = tmp_path / "copy"
    made.write_bytes(os.urandom(SIZE))
    return made


def address(server: Faulty) -> str:
    return f"http://127.0.0.1:{server.server_port}"


async def test_a_copy_of_which_bytes_were_lost_is_none(server: Faulty, copy: Path) -> None:
    place = open_place("s3://acme/copies", address(server))
    assert await place.put(copy, "a.backup") == "s3://acme/copies/a.backup"
    server.loses = 1
    with pytest.raises(BackupRefused, match="has 99,999 bytes there, and 100,000 were sent"):
        await place.put(copy, "a.backup")
    assert server.removed == ["/acme/copies/a.backup"], "it would count as one of those that are kept"


async def test_a_copy_of_which_the_end_does_not_come_leaves_no_file(server: Faulty, copy: Path, tmp_path: Path) -> None:
    place = open_place("s3://acme/copies", address(server))
    await place.put(copy, "a.backup")
    await place.fetch("a.backup", tmp_path / "whole")
    assert (tmp_path / "whole").read_bytes() == copy.read_bytes()
    server.sends = SIZE // 2
    with pytest.raises(BackupRefused):
        await place.fetch("a.backup", tmp_path / "half")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["copy", "whole"]
