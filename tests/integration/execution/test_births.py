"""Children that do not live to take a run: others are made ever later, and nobody waits for ever."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from circuit_script.execution.outcome import Failed, Succeeded
from tests.integration.execution.conftest import PoolOf, until

APP = """
@on_child_start
def start():
    open("started", "a").write("x")
    if os.path.exists("deadly"):
        os._exit(3)

@trigger("Contact", ["afterInsert"], concurrency=4)
async def shares(context):
    pass

@trigger("Contact", ["afterInsert"])
def good(context):
    pass
"""


@pytest.mark.parametrize("handler", ["good", "shares"])
async def test_children_that_die_as_they_start_are_told_and_nobody_waits_for_them(
    pool_of: PoolOf, tmp_path: Path, caplog: pytest.LogCaptureFixture, handler: str
) -> None:
    (tmp_path / "deadly").touch()
    bench = await pool_of(APP, size=1)
    for _ in range(2):
        outcome = await bench.run(handler, concurrency=4 if handler == "shares" else 1)
        assert isinstance(outcome, Failed)
        assert "exit code 3" in outcome.reason
        assert "@on_child_start" in outcome.reason
    assert len((tmp_path / "started").read_text()) < 30, "others are made ever later"
    assert any(record.levelno == logging.CRITICAL for record in caplog.records)
    (tmp_path / "deadly").unlink()
    await until(lambda: bench.pool.children)
    assert isinstance(await bench.run("good"), Succeeded)
