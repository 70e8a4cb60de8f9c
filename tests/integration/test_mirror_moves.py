"""Mirrored deliveries as workers claim and settle them, the report, the cutover and its watch: verbs as a person types
them, on a real database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import typer
from typer.testing import CliRunner, Result

from circuit_script.cli import cutover, mirror
from circuit_script.clock import uuid7
from circuit_script.config import load_settings
from circuit_script.erasure import Person, forget
from circuit_script.errors import ConfigError, MirrorRefused
from circuit_script.events import mirror_moves, mirrors
from circuit_script.events.ledger import Ledger
from circuit_script.events.maintenance import once
from circuit_script.events.mirror_moves import NEW, OLD
from circuit_script.events.mirrors import Difference, Judged, Mirrored, OldAnswer, State
from circuit_script.wiring.guardian import read_findings
from circuit_script.wiring.mirror_watch import MirrorWatch
from tests.road import SCORE, Road, contact, open_road

SAME = OldAnswer(200, "application/json", b'{"score": 78}', 12.0)
OFF = Difference("C1", "score", "78", "77", "score: old 78, ours 77")
LEASE = "INSERT INTO circuit.workers (id, host, pid, expires_at) VALUES (%s, 'here', 1, now() + interval '1 hour')"
OUTCOMES = """
INSERT INTO circuit.outcomes (delivery, ordinal, handler, execution, tenant, status)
SELECT d.id, 0, 1, gen_random_uuid(), 'acme', %s FROM circuit.deliveries d WHERE d.id = ANY(%s)
"""


class Side:
    """A database whose source ``test`` is mirrored."""

    def __init__(self, road: Road) -> None:
        self.road = road
        self.ledger = Ledger(road.connect)

    async def told(self, *records: str, answer: OldAnswer = SAME) -> list[UUID]:
        """The old service was given an event of each record; what is open of them, in their order."""
        rows = [contact(each).row() for each in records]
        await mirrors.keep(self.ledger, rows, [answer] * len(rows))
        return [row.id for row in rows]

    async def worker(self) -> UUID:
        id_ = uuid4()
        await self.road.run(LEASE, id_)
        return id_

    async def claim(self, worker: UUID, limit: int = 100) -> list[Mirrored]:
        async with self.road.pool.connection() as connection:
            return await mirrors.claim_mirrored(connection, worker, limit)

    async def settle(self, worker: UUID, *judged: Judged) -> int:
        async with self.road.pool.connection() as connection:
            return await mirrors.settle_mirrored(connection, worker, judged)

    async def compared(self, count: int, state: State = "same", release: int | None = None) -> None:
        """So many, each of a record of its own."""
        source = await self.road.rows("SELECT release FROM circuit.live")
        worker = await self.worker()
        await self.told(*(f"{state}-{n}-{uuid7()}" for n in range(count)))
        differences = (OFF,) if state == "different" else ()
        judged = [
            Judged(each.delivery, state, release or source[0], 5.0, "", differences)
            for each in await self.claim(worker, count)
        ]
        assert await self.settle(worker, *judged) == count

    async def move(self, to: Any, **more: Any) -> mirror_moves.MirrorState:
        async with self.road.pool.connection() as connection:
            return await mirror_moves.move(connection, "gohighlevel", to, by="ada", **more)

    async def state(self) -> mirror_moves.MirrorState:
        async with self.road.pool.connection() as connection:
            return (await mirror_moves.read_states(connection))["gohighlevel"]


@pytest.fixture
async def side(database: str) -> AsyncIterator[Side]:
    async with open_road(database) as road:
        await road.live(SCORE)
        made = Side(road)
        yield made
        await made.ledger.close()


async def test_a_delivery_is_claimed_with_its_events_and_settled_once(side: Side) -> None:
    first, second = await side.told("C1", "C2")
    worker, late = await side.worker(), await side.worker()
    one, two = await side.claim(worker)
    assert (one.delivery, two.delivery) == (first, second)
    assert (one.tenant, one.old_body, one.old_type, one.old_ms) == ("acme", SAME.body, SAME.content_type, 12.0)
    (event,) = one.events
    (stored,) = await side.road.rows("SELECT id FROM circuit.events WHERE delivery = %s", first)
    assert (event.id, event.ordinal, event.object, event.event, event.record) == (
        stored, 0, "Contact", "afterInsert", "C1",
    )  # fmt: skip
    assert event.order_hash == contact("C1").row().order_hashes[0]
    assert await side.claim(late) == []
    assert await side.settle(late, Judged(first, "different", 1, 1.0)) == 0, "another has it"
    judged = Judged(first, "same", 1, 3.0)
    assert await side.settle(worker, judged) == 1
    assert await side.settle(worker, judged) == 0


async def test_what_a_worker_has_taken_and_cannot_settle_is_anothers(side: Side) -> None:
    (first,) = await side.told("C1")
    dead, other = await side.worker(), await side.worker()
    assert len(await side.claim(dead)) == 1
    assert await side.claim(other) == []
    await side.road.run("UPDATE circuit.workers SET expires_at = now() WHERE id = %s", dead)
    assert [each.delivery for each in await side.claim(other)] == [first]
    assert await side.settle(dead, Judged(first, "same", 1, 1.0)) == 0


async def test_a_records_deliveries_are_compared_in_their_order_by_any_number_of_workers(side: Side) -> None:
    await side.told("C1")
    await side.told("C2")
    await side.told("C1")
    await side.told("C3")
    one, two = await side.worker(), await side.worker()
    (first,) = await side.claim(one, 1)
    assert first.events[0].record == "C1"
    assert [each.events[0].record for each in await side.claim(two)] == ["C2", "C3"]
    await side.settle(one, Judged(first.delivery, "same", 1, 1.0))
    assert [each.events[0].record for each in await side.claim(two)] == ["C1"]


async def test_what_the_old_service_did_not_take_is_silent_and_not_seen(side: Side) -> None:
    await side.told("C1", answer=OldAnswer(0, "", b"", 1.0))
    await side.told("C2", answer=OldAnswer(503, "", b"", 1.0))
    assert await side.claim(await side.worker()) == []
    assert await side.road.rows("SELECT why FROM circuit.mirrored ORDER BY delivery") == [
        "the old service did not answer", "the old service answered 503",
    ]  # fmt: skip
    assert await side.road.rows("SELECT count(*) FROM circuit.queue") == [0]


async def test_a_difference_is_kept_whatever_is_in_it_and_is_shown(side: Side) -> None:
    (first,) = await side.told("C1")
    worker = await side.worker()
    await side.claim(worker)
    odd = Difference("C\0\ud83d", "score", "x" * 10_000, "77", "score: old \0")
    await side.settle(worker, Judged(first, "different", 1, 1.0, "", (odd,) * 50))
    async with side.road.pool.connection() as connection:
        found = await mirrors.shown(connection, first)
        assert len(found.differences) == 20
        assert found.differences[0].said == "score: old \ufffd"
        assert len(found.differences[0].old) == 2048
        assert found.old_answer == '{"score": 78}'
        with pytest.raises(MirrorRefused, match="No old service was given"):
            await mirrors.shown(connection, uuid4())


async def test_after_seven_days_it_is_gone(side: Side) -> None:
    old, _ = await side.told("C1", "C2")
    week = "UPDATE circuit.mirrored SET delivery = circuit.uuid_floor(now() - interval '8 days') WHERE delivery = %s"
    await side.road.run(week, old)
    await once(side.road.pool, 30)
    assert await side.road.rows("SELECT count(*) FROM circuit.mirrored") == [1]


async def test_who_is_forgotten_is_forgotten_there_too(side: Side) -> None:
    answer = OldAnswer(200, "text/plain", b"anna@example.com scores 78", 1.0)
    first, second = await side.told("C1", "C2", answer=answer)
    worker = await side.worker()
    await side.claim(worker)
    said = Difference("C1", "email", "anna@example.com", "", "")
    await side.settle(worker, Judged(first, "different", 1, 1.0, "anna@example.com?", (said,)))
    async with side.road.pool.connection() as connection:
        blanked = (await forget(connection, Person("C1", "acme"), "eva")).blanked
        found = await mirrors.shown(connection, first)
        assert (blanked["mirrored"], found.old_answer, found.why, found.differences) == (1, "", "forgotten", ())
        assert (await mirrors.shown(connection, second)).old_answer == "anna@example.com scores 78"
        assert (await forget(connection, Person("C1", "acme"), "eva")).blanked.get("mirrored", 0) == 0


class Desk:
    """A folder whose app has a mirror, and the verbs in it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.say("[mirror.gohighlevel]\nurl = 'http://old.example.com'\ncompare = { score = 'Contact.score' }\n")

    def say(self, more: str) -> None:
        (self.folder / "circuit.toml").write_text(f"database_url = '{self.url}'\n{more}")

    def run(self, verb: str, *arguments: str, typed: str | None = None) -> Result:
        app = mirror.app
        if verb == cutover.NAME:
            app = typer.Typer()
            app.command()(cutover.run)
        return CliRunner().invoke(app, [*arguments, "--folder", str(self.folder)], input=typed)

    async def json(self, verb: str, *arguments: str) -> Any:
        result = await asyncio.to_thread(self.run, verb, *arguments, "--json")
        assert result.exit_code == 0, (result.output, result.exception)
        return json.loads(result.stdout)

    async def said(self, verb: str, *arguments: str) -> str:
        result = await asyncio.to_thread(self.run, verb, *arguments)
        assert result.exit_code == 0, (result.output, result.exception)
        return result.output

    async def refused(self, verb: str, *arguments: str) -> MirrorRefused:
        error = (await asyncio.to_thread(self.run, verb, *arguments)).exception
        assert isinstance(error, MirrorRefused), error
        return error


