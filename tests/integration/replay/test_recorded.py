"""Replays for real through a recorded release: real children of two releases side by side."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from circuit_script.clock import now
from circuit_script.config import Settings, load_settings
from circuit_script.errors import IsolationUnavailable
from circuit_script.events.replay import replays
from circuit_script.events.replay.choosing import Choice, Filter, recorded_routes
from circuit_script.events.replay.replays import Replay
from circuit_script.tenants.accounts import TenantMap
from circuit_script.wiring import Switched, Worker
from tests.integration.replay.conftest import Replays
from tests.road import Road, contact, open_road
from tests.workers import working

pytestmark = pytest.mark.slow

APP = """
from pathlib import Path
from circuit_script import CircuitDB, enqueue, queueable, trigger

WORD = "first"
Path("GATE").read_text()

@trigger("Contact", ["afterInsert"])
async def greet(context):
    for record, event in zip(context.new_records, context.events):
        async with context.record(record):
            if WORD == "first" and record.get("odd"):
                raise ValueError("it is odd")
            said = {"who": record["id"], "word": WORD, "replay": event.get("replay")}
            await CircuitDB.insert("Greeting", said)
            if record.get("mail"):
                await enqueue(send_mail, who=record["id"])

@queueable()
async def send_mail(context, who):
    await CircuitDB.insert("Mail", {"who": who, "word": WORD})
"""
GONE = """
@trigger("Contact", ["afterUpdate"])
async def leave(context):
    await CircuitDB.insert("Greeting", [{"who": each["id"], "word": "left"} for each in context.new_records])
"""
PEEKS = """
from circuit_script import CircuitDB, trigger

@trigger("Contact", ["afterInsert"])
async def peek(context):
    try:
        found = open("HOME/circuit.toml").read() and "seen"
    except OSError:
        found = "hidden"
    await CircuitDB.insert("Greeting", [{"who": each["id"], "word": found} for each in context.new_records])
