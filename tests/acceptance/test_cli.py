"""The command line as people and scripts use it: the real command, in a terminal and piped."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from circuit_script.cli.dev.keys import role_environment
from circuit_script.cli.verbs import VERBS
from circuit_script.config import load_settings
from circuit_script.pages import page_text
from tests.acceptance.command import ESCAPE, Ran, Terminal, run, run_in_terminal
from tests.acceptance.platform import COMMAND, Platform, environment, write_app
from tests.acceptance.vendor import make_vendor
from tests.servers import TEMPLATE, Server, until

pytestmark = pytest.mark.story

TRIGGERS = """
from circuit_script import log, trigger


@trigger("Contact", ["afterInsert"])
async def greet(context):
    for contact in context.new_records:
        async with context.record(contact):
            if contact["id"] == "bad":
                raise ValueError("no greeting for this one")
            log.info("hello", city=contact.get("city"))
"""
CTRL_C = b"\x03"
SECRETS = '[sources.standard.secrets]\ntest = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"'
DELIVERY = re.compile(r"delivery ([0-9a-f-]{36})")


@pytest.fixture(scope="module")
def app(embedded_server: Server) -> Iterator[Platform]:
    """One app that runs for all of these tests."""
    database = embedded_server.create_database(TEMPLATE)
    with tempfile.TemporaryDirectory(prefix="cs-", dir="/tmp") as parent:
        folder = Path(parent) / "app"
        port = write_app(
            folder, TRIGGERS, public_key=make_vendor(7).public_key, worker="attempts = 1\nlease = 1", more=SECRETS
        )
        platform = Platform(folder, port, embedded_server.url(database)).start()
        try:
            yield platform
        finally:
            platform.end()
    embedded_server.drop_database(database)


def verb(app: Platform, *arguments: str, **more: str) -> Ran:
    return run(*arguments, database=app.database, folder=app.folder, **more)


def send(app: Platform, **fields: Any) -> str:
    """A lead by the command line; the id of its delivery."""
    ran = verb(app, "send", "standard", "--data", json.dumps(fields))
    assert ran.code == 0, ran.err
    found = DELIVERY.search(ran.out)
    assert found, ran.out
    assert f"circuit-script logs --delivery {found[1]}" in ran.out
    return found[1]


def lines(app: Platform, *arguments: str) -> list[dict[str, Any]]:
    ran = verb(app, "logs", "--json", *arguments)
    assert ran.code == 0, ran.err
    return [json.loads(line) for line in ran.out.splitlines()]


def settled(app: Platform, delivery: str) -> list[dict[str, Any]]:
    """The lines of a delivery, once there are some."""
    until(lambda: bool(lines(app, "--delivery", delivery)), f"a line of delivery {delivery}")
    return lines(app, "--delivery", delivery)


def test_a_lead_that_was_sent_is_in_the_logs_by_its_delivery_record_handler_and_text(app: Platform) -> None:
    (line,) = settled(app, send(app, id="c1", city="Waco"))
    assert (line["message"], line["context"], line["handler"]) == ("hello", {"city": "Waco"}, "greet")
    assert lines(app, "--record", "c1") == [line]
    assert line in lines(app, "--handler", "greet", "--since", "1h", "--level", "info", "--tenant", "default")
    assert lines(app, "--search", "waco") == [line]
    assert lines(app, "--execution", line["execution"]) == [line]
    assert lines(app, "--tenant", "somebody else") == []
    said = verb(app, "logs", "--record", "c1").out
    assert re.fullmatch(r"[\d: .-]{24}info     greet hello  city=Waco record=c1 execution=\S+\n", said)


def ends(app: Platform, delivery: str) -> list[dict[str, Any]]:
    """The lines that say how an execution failed; what the handler itself logged is not among them."""
    return [line for line in lines(app, "--delivery", delivery) if line["message"].startswith("failed: ")]


def test_a_handler_that_failed_is_in_the_logs_as_an_error(app: Platform) -> None:
    delivery = send(app, id="bad")
    until(lambda: bool(ends(app, delivery)), "its execution has ended")
    (end,) = ends(app, delivery)
    assert (end["level"], end["handler"]) == ("error", "greet")
    assert "no greeting for this one" in end["message"]
    assert end["message"] in verb(app, "logs", "--level", "error").out


def test_following_the_logs_in_a_terminal_shows_each_new_line_in_colour_until_ctrl_c(app: Platform) -> None:
    arguments = ("logs", "-f", "--record", "c2")
    with Terminal.open(*arguments, database=app.database, folder=app.folder) as terminal:
        terminal.wait_for("No line fits that. Waiting")
        send(app, id="c2", city="Tulsa")
        terminal.wait_for("city=Tulsa")
        terminal.type(CTRL_C)
        assert terminal.wait() == 130
    assert f"{ESCAPE}32minfo" in terminal.seen
    assert "Traceback" not in terminal.seen


def test_what_a_stranger_wrote_cannot_steer_the_terminal(app: Platform) -> None:
    settled(app, send(app, id="c3", city="\x1b[2Jgone\x07"))
    ran = run_in_terminal("logs", "--record", "c3", database=app.database, folder=app.folder)
    assert "gone" in ran.out
    assert "\x1b[2J" not in ran.out
    assert "\x07" not in ran.out


@pytest.mark.slow
def test_colours_are_off_when_piped_and_with_no_color(app: Platform) -> None:
    settled(app, send(app, id="c4"))
    for arguments in (("logs",), ("status",), ("limits",), ("config", "show"), ("doctor",), ("explain", "config")):
        coloured = run_in_terminal(*arguments, database=app.database, folder=app.folder).out
        assert ESCAPE in coloured, arguments
        assert ESCAPE not in verb(app, *arguments).out, arguments
    plain = run_in_terminal("logs", database=app.database, folder=app.folder, NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", plain.out)


def test_whoever_reads_the_logs_may_stop_reading(app: Platform) -> None:
    settled(app, send(app, id="c5"))
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        ran = subprocess.run(
            [COMMAND, "logs"], cwd=app.folder, env=environment(app.database), stdout=closed, stderr=subprocess.PIPE
        )
    assert ran.returncode == 141
    assert ran.stderr == b""


def test_a_count_of_webhooks_is_sent_one_after_the_other(app: Platform) -> None:
    ran = verb(app, "send", "standard", "--count", "3", "--event", "Opportunity.afterUpdate", "--json")
    sent = [json.loads(line) for line in ran.out.splitlines()]
    assert [each["status"] for each in sent] == [202, 202, 202]
    assert len({each["delivery"] for each in sent} | {each["record"] for each in sent}) == 6


def test_serve_refuses_the_test_keys_of_dev_and_send_says_so(app: Platform) -> None:
    role_environment(load_settings(app.folder))  # makes the keys, as `dev` does
    ran = verb(app, "send", "gohighlevel")
    assert ran.code == 1
    assert "answered 401" in ran.err
    assert "circuit-script dev" in ran.err
    assert "more: circuit-script explain signature-refused" in ran.err


def test_limits_show_what_was_used(app: Platform) -> None:
    settled(app, send(app, id="c6"))
    found = json.loads(verb(app, "limits", "--json").out)
    wall = next(each for each in found["limits"] if each["limit"] == "wall_time")
    assert wall["handler"] == "greet"
    assert wall["ceiling"] == 30
    assert wall["executions"] >= 1
    assert 0 < wall["p95"] <= wall["most"] < 30
    assert wall["near"] is False
    assert (found["near_misses"], found["breaches"], found["cuts"]) == ([], [], [])
    assert [(each["tenant"], each["handler"]) for each in found["users"]] == [("default", "greet")]
    said = verb(app, "limits").out
    assert re.search(r"greet +wall_time +30\.00 s +0\.\d\d s", said)
    assert not re.search(r"^ +messages ", said, re.MULTILINE), "it is the default, and was not used"
    assert re.search(r"^ +messages +10", verb(app, "limits", "--all").out, re.MULTILINE)


def test_doctor_finds_a_healthy_app_that_runs(app: Platform) -> None:
    ran = verb(app, "doctor", "--json")
    found = json.loads(ran.out)
    assert ran.code == 0, ran.out
    assert found["ok"] is True
    said = {check["name"]: check["said"] for check in found["checks"]}
    assert said["app"] == "app: 1 trigger, 0 endpoints"
    assert said["port"] == f"the app runs (process {app.process.pid})"
    assert "is alive" in said["worker"]
    assert "circuit_road" in said["roles"]


def test_status_shows_the_figures_of_the_gateway(app: Platform) -> None:
    settled(app, send(app, id="c7"))
    until(lambda: json.loads(verb(app, "status", "--json").out)["received"] > 0, "a delivery was counted")
    assert re.search(r"^received +\d+", verb(app, "status").out, re.MULTILINE)


def test_status_names_the_last_errors_and_dead_letters(app: Platform) -> None:
    delivery = send(app, id="bad")
    until(lambda: bool(ends(app, delivery)), "its execution has ended")
    until(lambda: "no greeting" in verb(app, "status").out, "the gateway has heard of it")
    said = verb(app, "status").out
    assert re.search(r"^last errors *\n.*\n[\d: -]{16}greet +failed +1 +ValueError: no greeting", said, re.MULTILINE)
    assert re.search(r"^dead letters *\n.*\n[\d: -]{16}greet +bad +1 +ValueError: no greeting", said, re.MULTILINE)
    assert re.search(r"^release +\d+ \([0-9a-f]{12}\) since", said, re.MULTILINE)
    assert not re.search(r"\d\.\d{3}", said), "numbers are round"


def test_a_traceback_in_the_logs_is_a_block_below_its_line(app: Platform) -> None:
    settled(app, send(app, id="bad"))
    said = verb(app, "logs", "--level", "error").out
    assert re.search(r"\n    Traceback .*\n      File \".*app/triggers\.py\", line \d+, in greet\n", said)
    assert "\\n" not in said


# Without an app that runs ------------------------------------------------------------------------


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A new app, not started."""
    ran = run("init", "acme", folder=tmp_path)
    assert ran.code == 0, ran.err
    return tmp_path / "acme"


