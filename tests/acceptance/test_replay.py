"""`circuit-script replay` as an operator uses it, and `kill -9` of the worker that feeds one."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.platform import COMMAND, Platform, environment, served
from tests.acceptance.vendor import Load, contact_stream, make_vendor
from tests.servers import Server, until

pytestmark = pytest.mark.slow

TRIGGERS = '''
from circuit_script import CircuitDB, log, trigger

WORD = "first"


@trigger("Contact", ["afterInsert"])
async def greet(context):
    """Notes each contact that it is called for, by what called it."""
    for record, event in zip(context.new_records, context.events):
        async with context.record(record):
            await CircuitDB.insert("Greeting", {"who": record["id"], "replay": event.get("replay"), "word": WORD})
'''
MORE = '''
@trigger("Contact", ["afterDelete"])
async def part(context):
    """Says goodbye."""
'''
MANY = 400
AGAIN = """
SELECT data ->> 'who', count(*) FROM circuit.records
WHERE object = 'Greeting' AND data ->> 'replay' = %s GROUP BY 1
"""


@pytest.fixture(scope="module")
def platform(embedded_server: Server) -> Iterator[Platform]:
    with served(embedded_server, TRIGGERS, public_key=make_vendor().public_key) as started:
        vendor = make_vendor()
        with Load(started.port, [contact_stream(vendor, 1) for _ in range(MANY)]) as load:
            load.wait_for(1.0)
        started.wait_settled()
        yield started


def replay(platform: Platform, *arguments: str, code: int = 0) -> str:
    """What the command says; of a refusal also why."""
    command = [COMMAND, "replay", *arguments, "--folder", str(platform.folder)]
    ran = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        env=environment(platform.database),
        stdin=subprocess.DEVNULL,
    )
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran.stdout if code == 0 else ran.stdout + ran.stderr


def begun(platform: Platform, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(replay(platform, *arguments, "--yes", "--json"))["replay"]
    return found


def shown(platform: Platform, which: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(replay(platform, "show", which, "--json"))
    return found


def ended(platform: Platform, which: str) -> None:
    status = "SELECT status FROM circuit.replays WHERE id = %s"
    until(lambda: bool(platform.value(status, which) in ("done", "cancelled")), "the replay is over", 300)


def must_survive_kills(platform: Platform, which: str) -> None:
    """The worker that feeds it is killed twice, and each item is handled once."""
    fed = "SELECT fed FROM circuit.replays WHERE id = %s"
    for share in (60, 180):
        until(lambda share=share: bool(platform.value(fed, which) > share), "some of it is fed", 180)  # type: ignore[misc]
        platform.one("worker").kill()
    ended(platform, which)

    again = dict(platform.rows(AGAIN, which))
    assert len(again) == MANY
    assert set(again.values()) == {1}


def test_the_worker_that_feeds_is_killed_and_each_item_is_handled_once(platform: Platform) -> None:
    made = begun(platform, "--trigger", "greet", "--rate", "60")
    must_survive_kills(platform, made["id"])
    assert "done" in replay(platform, "follow", made["id"])
    found = shown(platform, made["id"])
    assert found["became"] == {"succeeded": MANY}
    assert (found["chosen"], found["fed"], found["settled"]) == (MANY, MANY, MANY)


def test_it_says_what_it_would_take_and_asks(platform: Platform) -> None:
    said = replay(platform, "--trigger", "greet", "--since", "2h", "--limit", "3", code=1)
    assert "3 items" in said
    assert "Add --yes" in said
    assert "Nothing says which events" in replay(platform, code=1)
    assert "There is no release 99" in replay(platform, "--trigger", "greet", "--release", "99", code=1)
    assert "is no text" in replay(platform, "--record", "\udcff", code=1)
    assert "No replay begins" in replay(platform, "show", "\udcff", code=1)
    assert "for --until" in replay(platform, "--until", "soon", code=2)
    assert "Say since when" in replay(platform, "--status", "unrouted", code=1)
    assert "No event fits" in replay(platform, "--record", "nobody")


def test_a_dry_run_shows_each_record_and_a_sum(platform: Platform) -> None:
    greetings = "SELECT count(*) FROM circuit.records WHERE object = 'Greeting'"
    before = platform.value(greetings)
    said = replay(platform, "--trigger", "greet", "--limit", "2", "--dry-run")
    assert "insert Greeting" in said
    assert "2 succeeded" in said
    assert "Nothing was written, nothing was sent." in said
    kept = ("--trigger", "greet", "--limit", "2", "--dry-run", "--release", "1", "--json")
    lines = [json.loads(line) for line in replay(platform, *kept).splitlines()]
    assert [line["status"] for line in lines[:-1]] == ["succeeded", "succeeded"]
    assert lines[-1]["summary"]["release"] == 1
    assert platform.value(greetings) == before


def test_one_is_paused_resumed_and_cancelled(platform: Platform) -> None:
    made = begun(platform, "--trigger", "greet", "--rate", "1")
    which = made["id"]
    assert "paused" in replay(platform, "pause", which)
    assert which in replay(platform, "list")
    assert "running" in replay(platform, "resume", which)
    assert "Add --yes" in replay(platform, "cancel", which, code=1)
    assert "cancelled" in replay(platform, "cancel", which, "--yes")
    assert "cancelled" in replay(platform, "show", which)
    assert "over already" in replay(platform, "cancel", which, "--yes", code=1)
    assert "cancelled" in replay(platform, "follow", which, code=1)


def test_through_an_earlier_release_for_real_while_workers_are_killed(platform: Platform) -> None:
    later = TRIGGERS.replace('"first"', '"second"') + MORE
    (platform.folder / "app" / "triggers.py").write_text(later)
    platform.signal(signal.SIGHUP)
    live = "SELECT release FROM circuit.live"
    until(lambda: bool(platform.value(live) > 1), "the next release is live", 120)
    second = platform.value(live)

    said = replay(platform, "--trigger", "greet", "--limit", "1", "--release", "1", code=1)
    assert "Release 1 has no part yet" in said
    made = begun(platform, "--trigger", "greet", "--rate", "60", "--release", "1")
    assert made["release"] == 1
    must_survive_kills(platform, made["id"])
    words = "SELECT DISTINCT data ->> 'word' FROM circuit.records WHERE object = 'Greeting' AND data ->> 'replay' = %s"
    assert platform.rows(words, made["id"]) == [("first",)]
    releases = "SELECT DISTINCT release FROM circuit.executions WHERE started_at >= %s"
    assert platform.rows(releases, made["at"]) == [(1,)]
    assert platform.value(live) == second
    assert "release=1" in replay(platform, "show", made["id"])
