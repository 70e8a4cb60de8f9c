"""A stand-in for a vendor on a loopback port, in a thread of its own: what each vendor's stand-in is made of.

It remembers what it heard and fails as it is told to. Whoever makes one writes `answer`.
"""

from __future__ import annotations

import json
import socket
import threading
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

How = Literal["429", "500", "drop_before", "drop_after", "401"]


@dataclass(frozen=True)
class Heard:
    """One request, as it came."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def form(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(self.body.decode(), keep_blank_values=True).items()}

    def one(self, name: str, default: str = "") -> str:
        return self.query.get(name, [default])[0]


@dataclass(frozen=True)
class Answer:
    """``body`` is JSON, or else bytes."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    kind: str = "application/json;charset=UTF-8"

    def raw(self) -> bytes:
        if self.body is None:
            return b""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


class Wrong(Exception):
    """What was asked is refused, with this answer."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        super().__init__(str(answer.body)[:300])


class VendorServer:
    """``requests`` are those that it heard, ``faults`` what becomes of the next ones."""

    def __init__(self) -> None:
        self.requests: list[Heard] = []
        self.faults: deque[How] = deque()
        self.lock = threading.RLock()
        vendor = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def serve(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length) if length else b""
                parts = urlsplit(self.path)
                headers = {name.lower(): value for name, value in self.headers.items()}
                query = parse_qs(parts.query, keep_blank_values=True)
                heard = Heard(self.command, parts.path, query, headers, body)
                answer = vendor.hear(heard)
                if answer is None:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                raw = answer.raw()
                self.send_response(answer.status)
                if raw:
                    self.send_header("content-type", answer.kind)
                self.send_header("content-length", str(len(raw)))
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = serve

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Any:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def fail_next(self, how: How, times: int = 1) -> None:
        self.faults.extend([how] * times)

    def hear(self, heard: Heard) -> Answer | None:
        """The answer; None cuts the connection."""
        with self.lock:
            self.requests.append(heard)
            fault = self.faults.popleft() if self.faults and self.may_fail(heard) else None
            if fault == "drop_before":
                return None
            try:
                answer = self.failing(fault) if fault in ("429", "500", "401") else None
                if answer is None:
                    answer = self.answer(heard)
            except Wrong as wrong:
                answer = wrong.answer
            return None if fault == "drop_after" else answer

    def may_fail(self, heard: Heard) -> bool:
        """Whether a fault that was asked for may befall this request."""
        return True

    def failing(self, how: str) -> Answer | None:
        """The vendor's own answer of that kind; None: the request goes on (and fails by itself)."""
        raise NotImplementedError

    def answer(self, heard: Heard) -> Answer:
        raise NotImplementedError
