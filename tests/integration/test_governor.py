"""Ceilings and the loop breaker, with real children: what is cut, what ends, and what must never end by mistake."""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from circuit_script.cli.doctor.app import app
from circuit_script.config import load_settings
from circuit_script.governor import cycles
from circuit_script.wiring import Trial
from circuit_script.wiring.callouts import Callouts

APP = """
from circuit_script import CircuitDB, http, log, trigger
import asyncio

URL = "https://api.example.com/status"

@trigger("Contact", ["afterInsert"])
async def loops(context):
    await CircuitDB.insert("Note", {"text": "never kept"})
    while True:
        await http.get(URL)  # the line that loops

@trigger("Contact", ["afterUpdate"])
async def loops_and_swallows(context):
    told = 0
    while True:
        try:
            await http.get(URL)
            await http.get(URL + "?page=2")
        except BaseException as error:
            told += 1
            if told == 3:
                return

@trigger("Contact", ["afterDelete"])
async def loops_and_writes_the_same(context):
    while True:
        await http.get(URL)
        await CircuitDB.update("Contact", {"id": "c1", "seen": True})

@trigger("Task", ["afterInsert"])
async def polls(context):
    while (await http.get(URL)).json()["state"] != "done":
        pass

@trigger("Task", ["afterUpdate"])
async def polls_with_pauses(context):
    for _ in range(8):
        if (await http.get(URL)).json()["state"] == "done":
            return
        await asyncio.sleep(0.11)
    raise RuntimeError("it was never done")

@trigger("Task", ["afterDelete"], limits={"callouts": 100})
async def asks_for_each(context):
    for record in context.new_records:
        async with context.record(record):
            rate = (await http.get(URL)).json()
            await CircuitDB.update("Task", {"id": record["id"], "rate": rate["state"]})

@trigger("Order", ["afterInsert"], limits={"callouts": 100})
async def asks_for_nobody(context):
    for record in context.new_records:
        await http.get(URL)

@trigger("Order", ["afterUpdate"])
async def tries_again(context):
    for _ in range(12):
        if (await http.get(URL)).status_code == 200:
            return
    raise RuntimeError("it never worked")

@trigger("Order", ["afterDelete"])
async def gathers(context):
    for _ in range(3):
        await asyncio.gather(*(http.get(URL) for _ in range(8)))

@trigger("Opportunity", ["afterUpdate"])
async def reads_beside_its_work(context):
    for line in range(8):
        rate = (await http.get(URL)).json()["state"]
        await http.post("https://api.example.com/lines", json={"line": line, "rate": rate})

@trigger("Opportunity", ["afterDelete"])
async def reads_beside_the_same_work(context):
    for line in range(8):
        rate = (await http.get(URL)).json()["state"]
        await http.post("https://api.example.com/lines", json={"rate": rate})

@trigger("Opportunity", ["afterInsert"], limits={"wall_time": 300, "callouts": 30})
async def tells(context):
    limits = context.limits
    log.info("limits", wall=limits.wall_time.ceiling, callouts=limits.callouts.ceiling, depth=limits.depth.used)
"""
SETTINGS = """
[ceilings]
wall_time = 60

[tiers.free.ceilings]
callouts = 2
wall_time = 10

[tenants.small]
tier = "free"

[tenants.large]
standard = ["large"]
"""


@pytest.fixture
def callouts() -> Callouts:
    return Callouts("nothing was said of it.")


@pytest.fixture
async def trial(
    app_folder: Path, database: str, callouts: Callouts, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Trial]:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    (app_folder / "app.py").write_text(APP)
    (app_folder / "circuit.toml").write_text(SETTINGS)
    async with Trial(load_settings(app_folder), database, callouts=callouts) as found:
        yield found


def or_more(calls: int) -> range:
    """So many; where the machine stood still for a tenth of a second between two of them, they count as a poll that
    pauses, and there are more. The unit tests hold the exact count, by a clock of their own."""
    return range(calls, 2 * calls)


def states(*told: str) -> Any:
    answers = itertools.chain(told, itertools.repeat("done"))
    return lambda callout: {"state": next(answers)}


@pytest.mark.usefixtures("time_to_speak")
async def test_a_loop_ends_with_its_cycle_and_line_and_leaves_nothing(trial: Trial, callouts: Callouts) -> None:
    mock = callouts.mock("GET", "https://api.example.com/status", json={"state": "pending"})

    found = await trial.run("loops", {"id": "c1"})

    line = next(n for n, text in enumerate(APP.splitlines(), 1) if "the line that loops" in text)
    assert found.status == "breached"
    assert found.reason == (
        f"loop found: GET https://api.example.com/status came round again and brought nothing new, at app.py:{line}"
    )
    assert "LoopFound" in found.detail
    assert len(mock.calls) in or_more(5)
    assert await trial.query("Note") == []
    assert (await trial.run("tells", {"id": "c2"}, tenant="large")).status == "succeeded"


