"""The seven steps of a release by the real command: two environments, a repository of git, a gateway that is tried."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from circuit_script.cli.init import targets
from tests.acceptance.command import Ran, Terminal, run
from tests.acceptance.platform import COMMAND, Platform, environment, free_port, running
from tests.servers import TEMPLATE, Server

pytestmark = pytest.mark.story

WORKFLOW = Path(targets.__file__).parent / "targets" / "github" / "release.yml"
LONGEST = 300.0
STEPS = ["test", "tag", "staging", "smoke", "production", "watch", "rollback"]
TRIGGERS = """
from circuit_script import CircuitDB, trigger


@trigger("Contact", ["afterInsert"])
async def greet(context):
    await CircuitDB.update("Contact", [{"id": record["id"], "greeted": %d} for record in context.new_records])
"""
TESTS = """
def test_who_is_new_is_greeted(circuit):
    run = circuit.insert("Contact", circuit.create_test_contact())
    run.assert_succeeded()
"""
ENVIRONMENTS = """
[env.staging]
database_env = "STAGING_DATABASE_URL"

[env.production]
database_env = "PRODUCTION_DATABASE_URL"
"""


@dataclass
class Shop:
    """An app under git with two environments; staging has a gateway and a worker."""

    folder: Path
    staging: str
    production: str
    tests: str  # the server of the app's tests
    port: int

    def write(self, number: int) -> None:
        (self.folder / "app" / "triggers.py").write_text(TRIGGERS % number)

    def git(self, *arguments: str) -> str:
        who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
        ran = subprocess.run(["git", *who, *arguments], cwd=self.folder, capture_output=True, text=True, check=True)
        return ran.stdout.strip()

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--message", "as it is")

    @property
    def environment(self) -> dict[str, str]:
        who = {f"GIT_{role}_{what}": "ada" for role in ("COMMITTER", "AUTHOR") for what in ("NAME", "EMAIL")}
        there = {"STAGING_DATABASE_URL": self.staging, "PRODUCTION_DATABASE_URL": self.production}
        there |= {"CIRCUIT_TEST_DATABASE_URL": self.tests}
        return {**who, **there, "STAGING_URL": f"http://127.0.0.1:{self.port}"}

    def checklist(self, *arguments: str, **more: str) -> Ran:
        """It takes as long as the app's tests three times."""
        ran = subprocess.run(
            [COMMAND, "checklist", *arguments],
            cwd=self.folder,
            env=environment(None) | self.environment | more,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )
        return Ran(ran.returncode, ran.stdout, ran.stderr)

    def told(self, *arguments: str, **more: str) -> dict[str, Any]:
        ran = self.checklist(*arguments, "--json", **more)
        assert ran.out, ran.err
        found: dict[str, Any] = json.loads(ran.out)
        return found

    def live(self, url: str) -> str | None:
        with psycopg.connect(url) as connection:
            row = connection.execute(
                "SELECT r.version FROM circuit.live l JOIN circuit.releases r ON r.id = l.release"
            ).fetchone()
        return row[0] if row else None


@pytest.fixture
def shop(embedded_server: Server) -> Iterator[Shop]:
    names = [embedded_server.create_database(TEMPLATE) for _ in range(2)]
    staging, production = map(embedded_server.url, names)
    with tempfile.TemporaryDirectory(prefix="cs-", dir="/tmp") as parent:
        Path(parent).chmod(0o711)
        folder, port = Path(parent) / "shop", free_port()
        assert run("init", str(folder)).code == 0
        for each in (folder / "tests").glob("test_*.py"):
            each.unlink()
        (folder / "app" / "endpoints.py").unlink()
        (folder / "tests" / "test_triggers.py").write_text(TESTS)
        (folder / "circuit.toml").write_text(f"[gateway]\nport = {port}\n{ENVIRONMENTS}")
        made = Shop(folder, staging, production, embedded_server.superuser, port)
        made.write(1)
        made.git("init", "--quiet")
        made.commit()
        with running(Platform(folder, port, staging)):
            yield made
    for name in names:
        embedded_server.drop_database(name)


def states(told: dict[str, Any]) -> list[str]:
    assert [each["step"] for each in told["steps"]] == STEPS
    return [each["state"] for each in told["steps"]]


def test_the_seven_steps_are_planned_asked_for_run_and_remembered(shop: Shop) -> None:
    plan = shop.checklist("--dry-run")
    assert (plan.code, plan.err) == (0, "")
    rows = [line.split() for line in plan.out.splitlines()[1:]]
    assert [row[1] for row in rows] == STEPS
    assert "circuit-script deploy --env staging --detach --yes" in plan.out
    assert shop.git("tag") == "", "it was a plan only"

    for name in ("--env", "--staging"):
        wrong = shop.checklist(name, "prod", "--yes")
        assert (wrong.code, "There is no environment 'prod'" in wrong.err) == (1, True)
    refused = shop.checklist()
    assert (refused.code, "Nobody is there to ask" in refused.err) == (1, True)

    with Terminal.open("checklist", "--minutes", "0", folder=shop.folder, **shop.environment) as terminal:
        terminal.wait_for("tag: git tag --annotate v1.0.0? [Y/n]")
        terminal.type(b"n\n")
        assert terminal.wait() == 1
    assert "Nobody said yes." in terminal.seen
    kept = shop.told("--dry-run")
    assert states(kept) == ["done", *["open"] * 6]
    assert shop.git("tag") == ""

    ran = shop.checklist("--minutes", "0", "--yes", "--smoke", "curl --fail --silent $URL/healthz > smoked.log")
    assert ran.code == 0, ran.out + ran.err
    assert "v1.0.0 has come through" in ran.out
    assert shop.git("tag", "--points-at", "HEAD") == "v1.0.0"
    assert (shop.live(shop.staging), shop.live(shop.production)) == ("v1.0.0", "v1.0.0")
    assert (shop.folder / "smoked.log").stat().st_size
    kept = shop.told("--dry-run")
    assert states(kept) == [*["done"] * 6, "skipped"]
    assert (kept["done"], kept["version"]) == (True, "v1.0.0")

    once_more = shop.checklist("--yes")
    assert (once_more.code, "not needed" in once_more.out) == (0, True)
    with psycopg.connect(shop.production) as connection:
        assert connection.execute("SELECT count(*) FROM circuit.moves").fetchone() == (1,), "nothing is done twice"


