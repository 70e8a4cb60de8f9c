"""Deploys by the real command: what is bad is stopped at its gate with what to do, and what was live goes on."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from circuit_script.cli.demo.vendor import Vendor
from tests.acceptance.bad_releases import BAD_RELEASES, PATIENT, TESTS, TRIGGERS
from tests.acceptance.command import Ran, Terminal, run
from tests.acceptance.platform import Platform, served
from tests.acceptance.vendor import contact_stream, make_vendor, send_all
from tests.servers import Server

pytestmark = pytest.mark.story


@pytest.fixture(scope="module")
def platform(embedded_server: Server) -> Iterator[Platform]:
    """A platform to which one good release was deployed. The tests of that have a server of their own, those of what
    is deployed later one that runs already."""
    more = f"[deploy]\nimport_seconds = {PATIENT}\n"  # however busy this host is
    with served(embedded_server, TRIGGERS, public_key=make_vendor().public_key, more=more) as started:
        (started.folder / "tests").mkdir(exist_ok=True)
        for old in (started.folder / "tests").glob("test_*.py"):
            old.unlink()
        (started.folder / "tests" / "test_triggers.py").write_text(TESTS)
        (started.folder / "requirements.txt").write_text("circuit-script[test]\n")
        ran = deploy(started, "--yes", "--detach", "--message", "the good one")
        assert ran.code == 0, ran.err
        assert told(ran)["release"] == "v1.0.0"
        started.more["CIRCUIT_TEST_DATABASE_URL"] = embedded_server.superuser
        yield started


@pytest.fixture
def app(platform: Platform, app_folder: Path) -> Path:
    """The same app as somebody else has it, to be spoiled."""
    ignored = shutil.ignore_patterns(".circuit", "__pycache__", ".pytest_cache")
    return Path(shutil.copytree(platform.folder, app_folder / "app", ignore=ignored))


@pytest.fixture
def vendor(chance: random.Random) -> Vendor:
    """Whose contacts nobody has sent before."""
    vendor = make_vendor()
    vendor.random.seed(chance.random())
    return vendor


def deploy(platform: Platform, *arguments: str, folder: Path | None = None) -> Ran:
    at = str(folder or platform.folder)
    return run("deploy", "--folder", at, "--json", *arguments, database=platform.url, **platform.more)


def told(ran: Ran) -> dict[str, object]:
    found: dict[str, object] = json.loads(ran.out)
    return found


def handles(platform: Platform, vendor: Vendor) -> bool:
    """Whether what is live handles a new contact."""
    before = platform.value("SELECT count(*) FROM circuit.executions WHERE status = 'succeeded'")
    send_all(platform.port, contact_stream(vendor, 1))
    platform.wait_settled()
    after = platform.value("SELECT count(*) FROM circuit.executions WHERE status = 'succeeded'")
    return bool(after > before)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if bad.slow else name for name, bad in BAD_RELEASES.items()]
)
def test_a_bad_release_is_stopped_at_its_gate_and_what_was_live_goes_on(
    platform: Platform, app: Path, name: str
) -> None:
    bad = BAD_RELEASES[name]
    live = platform.value("SELECT release FROM circuit.live")
    bad.spoil(app)
    ran = deploy(platform, "--yes", "--version", "v2.0.0", *bad.arguments, folder=app)

    assert ran.code == 1, ran.err
    found = told(ran)
    assert isinstance(found["refused"], dict)
    assert isinstance(found["steps"], list)
    assert found["steps"][-1]["step"] == bad.step, ran.err
    assert found["steps"][-1]["outcome"] == "refused"
    assert re.search(bad.says, found["refused"]["why"], re.DOTALL), found["refused"]
    assert re.search(bad.cure, found["refused"]["cure"]), found["refused"]
    assert "error: The release was not deployed." in ran.err
    assert "Traceback" not in ran.err.partition("error: ")[2]
    assert found["live"] is False
    assert platform.value("SELECT release FROM circuit.live") == live
    assert platform.rows("SELECT FROM circuit.releases WHERE version = 'v2.0.0'") == []


def test_after_all_of_them_the_good_one_still_works(platform: Platform, vendor: Vendor) -> None:
    assert handles(platform, vendor)


def test_one_that_is_good_goes_live_and_back(platform: Platform, app: Path, vendor: Vendor) -> None:
    (app / "app" / "triggers.py").write_text(TRIGGERS.replace('"score": 1', '"score": 2'))
    (app / "tests" / "test_triggers.py").write_text(TESTS.replace("score=1", "score=2"))
    ran = deploy(platform, "--validate-only", "--version", "v1.4.0", "--message", "two points", folder=app)
    assert ran.code == 0, ran.err
    assert told(ran)["live"] is False
    assert [each["live"] for each in releases(platform) if each["release"] == "v1.4.0"] == [False]

    ran = deploy(platform, "--quick", "--yes", "--watch", "1s", folder=app)
    assert ran.code == 0, ran.err
    assert told(ran)["release"] == "v1.4.0"
    assert told(ran)["live"] is True
    assert handles(platform, vendor)
    live = {each["release"]: each for each in releases(platform)}
    assert (live["v1.4.0"]["live"], live["v1.4.0"]["executions"], live["v1.4.0"]["errors"]) == (True, 1, 0)

    back = run("rollback", "--folder", str(app), "--json", "--reason", "too many points", database=platform.url)
    assert back.code == 0, back.err
    assert told(back) | {"live_after_s": 0} == {
        "release": "v1.0.0", "before": "v1.4.0", "warm": True, "reason": "too many points", "live_after_s": 0,
        "last_of_before_s": None,
    }  # fmt: skip
    assert handles(platform, vendor)

    did = told(run("effects", "--folder", str(app), "--release", "v1.4.0", "--json", database=platform.url))
    assert isinstance(did["changes"], list)
    assert isinstance(did["handled"], list)
    (change,) = did["changes"]
    assert (change["target"], change["field"], change["records"]) == ("Contact", "score", 1)
    assert change["examples"][0]["value"] == 2
    repair = str(did["handled"][0]["replay"]).split()[1:]
    assert repair[:3] == ["replay", "--trigger", "score"]
    again = run(*repair, "--folder", str(app), "--json", database=platform.url)
    assert again.code == 0, again.err
    assert '"score"' in again.out


def releases(platform: Platform) -> list[dict[str, object]]:
    found = told(run("releases", "--folder", str(platform.folder), "--json", database=platform.url))["releases"]
    assert isinstance(found, list)
    return found


@pytest.mark.slow
def test_a_person_is_asked_and_may_leave_the_watch_to_the_workers(platform: Platform, app: Path) -> None:
    (app / "app" / "triggers.py").write_text(f"# another\n{TRIGGERS}")
    with Terminal.open("deploy", "--folder", str(app), database=platform.url) as terminal:
        terminal.wait_for("in the place of")
        terminal.type(b"y\n")
        terminal.wait_for("Ctrl-C: workers go on")
        terminal.type(b"\x03")
        assert terminal.wait() == 0
    assert "left to the workers" in terminal.seen
    assert run("rollback", "--folder", str(app), database=platform.url).code == 0


def test_nobody_to_ask_is_no_yes(platform: Platform) -> None:
    ran = run("deploy", "--folder", str(platform.folder), database=platform.url)
    assert ran.code == 1
    assert "Add --yes" in ran.err


def test_what_is_refused_before_the_first_step_is_json_as_well(platform: Platform, app: Path) -> None:
    with (app / "circuit.toml").open("a") as settings:
        settings.write("\n[deploi]\n")
    arguments = ("--env", "production")
    for folder, more, why in ((platform.folder, (), "Nobody is there"), (platform.folder, arguments, "'production'"),
                              (app, (), "deploi"), (app / "tests", (), "has no circuit.toml")):  # fmt: skip
        ran = deploy(platform, *more, folder=folder)
        assert ran.code == 1
        found = told(ran)
        assert isinstance(found["refused"], dict), found
        assert why in found["refused"]["why"]
        assert found["refused"]["cure"]
        assert (found["live"], found["steps"]) == (False, [])


SEES = """
import os


