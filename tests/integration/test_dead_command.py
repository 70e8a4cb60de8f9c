"""``circuit-script dead`` and ``doubt``: what a person types, and what is said."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from circuit_script.cli import dead, doubt
from circuit_script.cli.dead_edit import with_settings
from circuit_script.clock import uuid7
from circuit_script.config import FILE
from circuit_script.db.pool import Connection, open_connection
from circuit_script.errors import LetterRefused
from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.outcome import Failed, Outcome, Succeeded, Work
from tests.road import SCORE, Incoming, Road, open_road

TRACE = """Traceback (most recent call last):
  File "/app/triggers.py", line 12, in score
    raise ValueError(email)
ValueError: no address"""


class Desk:
    """A folder whose app has dead letters, and the verbs in it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url

    def run(self, verb: Any, *arguments: str, typed: str | None = None) -> Result:
        return CliRunner().invoke(verb.app, [*arguments, "--folder", str(self.folder)], input=typed)

    def said(self, verb: Any, *arguments: str) -> str:
        result = self.run(verb, *arguments)
        assert result.exit_code == 0, (result.output, result.exception)
        return result.output

    def json(self, verb: Any, *arguments: str) -> Any:
        return json.loads(self.said(verb, *arguments, "--json"))

    def refused(self, verb: Any, *arguments: str) -> LetterRefused:
        error = self.run(verb, *arguments).exception
        assert isinstance(error, LetterRefused), error
        return error

    def with_road(self, what: Callable[[Road], Awaitable[Any]]) -> Any:
        async def go() -> Any:
            async with open_road(self.url) as road:
                return await what(road)

        return asyncio.run(go())

    def rows(self, query: str, *values: Any) -> list[Any]:
        return list(self.with_road(lambda road: road.rows(query, *values)))


async def fail(work: Work, broker: ExecutionBroker) -> Outcome:
    return Failed(f"ValueError: no address in '{work.records[0]['email']}'", broker.usage, detail=TRACE)


async def die(road: Road) -> None:
    await road.live(SCORE)
    await road.start(fail, attempts=2, backoff=0.01)
    for record in ("c1", "c2", "c3"):
        await road.take_in(Incoming(record, fields={"email": f"{record}\x1b[31m"}))
    await road.done()


