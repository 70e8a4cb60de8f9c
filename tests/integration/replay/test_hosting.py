"""Recorded releases beside the live one: made ready when they are asked for, and closed when they are not any more."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from circuit_script.clock import uuid7
from circuit_script.config import load_settings
from circuit_script.errors import AppError, IsolationUnavailable
from circuit_script.events.run import Runner
from circuit_script.execution.hardening import hide_from_children
from circuit_script.execution.host.pool import Manifest
from circuit_script.execution.host.pool import Pool as Children
from circuit_script.execution.outcome import HandlerSpec, Work
from circuit_script.governor import Limits
from circuit_script.releases import content_hash, make_live
from circuit_script.releases.archive import keep_source
from circuit_script.wiring.children import make_recorded_children
from circuit_script.wiring.recorded import RecordedReleases
from tests.integration.execution.conftest import Recorder
from tests.road import SCORE, Road, happens


class FakeChildren:
    """What hosting needs of a pool: that it starts and stops. ``error`` is why it does not start."""

    def __init__(self, folder: Path, error: AppError | None) -> None:
        self.folder = folder
        self.error = error
        self.stopping = False
        self.stopped = False
        self.zygote_pid = 1
        self.broken: Exception | None = None
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def start(self) -> Manifest:
        if self.error is not None:
            raise self.error
        return Manifest((SCORE,), ())

    async def stop(self) -> None:
        self.stopping = True
        await self.may_end.wait()
        if self.broken is not None:
            raise self.broken
        self.stopped = True


class Hosting:
    """Releases of one road, hosted with children that are none."""

    def __init__(self, road: Road, keep: float) -> None:
        self.road = road
        self.made: list[FakeChildren] = []
        self.error: AppError | None = None
        self.failures: list[AppError] = []
        self.ready: list[int] = []
        self.recorded = RecordedReleases(database=road.pool, make_children=self._make, keep=keep)
        self.recorded.serve(lambda live: cast(Runner, live), lambda: None, self.ready.append)

    def _make(self, folder: Path, python: str) -> Children:
        assert python == "", "it pins no packages"
        self.made.append(FakeChildren(folder, self.failures.pop() if self.failures else self.error))
        return cast(Children, self.made[-1])

    async def release(self, folder: Path, word: str) -> int:
        (folder / "app.py").write_text(f"WORD = {word!r}\n")
        async with self.road.pool.connection() as connection:
            release = await make_live(connection, content_hash(folder), [SCORE])
            await keep_source(connection, release, folder)
        return release.id


async def test_one_is_ready_once_and_is_closed_with_its_files_when_it_is_not_used(road: Road, tmp_path: Path) -> None:
    hosting = Hosting(road, keep=0.02)
    first = await hosting.release(tmp_path, "first")
    assert hosting.recorded.find(first) is None

    await asyncio.gather(*(hosting.recorded.prepare(first) for _ in range(3)))
    host = hosting.recorded.find(first)
    assert host is not None
    assert [spec.release for spec in host.handlers.values()] == [first]
    (children,) = hosting.made
    assert hosting.ready == [first]
    assert (children.folder / "app.py").read_text() == "WORD = 'first'\n"

    await happens(lambda: children.stopped and not children.folder.exists(), "it is closed")
    assert hosting.recorded.find(first) is None
    await hosting.recorded.stop()


async def test_one_that_runs_something_stays_and_the_longest_unused_makes_way(road: Road, tmp_path: Path) -> None:
    hosting = Hosting(road, keep=60.0)
    one, two, three = [await hosting.release(tmp_path, word) for word in ("one", "two", "three")]
    hosts: list[Any] = []
    for release in (one, two):
        await hosting.recorded.prepare(release)
        hosts.append(hosting.recorded.find(release))
        hosts[-1].rows = 1

    await hosting.recorded.prepare(three)
    assert hosting.recorded.find(three) is None, "both run something"

    hosts[0].rows = hosts[1].rows = 0
    await hosting.recorded.prepare(three)
    assert hosting.recorded.find(three) is not None
    assert [each.stopped for each in hosting.made] == [True, False, False]
    await hosting.recorded.stop()
    assert all(each.stopped for each in hosting.made)


async def test_one_that_is_used_again_while_another_ends_does_not_end_with_it(road: Road, tmp_path: Path) -> None:
    hosting = Hosting(road, keep=60.0)
    one, two = [await hosting.release(tmp_path, word) for word in ("one", "two")]
    for release in (one, two):
        await hosting.recorded.prepare(release)
    first, second = hosting.made
    first.may_end.clear()
    hosting.recorded._keep = 0.0
    sweeping = asyncio.create_task(hosting.recorded._sweep())
    await happens(lambda: first.stopping, "it ends")
    host = hosting.recorded.find(two)
    assert host is not None
    host.rows = 1

    first.may_end.set()
    async with hosting.recorded._turn:
        assert first.stopped
        assert hosting.recorded.find(two) is host
    sweeping.cancel()
    await hosting.recorded.stop()
    assert second.stopped


async def test_one_that_does_not_end_as_it_should_keeps_no_other_from_ending(road: Road, tmp_path: Path) -> None:
    hosting = Hosting(road, keep=0.5)
    one, two = [await hosting.release(tmp_path, word) for word in ("one", "two")]
    await asyncio.gather(*map(hosting.recorded.prepare, (one, two)))

    hosting.made[0].broken = RuntimeError("it does not end")
    await happens(lambda: not any(each.folder.exists() for each in hosting.made), "they are closed")
    await hosting.recorded.stop()
    assert hosting.made[1].stopped


async def test_one_whose_process_is_gone_for_good_is_closed_with_what_waits_in_it(road: Road, tmp_path: Path) -> None:
    hosting = Hosting(road, keep=0.02)
    one = await hosting.release(tmp_path, "one")
    await hosting.recorded.prepare(one)
    host = hosting.recorded.find(one)
    assert host is not None
    host.rows = 1

    hosting.made[0].zygote_pid = 0
    await happens(lambda: hosting.made[0].stopped, "it is closed")
    assert hosting.recorded.find(one) is None
    await hosting.recorded.stop()


async def test_one_that_is_being_closed_when_the_worker_stops_is_closed(road: Road, tmp_path: Path) -> None:
    hosting = Hosting(road, keep=60.0)
    one, two, three = [await hosting.release(tmp_path, word) for word in ("one", "two", "three")]
    for release in (one, two):
        await hosting.recorded.prepare(release)
    hosting.made[0].may_end.clear()
    waits = asyncio.create_task(hosting.recorded.prepare(three))
    await happens(lambda: hosting.made[0].stopping, "it makes way")

    stopping = asyncio.create_task(hosting.recorded.stop())
    await happens(waits.done, "nobody waits for it any more")
    hosting.made[0].may_end.set()
    await stopping

    assert all(each.stopped and not each.folder.exists() for each in hosting.made)
    assert waits.cancelled()


async def test_an_import_that_somebody_ended_is_tried_again(road: Road, tmp_path: Path) -> None:
    hosting = Hosting(road, keep=60.0)
    first = await hosting.release(tmp_path, "first")
    hosting.failures = [AppError("importing 'app' ended its process with code -15.", cure="", page="import-failed")]

    await hosting.recorded.prepare(first)

    assert hosting.recorded.find(first) is not None
    assert [each.stopped for each in hosting.made] == [True, False]
    await hosting.recorded.stop()


async def test_one_whose_archive_is_broken_ends_its_replays(road: Road, tmp_path: Path) -> None:
    hosting = Hosting(road, keep=60.0)
    first = await hosting.release(tmp_path, "first")
    replay = "INSERT INTO circuit.replays (id, status, filter, by_whom, rate, release) "
    await road.run(f"{replay} VALUES (gen_random_uuid(), 'running', '{{}}', 'ann', 1, %s)", first)
    await road.run("UPDATE circuit.release_sources SET source = substring(source for 40)")

    await hosting.recorded.prepare(first)

    ((status, reason),) = await road.rows("SELECT status, reason FROM circuit.replays")
    assert status == "failed"
    assert "not what they were" in reason


@pytest.mark.parametrize("kept", [True, False])
async def test_one_that_cannot_run_is_not_hosted(road: Road, tmp_path: Path, kept: bool) -> None:
    hosting = Hosting(road, keep=60.0)
    first = await hosting.release(tmp_path, "first")
    replay = "INSERT INTO circuit.replays (id, status, filter, by_whom, rate, release) "
    await road.run(f"{replay} VALUES (gen_random_uuid(), 'running', '{{}}', 'ann', 1, %s)", first)
    hosting.error = AppError("app.py:1: it does not import.", cure="", page="import-failed")
    if not kept:
        await road.run("DELETE FROM circuit.release_sources")

    await hosting.recorded.prepare(first)

    assert hosting.recorded.find(first) is None
    why = "app.py:1: it does not import" if kept else f"The files of release {first} were not kept"
    ((status, reason),) = await road.rows("SELECT status, reason FROM circuit.replays")
    assert status == "failed"
    assert why in reason
    await hosting.recorded.stop()


PEEK = HandlerSpec("peek", (("Contact", "afterInsert"),))
PEEKS = """
from circuit_script import log, trigger

