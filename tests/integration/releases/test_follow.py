"""A worker follows what the database says is live: real children, a real database, events on the road."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from circuit_script.config import Settings, WorkerSettings
from circuit_script.errors import AppError, ReleaseRefused
from circuit_script.releases import archive, content_hash
from circuit_script.releases.archive import pack
from circuit_script.releases.moving import HostState, Move, go_live, hosts_of, moves, warm_up
from circuit_script.releases.store import NewRelease, ReleaseRow, put_release
from circuit_script.wiring import Unchanged, Worker, follow, live, open_bench, run_worker, tenants
from circuit_script.wiring.children import make_children
from circuit_script.wiring.environments import interpreter_of
from circuit_script.wiring.preparing import prepare
from tests.road import PATIENCE, Road, contact, eventually, open_road
from tests.workers import working

APP = """
import asyncio
from pathlib import Path
from circuit_script import CircuitDB, trigger

WORD = "first"
FLAGS = Path("FLAGS-HERE")


@trigger("Contact", ["afterInsert"])
async def greet(context):
    import later
    (FLAGS / f"begun-{WORD}").touch()
    while (FLAGS / f"hold-{WORD}").exists():
        await asyncio.sleep(0.01)
    await CircuitDB.insert("Greeting", [{"contactId": each["id"], "word": WORD} for each in context.new_records])
"""
WORDS = "SELECT data ->> 'contactId', data ->> 'word' FROM circuit.records WHERE object = 'Greeting' ORDER BY 1"
BY_RELEASE = "SELECT release FROM circuit.executions ORDER BY id"


class Team:
    """Who deploys, the road, and the flags by which handlers are held."""

    def __init__(self, place: Path, road: Road) -> None:
        self.place, self.road = place, road
        self.flags = place / "flags"
        self.flags.mkdir()
        self.flags.chmod(0o777)

    def write(self, word: str, folder: str = "folder", source: str = APP) -> Path:
        app = self.place / folder
        app.mkdir(exist_ok=True)
        text = textwrap.dedent(source).replace('"first"', f'"{word}"').replace("FLAGS-HERE", str(self.flags))
        (app / "app.py").write_text(text)
        (app / "later.py").write_text("imported = 'only when it runs'\n")
        return app

    async def put(self, word: str, *, source: str = APP, requirements: str = "", broken: str = "") -> ReleaseRow:
        """A release; ``broken`` are its files in the place of those that were looked at."""
        app = self.write(word, f"of-{word}", source)
        async with open_bench(Settings(folder=app)) as bench:
            handlers = bench.manifest.handlers
        if broken:
            (app / "app.py").write_text(broken)
        new = NewRelease(content_hash(app), pack(app), handlers, None, "anna", word, requirements, {})
        async with self.road.pool.connection() as connection:
            return await put_release(connection, new)

    async def warm(self, row: ReleaseRow) -> None:
        async with self.road.pool.connection() as connection:
            await warm_up(connection, row)

    async def hosts(self, row: ReleaseRow) -> list[HostState]:
        async with self.road.pool.connection() as connection:
            return await hosts_of(connection, row)

    async def becomes(self, row: ReleaseRow, state: str) -> HostState:
        """Every worker's state of a release, in the end."""
        found: list[HostState] = []

        async def told() -> bool:
            found[:] = await self.hosts(row)
            return bool(found) and all(each.state == state for each in found)

        await eventually(told, lambda: f"{state}: {found}")
        return found[0]

    async def move(self, row: ReleaseRow, kind: str = "deploy") -> Move:
        async with self.road.pool.connection() as connection:
            return await go_live(connection, row, kind=kind, by="anna")

    async def deploy(self, row: ReleaseRow) -> None:
        await self.warm(row)
        await self.becomes(row, "ready")
        await self.move(row)

    async def comes(self, *names: str) -> None:
        await self.road.take_in(*map(contact, names))

    async def greeted(self, **expected: str) -> None:
        await self.road.until(WORDS, sorted(expected.items()))

    async def begun(self, word: str) -> None:
        async def there() -> bool:
            return (self.flags / f"begun-{word}").exists()

        await eventually(there, f"{word} runs")

    async def runs(self, worker: Worker, row: ReleaseRow) -> None:
        async def there() -> bool:
            return worker.live.release.id == row.id

        await eventually(there, f"the worker runs {row.version}")

    def settings(self, database: str, **worker: float) -> Settings:
        options = {"children": 2, "lease": 2.0, "backoff": 0.05, "drain": 10.0, **worker}
        folder = self.write("first")
        return Settings(folder=folder, database_url=database, worker=WorkerSettings.model_validate(options))


