"""What an author does by hand: `circuit-script test` and `circuit-script invoke`, as real processes."""

import asyncio
import json
import os
import signal
import subprocess
import sys

import pytest

from circuit_script.config import load_settings
from circuit_script.db.embedded import EmbeddedPostgres
from tests.acceptance.author import circuit_script, write_tests
from tests.acceptance.command import Terminal
from tests.acceptance.platform import environment, left_behind
from tests.servers import until

pytestmark = pytest.mark.story

TRIGGERS = """
from circuit_script import CircuitDB, http, log, trigger

SEEN = []

@trigger("Contact", ["afterInsert"])
async def score(context):
    SEEN.append(1)
    log.info(f"run {len(SEEN)}")
    for record in context.new_records:
        async with context.record(record):
            if record.get("email") == "bad":
                raise ValueError("bad address")
            await CircuitDB.update("Contact", {"id": record["id"], "score": 7})

@trigger("Contact", ["afterUpdate"])
async def enrich(context):
    try:
        answer = await http.get(f"https://api.example.com/people/{context.new_records[0]['id']}")
    except Exception:
        return
    log.info(answer.text)

@trigger("Task", ["afterInsert"])
def connects(context):
    import socket
    socket.create_connection(("127.0.0.1", 9), timeout=1)
"""
PASSING = """
import os

def test_a_lead_is_scored(circuit):
    lead = circuit.create_test_contact(email="ana@example.com")
    run = circuit.insert("Contact", lead)
    run.assert_succeeded()
    run.assert_effect("Contact", id=lead["id"], score=7)
    assert run.messages == ["run 1"]
    assert circuit.get("Contact", lead["id"])["email"] == "ana@example.com"

def test_nothing_is_left_of_another_test(circuit):
    assert circuit.query("Contact") == []
    assert circuit.insert("Contact", {"id": "c1"}).messages == ["run 1"]

async def test_it_works_in_an_async_test_too(circuit):
    people = circuit.create_test_contacts(120)
    assert len(circuit.insert("Contact", people).effects) == 120

def test_a_mock_answers(circuit):
    circuit.seed("Contact", {"id": "c1"})
    mock = circuit.mock_callout("GET", "https://api.example.com/people/*", body="CEO")
    assert circuit.update("Contact", {"id": "c1", "city": "Waco"}).messages == ["CEO"]
    assert [call.url for call in mock.calls] == ["https://api.example.com/people/c1"]
"""
FAILING = """
def test_of_a_wrong_effect(circuit):
    circuit.insert("Contact", {"id": "c1"}).assert_effect("Contact", id="c1", score=8)

def test_of_a_callout_that_nobody_mocked(circuit):
    circuit.seed("Contact", {"id": "c1"})
    circuit.update("Contact", {"id": "c1"})

def test_of_a_connection_past_the_broker(circuit):
    circuit.insert("Task", {"id": "t1"})

def test_of_a_bad_record(circuit):
    circuit.insert("Contact", [{"id": "c1"}, {"id": "c2", "email": "bad"}]).assert_succeeded()
"""


@pytest.fixture
def app(app):
    (app / "app.py").write_text(TRIGGERS)
    return app


def test_passing_tests_pass_and_their_handlers_are_listed(app):
    write_tests(app, PASSING)
    code, printed, said = circuit_script(app, "test")
    assert code == 1, printed + said
    assert "4 passed" in printed
    assert "connects is covered to 0 percent" in printed
    rows = {line.split()[0]: line.split()[1:3] for line in printed.splitlines() if line.startswith(("score", "enrich"))}
    assert rows == {"score": ["3", "122"], "enrich": ["1", "1"]}
    assert "connects" in printed
    assert not EmbeddedPostgres(app / ".circuit" / "test").running()


def test_failing_tests_say_what_there_was(app):
    write_tests(app, FAILING)
    code, printed, said = circuit_script(app, "test", "--", "-p", "no:cacheprovider")
    assert code == 1, printed + said
    for words in (
        "Contact.afterInsert did not make a write to Contact with id='c1', score=8",
        "update Contact id='c1', score=7 (!)",
        "Not mocked: GET https://api.example.com/people/c1",
        "Not mocked: a connection to 127.0.0.1:9",
        "record c2: ValueError: bad address",
        "4 failed",
    ):
        assert words in printed


def test_json_and_a_choice_of_tests(app):
    write_tests(app, PASSING)
    code, printed, _ = circuit_script(app, "test", "-k", "scored", "--json")
    document = json.loads(printed)
    assert (code, document["passed"], document["handlers"]["score"]["runs"]) == (0, True, 1)


@pytest.mark.slow
def test_no_tests_and_a_broken_app_are_explained(app):
    code, _, said = circuit_script(app, "test")
    assert code == 1
    assert "The tests were not run. There is no test" in said
    write_tests(app, PASSING)
    (app / "app.py").write_text("import nothing_of_that_name\n")
    code, printed, _ = circuit_script(app, "test")
    assert code == 1
    assert "app.py:1" in printed
    assert "Traceback" not in printed


def test_a_file_of_tests_that_cannot_be_imported_fails_and_is_no_interruption(app):
    write_tests(app, "import nothing_of_that_name\n")
    code, printed, said = circuit_script(app, "test", "--json")
    assert (code, json.loads(printed)["passed"]) == (1, False), said
    assert "nothing_of_that_name" in said


WAITING = """
import time
from pathlib import Path

def test_it(circuit):
    circuit.insert("Contact", {"id": "c1"})
    Path("up").touch()
    time.sleep(60)
"""


