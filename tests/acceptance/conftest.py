"""Fixtures: an app folder on the tests' own PostgreSQL, a vendor, a receiver of effects, a printed seed."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from circuit_script.cli.demo.vendor import Vendor
from tests import servers
from tests.acceptance.vendor import Receiver, make_vendor, receiving


@pytest.fixture
def chance() -> random.Random:
    """Random moments; ``CIRCUIT_TEST_SEED`` repeats those of a run that failed."""
    seed = int(os.environ.get("CIRCUIT_TEST_SEED") or secrets.randbits(32))
    print(f"CIRCUIT_TEST_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def vendor(chance: random.Random) -> Vendor:
    return make_vendor(chance.getrandbits(32))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def app(app_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of an app with tests, of which a test writes both; its servers end with it. DATABASE_URL points
    nowhere: the app's tests must not look at it."""
    folder = app_folder / "app"
    (folder / "tests").mkdir(parents=True)
    (folder / "circuit.toml").write_text("")
    (folder / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n"
    )
    monkeypatch.delenv("CIRCUIT_TEST_DATABASE_URL", raising=False)
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    yield folder
    for each in (folder / ".circuit" / "test", folder):
        if (each / ".circuit").exists():
            asyncio.run(servers.remove(each))
