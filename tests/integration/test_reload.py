"""A release that changes while its worker runs: real children, a real database, events on the road."""

from __future__ import annotations

import asyncio
import gc
import os
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from circuit_script.config import Settings, WorkerSettings
from circuit_script.governor import Limits
from circuit_script.releases import content_hash
from circuit_script.wiring import Refused, Switched, Unchanged, Worker
from tests.road import Road, contact, eventually, open_road
from tests.workers import working

APP = """
import asyncio
from pathlib import Path
from circuit_script import CircuitDB, log, trigger

WORD = "first"
HERE = Path(__file__).parent


@trigger("Contact", ["afterInsert"])
async def greet(context):
    log.info(WORD)
    (HERE / f"begun-{WORD}").touch()
    while (HERE / f"hold-{WORD}").exists():
        await asyncio.sleep(0.01)
    await CircuitDB.insert("Greeting", [{"contactId": each["id"], "word": WORD} for each in context.new_records])
"""
WORDS = "SELECT data ->> 'contactId', data ->> 'word' FROM circuit.records WHERE object = 'Greeting' ORDER BY 1"


class Author:
    """The app's folder, a worker that runs it, and the road that leads there."""

    def __init__(self, folder: Path, road: Road, worker: Worker) -> None:
        self.folder = folder
        self.road = road
        self.worker = worker

    def save(self, source: str, name: str = "app.py") -> None:
        (self.folder / name).write_text(textwrap.dedent(source))

    def say(self, word: str) -> None:
        self.save(APP.replace('"first"', f'"{word}"'))

    async def comes(self, *names: str) -> None:
        await self.road.take_in(*map(contact, names))

    async def greeted(self, **expected: str) -> None:
        await self.road.until(WORDS, sorted(expected.items()))

    async def begun(self, word: str) -> None:
        await self.happens(lambda: (self.folder / f"begun-{word}").exists(), "the handler runs")

    async def happens(self, holds: Callable[[], bool], what: str) -> None:
        async def held() -> bool:
            return holds()

        await eventually(held, what)

    @property
    def zygotes(self) -> list[psutil.Process]:
        return [each for each in psutil.Process().children() if is_zygote(each)]


def is_zygote(process: psutil.Process) -> bool:
    """Each leads a session of its own; who forks them for tests does not."""
    try:
        return "circuit_script.execution.zygote.zygote" in process.cmdline() and os.getsid(process.pid) == process.pid
    except (psutil.NoSuchProcess, ProcessLookupError):
        return False


@asynccontextmanager
async def authoring(folder: Path, database: str, **worker: float) -> AsyncIterator[Author]:
    (folder / "app.py").write_text(APP)
    options = {"children": 2, "lease": 2.0, "backoff": 0.05, "drain": 10.0, **worker}
    settings = Settings(folder=folder, database_url=database, worker=WorkerSettings.model_validate(options))
    async with open_road(database) as road, working(settings, database) as running:
        yield Author(folder, road, running)


@pytest.fixture
async def author(tmp_path: Path, database: str) -> AsyncIterator[Author]:
    async with authoring(tmp_path, database) as made:
        yield made


async def test_the_next_event_is_handled_by_the_new_code(author: Author) -> None:
    await author.comes("c1")
    await author.greeted(c1="first")
    before = author.worker.live

    author.say("second")
    assert isinstance(await author.worker.reload(), Switched)
    await author.comes("c2")
    await author.greeted(c1="first", c2="second")

    after = author.worker.live
    assert after.release.id != before.release.id
    assert await author.road.rows("SELECT release FROM circuit.live") == [after.release.id]
    by_release = "SELECT release, message FROM circuit.circuit_logs ORDER BY release"
    await author.road.until(by_release, [(before.release.id, "first"), (after.release.id, "second")])
    executions = await author.road.rows("SELECT release FROM circuit.executions ORDER BY release")
    assert executions == [before.release.id, after.release.id]


async def test_what_runs_finishes_with_the_code_that_it_began_with(author: Author) -> None:
    (author.folder / "hold-first").touch()
    await author.comes("c1")
    await author.begun("first")
    old = author.worker.live.children.zygote_pid

    author.say("second")
    assert isinstance(await author.worker.reload(), Switched)
    await author.comes("c2")
    await author.greeted(c2="second")
    assert psutil.pid_exists(old), "the first one still runs"

    (author.folder / "hold-first").unlink()
    await author.greeted(c1="first", c2="second")
    await author.happens(lambda: len(author.zygotes) == 1, "the old children are gone")


async def test_what_an_old_release_does_not_finish_in_time_runs_again_in_the_new_one(
    tmp_path: Path, database: str
) -> None:
    async with authoring(tmp_path, database, drain=0.2) as author:
        (author.folder / "hold-first").touch()
        await author.comes("c1")
        await author.begun("first")
        author.say("second")
        assert isinstance(await author.worker.reload(), Switched)
        await author.greeted(c1="second")
        assert await author.road.rows("SELECT count(*) FROM circuit.queue") == [0]