def assert_nothing_is_left(app):
    assert left_behind(app) == []
    assert not EmbeddedPostgres(app / ".circuit" / "test").running()


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_ends_the_tests_in_order_and_a_second_one_at_once(app, times):
    write_tests(app, WAITING)
    with Terminal.open("test", folder=app) as terminal:
        until(lambda: (app / "up").exists(), "the test runs", 60)
        terminal.type(b"\x03" * times)
        assert terminal.wait() == 130
    assert "Traceback" not in terminal.seen
    assert ("KeyboardInterrupt" in terminal.seen) or times == 2
    assert_nothing_is_left(app)


def test_ctrl_c_in_a_deploy_waits_until_its_tests_have_ended(app):
    write_tests(app, WAITING)
    deploys = (
        "from pathlib import Path; from circuit_script.config import load_settings;"
        "from circuit_script.cli.deploy_tests import report_of_tests; report_of_tests(load_settings(Path()))"
    )
    command = [sys.executable, "-c", deploys]
    process = subprocess.Popen(command, cwd=app, env=environment(None), stderr=subprocess.PIPE, start_new_session=True)
    until(lambda: (app / "up").exists(), "the test runs", 60)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate()
    assert b"KeyboardInterrupt" in said
    assert_nothing_is_left(app)


def test_sigterm_ends_the_tests_in_order(app):
    write_tests(app, WAITING)
    command = [sys.executable, "-m", "circuit_script.cli", "test"]
    process = subprocess.Popen(command, cwd=app, env=environment(None), stdout=subprocess.PIPE, text=True)
    until(lambda: (app / "up").exists(), "the test runs", 60)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate()
    assert process.returncode == 130
    assert "KeyboardInterrupt" in printed, "pytest told where it was"
    assert_nothing_is_left(app)


MISSPELT = """
import pytest

def test_a_misspelt_object_is_refused(circuit):
    for call in (circuit.insert, circuit.update, circuit.delete, circuit.seed):
        with pytest.raises(Exception, match="Did you mean 'Contact'"):
            call("Contcat", {"id": "c1"})
    with pytest.raises(Exception, match="Did you mean 'Contact'"):
        circuit.query("Contcat")

def test_an_object_of_the_apps_own_is_not(circuit):
    circuit.seed("Shipment", {"id": "s1"})
    assert len(circuit.query("Shipment")) == 1
    assert circuit.query("Shipment", {"id": "s2"}) == []

def test_what_no_trigger_is_called_for_changes_nothing_as_on_the_road(circuit):
    circuit.seed("Contact", {"id": "c1"})
    run = circuit.delete("Contact", {"id": "c1"})
    assert run.handlers == []
    assert circuit.get("Contact", "c1")
    with pytest.raises(AssertionError, match="started no handler"):
        run.assert_no_effect()
"""


@pytest.mark.slow
def test_assertions_do_not_hold_for_what_cannot_be(app):
    write_tests(app, MISSPELT)
    (app / "circuit.toml").write_text('objects = ["Shipment"]')
    code, printed, said = circuit_script(app, "test", "tests/test_app.py")
    assert code == 0, printed + said


@pytest.mark.slow
def test_the_apps_own_tests_run_whatever_project_it_lies_in(app):
    write_tests(app, PASSING)
    (app / "pytest.ini").unlink()
    (app.parent / "pytest.ini").write_text("[pytest]\ntestpaths = elsewhere\n")
    (app / "scratch_test.py").write_text("raise RuntimeError('not one of the tests')")
    code, printed, said = circuit_script(app, "test", "-k", "nothing_is_left")
    assert code == 0, printed + said
    assert "1 passed" in printed
    assert "asyncio_default_fixture_loop_scope" not in said
    assert (app / ".pytest_cache").is_dir()
    assert not (app.parent / ".pytest_cache").exists()


@pytest.fixture
def own_database(app, monkeypatch):
    monkeypatch.delenv("DATABASE_URL")
    return app


def test_invoke_shows_and_stores_what_a_handler_did(own_database):
    (own_database / "leads.json").write_text('[{"id": "c1"}, {"id": "c2", "email": "bad"}]')
    code, printed, said = circuit_script(own_database, "invoke", "score", "--records", "leads.json")
    assert code == 1, printed + said
    for words in ("score partial: 2 records", "ValueError: bad address", "effects, done", "run 1", "dml_rows"):
        assert words in printed
    assert "\x1b[" not in printed
    assert not EmbeddedPostgres(own_database).running()
    code, printed, said = circuit_script(own_database, "invoke", "score", "--generate", "3", "--dry-run", "--json")
    assert code == 0, said
    document = json.loads(printed)
    assert (document["committed"], len(document["effects"])) == (False, 3)


@pytest.mark.slow
def test_invoke_reads_json_lines_and_names_a_wrong_line(own_database):
    code, printed, said = circuit_script(
        own_database, "invoke", "score", "--records", "-", stdin='{"id": 1}\n{"id": 2}\n'
    )
    assert code == 0, printed + said
    code, _, said = circuit_script(own_database, "invoke", "score", "--records", "-", stdin='{"id": 1}\n{bad\n')
    assert code == 1
    assert "-:2:" in said
    code, _, said = circuit_script(own_database, "invoke", "scor", "--generate", "1")
    assert code == 1
    assert "Did you mean 'score'?" in said
    code, _, said = circuit_script(own_database, "invoke", "score")
    assert code == 1
    assert "score is a trigger: it runs on records. Give it some: --generate 3, or --records FILE" in said


def test_invoke_leaves_a_running_database_running(own_database):

    settings = load_settings(own_database)
    asyncio.run(EmbeddedPostgres(settings.folder).start())
    code, _, said = circuit_script(own_database, "invoke", "score", "--generate", "1")
    assert code == 0, said
    assert EmbeddedPostgres(own_database).running()