async def test_a_loop_that_swallows_what_it_is_told_ends_all_the_same(trial: Trial, callouts: Callouts) -> None:
    callouts.mock("GET", re.compile(r"https://api\.example\.com/status.*"), json={"state": "pending"})

    found = await trial.run("loops_and_swallows", {"id": "c1"})

    assert found.status == "breached"
    assert re.match(r"loop found: GET \S+page=2 → GET \S+status came round again and brought nothing new", found.reason)


async def test_who_writes_the_same_each_time_gets_nowhere(trial: Trial, callouts: Callouts) -> None:
    await trial.seed("Contact", {"id": "c1"})
    callouts.mock("GET", "https://api.example.com/status", json={"state": "pending"})

    found = await trial.run("loops_and_writes_the_same", {"id": "c1"})

    assert (found.status, found.reason.partition(":")[0]) == ("breached", "loop found")


@pytest.mark.parametrize(
    ("handler", "answers"),
    [
        ("polls", [f"at {n} %" for n in range(30)]),
        ("polls_with_pauses", ["pending"] * 7),
        ("gathers", ["pending"] * 30),
    ],
)
async def test_who_waits_for_something_is_left_alone(
    trial: Trial, callouts: Callouts, handler: str, answers: list[str]
) -> None:
    callouts.mock("GET", "https://api.example.com/status", json=states(*answers))

    found = await trial.run(handler, {"id": "t1"})

    assert (found.status, found.reason) == ("succeeded", "")


async def test_who_reads_the_same_beside_work_that_gets_on_is_left_alone(
    trial: Trial, callouts: Callouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cycles, "PAUSE", 60)  # a busy machine may stand still for the tenth of a second of a poll
    callouts.mock("GET", "https://api.example.com/status", json={"state": "done"})
    posted = callouts.mock("POST", "https://api.example.com/lines", json={})

    found = await trial.run("reads_beside_its_work", {"id": "o1"})
    again = await trial.run("reads_beside_the_same_work", {"id": "o1"})

    assert (found.status, found.reason) == ("succeeded", "")
    assert (again.status, again.reason.partition(":")[0]) == ("breached", "loop found")
    assert len(posted.calls) in or_more(8 + 6)


@pytest.mark.parametrize("handler", ["asks_for_each", "asks_for_nobody"])
async def test_a_batch_that_asks_the_same_for_each_record_is_left_alone(
    trial: Trial, callouts: Callouts, handler: str
) -> None:
    mock = callouts.mock("GET", "https://api.example.com/status", json={"state": "done"})
    records = [{"id": f"t{n}"} for n in range(60)]
    await trial.seed("Task", records)

    found = await trial.run(handler, records)

    assert (found.status, found.reason) == ("succeeded", "")
    assert len(mock.calls) == 60


async def test_who_tries_again_what_failed_is_left_alone(trial: Trial, callouts: Callouts) -> None:
    callouts.mock("GET", "https://api.example.com/status", json={"state": "done"})
    callouts.mock("GET", "https://api.example.com/status", status=404, times=11)

    found = await trial.run("tries_again", {"id": "o1"})

    assert (found.status, found.reason) == ("succeeded", "")


async def test_a_tenant_has_the_ceilings_of_its_tier_and_the_child_knows(trial: Trial) -> None:
    seen = {}
    for tenant in ("small", "large"):
        found = await trial.run("tells", {"id": "o1"}, tenant=tenant)
        (line,) = found.log
        seen[tenant] = line.fields

    assert seen == {
        "small": {"wall": 10, "callouts": 2, "depth": 1},
        "large": {"wall": 60, "callouts": 30, "depth": 1},
    }


async def test_doctor_names_who_declares_more_than_the_ceiling_of_all(trial: Trial, app_folder: Path) -> None:
    """What a tier bounds is meant so; its tenants are told by `limits`."""
    found = [check for check in await app(load_settings(app_folder)) if check.name == "limits"]

    assert [check.said for check in found] == ["tells declares wall_time 300.00 s, it gets 60.00 s ([ceilings])."]


async def test_what_a_handler_declares_over_its_tenants_ceiling_does_not_help(trial: Trial, callouts: Callouts) -> None:
    mock = callouts.mock("GET", "https://api.example.com/status", json={"state": "done"})
    records = [{"id": f"o{n}"} for n in range(5)]

    small = await trial.run("asks_for_nobody", records, tenant="small")
    calls = len(mock.calls)
    large = await trial.run("asks_for_nobody", records, tenant="large")

    assert (small.status, small.reason.partition(",")[0]) == ("breached", "limit callouts exceeded: 3 of 2")
    assert calls == 2
    assert large.status == "succeeded"
