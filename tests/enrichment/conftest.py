from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.enrichment.ground import Ground, standing
from tests.enrichment.sources import Sources


@pytest.fixture
def sources() -> Iterator[Sources]:
    with Sources() as listening:
        yield listening


@pytest.fixture
async def ground(database: str, sources: Sources, tmp_path: Path) -> AsyncIterator[Ground]:
    async with standing(database, sources, tmp_path) as made:
        yield made