@pytest.fixture
def desk(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> Desk:
    (tmp_path / FILE).write_text("")
    monkeypatch.setenv("DATABASE_URL", database)
    made = Desk(tmp_path, database)
    made.with_road(die)
    return made


def numbers(desk: Desk) -> dict[str, str]:
    """Letters' numbers by record."""
    return {each["record"]: str(each["id"]) for each in desk.json(dead, "list")["letters"]}


def test_list_counts_by_cause_and_shows_the_newest_first(desk: Desk) -> None:
    said = desk.said(dead, "list")
    assert said.startswith("3 open dead letters\n")
    assert "ValueError: no address in '…'" in said
    assert "\x1b" not in said
    assert "circuit-script dead show" in said
    found = desk.json(dead, "list", "--limit", "2", "--trigger", "score", "--since", "1h", "--kind", "event")
    assert (found["total"], len(found["letters"]), found["causes"][0]["n"], found["in_doubt"]) == (3, 2, 3, 0)
    assert desk.said(dead, "list", "--tenant", "other") == "There is no dead letter that fits.\n"
    assert desk.said(dead, "list", "--status", "retried") == "There is no dead letter that is retried.\n"


def test_show_tells_payload_attempts_stack_and_what_to_do(desk: Desk) -> None:
    letter = numbers(desk)["c2"]
    said = desk.said(dead, "show", letter)
    for part in (
        f"Letter {letter}  open",
        "Contact.afterInsert",
        "c2, tenant acme",
        "after 2 attempts",
        '"id": "c2"',
        "retry  execution",
        "dead  execution",
        "/app/triggers.py",
        "the same stack",
        f"circuit-script dead edit {letter}",
    ):
        assert part in said, part
    assert "\x1b" not in said
    story = desk.json(dead, "show", letter)
    assert [each["status"] for each in story["attempts"]] == ["retry", "dead"]
    assert "There is no dead letter 999" in str(desk.refused(dead, "show", "999"))


def test_retry_by_number_is_done_once_and_says_who_did_it(desk: Desk) -> None:
    letter = numbers(desk)["c1"]
    assert desk.said(dead, "retry", letter, "--by", "ada") == "1 retried\n"
    again = desk.said(dead, "retry", letter, "--by", "ben")
    assert f"letter {letter}: it was retried by ada at" in again
    assert "1 closed before" in again
    assert desk.rows("SELECT record FROM circuit.queue") == ["c1"]


def test_a_letter_tells_what_became_of_its_retry(desk: Desk) -> None:
    letter, other = numbers(desk)["c1"], numbers(desk)["c2"]
    desk.said(dead, "retry", letter, other)
    assert "it waits in the queue as event" in desk.said(dead, "show", letter)
    (again,) = desk.rows("SELECT again FROM circuit.dead_letters WHERE id = %s", letter)

    async def half(work: Work, broker: ExecutionBroker) -> Outcome:
        lost = {n: "ValueError: again" for n, each in enumerate(work.records) if each["id"] == "c1"}
        return Succeeded(broker.usage, lost)

    async def run(road: Road) -> None:
        await road.live(SCORE)
        await road.start(half, attempts=1)
        await road.done()

    desk.with_road(run)
    (new,) = desk.rows("SELECT id FROM circuit.dead_letters WHERE event_id = %s", again)
    assert f"it died again: letter {new}" in desk.said(dead, "show", letter)
    assert desk.json(dead, "show", other)["now"].startswith("succeeded at ")


def test_a_stack_in_the_log_stands_below_its_line(desk: Desk) -> None:
    letter = numbers(desk)["c1"]
    execution = desk.json(dead, "show", letter)["letter"]["execution"]
    desk.with_road(
        lambda road: road.run(
            "INSERT INTO circuit.circuit_logs (at, level, message, context, execution, handler, tenant, record) "
            "SELECT now() + n * interval '1 s', 'error', 'ValueError: no', %s, %s, 'score', 'acme', 'c1' "
            "FROM generate_series(1, 2) n",
            json.dumps({"traceback": TRACE.replace("line 12", "line 13"), "n": 7}),
            execution,
        )
    )
    said = desk.said(dead, "show", letter)
    log = said[said.index("\nLog\n") :]
    assert "ValueError: no  n=7\n" in log.replace(" \n", "\n")
    assert '      File "/app/triggers.py", line 13, in score' in log
    assert "\\n" not in log
    assert log.count("the same stack") == 1


def test_a_kind_of_letters_is_retried_by_the_line_that_list_says(desk: Desk) -> None:
    for narrowed, count in ((["--tenant", "acme", "--record", "c1"], 1), ([], 2)):
        said = desk.said(dead, "list", *narrowed)
        line = next(each for each in said.splitlines() if each.startswith("all of a kind: "))
        arguments = shlex.split(line.partition(": circuit-script dead ")[2])
        assert arguments == ["retry", "--reason", "ValueError: no address in '…'", *narrowed]
        assert desk.said(dead, *arguments, "--yes") == f"{count} retried\n"


@pytest.mark.parametrize("filter_", ["--reason", "--trigger", "--record", "--tenant"])
def test_an_empty_filter_finds_nothing_but_is_refused(desk: Desk, filter_: str) -> None:
    for verb, mine in (("retry", filter_), ("discard", filter_.replace("--reason", "--died-of"))):
        why = ["--reason", "a test"] if verb == "discard" else []
        result = desk.run(dead, verb, mine, "", "--yes", *why)
        assert (result.exit_code, "a filter is empty" in result.output) == (2, True)
    assert desk.rows("SELECT DISTINCT status FROM circuit.dead_letters") == ["open"]


def test_what_was_closed_otherwise_is_not_done_and_the_exit_code_is_1(desk: Desk) -> None:
    letter = numbers(desk)["c1"]
    desk.said(dead, "discard", letter, "--reason", "a test")
    desk.said(dead, "discard", letter, "--reason", "a test")
    result = desk.run(dead, "retry", letter)
    assert result.exit_code == 1
    assert "it was discarded by" in result.output


def test_what_was_done_before_it_broke_off_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead, "CHUNK", 2)
    found = numbers(desk)
    result = desk.run(dead, "retry", found["c1"], found["c2"], "999", "--json")
    assert isinstance(result.exception, LetterRefused)
    assert [each["done"] for each in json.loads(result.output)] == ["retried", "retried"]


def test_retry_of_many_asks_first_and_needs_to_be_told_which(desk: Desk) -> None:
    asked = desk.run(dead, "retry", "--trigger", "score")
    assert asked.exit_code == 2
    assert "say --yes" in asked.output
    for wrong in ((), ("1", "--all"), ("1", "--trigger", "score")):
        assert desk.run(dead, "retry", *wrong).exit_code == 2
    assert desk.rows("SELECT count(*) FROM circuit.queue") == [0]

    fates = desk.json(dead, "retry", "--reason", "no address", "--yes")
    assert [each["done"] for each in fates] == ["retried"] * 3
    assert desk.rows("SELECT record FROM circuit.queue ORDER BY id") == ["c1", "c2", "c3"]
    assert desk.said(dead, "retry", "--all", "--yes") == "no letter fits\n"