@pytest.fixture
async def desk(side: Side, tmp_path: Path, database: str) -> Desk:
    await side.road.run("UPDATE circuit.mirrored SET source = 'gohighlevel'")
    return Desk(tmp_path, database)


async def rename(side: Side) -> None:
    await side.road.run("UPDATE circuit.mirrored SET source = 'gohighlevel'")


async def test_a_cutover_is_refused_until_a_hundred_are_the_same_and_says_what_to_do(side: Side, desk: Desk) -> None:
    await side.compared(99)
    await rename(side)
    few = await desk.refused("cutover", "gohighlevel", "--yes")
    assert few.detail == "The live release was compared on 99 deliveries, and it takes 100."
    await side.compared(1)
    await rename(side)
    assert "If it is meant, add --yes" in str((await desk.refused("cutover", "gohighlevel")).cure)
    moved = await desk.json("cutover", "gohighlevel", "--yes", "--by", "ada")
    assert (moved["acts"], moved["parity"], moved["compared"]) == ("new", 1.0, 100)
    state = await side.state()
    assert state.watch_until is not None
    assert state.since is not None
    assert (state.watch_until - state.since).total_seconds() == pytest.approx(48 * 3600, abs=1)
    assert "already" in str(await desk.refused("cutover", "gohighlevel", "--yes"))
    assert "the old service acts on gohighlevel again" in await desk.said("cutover", "gohighlevel", "--back")
    assert "already" in str(await desk.refused("cutover", "gohighlevel", "--back"))
    assert (await desk.json("mirror"))[0]["compared"] == 0, "it begins anew"


