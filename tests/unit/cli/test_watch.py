"""What is saved while somebody looks is told, from the first word on."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from circuit_script.cli.dev.watch import changes

LONGEST = 20  # seconds until we no longer believe that a word comes


@pytest.mark.parametrize("name", ["app/prices.py", "circuit.toml"])
async def test_what_is_saved_at_the_moment_of_the_first_word_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "app").mkdir()
    async with aclosing(changes(tmp_path)) as words:
        assert await anext(words)
        (tmp_path / name).write_text("")  # before anything else of this loop runs
        told = await asyncio.wait_for(anext(words), LONGEST)
    assert told.settings if name == "circuit.toml" else told.app


async def test_what_is_saved_in_a_new_folder_at_the_moment_it_is_told_is_told_as_well(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    async with aclosing(changes(tmp_path)) as words:
        assert await anext(words)
        (tmp_path / "tests").mkdir()
        async with asyncio.timeout(LONGEST):
            while not (await anext(words)).settings:  # a word for the folder, and then that it is looked into
                pass
            (tmp_path / "tests" / "test_prices.py").write_text("")
            assert (await anext(words)).app
