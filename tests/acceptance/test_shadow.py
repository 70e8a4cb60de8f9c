"""A candidate beside what is live: the real command, signed webhooks, what differs by name, a worker killed."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from circuit_script.cli.demo.vendor import Vendor
from circuit_script.db.pool import Connection
from circuit_script.releases import shadows
from circuit_script.releases.moving import ROLLBACK, go_live
from circuit_script.releases.shadows import Shadow
from circuit_script.releases.store import ReleaseRow, release_of
from tests.acceptance.command import Ran, run
from tests.acceptance.platform import Platform, answers, running, write_app
from tests.acceptance.promises import effects_came, hooks
from tests.acceptance.team import Team
from tests.acceptance.vendor import Receiver, contact_stream, send_all
from tests.servers import until

pytestmark = pytest.mark.story

# What is read is changed at once, so that who reads it now, and not as it was then, gets another answer.
SCORES = """
from circuit_script import CircuitDB, endpoint, http, send_webhook, trigger

WORD = "first"


async def more(contact):
    return 0


@trigger("Contact", ["afterInsert", "afterUpdate"], batch_size=20)
async def score(context):
    for contact, event in zip(context.new_records, context.events):
        async with context.record(contact):
            seen = await CircuitDB.get("Seen", contact["id"])
            count = (seen["count"] if seen else 0) + 1
            await CircuitDB.upsert("Seen", {"id": contact["id"], "count": count})
            value = 70 + count + await more(contact)
            await CircuitDB.update("Contact", {"id": contact["id"], "score": value})
            note = await CircuitDB.insert("Note", {"contactId": contact["id"], "score": value})
            await send_webhook("hooks", {"event": event["id"], "note": note, "score": value})


@endpoint("offer", methods=["GET"], auth="none")
async def offer():
    asked = await http.get("RECEIVER/price")
    return {"points": 70 + await more({"step": 2}), "status": asked.status_code}
"""
TESTS = """
def test_a_contact_is_scored(circuit):
    lead = circuit.create_test_contact()
    circuit.insert("Contact", lead).assert_effect("Contact", id=lead["id"], score=71)


def test_an_offer_has_points(circuit):
    circuit.mock_callout("GET", "RECEIVER/price", status=204)
    assert circuit.call("offer").json() == {"points": 70, "status": 204}
"""
HIGHER = "    return 1 if contact['step'] == 2 else 0\n"
ASKS = "    return len(await CircuitDB.query('Account', limit=5))\n"
LIVE = "SELECT release FROM circuit.live"
DONE = """
SELECT count(*) FROM circuit.recordings r JOIN circuit.comparisons c USING (execution) WHERE c.shadow = %s
  AND c.state <> 'taken'
"""
RECORDED = """
SELECT count(*) FROM circuit.recordings r JOIN circuit.shadows s ON s.against = r.release
WHERE s.id = %s AND r.execution >= circuit.uuid_floor(s.opened_at)
"""
RECORDS = "SELECT coalesce(sum(records), 0) FROM circuit.comparisons WHERE shadow = %s"
LOST = """
SELECT count(*) FROM circuit.events e WHERE NOT EXISTS (
    SELECT FROM circuit.outcomes o WHERE o.delivery = e.delivery AND o.ordinal = e.ordinal AND o.status = 'succeeded')