@pytest.mark.slow
def test_it_stops_at_what_fails_and_begins_anew_with_other_files(shop: Shop) -> None:
    (shop.folder / "tests" / "test_triggers.py").write_text("def test_it():\n    assert False\n")
    shop.commit()
    told = shop.told("--yes")
    assert states(told) == ["failed", *["open"] * 6]
    assert shop.checklist("--yes").code == 1

    (shop.folder / "tests" / "test_triggers.py").write_text(TESTS)
    told = shop.told("--yes")
    assert states(told)[:3] == ["done", "failed", "open"]
    assert "tests/test_triggers.py is not committed" in told["steps"][1]["detail"]

    shop.commit()
    told = shop.told("--yes", STAGING_URL="")
    assert states(told)[:5] == ["done", "done", "done", "failed", "open"]
    assert "Say --url, or set STAGING_URL" in told["steps"][3]["detail"]
    before = told["steps"][0]["at"]

    told = shop.told("--yes", "--minutes", "0", "--url", f"http://127.0.0.1:{shop.port}", STAGING_URL="")
    assert told["done"], told
    assert told["steps"][0]["at"] == before, "it went on where it had stopped"

    shop.write(2)
    assert states(shop.told("--dry-run")) == ["open"] * 7


@pytest.mark.slow
def test_a_release_with_more_errors_is_rolled_back_and_what_others_rolled_back_is_left(shop: Shop) -> None:
    shop.told("--step", "tag", "--step", "production", "--yes")
    assert shop.live(shop.production) == "v1.0.0"
    shop.write(2)
    shop.commit()
    assert shop.told("--step", "tag", "--yes")["version"] == "v1.0.1"
    deployed = shop.told("--step", "production", "--yes")
    assert shop.live(shop.production) == "v1.0.1", deployed
    with psycopg.connect(shop.production, autocommit=True) as connection:
        connection.execute("UPDATE circuit.moves SET watch_until = now() + interval '1 hour', watched = NULL")
        fail_executions(connection, 4)

    told = shop.told("--step", "watch", "--step", "rollback", "--minutes", "0", "--yes")
    found = {each["step"]: each for each in told["steps"]}
    assert found["watch"]["state"] == "failed", told
    assert "over 0.1 % more than before (0 of 0)" in found["watch"]["detail"]
    assert found["rollback"]["detail"].startswith("v1.0.0 is live again")
    assert shop.live(shop.production) == "v1.0.0"

    again = shop.told("--step", "watch", "--step", "rollback", "--minutes", "0", "--yes", "--version", "v1.0.1")
    found = {each["step"]: each for each in again["steps"]}
    assert found["watch"]["detail"].startswith("v1.0.1 was rolled back, v1.0.0 is live")
    assert found["rollback"]["detail"] == "v1.0.0 is live: it was rolled back already"
    assert shop.live(shop.production) == "v1.0.0", "and not one further"

    if shutil.which("jq") is not None:  # GitHub's runners have it
        try_githubs_way(shop)

    away = "postgresql://127.0.0.1:1/nobody"
    blind = shop.told("--step", "rollback", "--yes", "--version", "v1.0.1", PRODUCTION_DATABASE_URL=away)
    assert blind["steps"][-1]["state"] == "failed"
    assert "cannot be seen" in blind["steps"][-1]["detail"], "what cannot be seen is not rolled back"


def try_githubs_way(shop: Shop) -> None:
    roll_back_as_on_github(shop, "v1.0.1")
    assert shop.live(shop.production) == "v1.0.0", "it is not live, so that there is nothing to roll back"
    roll_back_as_on_github(shop, "v1.0.0")
    assert shop.live(shop.production) == "v1.0.1", "what was live before"


def roll_back_as_on_github(shop: Shop, version: str) -> None:
    """The workflow's own lines, in the shell that GitHub would run them in."""
    workflow = yaml.safe_load(WORKFLOW.read_text("utf-8"))
    (step,) = [each for each in workflow["jobs"]["production"]["steps"] if each.get("name") == "roll back"]
    where = {"PATH": f"{Path(COMMAND).parent}:{os.environ['PATH']}", "VERSION": version}
    ran = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", step["run"]],
        cwd=shop.folder,
        env=environment(None) | shop.environment | where,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr


def fail_executions(connection: psycopg.Connection[tuple[Any, ...]], count: int) -> None:
    """Executions of the live release that have failed, as its worker would have written them."""
    connection.execute(
        "INSERT INTO circuit.executions (id, tenant, handler, release, object, event, status, records, started_at,"
        " usage) SELECT circuit.uuid_floor(clock_timestamp() + n * interval '1 ms'), 'default', min(h.id), l.release,"
        " 'Contact', 'afterInsert', 'failed', 1, now(), '{}'"
        " FROM circuit.live l, circuit.handlers h, generate_series(1, %s) AS n GROUP BY l.release, n",
        [count],
    )
