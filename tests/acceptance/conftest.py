"""Fixtures: an app folder on the tests' own PostgreSQL, a vendor, a receiver of effects, a printed seed."""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Iterator

import pytest

from circuit_script.cli.demo.vendor import Vendor
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