@pytest.fixture
async def team(tmp_path: Path, database: str) -> AsyncIterator[Team]:
    tmp_path.chmod(0o755)
    async with open_road(database) as road:
        yield Team(tmp_path, road)


@pytest.fixture
async def worker(team: Team, database: str) -> AsyncIterator[Worker]:
    async with working(team.settings(database), database) as made:
        yield made


def zygotes() -> list[int]:
    """Each leads a session of its own; who forks them for tests does not."""
    found = []
    for each in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if "circuit_script.execution.zygote.zygote" in each.cmdline() and os.getsid(each.pid) == each.pid:
                found.append(each.pid)
    return found


async def test_a_worker_of_a_folder_has_a_release_ready_takes_it_and_goes_back(team: Team, worker: Worker) -> None:
    await team.comes("c1")
    await team.greeted(c1="first")
    own = worker.live.release.id
    second = await team.put("second")
    await team.warm(second)
    assert (await team.becomes(second, "ready")).detail == ""
    assert worker.live.release.id == own, "ready is not live"

    await team.move(second)
    await team.runs(worker, second)
    await team.comes("c2")
    await team.greeted(c1="first", c2="second")

    async with team.road.pool.connection() as connection:
        await go_live(connection, own, kind="rollback", by="anna")
    await team.comes("c3")
    await team.greeted(c1="first", c2="second", c3="first")
    assert await team.road.rows(BY_RELEASE) == [own, second.id, own]
    assert len(zygotes()) == 2, "both are ready"


async def test_what_runs_finishes_with_the_release_that_it_began_with(team: Team, worker: Worker) -> None:
    (team.flags / "hold-first").touch()
    await team.comes("c1")
    await team.begun("first")
    second = await team.put("second")
    await team.deploy(second)
    await team.comes("c2")
    await team.greeted(c2="second")
    (team.flags / "hold-first").unlink()
    await team.greeted(c1="first", c2="second")


async def test_at_most_two_stay_ready_beside_the_live_one(team: Team, worker: Worker) -> None:
    for word in ("second", "third", "fourth", "fifth"):
        await team.deploy(await team.put(word))
    last, next_ = await team.put("sixth"), await team.put("seventh")
    for row in (last, next_):
        await team.warm(row)
        await team.becomes(row, "ready")

    async def three() -> bool:
        return len(zygotes()) == 3

    await eventually(three, lambda: f"{len(zygotes())} zygotes")
    assert [each.state for each in await team.hosts(last)] == ["preparing"], "nobody says any more that it is ready"


async def test_a_release_that_was_not_ready_is_prepared_and_nothing_old_starts_meanwhile(
    team: Team, worker: Worker
) -> None:
    await team.comes("c1")
    await team.greeted(c1="first")
    slow = await team.put("slow", source="import time; time.sleep(0.7)\n" + APP)
    moved = await team.move(slow)
    for number in range(2, 12):
        await team.comes(f"c{number}")
    await team.greeted(c1="first", **{f"c{number}": "slow" for number in range(2, 12)})
    late = "SELECT count(*) FROM circuit.executions WHERE release <> %s AND started_at > %s"
    assert await team.road.rows(late, slow.id, moved.at) == [0]


