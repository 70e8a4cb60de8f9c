"""Notes what a run of pytest shows of an app, for `circuit-script test`: the part of the plugin that reports."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from circuit_script.config import load_settings
from circuit_script.errors import CircuitError
from circuit_script.testing.bulk import bulk_tests
from circuit_script.testing.session import TestSession
from circuit_script.wiring.lines import Lines

NAME = "circuit-report"
LINES = pytest.StashKey[Lines | None]()


def count_lines(config: pytest.Config, folder: Path) -> Lines | None:
    """Count the lines of the app that this process imports from now on; None for an app whose settings are wrong: who
    starts it hears of it."""
    if LINES not in config.stash:
        try:
            lines = config.stash[LINES] = Lines(load_settings(folder))
        except CircuitError:
            config.stash[LINES] = None
        else:
            lines.install()
    return config.stash[LINES]


class Reporting:
    """Writes what was seen into a folder, beside what other processes of the same run write there. Counts the lines
    that the app's children run, and those that the tests themselves run."""

    def __init__(self, config: pytest.Config, into: Path, folder: Path) -> None:
        self.folder = folder
        self._into = into
        self._bulk = bool(config.getoption("--circuit-bulk"))
        worker = getattr(config, "workerinput", None)  # of pytest-xdist
        self._is_worker = worker is not None
        self._only_leads = not self._is_worker and bool(getattr(config.option, "numprocesses", None))
        self._first = worker is None or worker["workerid"] == "gw0"
        self._seconds: dict[str, float] = {}
        self._interrupted = False
        self._told = False
        self.lines = count_lines(config, folder)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] = self._seconds.get(report.nodeid, 0.0) + report.duration

    def pytest_keyboard_interrupt(self) -> None:
        self._interrupted = True

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """An app that no test has asked for is reported, too: none of it has run."""
        if not self._is_worker:
            self._write("tests", {"seconds": self._seconds, "ended": int(exitstatus)})
        if self._told or self._interrupted or self._only_leads or not self._first or not session.testscollected:
            return
        try:
            app = TestSession(self.folder, self.lines)
        except CircuitError as error:
            return self._write("app", {"broken": str(error)})
        try:
            self.tell(app, failed=session.testsfailed > 0)
        finally:
            app.close()

    def tell(self, app: TestSession, *, failed: bool) -> None:
        """Write what was seen of this app. The bulk tests run now, unless a test has failed; their lines do not count,
        as nobody looks at what they do."""
        if self._interrupted or app.folder != self.folder:
            return
        self._told = True
        found: dict[str, Any] = {}
        if self.lines is not None:
            found = {"lines": self.lines.seen(), "functions": self.lines.of_handlers(app.handlers)}
            found["unmeasured"] = self.lines.unmeasured(app.handlers)
        if self._bulk and not failed:
            bulk = bulk_tests(app, unknown=self._first)
            found["bulk"] = {name: asdict(each) for name, each in bulk.items()}
        found["uses"] = {name: asdict(use) for name, use in app.uses.items()}
        self._write("app", found)

    def _write(self, kind: str, found: Mapping[str, Any]) -> None:
        (self._into / f"{kind}-{os.getpid()}.json").write_text(json.dumps(found), "utf-8")
