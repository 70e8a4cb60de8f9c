"""Jobs by the real commands: an app enqueues, is killed, fires by the clock, and runs scripts that it has adopted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.acceptance.command import Ran, run
from tests.acceptance.platform import Platform, environment, running, write_app
from tests.servers import TEMPLATE, Server, until

pytestmark = pytest.mark.story

KEY = "MCowBQYDK2VwAyEA1kxwcQ5u3pUZPfBVnLmFPVPTGBr1XoYHwXFNqjsb1lM="

APP = """
import asyncio
from pathlib import Path

from circuit_script import Cancel, CircuitDB, Context, enqueue, queueable, scheduled

HERE = Path(__file__).parent


async def tell(context: Context, **arguments) -> None:
    job = context.job
    await CircuitDB.insert("Told", {"job": job.id, "status": job.status, "attempt": job.attempt, **arguments})


@queueable(finalizer=tell, limits={"wall_time": 20})
async def report(context: Context, contact: str, then: int = 0) -> None:
    if contact == "hang" and not (HERE / "go").exists():
        (HERE / "reached").touch()
        await asyncio.Event().wait()
    if contact == "never":
        raise Cancel("not wanted")
    await CircuitDB.insert("Report", {"contact": contact, "by": context.job.enqueued_by})
    if then:
        await enqueue(report, contact=contact, then=then - 1)


@scheduled(every="1s", catch_up="all")
async def tick(context: Context) -> None:
    await CircuitDB.insert("Tick", {"at": context.job.scheduled_for.isoformat()})


@scheduled(every="1s", tenants="all")
async def each(context: Context) -> None:
    await CircuitDB.insert("Each", {})
"""

FETCHES = '''
"""A script as people have them."""
import os
import sys

import requests

if __name__ == "__main__":
    answer = requests.get(sys.argv[1], timeout=5)
    print("fetched", answer.status_code, sys.argv[2:])
    os.system("echo from a program that it starts; echo its complaint >&2")
    print("no line break", end="")
    sys.exit(0)
'''
FAILS = 'import sys\nprint("about to fail", file=sys.stderr)\nsys.exit(1)\n'
HANGS = 'print("begun", flush=True)\nwhile True:\n    import time; time.sleep(0.01)\n'


class Hello(BaseHTTPRequestHandler):
    """Answers every GET."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Hello)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def platform(embedded_server: Server, address: str) -> Iterator[Platform]:
    database = embedded_server.create_database(TEMPLATE)
    with tempfile.TemporaryDirectory(prefix="cs-", dir="/tmp") as parent:
        Path(parent).chmod(0o711)
        folder = Path(parent) / "app"
        port = write_app(
            folder, APP, public_key=KEY, worker="lease = 1\nbackoff = 0.05\nattempts = 2",
            more='[callouts]\nprivate = ["127.0.0.1"]\n\n[tenants.ada]\n[tenants.ben]\n',
        )  # fmt: skip
        for name, text in (("fetches", FETCHES), ("fails", FAILS), ("hangs", HANGS)):
            (Path(parent) / f"{name}.py").write_text(text)
        adopted = [
            adopt(folder, "fetches.py", "--every", "1h", "--args", f"{address} 'one two'"),
            adopt(folder, "fails.py", "--cron", "0 7 * * MON-FRI", "--timezone", "Europe/Berlin"),
            adopt(folder, "hangs.py", "--every", "1h", "--timeout", "1s", "--name", "hanging"),
        ]
        assert [ran.code for ran in adopted] == [0, 0, 0], adopted
        with running(Platform(folder, port, embedded_server.url(database))) as platform:
            yield platform
    embedded_server.drop_database(database)


def adopt(folder: Path, script: str, *more: str) -> Ran:
    return run("adopt", str(folder.parent / script), "--folder", str(folder), *more)


def ask(platform: Platform, *words: str) -> Any:
    ran = run(*words, "--json", database=platform.url, folder=platform.folder)
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def outcomes(platform: Platform, job: str) -> list[tuple[Any, ...]]:
    return platform.rows(
        "SELECT o.status, o.reason FROM circuit.outcomes o JOIN circuit.events e ON e.delivery = o.delivery "
        "WHERE e.record = %s ORDER BY o.at",
        job,
    )


