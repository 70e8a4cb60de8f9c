"""Tricks to get around limits and isolation, each in every mode in which it must fail: see tests/evasion/table.py."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from circuit_script.errors import IsolationUnavailable
from tests.evasion.judge import faults, lacking, lay_out, open_bench
from tests.evasion.table import TRICKS, Mode, Trick
from tests.integration.execution.conftest import Bench

pytestmark = pytest.mark.evasion

EACH = [(trick, mode) for mode in ("standard", "strict") for trick in TRICKS if mode in trick.modes]


class Benches:
    """One pool for each mode: what a trick leaves behind is the next one's trouble."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[Mode, Bench] = {}

    async def of(self, mode: Mode) -> Bench:
        if mode not in self._open:
            lay_out(folder := self._folder / mode)
            try:
                self._open[mode] = await open_bench(folder, mode)
            except IsolationUnavailable as error:
                pytest.skip(str(error))
        return self._open[mode]

    async def close(self) -> None:
        for bench in self._open.values():
            await bench.pool.stop()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def benches(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Benches]:
    made = Benches(tmp_path_factory.mktemp("evasion"))
    yield made
    await made.close()


def test_there_are_enough_of_them_and_each_has_a_name_of_its_own() -> None:
    assert len({trick.name for trick in TRICKS}) >= 80
    assert len({(trick.name, mode) for trick, mode in EACH}) == len(EACH)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("trick", "mode"), EACH, ids=[f"{trick.name}-{mode}" for trick, mode in EACH])
async def test_a_trick_gets_nobody_anywhere(benches: Benches, trick: Trick, mode: Mode) -> None:
    bench = await benches.of(mode)
    if missing := lacking(bench, trick, mode):
        pytest.skip(missing)
    assert await faults(bench, trick) == []