@trigger("Contact", ["afterInsert"])
async def peek(context):
    for name in ("circuit.toml", "app.py"):
        try:
            log.info(open("HOME/" + name).read(4) and "seen")
        except OSError:
            log.info("hidden")
"""


def strict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path, _python: str) -> Children:
    """The children of a release of the app in ``tmp_path``; where this machine has no strict isolation, skip."""
    children = make_recorded_children(load_settings(tmp_path), folder)
    begin = children.start

    async def start() -> Manifest:
        try:
            return await begin()
        except IsolationUnavailable as error:
            pytest.skip(str(error))

    monkeypatch.setattr(children, "start", start)
    return children


async def test_in_strict_isolation_one_sees_nothing_of_the_app_folder(
    road: Road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "app.py").write_text(PEEKS.replace("HOME", str(tmp_path)))
    (tmp_path / "circuit.toml").write_text('[worker]\nchildren = 1\nisolation = "strict"\n')
    async with road.pool.connection() as connection:
        release = await make_live(connection, content_hash(tmp_path), [PEEK])
        await keep_source(connection, release, tmp_path)
    make = partial(strict, tmp_path, monkeypatch)
    recorded = RecordedReleases(database=road.pool, make_children=make, keep=60.0)
    recorded.serve(lambda live: cast(Runner, live), lambda: None, lambda release: None)
    work = Work(uuid7(), "peek", "acme", "Contact", "afterInsert", [{"id": "a"}], [None], [{}], Limits(), time.time())
    broker = Recorder()
    hide_from_children()
    try:
        await recorded.prepare(release.id)
        host = recorded.find(release.id)
        assert host is not None
        await host.pool.run(work, cast(Any, broker))
    finally:
        await recorded.stop()

    assert broker.messages == ["hidden", "hidden"]