async def test_one_that_cannot_be_prepared_is_told_with_file_and_line_and_what_runs_goes_on(
    team: Team, worker: Worker
) -> None:
    own = worker.live.release.id
    bad = await team.put("bad", broken="import asyncio\n\nimport not_there_at_all\n")
    await team.warm(bad)
    assert "app.py:3" in (await team.becomes(bad, "failed")).detail
    await team.comes("c1")
    await team.greeted(c1="first")
    assert worker.live.release.id == own
    assert len(zygotes()) == 1, "what was tried is gone"

    since = (await team.becomes(bad, "failed")).since
    await team.warm(bad)

    async def again() -> bool:
        (host,) = await team.hosts(bad)
        return host.state == "failed" and host.since > since

    await eventually(again, "it tries again when it is asked again")


async def test_one_that_declares_other_handlers_here_than_where_it_was_deployed_from_fails(
    team: Team, worker: Worker
) -> None:
    other = await team.put("other", broken=APP.replace("async def greet", "async def welcome"))
    await team.warm(other)
    assert "greet, welcome" in (await team.becomes(other, "failed")).detail.replace("app.", "")


async def test_files_that_are_not_what_they_were_are_not_run(team: Team, worker: Worker) -> None:
    row = await team.put("second")
    await team.road.run("UPDATE circuit.release_sources SET source = 'x' WHERE release = %s", row.id)
    await team.warm(row)
    assert "not what they were" in (await team.becomes(row, "failed")).detail


async def test_a_worker_that_starts_runs_what_is_live_whatever_its_folder_holds(team: Team, database: str) -> None:
    second = await team.put("second")
    await team.move(second)
    async with working(team.settings(database), database) as worker:
        assert worker.live.release.id == second.id
        await team.comes("c1")
        await team.greeted(c1="second")
        assert isinstance(await worker.reload(), Unchanged)
        await team.becomes(second, "ready")
    assert await team.road.rows("SELECT release FROM circuit.live") == [second.id]


async def test_a_worker_that_was_away_follows_when_it_is_back(team: Team, database: str) -> None:
    second, third = await team.put("second"), await team.put("third")
    await team.move(second)
    async with working(team.settings(database), database):
        await team.becomes(second, "ready")
    await team.move(third)
    async with working(team.settings(database), database) as worker:
        assert worker.live.release.id == third.id


async def test_the_folder_is_run_again_when_somebody_asks_for_it_and_others_follow(team: Team, database: str) -> None:
    second = await team.put("second")
    await team.move(second)
    async with working(team.settings(database), database) as other:
        await team.runs(other, second)
        ready: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()
        settings = team.settings(database)
        running = asyncio.create_task(run_worker(settings, database, ready.set_result, folder_by="anna"))
        worker = await asyncio.wait_for(ready, PATIENCE)
        async with team.road.pool.connection() as connection:
            last = (await moves(connection))[0]
        assert (last.kind, last.by, last.before) == ("folder", "anna", second.id)
        assert last.release == worker.live.release.id

        async def follows() -> bool:
            return other.live.release.id == last.release

        await eventually(follows, "the other follows")
        await team.comes("c1")
        await team.greeted(c1="first")
        worker.stop()
        await running


async def test_a_worker_whose_live_release_cannot_run_says_why(team: Team, database: str) -> None:
    await team.move(await team.put("bad", broken="1 +\n"))
    with pytest.raises(AppError, match=r"app\.py:1"):
        async with working(team.settings(database), database):
            pass
    await team.road.run("DELETE FROM circuit.release_sources")
    with pytest.raises(ReleaseRefused, match="were not kept"):
        async with working(team.settings(database), database):
            pass