def told(platform: Platform, job: str) -> list[tuple[Any, ...]]:
    return platform.rows(
        "SELECT data->>'status', (data->>'attempt')::int FROM circuit.records WHERE object = 'Told' "
        "AND data->>'job' = %s",
        job,
    )


def test_a_chain_of_jobs_runs_and_each_is_finalized(platform: Platform) -> None:
    job = ask(platform, "enqueue", "report", "--arg", "contact=c1", "--arg", "then=2", "--by", "ada")["id"]
    count = "SELECT count(*) FROM circuit.records WHERE object = %s AND data->>'contact' = 'c1'"
    until(lambda: platform.value(count, "Report") == 3 and platform.value(count, "Told") == 3, "all have run", 60)
    assert told(platform, job) == [("succeeded", 1)]
    by = platform.rows("SELECT data->>'by' FROM circuit.records WHERE object = 'Report' ORDER BY created_at")
    assert by == [("ada",), ("report",), ("report",)]


def test_a_job_whose_worker_is_killed_runs_again_and_is_finalized_once(platform: Platform) -> None:
    job = ask(platform, "enqueue", "report", "--arg", "contact=hang", "--unique", "hang")["id"]
    until((platform.folder / "app" / "reached").exists, "the job runs", 60)
    assert ask(platform, "enqueue", "report", "--arg", "contact=hang", "--unique", "hang") == {
        "job": "report", "id": job, "made": False, "kind": "held",
    }  # fmt: skip
    assert job in [each["id"] for each in ask(platform, "jobs")["jobs"]]
    (platform.folder / "app" / "go").touch()
    platform.one("worker").kill()
    until(lambda: bool(told(platform, job)), "its finalizer has run", 60)
    assert told(platform, job) == [("succeeded", 1)]
    assert [status for status, _ in outcomes(platform, job)] == ["succeeded"]


def test_a_cancelled_job_is_finalized(platform: Platform) -> None:
    job = ask(platform, "enqueue", "report", "--arg", "contact=never")["id"]
    until(lambda: told(platform, job) == [("cancelled", 1)], "its finalizer has run", 60)


def test_each_firing_is_one_event_whatever_died(platform: Platform) -> None:
    ticks = "SELECT count(*), count(DISTINCT data->>'at') FROM circuit.records WHERE object = 'Tick'"
    until(lambda: platform.rows(ticks)[0][0] > 3, "it has fired", 60)
    platform.one("worker").kill()
    before = platform.rows(ticks)[0][0]
    until(lambda: platform.rows(ticks)[0][0] > before + 3, "it fires again", 60)
    all_, different = platform.rows(ticks)[0]
    assert all_ == different
    first, last = platform.rows(
        "SELECT min((data->>'at')::timestamptz), max((data->>'at')::timestamptz) FROM circuit.records "
        "WHERE object = 'Tick'"
    )[0]
    missing = "SELECT count(*) FROM circuit.records WHERE object = 'Tick' AND (data->>'at')::timestamptz <= %s"
    until(lambda: platform.value(missing, last) == round((last - first).total_seconds()) + 1, "none is missing", 60)


def test_a_schedule_of_all_tenants_fires_for_those_that_circuit_toml_names_now(platform: Platform) -> None:
    whose = "SELECT array_agg(DISTINCT tenant ORDER BY tenant) FROM circuit.records WHERE object = 'Each'"
    until(lambda: platform.value(whose) == ["ada", "ben"], "it fires for both", 60)
    file = platform.folder / "circuit.toml"
    file.write_text(file.read_text().replace("[tenants.ben]", "[tenants.cleo]"))
    platform.signal(signal.SIGHUP)
    until(lambda: platform.value(whose) == ["ada", "ben", "cleo"], "it fires for who has come", 60)
    (found,) = [each for each in ask(platform, "jobs")["schedules"] if each["name"] == "each"]
    assert (found["tenants"], found["fires_for"]) == ("all", 2)
    assert ask(platform, "jobs", "--tenant", "ben")["schedules"] == [], "who has left has no firing"
    assert ask(platform, "jobs", "run", "each", "--tenant", "cleo")["made"]


