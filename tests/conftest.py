"""Fixtures: a real PostgreSQL for the session, a fresh migrated database for each test.

`database`         URL of a fresh database with all migrations
`empty_database`   URL of a fresh database with nothing in it
`server`           the server behind them (`servers.Server`)
`app_folder`       a folder for an app, reachable by the embedded PostgreSQL; cleaned up with its server
`pooler`           whether the URL goes through PgBouncer (pass it to `open_pool`)
"""

from __future__ import annotations

import asyncio
import compileall
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

import circuit_script
from tests import servers, stories
from tests.servers import Server

# Tests are compiled once, not by each worker of each run; but what a test writes twice within a second must never be
# found compiled by a process that it starts.
sys.dont_write_bytecode = False
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
if "PYTEST_XDIST_WORKER" not in os.environ:  # so the package is compiled here, or each process that they start would
    compileall.compile_dir(Path(circuit_script.__file__).parent, quiet=1)

# A shell that puts us into the background lets us ignore Ctrl-C, and so would all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Hypothesis measures no time: it would measure the machine's. `make test-slow` tries many more examples.
settings.register_profile("usual", max_examples=40, deadline=None)
settings.register_profile("thorough", max_examples=500, deadline=None)
settings.load_profile("usual")

EVERY_SERVER = ("embedded", "debian_15", "pgbouncer")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is marked `every_server` once on each; the rest on the embedded one."""
    if "server" in metafunc.fixturenames and metafunc.definition.get_closest_marker("every_server"):
        metafunc.parametrize("server", EVERY_SERVER, indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: stories.rank(item.nodeid) if item.get_closest_marker("story") else len(stories.LONG))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return stories.Stories(config, log) if config.getoption("dist") == "loadscope" else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the figures that tests have taken; they are no limits."""
    for report in terminalreporter.stats.get("passed", []):
        for name, value in report.user_properties:
            if name == "figure":
                terminalreporter.write_line(f"figure: {value}")


@pytest.fixture
def app_folder() -> Iterator[Path]:
    # Not tmp_path: that is closed to the server's own user, and too long for a Unix socket.
    folder = _short_folder()
    yield folder
    asyncio.run(servers.remove(folder))


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Server:
    name = getattr(request, "param", "embedded")
    found: Server = request.getfixturevalue(f"{name}_server")
    return found


@pytest.fixture
def pooler(server: Server) -> bool:
    return server.through is not None


@pytest.fixture
def database(server: Server) -> Iterator[str]:
    name = server.create_database(servers.TEMPLATE)
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture
def empty_database(server: Server) -> Iterator[str]:
    name = server.create_database(None)
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture(scope="session")
def embedded_server() -> Iterator[Server]:
    if url := os.environ.get("CIRCUIT_TEST_DATABASE_URL"):
        server, folder = servers.foreign(url), None
    else:
        folder = _short_folder(servers.in_memory())
        server = servers.embedded(folder)
    yield server
    if folder is None:
        server.close()
    else:
        asyncio.run(servers.remove(folder))


@pytest.fixture(scope="session")
def debian_15_server() -> Iterator[Server]:
    if not servers.DEBIAN_15.is_dir():
        pytest.skip(f"PostgreSQL 15 is not installed: no {servers.DEBIAN_15}")
    folder = _short_folder(servers.in_memory())
    server = servers.debian(folder)
    yield server
    server.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def pgbouncer_server(embedded_server: Server) -> Iterator[Server]:
    if shutil.which("pgbouncer") is None:
        pytest.skip("PgBouncer is not installed")
    folder = _short_folder()
    server = servers.bounced(embedded_server, folder)
    yield server
    server.close()
    shutil.rmtree(folder, ignore_errors=True)


def _short_folder(place: str = "/tmp") -> Path:
    folder = Path(tempfile.mkdtemp(prefix="cs-", dir=place))
    folder.chmod(0o711)
    return folder
