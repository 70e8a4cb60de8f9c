"""A stand-in for Sentry on a loopback port: it takes what the real SDK sends."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class StandIn:
    """Keeps the events that it is sent; while it is not ``free`` it answers nobody."""

    def __init__(self) -> None:
        self.port = 0
        self.events: list[dict[str, Any]] = []
        self.raw = b""
        self.free = threading.Event()
        self.free.set()

    @property
    def dsn(self) -> str:
        return f"http://public@127.0.0.1:{self.port}/1"

    def take(self, body: bytes) -> None:
        """An envelope: a head, and then each item's head and body in a line of its own."""
        self.free.wait(30)
        self.raw += body
        lines = body.split(b"\n")
        kinds = [json.loads(line)["type"] for line in lines[1::2] if line]
        items = zip(kinds, lines[2::2], strict=False)
        self.events += [json.loads(line) for kind, line in items if kind == "event"]


@contextmanager
def receiving() -> Iterator[StandIn]:
    """It listens meanwhile."""
    found = StandIn()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(found))
    server.daemon_threads = True
    server.block_on_close = False
    found.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield found
    finally:
        found.free.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(found: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.take(gzip.decompress(body) if self.headers["content-encoding"] == "gzip" else body)
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            """Nobody reads it."""

    return Handler