async def test_a_worker_that_cannot_run_what_is_live_ends_where_another_can(team: Team, database: str) -> None:
    picky = APP.replace("\n\n@trigger", '\nassert not (FLAGS / "cannot").exists(), "not here"\n\n\n@trigger')
    second = await team.put("second", source=picky)
    settings = team.settings(database)
    async with working(settings, database) as one, working(settings, database) as two:
        await team.warm(second)
        await team.becomes(second, "ready")
        own = (one.live.children.zygote_pid, two.live.children.zygote_pid)
        (team.flags / "cannot").touch()
        psutil.Process(next(each for each in zygotes() if each not in own)).kill()
        await team.move(second)
        alive = "SELECT count(*) FROM circuit.workers WHERE expires_at > now()"
        await team.road.until(alive, [1])
        await team.comes(*(f"c{number}" for number in range(20)))
        await team.greeted(**{f"c{number}": "second" for number in range(20)})


async def test_dev_goes_on_with_its_folder_and_says_so(team: Team, database: str) -> None:
    second = await team.put("second")
    ready: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(run_worker(team.settings(database), database, ready.set_result, dev=True))
    worker = await asyncio.wait_for(ready, PATIENCE)
    await team.warm(second)
    assert "`dev` runs the files of its folder" in (await team.becomes(second, "failed")).detail
    worker.stop()
    await running


async def test_a_worker_whose_zygote_of_a_ready_release_died_has_it_ready_again(team: Team, worker: Worker) -> None:
    second = await team.put("second")
    await team.warm(second)
    await team.becomes(second, "ready")
    (ready,) = [each for each in zygotes() if each != worker.live.children.zygote_pid]
    psutil.Process(ready).kill()
    await team.move(second)
    await team.comes("c1")
    await team.greeted(c1="second")


async def test_a_move_while_the_database_was_away_is_followed_when_it_is_back(
    team: Team, worker: Worker, database: str
) -> None:
    second = await team.put("second")
    await team.warm(second)
    await team.becomes(second, "ready")
    await team.road.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid()"
    )
    await team.move(second)
    await team.runs(worker, second)
    await team.comes("c1")
    await team.greeted(c1="second")


@pytest.mark.usefixtures("packages")
async def test_a_release_runs_with_the_packages_that_it_pins(
    team: Team, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(team.place / "cache"))
    source = APP.replace("    import later\n", "    global WORD\n    import greeting\n    WORD = greeting.VERSION\n")
    for number, version in enumerate(("1.0", "2.0")):
        row = await team.put(f"with-{number}", source=source, requirements=f"greeting=={version}\n")
        await team.deploy(row)
        await team.comes(f"c{number}")
        await team.road.until(f"{WORDS} DESC LIMIT 1", [(f"c{number}", version)])

    missing = await team.put("missing", requirements="greeting==3.0\n")
    await team.warm(missing)
    assert "greeting==3.0" in (await team.becomes(missing, "failed")).detail


@pytest.mark.slow
@pytest.mark.usefixtures("packages")
async def test_a_worker_removes_what_no_release_needs_and_keeps_that_of_the_one_it_has_ready(
    team: Team, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(team.place / "cache"))
    monkeypatch.setattr(follow, "SWEEP", 0.2)
    unused = Path(await interpreter_of("greeting==2.0\n")).parents[1]
    row = await team.put("second", requirements="greeting==1.0\n")
    async with working(team.settings(database), database) as worker:
        await team.deploy(row)
        await team.runs(worker, row)
        used = Path(await interpreter_of("greeting==1.0\n")).parents[1]
        for each in (unused, used):
            os.utime(each / "made", (0, 0))

        async def gone() -> bool:
            return not unused.exists()

        await eventually(gone, "it is removed")
        assert (used / "made").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("packages")
async def test_an_environment_is_made_once_and_one_that_was_cut_short_is_made_again(tmp_path: Path) -> None:
    assert await interpreter_of("  \n") == ""
    with pytest.raises(AppError, match=r"within 0\.01 s"):
        await interpreter_of("greeting==1.0", tmp_path / "cache", 0.01)
    made = await asyncio.gather(*(interpreter_of("greeting==1.0", tmp_path / "cache") for _ in range(3)))
    assert len(set(made)) == 1
    before = Path(made[0]).lstat().st_mtime_ns
    assert await interpreter_of("greeting==1.0", tmp_path / "cache") == made[0]
    assert Path(made[0]).lstat().st_mtime_ns == before


