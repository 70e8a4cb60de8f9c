"""Endpoints of a running platform: answered by real children, and whole whatever is killed meanwhile."""

from __future__ import annotations

import json
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from tests.acceptance.platform import COMMAND, Platform, environment, kill, served
from tests.acceptance.vendor import make_vendor
from tests.servers import Server, until

APP = """
import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator

from circuit_script import CircuitDB, HTTPProblem, endpoint


@endpoint("note", methods=["POST"], deadline=10)
async def note(body: dict) -> dict:
    await CircuitDB.insert("Note", {"n": body["n"], "part": 1})
    await asyncio.sleep(body.get("sleep", 0))
    await CircuitDB.insert("Note", {"n": body["n"], "part": 2})
    if body.get("refuse"):
        raise HTTPProblem(409, "not this one")
    return {"n": body["n"]}


@endpoint("words", methods=["POST"])
async def words(body: dict) -> AsyncIterator[dict]:
    for word in body["words"]:
        await CircuitDB.insert("Word", {"word": word})
        yield {"word": word}
    await asyncio.sleep(body.get("sleep", 0))


@endpoint("mine", auth="none")
async def mine() -> list:
    return sorted(row["n"] for row in await CircuitDB.query("Note"))


@endpoint("knock")
def knock(folder: str) -> dict:
    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(5)
        try:
            door.connect(folder + "/.circuit/worker.sock")
            return {"answered": len(door.recv(10))}
        except OSError as error:
            return {"refused": type(error).__name__}
"""
TENANTS = "[tenants.acme]\n[tenants.globex]\n"
NOTES = """
SELECT (data ->> 'n')::int, count(*) FROM circuit.records WHERE object = 'Note' GROUP BY 1 ORDER BY 1
"""


@pytest.fixture(scope="module")
def platform(embedded_server: Server) -> Iterator[Platform]:
    with served(embedded_server, APP, public_key=make_vendor().public_key, more=TENANTS) as running:
        yield running


def new_key(platform: Platform, tenant: str) -> dict[str, str]:
    name = f"{tenant}-{random.getrandbits(32)}"
    command = [COMMAND, "keys", "create", name, "--tenant", tenant, "--folder", str(platform.folder)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment(platform.database), timeout=30)
    assert ran.returncode == 0, ran.stderr
    return {"authorization": f"Bearer {ran.stdout.strip()}"}


@pytest.fixture
def caller(platform: Platform) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=f"http://127.0.0.1:{platform.port}", headers=new_key(platform, "acme"), timeout=20
    ) as client:
        yield client


def test_an_answer_is_committed_when_it_arrives(platform: Platform, caller: httpx.Client) -> None:
    told = caller.post("/api/note", json={"n": 1})
    assert (told.status_code, told.json()) == (200, {"n": 1})
    assert platform.rows(NOTES) == [(1, 2)]
    status = platform.value("SELECT status FROM circuit.executions WHERE id = %s", told.headers["execution-id"])
    assert status == "succeeded"
    refused = caller.post("/api/note", json={"n": 2, "refuse": True})
    assert (refused.status_code, refused.json()["detail"]) == (409, "not this one")
    assert platform.rows(NOTES) == [(1, 2)]


def test_each_tenant_has_its_own_data_and_its_own_keys(platform: Platform, caller: httpx.Client) -> None:
    other = new_key(platform, "globex")
    key = {"idempotency-key": "same"}
    assert caller.post("/api/note", json={"n": 10}, headers=key).status_code == 200
    told = caller.post("/api/note", json={"n": 10}, headers={**key, **other})
    assert "idempotent-replayed" not in told.headers
    assert 10 in caller.get("/api/mine").json()
    assert caller.get("/api/mine", headers=other).json() == [10, 10]
    with httpx.Client(base_url=caller.base_url) as nobody:
        assert nobody.get("/api/mine").json() == []


def test_a_stream_ends_with_its_commit(platform: Platform, caller: httpx.Client) -> None:
    told = caller.post("/api/words", json={"words": ["a", "b"]})
    assert told.headers["content-type"].startswith("text/event-stream")
    events = told.text.strip().split("\n\n")
    assert [each.splitlines()[0] for each in events] == ['data: {"word":"a"}', 'data: {"word":"b"}', "event: done"]
    assert platform.value("SELECT count(*) FROM circuit.records WHERE object = 'Word'") == 2


def test_a_handler_cannot_call_the_workers_door(platform: Platform, caller: httpx.Client) -> None:
    told = caller.get("/api/knock", params={"folder": str(platform.folder)}).json()
    refused = {
        "FileNotFoundError",
        "ConnectionResetError",
    }  # out of its sight, or closed to it where no mount can be made
    assert told == {"answered": 0} or told["refused"] in refused, told


def test_a_revoked_key_stops_working(platform: Platform) -> None:
    headers = new_key(platform, "acme")
    with httpx.Client(base_url=f"http://127.0.0.1:{platform.port}", headers=headers) as client:
        assert client.post("/api/note", json={"n": 20}).status_code == 200
        command = [
            COMMAND,
            "keys",
            "revoke",
            headers["authorization"][7:17],
            "--json",
            "--folder",
            str(platform.folder),
        ]
        ran = subprocess.run(command, capture_output=True, text=True, env=environment(platform.database), timeout=30)
        assert json.loads(ran.stdout)["revoked_at"]
        until(lambda: client.post("/api/note", json={"n": 20}).status_code == 401, "the key is refused", 10)


@pytest.mark.parametrize("role", ["worker", "gateway", "zygote"])
def test_calls_are_whole_or_not_at_all_when_a_process_is_killed(
    platform: Platform, caller: httpx.Client, role: str, chance: random.Random
) -> None:
    first = 1000 * (1 + ["worker", "gateway", "zygote"].index(role))
    ends: Counter[int] = Counter()
    kept: list[int] = []
    numbers = iter(range(first, first + 40))
    turn = threading.Lock()

    def call() -> None:
        while True:
            with turn:
                n = next(numbers, None)
            if n is None:
                return
            told = patiently(caller, n)
            ends[told.status_code] += 1
            if told.status_code == 200:
                kept.append(n)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for each in threads:
        each.start()
    for _ in range(2):
        until(lambda: len(kept) > 0, "a call was answered")
        time.sleep(chance.uniform(0.05, 0.4))  # a random moment of the calls under way
        kill(platform.find(role)[:1])
    for each in threads:
        each.join(120)
    assert ends == {200: 40}
    notes = dict(platform.rows(NOTES))
    assert {n: notes.get(n) for n in range(first, first + 40)} == dict.fromkeys(range(first, first + 40), 2)


def patiently(caller: httpx.Client, n: int) -> httpx.Response:
    """The same request with the same key, until it was answered for good."""
    headers = {"idempotency-key": f"note-{n}"}
    give_up = time.monotonic() + 60
    while True:
        try:
            told = caller.post("/api/note", json={"n": n, "sleep": 0.02}, headers=headers)
            if told.status_code not in (409, 500, 503, 504):
                return told
        except httpx.TransportError:
            pass
        assert time.monotonic() < give_up, f"call {n} was never answered"
        time.sleep(0.1)