def test_that_no_secret_of_the_shell_is_here():
    assert os.environ["OUR_FLAG"] == "said"
    assert not {"DATABASE_URL", "PRODUCTION_DATABASE_URL", "OPENAI_API_KEY", "CIRCUIT_SMTP_PASSWORD"} & set(os.environ)
    assert "hunter2" not in "".join(os.environ.values())
"""


@pytest.mark.slow
def test_tests_of_a_deploy_see_no_secret_of_the_shell(platform: Platform, app: Path) -> None:
    (app / "tests" / "test_shell.py").write_text(SEES)
    settings = (app / "circuit.toml").read_text()
    (app / "circuit.toml").write_text(settings.replace("[deploy]\n", '[deploy]\ntest_environment = ["OUR_FLAG"]\n'))
    names = ("PRODUCTION_DATABASE_URL", "OPENAI_API_KEY", "THEIRS")
    shell = {**dict.fromkeys(names, "hunter2"), "OUR_FLAG": "said"}
    arguments = ("deploy", "--folder", str(app), "--json", "--validate-only")
    ran = run(*arguments, database=platform.url, **shell)
    assert ran.code == 0, ran.err


def test_another_environment_is_a_database_that_a_variable_names(platform: Platform, app: Path) -> None:
    arguments = ("releases", "--folder", str(app), "--env", "production")
    ran = run(*arguments)
    assert "There is no environment 'production'" in ran.err
    assert 'database_env = "PRODUCTION_DATABASE_URL"' in ran.err
    with (app / "circuit.toml").open("a") as settings:
        settings.write('\n[env.production]\ndatabase_env = "PRODUCTION_DATABASE_URL"\n')
    ran = run(*arguments)
    assert ran.code == 1
    assert "PRODUCTION_DATABASE_URL is not set" in ran.err
    ran = run(*arguments, PRODUCTION_DATABASE_URL=platform.url)
    assert ran.code == 0, ran.err
    assert "v1.0.0" in ran.out
    assert "postgresql://" not in ran.out