async def test_an_app_that_does_not_import_changes_nothing(author: Author) -> None:
    before = author.worker.live
    author.save("import not_there_at_all")
    refused = await author.worker.reload()

    assert isinstance(refused, Refused)
    assert f"{author.folder}/app.py:1" in refused.error.detail
    assert author.worker.live is before
    assert await author.road.rows("SELECT release FROM circuit.live") == [before.release.id]
    await author.comes("c1")
    await author.greeted(c1="first")
    await author.happens(lambda: len(author.zygotes) == 1, "what was tried is gone")


async def test_a_folder_that_is_as_it_was_is_not_reloaded(author: Author) -> None:
    before = author.worker.live
    assert isinstance(await author.worker.reload(), Unchanged)
    assert author.worker.live is before


async def test_events_of_a_handler_that_is_gone_are_retired_once_they_come_up(author: Author) -> None:
    (author.folder / "hold-first").touch()
    await author.comes("c1", "c2", "c3")
    await author.begun("first")
    await author.road.take_in(contact("c1", "afterInsert", again=True))  # waits behind the first of its record

    author.save(APP.replace("async def greet", "async def welcome").replace('"first"', '"second"'))
    assert isinstance(await author.worker.reload(), Switched)
    (author.folder / "hold-first").unlink()
    await author.road.done()

    dead = "SELECT reason FROM circuit.outcomes WHERE status = 'dead'"
    assert await author.road.rows(dead) == ["the live release has no such handler"]
    await author.comes("c4")
    await author.road.until("SELECT data ->> 'word' FROM circuit.records WHERE data ->> 'contactId' = 'c4'", ["second"])


async def test_another_tier_counts_in_quotas_ceilings_and_budgets(author: Author) -> None:
    worker, declared = author.worker, Limits(wall_time=25)
    author.save('[tiers.own]\nllm_cost = { day = 2.5 }\nceilings = { wall_time = 10 }\n[tenants.acme]\ntier = "own"\n',
                "circuit.toml")  # fmt: skip
    await worker.reload()
    assert worker.quotas.tiers.tenants["acme"].name == "own"
    assert worker.governor.limits(declared, "acme").wall_time == 10
    assert worker.models.ceilings("acme", None).tenant_day == 2_500_000_000

    author.save('[tiers.own]\nceilings = { wall_tim = 10 }\n[tenants.acme]\ntier = "paid"\n', "circuit.toml")
    await worker.reload()
    assert worker.quotas.tiers.tenants["acme"].name == "own", "what cannot be read changes nothing"

    author.save('[tenants.acme]\ntier = "paid"\n', "circuit.toml")
    await worker.reload()
    assert worker.quotas.tiers.tenants["acme"].name == "paid"
    assert worker.governor.limits(declared, "acme").wall_time == 25
    assert worker.models.ceilings("acme", None).tenant_day != 2_500_000_000


async def test_those_who_ask_during_a_reload_share_the_next(author: Author) -> None:
    author.say("second")
    first = asyncio.create_task(author.worker.reload())
    await author.happens(lambda: len(author.zygotes) == 2, "it is under way")
    author.say("third")
    later = [asyncio.create_task(author.worker.reload()) for _ in range(10)]
    assert isinstance(await first, Switched)
    found = await asyncio.gather(*later)

    assert len({id(each) for each in found}) == 1
    assert author.worker.live.release.content_hash == content_hash(author.folder)
    assert await author.road.rows("SELECT count(*) <= 3 FROM circuit.releases") == [True]
    await author.comes("c1")
    await author.greeted(c1="third")


@pytest.mark.slow
async def test_a_release_whose_files_changed_and_whose_host_died_runs_again_after_a_reload(author: Author) -> None:
    author.say("second")
    psutil.Process(author.worker.live.children.zygote_pid).kill()
    await author.comes("c1")
    await author.happens(lambda: author.worker.live.children.zygote_pid == 0, "its host is gone")
    assert isinstance(await author.worker.reload(), Switched)
    await author.greeted(c1="second")


@pytest.mark.story
@pytest.mark.slow
async def test_fifty_reloads_leave_nothing_behind(author: Author) -> None:
    async def turn(number: int) -> None:
        author.say(f"word{number}")
        assert isinstance(await author.worker.reload(), Switched)
        await author.comes(f"c{number}")
        await author.road.done()

    for number in range(3):
        await turn(number)
    await author.happens(lambda: len(author.zygotes) == 1, "the children before are gone")
    before = held()
    for number in range(3, 53):
        await turn(number)
    await author.happens(lambda: len(author.zygotes) == 1, "the children before are gone")
    # A connection that the pool opened on the way, or a child that has just come, are two or three descriptors.
    await author.happens(lambda: held()[0] <= before[0] + 8, f"descriptors: {before[0]} before, {held()[0]} after")
    await author.happens(lambda: held()[1] <= before[1] + 4, f"tasks: {before[1]} before, {held()[1]} after")
    await author.road.until("SELECT count(*) FROM circuit.records WHERE object = 'Greeting'", [53])


def held() -> tuple[int, int]:
    """Descriptors and tasks of this process."""
    gc.collect()
    return len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())