async def test_one_difference_refuses_it_and_the_report_names_it(side: Side, desk: Desk) -> None:
    await side.compared(199)
    await side.compared(1, "different")
    await rename(side)
    refused = await desk.refused("cutover", "gohighlevel", "--yes")
    assert refused.detail == "Parity is 99.50 % of 200 the same."
    (report,) = await desk.json("mirror")
    assert (report["same"], report["different"], report["parity"]) == (199, 1, 0.995)
    (example,) = report["examples"]
    assert example["differences"][0]["said"] == "score: old 78, ours 77"
    told = await desk.said("mirror")
    assert "99.50 % of 200 the same" in told
    assert "score: old 78, ours 77" in told
    assert "78" in await desk.said("mirror", "show", example["delivery"])
    assert (await desk.json("cutover", "gohighlevel", "--yes", "--force"))["acts"] == "new"


async def test_a_cutover_waits_while_what_a_killed_gateway_had_may_be_sent_again(side: Side, desk: Desk) -> None:
    await side.compared(100)
    await rename(side)
    lost = (
        "INSERT INTO circuit.mirror_gateways VALUES (gen_random_uuid(), 'gohighlevel', NULL, 0, now() - %s::interval)"
    )
    await side.road.run(lost, "10 minutes")
    await side.road.run(lost, "1 second")
    await side.road.run(lost, "20 seconds")
    refused = await desk.refused("cutover", "gohighlevel", "--yes")
    assert "ended without a word" in refused.detail
    await side.road.run(
        "DELETE FROM circuit.mirror_gateways WHERE at < now() - interval '15 s' AND at > now() - interval '1 min'"
    )
    assert (await desk.json("cutover", "gohighlevel", "--yes"))["acts"] == "new"


