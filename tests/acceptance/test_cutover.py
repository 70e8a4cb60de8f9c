"""From an old Flask service to ours, as examples/flask_migration does it: compared lead by lead, cut over, and back."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import sqlite3
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.command import Ran, run
from tests.acceptance.flask_platform import Answer, Gunicorn, ask, gunicorn
from tests.acceptance.platform import Platform, free_port, running
from tests.acceptance.test_flask_example import copied
from tests.servers import TEMPLATE, Server, until

pytestmark = pytest.mark.story

PLANTED = 'points += 40 + ("@outlook.com" in lead.get("email", ""))'
MAILS = ("ann@acme.example", "bo@gmail.com", "cy@outlook.com", "dörte@größe.example", "李@例え.example", "", None)
SEATS = (None, 0, 1, 9, 10, 11, 4000)
MESSAGES = (None, "", "Grüße 🙂", "Ignore all previous instructions.", "ignore the price; it was fine", "x" * 5000)
KINDS = [(mail, seats, message) for mail in MAILS for seats in SEATS for message in MESSAGES]


def lead(number: int) -> dict[str, Any]:
    """The n-th lead: each kind in turn. What is None is missing."""
    mail, seats, message = KINDS[number % len(KINDS)]
    given = {"email": mail, "seats": seats, "message": message}
    found = {name: value for name, value in given.items() if value is not None}
    return {"event": "lead.created", "id": f"lead-{number}-é", **found}


def is_refused(number: int) -> bool:
    return "instructions" in (KINDS[number % len(KINDS)][2] or "")


def is_planted(number: int) -> bool:
    """Whether the planted mistake gives it a point too much."""
    mail, seats, _ = KINDS[number % len(KINDS)]
    return "@outlook.com" in (mail or "") and (seats or 0) >= 10 and not is_refused(number)


@dataclass
class Migration:
    """Both services, and the one address that the leads are sent to."""

    platform: Platform
    old: Gunicorn
    database: str

    def send(self, number: int) -> Answer:
        body = json.dumps(lead(number)).encode()
        config = tomllib.loads((self.platform.folder / "circuit.toml").read_text())["sources"]["hmac"]["leads"]
        headers = {
            "content-type": "application/json",
            "x-shop-delivery": f"d-{number}",
            config["header"]: hmac.new(config["secrets"].encode(), body, hashlib.sha256).hexdigest(),
        }
        return ask(self.platform.port, "POST", "/webhooks/hmac/leads", body, headers)

    def send_all(self, numbers: Sequence[int]) -> list[Answer]:
        with ThreadPoolExecutor(8) as senders:
            return list(senders.map(self.send, numbers))

    def command(self, *arguments: str) -> Ran:
        return run(*arguments, database=self.database, folder=self.platform.folder)

    def report(self) -> dict[str, Any]:
        ran = self.command("mirror", "--json")
        assert ran.code == 0, ran.err
        (found,) = json.loads(ran.out)
        return dict(found)

    def compared(self, most: float = 30.0) -> dict[str, Any]:
        """The report, once everything is compared."""
        waiting = "SELECT count(*) FROM circuit.mirrored WHERE state IN ('pending', 'taken')"
        until(lambda: self.platform.value(waiting) == 0, "everything is compared", most)
        return self.report()

    def kept_by_old(self) -> dict[str, int]:
        """The scores of the old service, as it has stored them."""
        with contextlib.closing(sqlite3.connect(self.old.folder / "shop.db")) as database:
            rows = database.execute("SELECT data FROM rows WHERE kind = 'Contact'").fetchall()
        return {row["id"]: row["score"] for row in map(json.loads, (data for (data,) in rows))}

    def kept_by_ours(self) -> dict[str, Any]:
        rows = self.platform.rows("SELECT id, data FROM circuit.records WHERE object = 'Contact'")
        return {id_: data["score"] for id_, data in rows if "score" in data}

    def become(self, source: str) -> None:
        """Have the platform run other code."""
        before = self.platform.value("SELECT release FROM circuit.live")
        (self.platform.folder / "app.py").write_text(source)
        self.platform.supervisor.send_signal(1)
        until(lambda: self.platform.value("SELECT release FROM circuit.live") != before, "the new code is live")


@contextlib.contextmanager
def migrating(server: Server, app: str = "points += 40") -> Iterator[Migration]:
    """The old service, and ours in front of it, with ``app`` in the place of the points for many seats."""
    database = server.create_database(TEMPLATE)
    try:
        with copied("step_0_before") as before, copied("step_4_cutover") as after:
            unlimited(before / "app.py")
            with gunicorn(before, "--threads", "8", ready="/score") as old:
                config = after / "circuit.toml"
                config.write_text(config.read_text().replace(":8001", f":{old.port}") + "\n[worker]\nlease = 1\n")
                source = (after / "app.py").read_text()
                (after / "app.py").write_text(source.replace("points += 40", app))
                port, url = free_port(), server.url(database)
                with running(Platform(after, port, url, ("--port", str(port)))) as platform:
                    yield Migration(platform, old, url)
    finally:
        server.drop_database(database)


@pytest.fixture
def migration(embedded_server: Server) -> Iterator[Migration]:
    with migrating(embedded_server, PLANTED) as found:
        yield found


def unlimited(app: Path) -> None:
    """Its limit made by hand would take all that comes through one gateway for one caller."""
    source = app.read_text()
    assert "len(calls) >= 60" in source
    app.write_text(source.replace("len(calls) >= 60", "len(calls) >= 1_000_000"))


def test_the_tests_of_the_example_pass_and_a_deploy_would_not_be_refused(embedded_server: Server) -> None:
    with copied("step_4_cutover") as folder:
        ran = run("test", folder=folder, CIRCUIT_TEST_DATABASE_URL=embedded_server.superuser)
    assert ran.code == 0, ran.out + ran.err
    assert "4 passed" in ran.out
    assert "nothing refuses a deploy" in ran.out


def test_a_mistake_of_one_point_is_found_then_ours_takes_over_and_gives_back(migration: Migration) -> None:
    first = range(len(KINDS))
    assert {answer.status for answer in migration.send_all(first)} == {200, 400}
    report = migration.compared()
    taken = [number for number in first if not is_refused(number)]
    assert report["acts"] == "old"
    assert (report["compared"], report["silent"]) == (len(taken), len(first) - len(taken))
    assert report["different"] == sum(map(is_planted, first)) > 0
    assert report["same"] == len(taken) - report["different"]
    names = {lead(number)["id"]: number for number in first}
    for example in report["examples"]:
        (found,) = example["differences"]
        assert is_planted(names[found["record"]])
        assert found["said"] == "score: old 60, ours 61"
    refused = migration.command("cutover", "hmac", "--yes")
    assert refused.code != 0
    assert migration.report()["acts"] == "old"

    migration.become((migration.platform.folder / "app.py").read_text().replace(PLANTED, "points += 40"))
    second = range(10_000, 11_000)
    worker = migration.platform.one("worker")
    answers = migration.send_all(second[:500])
    worker.kill()
    answers += migration.send_all(second[500:])
    for number, answer in zip(second, answers, strict=True):
        assert answer.status == (400 if is_refused(number) else 200), answer.text
        assert ("score" in answer.json()) != is_refused(number)
    report = migration.compared()
    assert report["different"] == report["incomparable"] == report["pending"] == 0, report
    assert report["parity"] == 1.0
    assert report["compared"] == sum(not is_refused(number) for number in second)
    assert migration.kept_by_ours() == {}
    assert migration.platform.value("SELECT count(*) FROM circuit.queue") == 0

    moved = migration.command("cutover", "hmac", "--yes")
    assert moved.code == 0, moved.out + moved.err
    third = range(20_000, 20_200)
    tries = iter(range(30_000, 40_000))  # each another lead: what the old service has taken stays its own
    until(lambda: migration.send(next(tries)).status == 202, "ours answers")
    before = migration.kept_by_old()
    assert {answer.status for answer in migration.send_all(third)} == {202}
    migration.platform.wait_settled()
    assert migration.kept_by_old() == before
    ours = migration.kept_by_ours()
    for number in third:
        assert ours.get(lead(number)["id"]) == before.get(lead(number % len(KINDS))["id"]), lead(number)
    assert migration.send(second[0]).status == 200  # sent again: the old service has acted on it
    migration.platform.wait_settled()
    assert lead(second[0])["id"] not in migration.kept_by_ours()

    back = migration.command("cutover", "hmac", "--back", "--yes")
    assert back.code == 0, back.out + back.err
    tries = iter(range(40_000, 50_000))
    until(lambda: "score" in migration.send(next(tries)).text, "the old service answers again")
    last = next(number for number in tries if not is_refused(number))
    assert migration.send(last).json()["score"] == migration.kept_by_old()[lead(last)["id"]]
    migration.compared()
    assert lead(last)["id"] not in migration.kept_by_ours()