def test_what_cannot_be_retried_is_said_and_the_exit_code_is_1(desk: Desk) -> None:
    letter = numbers(desk)["c1"]
    desk.with_road(lambda road: road.run("UPDATE circuit.deliveries SET body = ''"))
    result = desk.run(dead, "retry", letter)
    assert result.exit_code == 1
    assert "its payload was erased: circuit-script dead edit" in result.output
    assert "1 refused" in result.output


def test_discard_keeps_who_and_why(desk: Desk) -> None:
    found = numbers(desk)
    assert desk.run(dead, "discard", found["c1"]).exit_code == 2
    assert desk.said(dead, "discard", found["c1"], "--reason", "a test", "--by", "ada") == "1 discarded\n"
    assert desk.said(dead, "discard", "--record", "c2", "--reason", "a test", "--yes") == "1 discarded\n"
    assert "discarded by ada" in desk.said(dead, "list", "--status", "all")
    assert desk.rows("SELECT record, why FROM circuit.dead_letters WHERE status = 'discarded' ORDER BY 1") == [
        ("c1", "a test"),
        ("c2", "a test"),
    ]


def test_edit_by_set_and_from_a_file(desk: Desk, tmp_path: Path) -> None:
    found = numbers(desk)
    said = desk.said(dead, "edit", found["c1"], "--set", "email=a@b", "--set", "tags=[1, 2]")
    assert "~ email:" in said
    assert "+ tags: [1, 2]" in said
    assert f"retried: letter {found['c1']} as event" in said
    file = tmp_path / "payload.json"
    for text, fault in (("{", "That is not JSON"), ("[1]", "That is a list"), ('{"n": NaN}', "That is not JSON")):
        file.write_text(text)
        assert fault in str(desk.refused(dead, "edit", found["c2"], "--from-file", str(file)))
    file.write_text('{"id": "c2", "email": "c@d"}')
    done = desk.json(dead, "edit", found["c2"], "--from-file", str(file))
    assert desk.rows("SELECT convert_from(body, 'UTF8')::json ->> 'data' FROM circuit.deliveries WHERE id = %s",
                     done["delivery"]) == ['{"id":"c2","email":"c@d"}']  # fmt: skip
    assert "was retried by" in str(desk.refused(dead, "edit", found["c2"], "--set", "a=1"))
    assert desk.run(dead, "edit", found["c3"], "--set", "nothing").exit_code == 2
    same = desk.refused(dead, "edit", found["c3"], "--set", 'id="c3"')
    assert "Nothing was changed" in str(same)


def test_edit_sets_a_field_in_an_object_and_refuses_what_no_job_would_read(desk: Desk) -> None:
    found = numbers(desk)
    changed = {"id": "c1", "a": {"b": 1, "c": 2}, "x.y": 3}
    assert with_settings(changed, None, ["a.b=5", "x.y=6", "e.f=7"]) == {
        "id": "c1", "a": {"b": 5, "c": 2}, "x.y": 6, "e.f": 7,
    }  # fmt: skip
    assert changed["a"] == {"b": 1, "c": 2}
    desk.with_road(lambda road: road.run("UPDATE circuit.dead_letters SET object = 'Job' WHERE record = 'c1'"))
    refused = desk.refused(dead, "edit", found["c1"], "--set", "n=2")
    assert "A job has no 'n'" in str(refused)
    assert "--set arguments.n=…" in str(refused)


