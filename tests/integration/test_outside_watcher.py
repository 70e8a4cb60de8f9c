"""The watcher of another host, as `deploy/watcher` has it: run as it is, told and not told."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import until

WATCHER = Path(__file__).parents[2] / "deploy" / "watcher" / "watcher.py"
SECRET = "a-secret-of-enough-letters"


class Watching:
    def __init__(self, folder: Path) -> None:
        self.acts = folder / "acts"
        (folder / "act.sh").write_text(f'#!/bin/sh\necho "$1 $2" >> {self.acts}\nexit 3\n')
        (folder / "act.sh").chmod(0o755)
        self.folder = folder

    def start(self, silent: str = "0.4") -> None:
        command = [sys.executable, str(WATCHER), "--watch", "acme", "--silent", silent, "--again", "0.1", "--most", "2",
                   "--do", str(self.folder / "act.sh"), "--port", "0", "--state", str(self.folder)]  # fmt: skip
        self.process = subprocess.Popen(
            command, env={**os.environ, "WATCHER_SECRET": SECRET}, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        self.port = int(self.process.stderr.readline().rpartition(":")[2])

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()

    def beat(self, path: str, method: str = "GET") -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request(method, path)
            return connection.getresponse().status
        finally:
            connection.close()

    def done(self) -> list[str]:
        return self.acts.read_text().splitlines() if self.acts.exists() else []


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watching]:
    made = Watching(tmp_path)
    made.start()
    yield made
    made.stop()


def test_it_acts_when_heartbeats_stay_out_and_says_when_they_are_back(watching: Watching) -> None:
    until(lambda: len(watching.done()) == 2, "it acted as often as it may, though the command fails")
    wrong = [
        f"/{SECRET}/other",
        f"/{SECRET}x/acme",
        "/acme",
        "/",
        f"/{SECRET}",
        f"/{SECRET}/acme/",
        "//acme",
        "/%00/acme",
    ]
    assert {path: watching.beat(path) for path in wrong} == dict.fromkeys(wrong, 404) | {f"/{SECRET}/acme/": 204}
    until(lambda: watching.beat(f"/{SECRET}/acme?x=1", "POST") == 204 and watching.done()[2:3] == ["acme back"], "back")
    assert watching.done()[:2] == ["acme down", "acme down"]


def test_it_remembers_through_its_own_restart_what_it_did_and_blames_nobody_for_its_own_absence(
    watching: Watching,
) -> None:
    def start_again(kept: str) -> None:
        watching.stop()
        kept_in.write_text(kept)
        watching.acts.unlink(missing_ok=True)
        watching.start(silent="2")

    kept_in, long_ago = watching.folder / "acme.json", time.time() - 500
    start_again(f'{{"heard": {long_ago}, "tries": 0, "tried": 0}}')
    assert watching.beat(f"/{SECRET}/acme") == 204
    until(lambda: json.loads(kept_in.read_text())["heard"] > long_ago, "it has looked, and is content")
    assert watching.done() == []
    until(lambda: watching.done()[:1] == ["acme down"], "and then it heard nothing")

    start_again(f'{{"heard": {long_ago}, "tries": 2, "tried": {long_ago}}}')
    until(lambda: watching.beat(f"/{SECRET}/acme") == 204 and watching.done() != [], "it knew that it had acted")
    assert watching.done() == ["acme back"]
    start_again("not what it writes")
    assert watching.beat(f"/{SECRET}/acme") == 204


def test_a_disk_that_is_full_does_not_stop_it(watching: Watching) -> None:
    watching.stop()
    (watching.folder / "acme.new").mkdir()  # what cannot be written
    watching.acts.unlink(missing_ok=True)
    watching.start()
    until(lambda: len(watching.done()) == 2, "it acts all the same")


@pytest.mark.parametrize(("secret", "name"), [("short", "acme"), ("a/slash-is-in-this-one", "acme"), (SECRET, "../x")])
def test_it_refuses_what_would_be_unsafe(secret: str, name: str, tmp_path: Path) -> None:
    command = [sys.executable, str(WATCHER), "--watch", name, "--do", "true", "--state", str(tmp_path)]
    ran = subprocess.run(command, env={**os.environ, "WATCHER_SECRET": secret}, capture_output=True, text=True)
    assert ran.returncode == 2
    assert "error:" in ran.stderr
