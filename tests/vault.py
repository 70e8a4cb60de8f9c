"""A small Vault on loopback: the second version of the key-value engine, tokens and AppRoles. It holds state, and says
what Vault says, by its HTTP API (developer.hashicorp.com/vault/api-docs)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hvs.root-of-the-tests"
ROLE, SECRET = "role-1", "secret-of-the-role"


class StandIn(ThreadingHTTPServer):
    """``tokens`` open it; ``lasts`` are the seconds of a role's token; with ``fails`` it answers that status."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Asked)
        self.kept: dict[str, list[dict[str, Any]]] = {}
        self.tokens = {TOKEN}
        self.lasts = 3600
        self.logins = 0
        self.fails: int | None = None
        self.seen: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Asked(BaseHTTPRequestHandler):
    server: StandIn
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self._opened():
            kind, path = self._place()
            versions = self.server.kept.get(path)
            if not versions:
                self._say(404, {"errors": []})
            elif kind == "data":
                self._say(200, {"data": {"data": versions[-1], "metadata": {"version": len(versions)}}})
            else:
                about = {"current_version": len(versions), "updated_time": "2026-05-01T12:00:00.123456789Z"}
                self._say(200, {"data": about})

    def do_POST(self) -> None:
        said = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/v1/auth/approle/login":
            if (said["role_id"], said["secret_id"]) != (ROLE, SECRET):
                return self._say(400, {"errors": ["invalid role or secret ID"]})
            self.server.logins += 1
            token = f"hvs.of-role-{self.server.logins}"
            self.server.tokens.add(token)
            return self._say(200, {"auth": {"client_token": token, "lease_duration": self.server.lasts}})
        if self._opened():
            versions = self.server.kept.setdefault(self._place()[1], [])
            versions.append(said["data"])
            self._say(200, {"data": {"version": len(versions)}})

    def do_DELETE(self) -> None:
        if self._opened():
            self.server.kept.pop(self._place()[1], None)
            self._say(204, None)

    def do_LIST(self) -> None:
        if self._opened():
            folder = self._place()[1]
            below = [path.removeprefix(folder) for path in self.server.kept if path.startswith(folder)]
            keys = sorted({name + sign for each in below for name, sign, _ in [each.partition("/")]})
            self._say(200, {"data": {"keys": keys}}) if keys else self._say(404, {"errors": []})

    def _opened(self) -> bool:
        self.server.seen.append((self.command, self.path))
        if self.server.fails:
            self._say(self.server.fails, {"errors": ["it is sealed"]})
            return False
        if self.headers.get("x-vault-token") not in self.server.tokens:
            self._say(403, {"errors": ["permission denied"]})
            return False
        return True

    def _place(self) -> tuple[str, str]:
        _, _, _mount, kind, path = self.path.split("/", 4)
        return kind, path

    def _say(self, status: int, body: Any) -> None:
        text = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[StandIn]:
    """One that answers until the block ends."""
    with StandIn() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield made
        finally:
            made.shutdown()
            thread.join(30)