def test_init_makes_an_app_that_the_doctor_finds_healthy(fresh: Path) -> None:
    ran = run("doctor", folder=fresh)
    assert ran.code == 0, ran.out
    assert "✗" not in ran.out
    again = run("init", ".", folder=fresh)
    assert (again.code, "is there already" in again.err) == (1, True)
    assert "more: circuit-script explain folder-taken" in again.err


def test_init_into_the_empty_folder_where_one_stands(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    ran = run("init", ".", "--json", folder=tmp_path / "shop")
    made = json.loads(ran.out)
    assert made["folder"] == str(tmp_path / "shop")
    for each in made["files"]:
        assert (tmp_path / "shop" / each).is_file()
    assert (tmp_path / "shop" / "README.md").read_text().startswith("# shop\n")


def test_the_new_app_is_tidy(fresh: Path) -> None:
    for arguments in (["check", "--isolated"], ["format", "--check", "--isolated"]):
        ran = subprocess.run([sys.executable, "-m", "ruff", *arguments, str(fresh)], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout
    assert "{name}" not in "".join(each.read_text() for each in fresh.rglob("*") if each.is_file())


def test_doctor_says_what_to_mend_and_exits_1(fresh: Path) -> None:
    (fresh / "app" / "triggers.py").write_text("import not_there_at_all\n")
    ran = run("doctor", folder=fresh)
    assert ran.code == 1
    assert "✗ app" in ran.out
    assert "triggers.py:1: ModuleNotFoundError" in ran.out
    (fresh / "circuit.toml").write_text("[gateway]\nprt = 8000\n")
    assert "gateway.prt" in run("doctor", folder=fresh).out
    elsewhere = run("doctor", "--json", folder=fresh, DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert json.loads(elsewhere.out)["ok"] is False


@pytest.mark.parametrize("arguments", [("logs",), ("status",), ("send", "standard")])
def test_a_verb_that_looks_at_an_app_that_does_not_run_says_how_to_start_it(
    fresh: Path, arguments: tuple[str, ...]
) -> None:
    role_environment(load_settings(fresh))
    ran = run(*arguments, folder=fresh, CIRCUIT_GATEWAY__PORT="1")
    assert ran.code == 1
    assert re.fullmatch(
        r"error: Nothing runs here\. .*circuit-script dev.*\n  more: circuit-script explain not-running\n", ran.err
    )
    assert not (fresh / ".circuit" / "postgres").exists(), "nothing was started"


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing",),
        ("logs", "--since", "yesterday"),
        ("logs", "--level", "loud"),
        ("logs", "--limit", "0"),
        ("send",),
        ("send", "fax"),
        ("send", "standard", "--event", "Contact.afterCreate"),
        ("send", "standard", "--data", "no such file"),
        ("send", "standard", "--data", "[1]"),
        ("explain", "no-such-page"),
        ("limits", "--days", "0"),
    ],
)
def test_a_wrong_command_line_exits_2_and_says_what_is_wrong(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ran = run(*arguments, folder=tmp_path)
    assert ran.code == 2, ran.out + ran.err
    assert "Error" in ran.err
    assert "Traceback" not in ran.err


def test_config_shows_where_each_value_comes_from(fresh: Path) -> None:
    ran = run("config", "show", "--json", folder=fresh, CIRCUIT_WORKER__LEASE="20")
    found = {each["name"]: each for each in json.loads(ran.out)}
    assert found["gateway.port"]["origin"].startswith("circuit.toml:")
    assert found["worker.lease"] == {
        "name": "worker.lease", "value": 20.0, "origin": "environment CIRCUIT_WORKER__LEASE",
    }  # fmt: skip
    assert found["ledger.retention_days"]["origin"] == "default"
    assert run("config", "check", folder=fresh).out.endswith("circuit.toml is right.\n")
    wrong = run("config", "check", folder=fresh, CIRCUIT_LIMITS='{"calouts": 5}')
    assert (wrong.code, "Did you mean 'callouts'" in wrong.err) == (1, True)


def test_explain_shows_the_page_of_an_error_and_lists_all() -> None:
    assert run("explain", "port-taken").out == page_text("port-taken")
    seen = run_in_terminal("explain", "port-taken").out
    assert "What to do." in seen
    assert "```" not in seen, "it is laid out for the terminal"
    assert json.loads(run("explain", "port-taken", "--json").out)["title"] == "The port cannot be listened on"
    listed = run("explain").out
    assert "port-taken" in listed
    assert len(json.loads(run("explain", "--json").out)) == len(listed.splitlines()) - 1


def completed(*words: str) -> list[str]:
    line = " ".join(("circuit-script", *words))
    ran = run(_CIRCUIT_SCRIPT_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words)))
    return ran.out.split()


