"""The pytest plugin: the fixture ``circuit``, and tests that are marked by ``@test``. It is light until a test asks for
the fixture, or somebody for a report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from circuit_script.testing import marks

if TYPE_CHECKING:
    from circuit_script.testing.circuit_test import CircuitTest
    from circuit_script.testing.reporting import Reporting
    from circuit_script.testing.session import TestSession


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("circuit-script")
    group.addoption("--circuit-folder", metavar="FOLDER", help="The app's folder (default: the one with circuit.toml).")
    group.addoption("--circuit-report", metavar="FOLDER", help="Where to write what the tests showed of the app.")
    group.addoption("--circuit-record", action="store_true", help="Record what models answer.")
    group.addoption("--circuit-bulk", action="store_true", help="Try each trigger on 200 records after the tests.")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Lines count from here on: a conftest.py may import the app."""
    known = early_config.known_args_namespace
    if known.circuit_report:
        from circuit_script.testing.reporting import count_lines

        count_lines(early_config, Path(known.circuit_folder or early_config.rootpath).resolve())


def pytest_configure(config: pytest.Config) -> None:
    if report := config.getoption("--circuit-report"):
        from circuit_script.testing.reporting import NAME, Reporting

        folder = Path(config.getoption("--circuit-folder") or config.rootpath).resolve()
        config.pluginmanager.register(Reporting(config, Path(report), folder), NAME)


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: pytest.Module | pytest.Class, name: str, obj: object) -> Any:
    """What ``@test`` marks, whatever its name; ``test`` itself, which its importer has, is none."""
    if obj is marks.test:
        return []
    if marks.is_marked(obj) and not isinstance(obj, type) and not collector.funcnamefilter(name):
        return list(collector._genfunctions(name, obj))  # as pytest's own hook does, by the name alone
    if marks.has_marked(obj) and not collector.classnamefilter(name):
        return pytest.Class.from_parent(collector, name=name, obj=obj)
    return None


@pytest.fixture(scope="session")
def circuit_sessions(request: pytest.FixtureRequest) -> Iterator[dict[Path, TestSession]]:
    """The apps under test, by folder; each is started when the first test asks for it."""
    sessions: dict[Path, TestSession] = {}
    yield sessions
    reporting = _reporting(request.config)
    for session in sessions.values():
        if reporting is not None:
            reporting.tell(session, failed=request.session.testsfailed > 0)
        session.close()


@pytest.fixture
def circuit(request: pytest.FixtureRequest, circuit_sessions: dict[Path, TestSession]) -> Iterator[CircuitTest]:
    """The platform for one test: `circuit_script.testing.CircuitTest`."""
    from circuit_script.errors import CircuitError  # loaded by the tests that need it only
    from circuit_script.testing.circuit_test import circuit_test
    from circuit_script.testing.recorded import Place
    from circuit_script.testing.session import TestSession

    folder = _app_folder(request)
    reporting = _reporting(request.config)
    lines = reporting.lines if reporting is not None and reporting.folder == folder else None
    try:
        if folder not in circuit_sessions:
            circuit_sessions[folder] = TestSession(folder, lines)
        place = Place(request.path.parent, bool(request.config.getoption("--circuit-record")))
        manager = circuit_test(circuit_sessions[folder], place)
        circuit = manager.__enter__()
    except CircuitError as error:
        pytest.fail(f"{error}\n  more: circuit-script explain {error.page}", pytrace=False)
    yield circuit
    manager.__exit__(None, None, None)


def _reporting(config: pytest.Config) -> Reporting | None:
    return config.pluginmanager.get_plugin("circuit-report")


def _app_folder(request: pytest.FixtureRequest) -> Path:
    given = request.config.getoption("--circuit-folder")
    if given:
        return Path(given).resolve()
    above = (each for each in request.path.parents if (each / "circuit.toml").exists())
    return next(above, request.config.rootpath)