def test_edit_in_an_editor(desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    letter = numbers(desk)["c3"]
    script = tmp_path / "editor.py"
    monkeypatch.setenv("VISUAL", f"{sys.executable} {script}")
    script.write_text("import sys; sys.exit(3)")
    assert "The editor ended with 3" in str(desk.refused(dead, "edit", letter))
    script.write_text("import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('{no')")
    refused = str(desk.refused(dead, "edit", letter))
    assert "That is not JSON: Expecting property name" in refused
    assert "--from-file" in refused
    script.write_text(
        "import pathlib, sys; p = pathlib.Path(sys.argv[1]);"
        "p.write_text(p.read_text().replace('c3\\\\u001b[31m', 'c3@x'))"
    )
    assert "~ email:" in desk.said(dead, "edit", letter)
    monkeypatch.setenv("VISUAL", "/nowhere/editor")
    assert "cannot be started" in str(desk.refused(dead, "edit", numbers(desk)["c1"]))


async def _doubtful(connection: Connection, connector: str) -> str:
    id_ = uuid7()
    await connection.execute(
        "INSERT INTO circuit.effects (id, tenant, execution, release, lane, order_hash, connector, operation, target,"
        " record, payload, status, attempts, settled_at, reason) VALUES (%s, 'acme', %s, 1, 1, 1, %s, 'post', 'alerts',"
        " 'c1', '{\"n\": 1}', 'in_doubt', 1, now(), 'ReadTimeout')",
        (id_, uuid7(), connector),
    )
    return str(id_)


def test_doubts_are_listed_shown_and_settled(desk: Desk) -> None:
    async def make() -> tuple[str, str]:
        async with await open_connection(desk.url) as connection:
            return await _doubtful(connection, "webhook"), await _doubtful(connection, "sms")

    safe, unsafe = asyncio.run(make())
    said = desk.said(doubt, "list")
    assert safe in said
    assert "ReadTimeout" in said
    assert [each["id"] for each in desk.json(doubt, "list", "--connector", "sms")] == [unsafe]
    assert "2 effects are in doubt: circuit-script doubt list" in desk.said(dead, "list")
    shown = desk.said(doubt, "show", safe)
    for part in (f"Effect {safe}  in doubt", "webhook post to alerts", '"n": 1', "it may be sent again", "--done"):
        assert part in shown, part
    assert desk.json(doubt, "show", unsafe)["rule"] is None

    assert desk.run(doubt, "settle", unsafe).exit_code == 2
    assert desk.run(doubt, "settle", unsafe, "--done", "--repeat").exit_code == 2
    assert desk.run(doubt, "settle", unsafe, "--repeat", "--vendor-id", "7").exit_code == 2
    warned = desk.run(doubt, "settle", unsafe, "--repeat")
    assert warned.exit_code == 2
    assert "takes no idempotency key" in warned.output
    assert "is on its way again, by ada" in desk.said(doubt, "settle", unsafe, "--repeat", "--yes", "--by", "ada")
    assert "is on its way again" in desk.said(doubt, "settle", safe, "--repeat", "--reason", "not in their list")
    assert "settled by" in str(desk.refused(doubt, "settle", safe, "--done"))
    assert desk.said(doubt, "list") == "No effect is in doubt.\n"


def test_many_doubts_of_a_kind_are_settled_at_once(desk: Desk) -> None:
    async def make() -> list[str]:
        async with await open_connection(desk.url) as connection:
            return [await _doubtful(connection, connector) for connector in ("sms", "sms", "webhook", "webhook")]

    texts, hooks = (lambda ids: (ids[:2], ids[2:]))(asyncio.run(make()))
    for wrong in ((), (texts[0], "--all"), ("--connector", ""), ("--all", "--vendor-id", "7"), ("",)):
        assert desk.run(doubt, "settle", "--done", *wrong).exit_code == 2, wrong
    asked = desk.run(doubt, "settle", "--connector", "sms", "--repeat")
    assert asked.exit_code == 2
    words = " ".join(asked.output.replace("│", " ").split())
    assert "sms post takes no idempotency key" in words
    assert "Settle 2 effects in doubt by sending again? Nobody is there to ask: say --yes" in words

    settled = desk.json(doubt, "settle", "--connector", "sms", "--discard", "--reason", "too late", "--yes")
    assert [(each["effect"], each["decision"], each["reason"], each["done"]) for each in settled] == [
        (each, "discard", "too late", True) for each in texts
    ]
    said = desk.said(doubt, "settle", *hooks, "--repeat")
    assert said.endswith("2 settled\n")
    assert all(f"settled: effect {each} is on its way again" in said for each in hooks)
    assert desk.said(doubt, "settle", "--all", "--done") == "no effect in doubt fits\n"


def test_what_somebody_else_settles_meanwhile_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def make() -> list[str]:
        async with await open_connection(desk.url) as connection:
            return [await _doubtful(connection, "sms") for _ in range(2)]

    first, second = asyncio.run(make())

    def ben_is_quicker(*_: Any, **__: Any) -> None:
        desk.with_road(lambda road: road.run("UPDATE circuit.effects SET status = 'discarded' WHERE id = %s", first))

    monkeypatch.setattr(doubt, "_ask", ben_is_quicker)
    result = desk.run(doubt, "settle", "--all", "--done")
    assert result.exit_code == 1
    assert f"effect {first} was not settled" in result.output
    assert f"settled: effect {second} is delivered" in result.output


@pytest.mark.parametrize("number", ["-5", "-12", "0", "abc", "1.5", "9" * 19, "1" * 40, "\u0663"])
@pytest.mark.parametrize("verb", ["show", "retry", "edit"])
def test_what_is_no_number_of_a_letter_is_told_what_one_looks_like(verb: str, number: str) -> None:
    result = CliRunner().invoke(dead.app, [verb, number])

    assert result.exit_code == 2
    assert "is no letter's number: that looks like 12" in " ".join(result.output.replace("│", " ").split())


def test_an_option_that_there_is_not_is_still_told_as_one() -> None:
    assert "No such option" in CliRunner().invoke(dead.app, ["show", "--foo"]).output


def test_a_number_that_hangs_on_a_letter_is_told_too() -> None:
    result = CliRunner().invoke(dead.app, ["retry", "-y5"])

    assert result.exit_code == 2
    assert "is no letter's number" in " ".join(result.output.replace("│", " ").split())
