"""A process that hosts handlers and does not come to do so: nothing is left of it once its start has failed."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from circuit_script.errors import AppError
from circuit_script.execution.host.pool import Pool
from tests.integration.execution.conftest import PoolOf, alive, descriptors, until

SLOW = 'open("pid", "w").write(str(os.getpid())); time.sleep(60)'


async def fails(pool: Pool, folder: Path) -> None:
    with pytest.raises(AppError, match=r"app\.py:1"):
        await pool.start()


async def takes_too_long(pool: Pool, folder: Path) -> None:
    starting = asyncio.create_task(pool.start())
    await until(lambda: (folder / "pid").exists() and (folder / "pid").read_text())
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not alive(int((folder / "pid").read_text()))


@pytest.mark.parametrize(("source", "start"), [("1 / 0", fails), (f"import os, time\n{SLOW}", takes_too_long)])
async def test_a_start_that_fails_or_is_cancelled_leaves_no_process_and_no_descriptor(
    tmp_path: Path, source: str, start: Callable[[Pool, Path], Awaitable[None]]
) -> None:
    (tmp_path / "app.py").write_text(f"{source}\n")
    opened = []
    for _ in range(2):  # tests' own zygotes open one of theirs at first
        await start(Pool(app_folder=tmp_path, app="app", size=1, on_change=lambda: None), tmp_path)
        opened.append(descriptors())
        (tmp_path / "pid").unlink(missing_ok=True)
    assert opened[0] == opened[1], "the loop may end before it hears of the death"


async def test_a_host_without_a_descriptor_for_it_leaves_none_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "app.py").write_text("")
    born: list[int] = []

    def no_room(pid: int, flags: int = 0) -> int:
        born.append(pid)
        raise OSError(errno.EMFILE, "Too many open files")

    before = descriptors()
    with monkeypatch.context() as full:
        full.setattr(os, "pidfd_open", no_room)
        with pytest.raises(AppError, match="Too many open files"):
            await Pool(app_folder=tmp_path, app="app", size=1, on_change=lambda: None).start()
    assert descriptors() == before
    assert not alive(born[0])


async def test_a_pool_that_stops_while_another_host_starts_ends_that_too(pool_of: PoolOf, tmp_path: Path) -> None:
    before = descriptors()
    bench = await pool_of(f"if os.path.exists('slow'):\n    {SLOW}\n", size=1)
    (tmp_path / "slow").touch()
    os.kill(bench.pool.zygote_pid, signal.SIGKILL)
    await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    await bench.pool.stop()
    assert not alive(int((tmp_path / "pid").read_text()))
    assert descriptors() == before