"""
STEPS = 3


def of(receiver: Receiver, text: str) -> str:
    return text.replace("RECEIVER", receiver.address)


class Stage:
    """A platform, and a team that changes the app in a folder of its own."""

    def __init__(self, platform: Platform, team: Team, vendor: Vendor, receiver: Receiver) -> None:
        self.platform, self.team, self.vendor, self.receiver = platform, team, vendor, receiver

    def cli(self, *arguments: str) -> Ran:
        return run(*arguments, "--folder", str(self.team.folder), database=self.platform.url)

    def report(self) -> dict[str, Any]:
        ran = self.cli("shadow", "--json")
        assert ran.code == 0, ran.err
        found: dict[str, Any] = json.loads(ran.out)
        return found

    def candidate(self, word: str, more: str = "") -> ReleaseRow:
        triggers = self.team.folder / "app" / "triggers.py"
        if more:
            triggers.write_text(triggers.read_text().replace("    return 0\n", more))
        return self.team.put(word)

    def open(self, row: ReleaseRow, **asked: Any) -> Shadow:
        return self.team.do(lambda connection: shadows.open_shadow(connection, row, by="anna", **asked))

    def recording(self, shadow: Shadow) -> None:
        """Until the worker has heard of it and has the candidate ready: from then on all is recorded."""
        until(lambda: self.opened(shadow), "it records", 30)

    def opened(self, shadow: Shadow) -> bool:
        lines = [line for line in self.platform.log().splitlines() if '"shadow.opened"' in line]
        return any(json.loads(line)["release"] == shadow.release for line in lines)

    def send(self, contacts: int) -> list[str]:
        """So many contacts, each with three events, and one call; their ids."""
        assert answers(self.platform.port, "/api/offer") == 200
        streams = [contact_stream(self.vendor, STEPS) for _ in range(contacts)]
        for step in range(STEPS):
            send_all(self.platform.port, [stream[step] for stream in streams])
        self.platform.wait_settled()
        return [stream[0].contact for stream in streams]

    def compared(self, shadow: Shadow, records: int = 0) -> None:
        """Until all that was recorded is compared, so many records at least."""

        def all_of_them() -> bool:
            recorded, done = self.platform.value(RECORDED, shadow.id), self.platform.value(DONE, shadow.id)
            many = self.platform.value(RECORDS, shadow.id)
            return bool(recorded and recorded == done and many >= records)

        until(all_of_them, "all recordings are compared", 30)


def test_a_candidate_is_compared_on_live_events_and_only_what_is_the_same_goes_live(
    app_folder: Path, database: str, vendor: Vendor, receiver: Receiver
) -> None:
    failpoints, folder, other = app_folder / "failpoints", app_folder / "app", app_folder / "team"
    failpoints.mkdir()
    own = f'[callouts]\nprivate = ["127.0.0.1:{receiver.port}"]\n'
    port = write_app(folder, of(receiver, SCORES), public_key=vendor.public_key, more=hooks(receiver) + own)
    shutil.copytree(folder, other)
    with running(Platform(folder, port, database, more={"CIRCUIT_FAILPOINTS": str(failpoints)})) as platform:
        stage = Stage(platform, Team(other, database), vendor, receiver)
        first = platform.value(LIVE)
        same = same_candidate(stage, failpoints)
        higher_candidate(stage, same)
        asking_candidate(stage, same, first)
        events = {each for (each,) in platform.rows("SELECT id FROM circuit.events")}
        effects_came(receiver, events)  # and none under a candidate's key
        calls = platform.value("SELECT count(*) FROM circuit.executions WHERE object = ''")
        assert receiver.calls == {"/price": calls}  # and no candidate has asked
        assert platform.value("SELECT count(*) FROM circuit.records WHERE object = 'Note'") == len(events)


def same_candidate(stage: Stage, failpoints: Path) -> ReleaseRow:
    """One that only calls things otherwise: no difference, although its worker is killed; it goes live."""
    platform, tests = stage.platform, stage.team.folder / "tests"
    for old in tests.glob("test_*.py"):
        old.unlink()
    (tests / "test_triggers.py").write_text(of(stage.receiver, TESTS))
    (stage.team.folder / "requirements.txt").write_text("circuit-script[test]\n")
    triggers = stage.team.folder / "app" / "triggers.py"
    triggers.write_text(triggers.read_text().replace("seen", "known"))
    ran = stage.cli("deploy", "--shadow", "--for", "1h", "--least", "20", "--message", "tidier", "--json")
    assert ran.code == 0, ran.err
    said = json.loads(ran.out)
    assert (said["shadow"], said["live"], said["release"]) == (True, False, "v1.0.0")
    row, shadow = stage.team.do(_opened)
    stage.recording(shadow)
    sent = stage.send(10)
    worker = platform.one("worker").pid
    (failpoints / "shadow.compared").write_text("kill")  # some are taken, one is compared, and nobody knows
    sent += stage.send(10)
    until(lambda: not (failpoints / "shadow.compared").exists(), "it is killed", 30)
    until(lambda: platform.one("worker").pid != worker, "another takes its place", 30)
    stage.compared(shadow)
    sent += stage.send(5)
    stage.compared(shadow)

    report = stage.report()
    assert (report["different"], report["incomparable"], report["share"]) == (0, 0, 0), report
    executions = platform.value("SELECT count(*) FROM circuit.comparisons WHERE shadow = %s", shadow.id)
    assert report["executions"] == executions
    assert 20 <= report["records"] <= len(sent) * STEPS + 3  # and the calls
    assert report["live"]["p50"] > 0
    assert report["candidate"]["p50"] > 0
    assert platform.value(LOST) == 0
    ran = stage.cli("shadow", "promote", "--yes")
    assert ran.code == 0, ran.err
    assert platform.value(LIVE) == row.id
    assert stage.report()["why"] == "promoted"
    return row


def higher_candidate(stage: Stage, live: ReleaseRow) -> None:
    """One point more for the third event of each contact: just those are named, with both values; it is refused."""
    row = stage.candidate("higher", HIGHER)
    shadow = stage.open(row)
    stage.recording(shadow)
    contacts, many = stage.send(6), 6 * STEPS + 1
    stage.compared(shadow, many)
    report = stage.report()
    assert (report["records"], report["different"], report["incomparable"]) == (many, 7, 0), report
    found = {(each["record"], each["what"], each["field"], each["live"], each["candidate"])
             for each in report["differences"]}  # fmt: skip
    scores = {(each, f"Contact {each}", "score", 73, 74) for each in contacts}
    assert scores <= found, found
    assert (None, "answer", "body.points", 70, 71) in found
    assert {each[2] for each in found} == {"score", "body.points"}
    assert {each[0] for each in found} == {*contacts, None}
    ran = stage.cli("shadow", "promote", "--yes")
    assert ran.code == 1
    assert "--anyway" in ran.err
    scored = next(each for each in report["differences"] if each["what"].startswith("Contact"))
    shown = stage.cli("shadow", "show", scored["execution"])
    assert f"Contact {scored['record']}" in shown.out
    assert stage.cli("shadow", "stop").code == 0
    assert stage.platform.value(LIVE) == live.id


def asking_candidate(stage: Stage, live: ReleaseRow, first: int) -> None:
    """One that reads what was not read live: not comparable, with what it asked; another move ends its shadow."""
    stage.team.folder.joinpath("app", "triggers.py").write_text(
        of(stage.receiver, SCORES).replace("    return 0\n", ASKS)
    )
    stage.team.word = "first"
    row = stage.candidate("third")
    shadow = stage.open(row)
    stage.recording(shadow)
    stage.send(2)
    stage.compared(shadow, many := 2 * STEPS + 1)
    report = stage.report()
    assert (report["records"], report["different"], report["incomparable"]) == (many, 0, many), report
    assert "Account" in report["unanswered"][0]["candidate"]
    stage.team.do(partial(_go_back, first))
    until(lambda: stage.report()["open"] is False, "it is closed")
    assert "another release went live" in stage.report()["why"]


async def _opened(connection: Connection) -> tuple[ReleaseRow, Shadow]:
    shadow = await shadows.current(connection)
    assert shadow is not None
    return await release_of(connection, shadow.release), shadow


async def _go_back(release: int, connection: Connection) -> None:
    await go_live(connection, release, kind=ROLLBACK, by="anna")
