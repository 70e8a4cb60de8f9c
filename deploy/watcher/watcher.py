#!/usr/bin/env python3
"""Waits on another host for the heartbeats of `circuit-script serve`, and acts when they stay out.

    WATCHER_SECRET=… watcher.py --watch acme --silent 180 --do ./restart.sh

The app's circuit.toml then has [guardian] heartbeat_url = "https://watcher.example.com/SECRET/acme". The command of
``--do`` is run as `restart.sh acme down`, again every ``--again`` seconds but ``--most`` times at most, and as
`restart.sh acme back` once it is heard again. Needs nothing but Python 3.9; put a proxy with TLS before it.
"""

from __future__ import annotations

import argparse
import hmac
import json
import os
import shlex
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PATIENCE = 300.0  # seconds that a command has


class Watched:
    """One app: when it was last heard, and what was done since. Kept in a file, as this host may be restarted, too.

    Silence counts from our own start at the earliest, by a clock that nobody sets: who was not here has not heard, and
    must not restart what is well.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._file = folder / f"{name}.json"
        self.since = time.monotonic()
        self.heard, self.tries, self.tried = time.time(), 0, 0.0
        try:
            kept = json.loads(self._file.read_text())
            self.heard, self.tries, self.tried = float(kept["heard"]), int(kept["tries"]), float(kept["tried"])
        except (OSError, ValueError, KeyError, TypeError):
            pass

    def hear(self) -> None:
        self.since, self.heard = time.monotonic(), time.time()

    def keep(self) -> None:
        fresh = self._file.with_suffix(".new")
        try:
            fresh.write_text(json.dumps({"heard": self.heard, "tries": self.tries, "tried": self.tried}))
            fresh.replace(self._file)
        except OSError as error:  # a full disk is no reason to stop watching
            print(f"{fresh}: {error.strerror}", file=sys.stderr, flush=True)


class Watcher:
    def __init__(self, given: argparse.Namespace, secret: str) -> None:
        self.given, self.secret = given, secret
        self.apps = {name: Watched(name, given.state) for name in given.watch}
        self.turn = threading.Lock()

    def hear(self, path: str) -> bool:
        """Whether that is the address of one of ours; if so, it has been heard."""
        said, _, name = path.strip("/").partition("?")[0].rpartition("/")
        known = hmac.compare_digest(said.encode("utf-8", "replace"), self.secret.encode())
        if not known or name not in self.apps:
            return False
        with self.turn:
            self.apps[name].hear()
        return True

    def look(self) -> None:
        for app in self.apps.values():
            with self.turn:
                now = time.time()
                silent = time.monotonic() - app.since
                act = ""
                if silent <= self.given.silent:
                    act, app.tries = ("back" if app.tries else ""), 0
                elif app.tries < self.given.most and abs(now - app.tried) >= self.given.again:
                    act, app.tries, app.tried = "down", app.tries + 1, now
                app.keep()
            if act:
                self.act(app.name, act, silent)

    def act(self, name: str, what: str, silent: float) -> None:
        print(f"{name} is {what}: silent for {silent:.0f} s", file=sys.stderr, flush=True)
        try:
            subprocess.run([*shlex.split(self.given.do), name, what], timeout=PATIENCE, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)


def handler(watcher: Watcher) -> type[BaseHTTPRequestHandler]:
    class Hears(BaseHTTPRequestHandler):
        timeout = 5  # seconds: who dawdles is not waited for

        def do_GET(self) -> None:
            self.send_response(204 if watcher.hear(self.path) else 404)
            self.end_headers()

        do_POST = do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """The address has the secret."""

    return Hears


def main() -> None:
    parser = argparse.ArgumentParser(description="Acts when heartbeats stay out.")
    parser.add_argument("--watch", action="append", required=True, help="Name of an app; may be given again.")
    parser.add_argument("--do", required=True, help="Command that is run with the name, and 'down' or 'back'.")
    parser.add_argument("--silent", type=float, default=180.0, help="Seconds of silence.")
    parser.add_argument("--again", type=float, default=900.0, help="Seconds until the command is run again.")
    parser.add_argument("--most", type=int, default=3, help="How often it is run for one silence.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--state", type=Path, default=Path("."), help="A folder to remember in.")
    given = parser.parse_args()
    secret = os.environ.get("WATCHER_SECRET", "")
    if len(secret) < 16 or "/" in secret:
        parser.error("WATCHER_SECRET must have at least 16 characters, and no slash")
    if any(not name.replace("-", "").replace("_", "").isalnum() for name in given.watch):
        parser.error("names have letters, digits, - and _")
    watcher = Watcher(given, secret)
    server = ThreadingHTTPServer((given.host, given.port), handler(watcher))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"listening on {given.host}:{server.server_port}", file=sys.stderr, flush=True)
    while True:
        watcher.look()
        time.sleep(min(5.0, given.silent / 4))


if __name__ == "__main__":
    main()
