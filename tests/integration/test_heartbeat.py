"""The heart of a supervisor: who is ended as it does not answer any more, and when nothing goes out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from circuit_script.cli import heartbeat
from circuit_script.cli.heartbeat import Heart, fetch
from circuit_script.cli.init_system import InitSystem
from circuit_script.cli.role_process import RoleProcess
from circuit_script.config import Settings
from circuit_script.events.lanes import this_host
from circuit_script.settings_see import GuardianSettings
from tests.integration.test_guardian import answering, listening, nobody
from tests.road import Road, open_road


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as made:
        yield made


@contextlib.asynccontextmanager
async def sleeping(name: str, ready: str = "") -> AsyncIterator[RoleProcess]:
    process = await asyncio.create_subprocess_exec("sleep", "600")
    try:
        yield RoleProcess(name, process, ready)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def beating(settings: Settings, *roles: RoleProcess, stuck: float = 600.0) -> AsyncIterator[None]:
    by_name = {each.name: each for each in roles}
    task = asyncio.create_task(Heart(lambda: settings, lambda: by_name, look_every=0.02, stuck_after=stuck).run())
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def alive(road: Road, pid: int, seconds: int = 600) -> None:
    await road.run("DELETE FROM circuit.workers")
    await road.run(
        "INSERT INTO circuit.workers (id, host, pid, expires_at) "
        "VALUES (gen_random_uuid(), %s, %s, now() + make_interval(secs => %s))",
        this_host(), pid, seconds,
    )  # fmt: skip


def settings(url: str, outside: str = "") -> Settings:
    return Settings(database_url=url, guardian=GuardianSettings(heartbeat_url=outside, heartbeat="1s"))


async def until(holds: object) -> None:
    assert callable(holds)
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


async def test_a_gateway_and_a_worker_that_do_not_answer_any_more_are_ended(road: Road) -> None:
    async with (
        listening(answering(200)) as port,
        sleeping("gateway", f"http://127.0.0.1:{nobody()}") as deaf,
        sleeping("gateway", f"http://127.0.0.1:{port}") as gateway,
        sleeping("worker") as worker,
    ):
        await alive(road, worker.process.pid)
        async with beating(settings(road.url), deaf, worker, stuck=0.1):
            await asyncio.wait_for(deaf.process.wait(), 20)
        assert worker.process.returncode is None
        await alive(road, worker.process.pid, -5)
        async with beating(settings(road.url), gateway, worker, stuck=0.1):
            await asyncio.wait_for(worker.process.wait(), 20)
        assert gateway.process.returncode is None


async def test_a_dashboard_that_is_stuck_is_ended_and_no_heartbeat_waits_for_it(road: Road) -> None:
    requests: list[bytes] = []
    async with (
        listening(answering(200)) as port,
        listening(answering(200, requests)) as outside,
        sleeping("gateway", f"http://127.0.0.1:{port}") as gateway,
        sleeping("worker") as worker,
        sleeping("dashboard", f"http://127.0.0.1:{nobody()}") as stuck,
    ):
        await alive(road, worker.process.pid)
        async with beating(settings(road.url, f"http://127.0.0.1:{outside}/"), gateway, worker, stuck, stuck=0.1):
            await asyncio.wait_for(stuck.process.wait(), 20)
            await until(lambda: requests)
        assert (gateway.process.returncode, worker.process.returncode) == (None, None)


async def test_nobody_is_ended_for_a_database_that_is_away(
    road: Road, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "PATIENCE", 0.3)
    beats: list[bytes] = []
    said: list[str] = []

    def heard(words: str) -> bool:
        said.append(capsys.readouterr().err)
        return words in "".join(said)

    async with (
        listening(answering(200)) as port,
        listening(answering(200, beats)) as outside,
        sleeping("gateway", f"http://127.0.0.1:{port}") as gateway,
        sleeping("worker") as worker,
    ):
        await alive(road, worker.process.pid, -5)
        silent, url = socket.create_server(("127.0.0.1", 0)), f"http://127.0.0.1:{outside}/a-secret"
        away = f"postgresql://x@127.0.0.1:{silent.getsockname()[1]}/x"
        with silent:
            async with beating(settings(away, url), gateway, worker, stuck=0.01):
                await until(lambda: heard("no heartbeat goes out: the database does not answer"))
        assert (gateway.process.returncode, worker.process.returncode, beats) == (None, None, [])

        await alive(road, worker.process.pid)
        async with beating(settings(road.url, url), gateway, worker):
            await until(lambda: bool(beats))
        async with (
            listening(answering(301)) as gone,
            beating(settings(road.url, f"http://127.0.0.1:{gone}/a-secret"), gateway, worker),
        ):
            await until(lambda: heard("no heartbeat goes out: heartbeat_url answers 301"))
    assert "a-secret" not in "".join(said)


async def test_an_address_that_is_none_or_never_answers_costs_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "PATIENCE", 0.2)

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while not reader.at_eof():
                writer.write(b"x" * 5000)
                await writer.drain()
                await asyncio.sleep(0)
        writer.close()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with listening(endless) as one, listening(silent) as two:
        urls = [f"http://127.0.0.1:{one}", f"http://127.0.0.1:{two}", f"https://127.0.0.1:{two}", "", "http://",
                "http://[", "http://a:99999", "http://127.0.0.1:1/", "http://\u202e/", "http://x/\r\nHost: y",
                "http://x/\x00"]  # fmt: skip
        for url in urls:
            with pytest.raises((OSError, ValueError, TimeoutError)):
                await fetch(url)
    requests: list[bytes] = []
    async with listening(answering(204, requests)) as three:
        assert await fetch(f"http://me:secret@127.0.0.1:{three}?a=b") == 204
    assert requests[0].startswith(f"GET /?a=b HTTP/1.1\r\nHost: 127.0.0.1:{three}\r\n".encode())


@pytest.mark.parametrize("abstract", [True, False])
def test_the_init_system_is_told_and_its_socket_is_not_handed_on(
    abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"@circuit-{os.getpid()}" if abstract else str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as hears:
        hears.bind(f"\0{name[1:]}" if abstract else name)
        hears.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        monkeypatch.setenv("WATCHDOG_USEC", "30000000")
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        init = InitSystem()
        assert init.every == 10.0
        init.ready()
        init.alive()
        assert [hears.recv(50), hears.recv(50)] == [b"READY=1", b"WATCHDOG=1"]
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}.intersection(os.environ)
    init.stopping()  # nobody hears it any more
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    assert InitSystem().every is None, "without a socket nobody listens"