async def test_a_cutover_is_refused_where_ours_would_refuse_what_the_old_service_takes(side: Side, desk: Desk) -> None:
    await side.compared(100)
    await rename(side)
    count = "INSERT INTO circuit.refusals (day, source, reason, n) VALUES (current_date, 'gohighlevel', %s, %s)"
    await side.road.run(count, "missing-signature", 500)
    await side.road.run(count, "old-service-took-it", 2)
    refused = await desk.refused("cutover", "gohighlevel", "--yes")
    assert refused.detail.startswith("The old service took 2 deliveries that this app would refuse")
    assert "500 not signed as they should be (the old service took 2 of them)" in " ".join(
        (await desk.said("mirror")).replace("\u2502", "").split()
    )
    await side.road.run("UPDATE circuit.refusals SET n = 1 WHERE reason = 'old-service-took-it'")
    assert (await desk.json("cutover", "gohighlevel", "--yes"))["acts"] == "new"


async def test_a_cutover_is_refused_while_more_waits_than_was_compared(side: Side, desk: Desk) -> None:
    await side.compared(100)
    await side.told(*(f"P{n}" for n in range(101)))
    await rename(side)
    assert (await desk.refused("cutover", "gohighlevel", "--yes")).detail.startswith("101 deliveries wait")


async def test_two_good_days_do_not_hide_a_bad_hour(side: Side, desk: Desk) -> None:
    await side.compared(100)
    await rename(side)
    await side.move(NEW, watch=timedelta(hours=48))
    await side.road.run("UPDATE circuit.mirrors SET since = now() - interval '40 hours'")
    good = [contact(f"G{n}").row()._replace(source="gohighlevel") for n in range(5000)]
    early = [row._replace(id=UUID(int=row.id.int - (30 * 3600 * 1000 << 80))) for row in good]
    bad = [contact(f"N{n}").row()._replace(source="gohighlevel") for n in range(60)]
    for rows in (early, bad):
        for at in range(0, len(rows), 500):
            await side.ledger.take_in(rows[at : at + 500])
    await side.road.run(OUTCOMES, "succeeded", [row.id for row in early])
    await side.road.run(OUTCOMES, "succeeded", [row.id for row in bad[3:]])
    await MirrorWatch(side.road.pool, every=0.0).tick()
    assert (await side.state()).acts == NEW
    await side.road.run(OUTCOMES, "dead", [row.id for row in bad[:3]])
    await MirrorWatch(side.road.pool, every=0.0).tick()
    assert ((await side.state()).acts, (await side.state()).by) == (OLD, "the watch")


