"""The pytest plugin: the fixture ``circuit``. It is light until a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from circuit_script.testing.circuit_test import CircuitTest
    from circuit_script.testing.session import TestSession


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("circuit-script")
    group.addoption("--circuit-folder", metavar="FOLDER", help="The app's folder (default: the one with circuit.toml).")
    group.addoption("--circuit-report", metavar="FOLDER", help="Where to write how the tests used each handler.")


@pytest.fixture(scope="session")
def circuit_sessions(request: pytest.FixtureRequest) -> Iterator[dict[Path, TestSession]]:
    """The apps under test, by folder; each is started when the first test asks for it."""
    sessions: dict[Path, TestSession] = {}
    yield sessions
    report = request.config.getoption("--circuit-report")
    for session in sessions.values():
        if report:
            session.report(Path(report))
        session.close()


@pytest.fixture
def circuit(request: pytest.FixtureRequest, circuit_sessions: dict[Path, TestSession]) -> Iterator[CircuitTest]:
    """The platform for one test: `circuit_script.testing.CircuitTest`."""
    from circuit_script.errors import CircuitError  # loaded by the tests that need it only
    from circuit_script.testing.circuit_test import circuit_test
    from circuit_script.testing.session import TestSession

    folder = _app_folder(request)
    try:
        if folder not in circuit_sessions:
            circuit_sessions[folder] = TestSession(folder)
        manager = circuit_test(circuit_sessions[folder])
        circuit = manager.__enter__()
    except CircuitError as error:
        pytest.fail(f"{error}\n  more: circuit-script explain {error.page}", pytrace=False)
    yield circuit
    manager.__exit__(None, None, None)


def _app_folder(request: pytest.FixtureRequest) -> Path:
    given = request.config.getoption("--circuit-folder")
    if given:
        return Path(given).resolve()
    above = (each for each in request.path.parents if (each / "circuit.toml").exists())
    return next(above, request.config.rootpath)
