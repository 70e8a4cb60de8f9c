"""Where replication is synchronous, a failover in the middle of a load loses nothing that was acknowledged."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.run import Result, run_all
from tests.faults.schedule import ONE, Fault, draw
from tests.faults.standby import Pair, a_pair
from tests.servers import DEBIAN_15

pytestmark = pytest.mark.slow


@pytest.fixture
def pair() -> Iterator[Pair]:
    if not DEBIAN_15.is_dir():
        pytest.skip(f"PostgreSQL 15 is not installed: no {DEBIAN_15}")
    with a_pair() as made:
        yield made


def test_a_standby_promoted_under_load_has_all_that_was_acknowledged(pair: Pair, app_folder: Path) -> None:
    seed = random.SystemRandom().randrange(10**6)
    schedule = replace(draw(seed, 0), stage=ONE, faults=(Fault(0.3, "database", "fail_over"),))
    results: list[Result] = []
    asyncio.run(run_all(pair, app_folder, [schedule], seed, results.append))
    (result,) = results
    assert result.good, f"seed {seed}: {result.stuck} {result.findings.lines()}\n" + "\n".join(result.timeline)