async def test_only_what_the_live_release_was_compared_on_counts(side: Side, desk: Desk) -> None:
    (live,) = await side.road.rows("SELECT release FROM circuit.live")
    await side.compared(5, "different", release=live + 1000)
    await side.compared(100)
    await rename(side)
    (report,) = await desk.json("mirror")
    assert (report["compared"], report["parity"]) == (100, 1.0)
    assert (await desk.json("mirror", "--since", "1h"))[0]["different"] == 5


async def test_a_source_without_an_old_service_is_refused_with_those_that_have_one(desk: Desk) -> None:
    assert (await desk.refused("cutover", "standard")).cure == "Those that have one: gohighlevel."
    desk.say("")
    assert "[mirror.gohighlevel] url" in str((await desk.refused("mirror")).cure)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("[mirror.gohighlevl]\nurl = 'http://x'", "Did you mean 'gohighlevel'"),
        ("[mirror.gohighlevel]\nurl = 'ftp://x'", "must be an address like"),
        ("[mirror.gohighlevel]\nurl = 'http://x:99999'", "Port out of range"),
        ("[mirror.gohighlevel]\nurl = 'http://{account}.example.com'", "not in the host"),
        ("[mirror.gohighlevel]\nurl = 'http://x'\nwithin = {score = 1.0}", "is not compared"),
        ("[mirror.gohighlevel]\nurl = 'http://x'\ncompare = {score = 'Contact'}", "must be a field that ours writes"),
    ],
)
def test_a_mirror_that_cannot_be_is_refused_at_start(tmp_path: Path, table: str, said: str) -> None:
    (tmp_path / "circuit.toml").write_text(table)
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path)
    assert said in str(caught.value)


async def test_more_errors_than_the_old_services_give_the_source_back_and_it_is_told(side: Side, desk: Desk) -> None:
    await side.compared(100)
    await rename(side)
    await side.move(NEW, watch=timedelta(hours=48))
    rows = [contact(f"N{n}").row()._replace(source="gohighlevel") for n in range(60)]
    taken = await side.ledger.take_in(rows)
    assert taken.duplicates == {}
    ids = [row.id for row in rows]
    await side.road.run(OUTCOMES, "succeeded", ids[:57])
    await side.road.run(OUTCOMES, "retry", ids[57:59])
    await MirrorWatch(side.road.pool, every=0.0).tick()
    assert (await side.state()).acts == NEW, "two errors tell nothing"
    await side.road.run(OUTCOMES, "dead", ids[57:60])
    await MirrorWatch(side.road.pool, every=0.0).tick()
    state = await side.state()
    assert (state.acts, state.by) == (OLD, "the watch")
    assert state.reason == "3 of 60 failed (5.00%); of the old service's 0 of 100 (0.00%)"
    async with side.road.pool.connection() as connection:
        (finding,) = await read_findings(connection, 300.0)
    assert finding.what.startswith("The old service acts on gohighlevel again: 3 of 60 failed")
    assert finding.next == "circuit-script mirror"


async def test_as_many_errors_as_the_old_services_pass_the_watch(side: Side, desk: Desk) -> None:
    await side.told(*(f"A{n}" for n in range(95)))
    await side.told(*(f"B{n}" for n in range(5)), answer=OldAnswer(500, "", b"", 1.0))
    await rename(side)
    await side.move(NEW, watch=timedelta(hours=48))
    rows = [contact(f"N{n}").row()._replace(source="gohighlevel") for n in range(60)]
    await side.ledger.take_in(rows)
    await side.road.run(OUTCOMES, "succeeded", [row.id for row in rows[3:]])
    await side.road.run(OUTCOMES, "dead", [row.id for row in rows[:3]])
    await MirrorWatch(side.road.pool, every=0.0).tick()
    assert (await side.state()).watched is None
    await side.road.run("UPDATE circuit.mirrors SET watch_until = now()")
    await MirrorWatch(side.road.pool, every=0.0).tick()
    assert ((await side.state()).acts, (await side.state()).watched) == (NEW, "passed")