async def test_tenants_of_schedules_that_could_not_be_told_are_told_again(
    team: Team, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow_tenants, failed = tenants.follow_tenants, []

    async def away_at_first(*arguments: Any) -> None:
        if not failed:
            failed.append(psycopg.OperationalError("the connection is lost"))
            raise failed[0]
        await follow_tenants(*arguments)

    monkeypatch.setattr(tenants, "follow_tenants", away_at_first)
    nightly = '\n\n@scheduled(cron="0 3 * * *", tenants="all")\nasync def nightly(context):\n    pass\n'
    second = await team.put(
        "second", source=APP.replace("CircuitDB, trigger", "CircuitDB, scheduled, trigger") + nightly
    )
    await team.deploy(second)
    await team.runs(worker, second)
    await team.road.until("SELECT count(*) FROM circuit.schedule_tenants", [1])
    assert failed


async def test_what_a_worker_has_ready_is_told_again_where_others_took_it_for_gone(
    team: Team, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "TELL_AGAIN", 0.2)
    second = await team.put("second")
    await team.deploy(second)
    await team.runs(worker, second)
    await team.road.run("DELETE FROM circuit.release_hosts")
    await team.becomes(second, "ready")


async def test_a_host_without_room_for_the_files_of_a_release_says_so(
    team: Team, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = await team.put("second")
    monkeypatch.setattr(tempfile, "tempdir", str(team.place / "not" / "there"))
    await team.warm(second)
    assert "cannot be unpacked here" in (await team.becomes(second, "failed")).detail
    monkeypatch.undo()
    await team.deploy(second)


async def test_the_files_of_a_folder_are_kept_before_it_is_live(
    team: Team, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = await team.put("second")
    await team.move(second)
    seen: list[int] = []

    def looking(folder: Path) -> bytes:
        with psycopg.connect(database) as connection:
            seen.extend(connection.execute("SELECT release FROM circuit.live").fetchone() or ())
        return pack(folder)

    monkeypatch.setattr(archive, "pack", looking)
    ready: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(run_worker(team.settings(database), database, ready.set_result, folder_by="anna"))
    worker = await asyncio.wait_for(ready, PATIENCE)
    assert seen == [second.id], "who follows could not fetch them yet"
    assert await team.road.rows("SELECT release FROM circuit.live") == [worker.live.release.id]
    worker.stop()
    await running


async def test_what_is_deployed_while_a_reload_ends_stays_live(
    team: Team, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = await team.put("second")
    await team.warm(second)
    await team.becomes(second, "ready")

    committed = live.Releases._go_live

    async def overtaken(*args: Any) -> live.Live | None:
        found = await committed(*args)
        await team.move(second)
        await team.runs(worker, second)
        return found

    monkeypatch.setattr(live.Releases, "_go_live", overtaken)  # the moment after its commit has no other handle
    team.write("third")
    assert isinstance(await worker.reload(), Unchanged)
    assert worker.live.release.id == second.id


async def test_a_release_that_went_live_while_it_was_prepared_again_is_there_once(team: Team, worker: Worker) -> None:
    second = await team.put("second")
    await team.deploy(second)
    await team.runs(worker, second)
    again = await prepare(
        second.id,
        team.road.pool,
        lambda folder, python: make_children(worker.settings, folder, python=python),
        lambda handlers: None,
    )
    assert len(zygotes()) == 3
    worker.releases.add(again)

    async def two() -> bool:
        return len(zygotes()) == 2

    await eventually(two, lambda: f"{len(zygotes())} zygotes")
    await team.comes("c1")
    await team.greeted(c1="second")