def test_an_adopted_script_prints_to_the_log_and_counts_its_requests(platform: Platform) -> None:
    job = ask(platform, "jobs", "run", "fetches")["id"]
    until(lambda: bool(outcomes(platform, job)), "it has run", 60)
    assert outcomes(platform, job) == [("succeeded", None)]
    usage = "SELECT (usage->>'callouts')::int FROM circuit.executions WHERE event = 'fetches'"
    assert platform.rows(usage) == [(1,)]
    lines = "SELECT level, message FROM circuit.circuit_logs WHERE handler = 'fetches'"
    said = {("info", "fetched 200 ['one two']"), ("info", "from a program that it starts"),
            ("warning", "its complaint"), ("info", "no line break")}  # fmt: skip
    until(lambda: set(platform.rows(lines)) == said, "what it printed is logged", 60)


def test_an_adopted_script_that_exits_1_or_hangs_fails(platform: Platform) -> None:
    failing, hanging = ask(platform, "jobs", "run", "fails")["id"], ask(platform, "jobs", "run", "hanging")["id"]
    until(lambda: [each for each, _ in outcomes(platform, failing)] == ["retry", "dead"], "it has failed twice", 60)
    assert "fails.py exited with 1" in outcomes(platform, failing)[0][1]
    until(lambda: [each for each, _ in outcomes(platform, hanging)] == ["retry", "dead"], "it was ended twice", 60)
    assert outcomes(platform, hanging)[0][1].startswith("limit wall_time exceeded")


@pytest.mark.slow
def test_what_the_commands_show_and_refuse(platform: Platform) -> None:
    found = ask(platform, "jobs", "list")
    fires = {each["name"]: each["fires"] for each in found["schedules"]}
    assert fires == {"tick": "every 1s", "each": "every 1s", "fetches": "every 1h", "hanging": "every 1h",
                     "fails": "0 7 * * MON-FRI Europe/Berlin"}  # fmt: skip
    shown = run("jobs", database=platform.url, folder=platform.folder)
    assert shown.code == 0
    assert "0 7 * * MON-FRI Europe/Berlin" in shown.out
    for words, said in (
        (("enqueue", "reprot"), "Did you mean 'report'?"),
        (("enqueue", "report"), "needs the argument 'contact'"),
        (("enqueue", "report", "--arg", "contact"), "--arg name=value"),
        (("enqueue", "report", "--arg", "contact=1", "--delay", "soon"), "--delay is 'soon'"),
        (("jobs", "run", "nothing"), "has no job 'nothing'"),
        (("jobs", "run", "each", "--tenant", "adda"), "there is no tenant 'adda'. Did you mean 'ada'?"),
        (("enqueue", "report", "--arg", "contact=1", "--tenant", "someone"), "There are ada, "),
    ):
        ran = run(*words, database=platform.url, folder=platform.folder)
        assert ran.code == 1
        assert said in ran.err


def test_adopting_overwrites_nothing_and_says_what_is_wrong(platform: Platform) -> None:
    folder = platform.folder
    before = (folder / "app" / "jobs" / "fails.py").read_text()
    for words, said in (
        (("fails.py", "--every", "5m"), "is there already"),
        (("nothing.py", "--every", "5m"), "There is no script"),
        (("fails.py",), "--every or --cron"),
        (("fails.py", "--cron", "0 25 * * *", "--name", "other"), "wrong at column 3"),
        (("fails.py", "--every", "5m", "--name", "no name"), "'no name' is no name for a job"),
    ):
        ran = adopt(folder, *words)
        assert ran.code == 1
        assert said in ran.err
    assert (folder / "app" / "jobs" / "fails.py").read_text() == before
    assert not (folder / "app" / "jobs" / "other.py").exists()


def test_a_script_of_the_author_enqueues_from_outside(platform: Platform) -> None:
    script = 'import asyncio\nfrom circuit_script import enqueue\nprint(asyncio.run(enqueue("report", contact="c7")))\n'
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=platform.folder, env=environment(platform.url), text=True,
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    until(lambda: told(platform, ran.stdout.strip()) == [("succeeded", 1)], "it has run", 60)
