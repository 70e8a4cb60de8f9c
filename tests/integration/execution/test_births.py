"""Children that do not live to take a run: others are made ever later, and nobody waits for ever."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from circuit_script.errors import AppError
from circuit_script.execution.host import child_link, zygote_link
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
    pool_of: PoolOf, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, handler: str
) -> None:
    monkeypatch.setattr(child_link, "HANG_UP_PATIENCE", 10.0)  # a busy machine needs longer to end a process
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


@pytest.mark.parametrize("where", ["subprocess.Popen", "socket.socketpair"])
async def test_a_host_of_handlers_that_cannot_be_made_for_a_while_is_tried_again(
    pool_of: PoolOf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    bench = await pool_of(APP, size=1)
    module, name = where.split(".")
    made, refused = getattr(getattr(zygote_link, module), name), []

    def refuse(*arguments: Any, **options: Any) -> Any:
        if len(refused) < 2:
            refused.append(OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)))
            raise refused[-1]
        return made(*arguments, **options)

    monkeypatch.setattr(getattr(zygote_link, module), name, refuse)
    os.kill(bench.pool.zygote_pid, signal.SIGKILL)
    await until(lambda: len(refused) == 2)
    assert isinstance(await bench.run("good"), Succeeded)
    assert "temporarily unavailable" in caplog.text


async def test_a_host_of_handlers_that_fails_by_a_bug_of_ours_is_tried_again(
    pool_of: PoolOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = await pool_of(APP, size=1)
    made, refused = zygote_link.subprocess.Popen, []

    def refuse(*arguments: Any, **options: Any) -> Any:
        if not refused:
            refused.append(ValueError("embedded null byte"))
            raise refused[-1]
        return made(*arguments, **options)

    monkeypatch.setattr(zygote_link.subprocess, "Popen", refuse)
    os.kill(bench.pool.zygote_pid, signal.SIGKILL)
    await until(lambda: refused)
    assert isinstance(await bench.run("good"), Succeeded)


async def test_a_host_of_handlers_that_this_user_may_not_run_says_so_and_holds_nobody_up(
    pool_of: PoolOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zygote_link, "subprocess", subprocess)  # not what the tests start hosts by
    monkeypatch.setattr(zygote_link.sys, "executable", "/nowhere/python")
    with pytest.raises(AppError, match=r"cannot be started.*No such file"):
        await pool_of(APP, size=1)