"""
GREETED = """
SELECT data ->> 'who', data ->> 'word' FROM circuit.records
WHERE object = 'Greeting' AND data ->> 'replay' = %s ORDER BY 1, 2
"""
GREETINGS = "SELECT data ->> 'who', data ->> 'word' FROM circuit.records WHERE object = 'Greeting' ORDER BY 1, 2"


class Author:
    """Saves the app, and replays what happened through one of its releases."""

    def __init__(self, folder: Path, road: Road, worker: Worker) -> None:
        self.folder = folder
        self.road = road
        self.worker = worker
        self.past = Replays(road)

    async def save(self, word: str) -> int:
        """The release that is live then."""
        source = APP.replace("GATE", str(self.folder / "gate")).replace('WORD = "first"', f'WORD = "{word}"')
        (self.folder / "app.py").write_text(source)
        assert isinstance(await self.worker.reload(), Switched)
        return self.worker.live.release.id

    async def begin(self, release: int | None, *, rate: int = 1000, **wanted: Any) -> Replay:
        async with self.road.pool.connection() as reading, self.road.pool.connection() as writing:
            if release is None:
                return await self.past.begin(rate=rate, **wanted)
            choice = Choice(Filter(**wanted), await recorded_routes(reading, release), TenantMap({}))
            return await replays.begin(reading, writing, choice, by="ann", rate=rate, release=release)

    async def greeted(self, replay: Replay) -> list[tuple[str, str]]:
        return await self.road.rows(GREETED, str(replay.id))

    async def done(self) -> None:
        await self.road.done()
        await self.road.until("SELECT count(*) FROM circuit.effects WHERE status = 'pending'", [0])
        await self.road.done()


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    (tmp_path / "gate").write_text("open")
    (tmp_path / "app.py").write_text(APP.replace("GATE", str(tmp_path / "gate")) + GONE)
    (tmp_path / "circuit.toml").write_text("[worker]\nchildren = 2\nlease = 2\nattempts = 2\nbackoff = 0.05\n")
    return load_settings(tmp_path)


@pytest.fixture
async def author(settings: Settings, database: str) -> AsyncIterator[Author]:
    async with working(settings, database) as worker, open_road(database) as road:
        yield Author(settings.folder, road, worker)


async def test_past_events_run_through_the_old_release_and_through_the_new_one(
    author: Author,
) -> None:
    road, first = author.road, author.worker.live.release.id
    await road.take_in(contact("a"), contact("b", odd=True))
    await road.until("SELECT count(*) FROM circuit.dead_letters", [1])
    second = await author.save("second")

    old = await author.past.over(await author.begin(first, trigger="greet"))
    await road.take_in(contact("c"))
    new = await author.past.over(await author.begin(None, trigger="greet", until=old.ended_at))
    await author.done()

    assert (old.status, old.release, new.release) == ("done", first, None)
    assert await author.past.became(new) == {"succeeded": 2}
    assert await author.greeted(old) == [("a", "first")]
    assert await author.greeted(new) == [("a", "second"), ("b", "second")]
    assert ("c", "second") in await road.rows(GREETINGS)
    assert await road.rows("SELECT release FROM circuit.live") == [second]
    runs = await road.rows(
        "SELECT DISTINCT x.release, o.status FROM circuit.outcomes o JOIN circuit.executions x ON x.id = o.execution "
        "JOIN circuit.replay_items i ON i.delivery = o.delivery AND i.replay = %s WHERE o.at > %s AND o.at < %s "
        "ORDER BY 1, 2",
        old.id,
        old.at,
        old.ended_at,
    )
    assert runs == [(first, "dead"), (first, "retry"), (first, "succeeded")]


async def test_a_trigger_that_only_the_old_release_has_runs_there(author: Author) -> None:
    first = author.worker.live.release.id
    await author.road.take_in(contact("a", "afterUpdate"))
    await author.done()
    await author.save("second")

    replay = await author.past.over(await author.begin(first, trigger="leave"))

    assert await author.past.became(replay) == {"succeeded": 1}
    assert await author.road.rows(GREETINGS) == [("a", "left"), ("a", "left")]


async def test_a_release_that_no_longer_imports_ends_its_replays_and_holds_nobody_up(author: Author) -> None:
    first = author.worker.live.release.id
    await author.road.take_in(contact("a"), contact("b"))
    await author.done()
    await author.save("second")
    (author.folder / "gate").unlink()  # what runs has read it

    replay = await author.past.over(await author.begin(first, trigger="greet"))
    await author.road.take_in(contact("c"))
    await author.done()

    assert replay.status == "failed"
    assert f"release {first} cannot be run" in str(replay.reason)
    assert "FileNotFoundError" in str(replay.reason)
    assert await author.past.became(replay) == {"its release cannot be run": 2}
    assert ("c", "second") in await author.road.rows(GREETINGS)
    assert await author.road.rows("SELECT count(*) FROM circuit.dead_letters") == [0]


async def test_what_is_cancelled_leaves_the_queue_also_while_its_release_is_made_ready(author: Author) -> None:
    first = author.worker.live.release.id
    await author.road.take_in(*(contact(f"c{n}") for n in range(20)))
    await author.done()
    await author.save("second")

    replay = await author.begin(first, trigger="greet", rate=5)
    await author.road.until("SELECT fed >= 5 FROM circuit.replays", [True])
    async with author.road.pool.connection() as connection:
        await replays.cancel(connection, str(replay.id))
    await author.road.done()

    assert (await author.past.look(replay)).status == "cancelled"
    assert len(await author.greeted(replay)) < 20


async def test_a_worker_that_starts_anew_goes_on_with_the_old_release(settings: Settings, database: str) -> None:
    async with open_road(database) as road:
        async with working(settings, database) as worker:
            author = Author(settings.folder, road, worker)
            first = worker.live.release.id
            await road.take_in(*(contact(f"c{n}") for n in range(30)))
            await author.done()
            await author.save("second")
            replay = await author.begin(first, trigger="greet", rate=10)
            await road.until("SELECT fed >= 10 FROM circuit.replays", [True])
        async with working(settings, database) as worker:
            await author.past.over(replay)

        assert await author.greeted(replay) == sorted((f"c{n}", "first") for n in range(30))


async def test_a_job_that_is_enqueued_anew_is_not_replayed_besides(author: Author) -> None:
    first = author.worker.live.release.id
    await author.road.take_in(contact("a", mail=True))
    await author.done()
    await author.road.until("SELECT count(*) FROM circuit.records WHERE object = 'Mail'", [1])
    await author.done()

    replay = await author.past.over(await author.begin(first, since=now() - timedelta(hours=1)))
    mails = "SELECT count(*) FROM circuit.records WHERE object = 'Mail'"
    await author.road.until(mails, [2])
    await author.done()
    assert await author.road.rows(mails) == [2]
    assert replay.chosen == 1

    by_itself = await author.past.over(await author.begin(first, trigger="send_mail"))
    assert by_itself.chosen == 2  # both that were enqueued
    assert await author.road.rows(mails) == [4]


async def test_of_several_old_releases_each_gets_its_turn(author: Author) -> None:
    await author.road.take_in(contact("a"), contact("b"), contact("c"))
    await author.done()
    releases = [author.worker.live.release.id, await author.save("second"), await author.save("third")]
    await author.save("fourth")

    made = [
        await author.begin(release, trigger="greet", record=who) for release, who in zip(releases, "abc", strict=True)
    ]
    for replay in made:
        await author.past.over(replay)

    words = [word for replay in made for _, word in await author.greeted(replay)]
    assert words == ["first", "second", "third"]


@pytest.mark.parametrize("isolation", ["standard", "strict"])
async def test_an_old_release_sees_as_little_of_the_settings_as_the_live_one(
    settings: Settings, database: str, isolation: str
) -> None:
    with (settings.folder / "circuit.toml").open("a") as file:
        file.write(f'isolation = "{isolation}"\n')
    (settings.folder / "app.py").write_text(PEEKS.replace("HOME", str(settings.folder)))
    settings = load_settings(settings.folder)
    try:
        async with working(settings, database) as worker, open_road(database) as road:
            author = Author(settings.folder, road, worker)
            first = worker.live.release.id
            await road.take_in(contact("a"))
            await author.done()
            ((_, live),) = await road.rows(GREETINGS)
            await author.save("second")
            await author.past.over(await author.begin(first, trigger="peek"))
            assert await road.rows(GREETINGS) == [("a", live), ("a", live)]
            assert live == "hidden" or isolation == "standard"  # where nobody may mount
    except IsolationUnavailable as error:
        pytest.skip(str(error))