def test_the_shell_completes_verbs_options_and_pages() -> None:
    assert completed("") == [each.name for each in VERBS]
    assert completed("doc") == ["doctor"]
    assert "--follow" in completed("logs", "--fo")
    assert completed("explain", "port-t") == ["port-taken"]
    assert completed("send", "goh") == ["gohighlevel"]
    shell = subprocess.run(["bash", "-c", f"{COMMAND} --show-completion; true"], capture_output=True, text=True)
    assert "_CIRCUIT_SCRIPT_COMPLETE" in shell.stdout, shell.stderr


@pytest.mark.parametrize("name", [each.name for each in VERBS])
def test_each_verb_has_help_with_examples(name: str) -> None:
    ran = run(name, "--help")
    assert ran.code == 0
    assert re.search(rf"Examples?: +circuit-script {name}", ran.out), ran.out


def test_help_is_quick_because_it_loads_no_verb() -> None:
    script = (
        "import sys\nfrom circuit_script.cli import main\nsys.argv = ['circuit-script', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('psycopg', 'fastapi', 'uvicorn', 'pydantic', 'httpx', 'structlog') "
        "if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"
    assert "doctor" in ran.stdout


def test_the_version_is_told() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", run("--version").out)


@pytest.mark.parametrize(
    "arguments",
    [("serve",), ("dev",), ("test",), ("invoke", "x"), ("logs",), ("status",), ("limits",), ("config", "show"),
     ("config", "check"), ("keys", "list"), ("send", "standard")],
)  # fmt: skip
def test_a_folder_without_an_app_is_named_and_nothing_is_made_there(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ran = run(*arguments, folder=tmp_path)
    assert ran.code == 1
    assert ran.err.startswith(f"error: This is no app folder. {tmp_path} has no circuit.toml")
    assert "more: circuit-script explain no-app" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_verbs_find_the_app_from_below_it(fresh: Path) -> None:
    assert run("config", "check", folder=fresh / "app").out == f"{fresh}/circuit.toml is right.\n"


def test_limits_say_first_that_use_is_not_known_and_then_only_what_matters(fresh: Path) -> None:
    ran = run("limits", folder=fresh)
    assert ran.out.startswith("! Use is not known: ")
    assert len(ran.out.splitlines()) == 3, ran.out


def test_a_key_is_not_made_for_a_tenant_that_there_is_not(app: Platform) -> None:
    ran = verb(app, "keys", "create", "website", "--tenant", "defautl")
    assert ran.code == 1
    assert "There is no tenant 'defautl'. Did you mean 'default'?" in ran.err
    assert verb(app, "keys", "create", "website", "--tenant", "default").code == 0
    assert "error: This cannot be done with API keys. There is no key 'zzz'." in verb(app, "keys", "revoke", "zzz").err
