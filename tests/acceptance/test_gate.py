"""What `circuit-script test` refuses, on apps that `circuit-script init` has made, as real processes."""

import json

import pytest

from tests.acceptance.author import circuit_script
from tests.acceptance.command import Terminal

pytestmark = pytest.mark.story

GOOD = '''

@trigger("Opportunity", ["afterInsert"])
async def greet(context):
    """Welcome a deal."""
    log.info("new deals", count=len(context.new_records))
'''
GREETED = """

def test_a_deal_is_greeted(circuit):
    circuit.insert("Opportunity", circuit.create_test_opportunity()).assert_succeeded()
"""
NEWLINE = "\n"
# 37 of its 50 lines run.
SPARSE = f"""

@trigger("Message", ["afterInsert"])
def sparse(context):
    total = 0
{NEWLINE.join(["    total += 1"] * 34)}
    if total < 0:
{NEWLINE.join(["        total -= 1"] * 13)}
    return None
"""
SPARSELY = """

def test_it_is_counted(circuit):
    circuit.insert("Message", circuit.create_test_message()).assert_succeeded()
"""
NEAR = '''

@trigger("Appointment", ["afterInsert"], limits={"dml_statements": 10})
async def near(context):
    """Nine statements, whatever it is given."""
    for turn in range(9):
        await CircuitDB.update("Appointment", {"id": context.new_records[0].id, "turn": turn})
'''
NEARLY = """

def test_it_is_near(circuit):
    circuit.insert("Appointment", circuit.create_test_appointment()).assert_succeeded()
"""
PER_RECORD = """

@trigger("Task", ["afterInsert"])
async def asks_each(context):
    for task in context.new_records:
        await http.get(f"https://api.example.com/{task.id}")
"""
ASKED = """

def test_one_is_asked_for(circuit):
    circuit.mock_callout("GET", "https://api.example.com/*", json={})
    circuit.insert("Task", {"id": "t1"}).assert_succeeded()
"""


@pytest.fixture
def app(app_folder, embedded_server, monkeypatch):
    """An app that `init` made. Its tests have a server that runs already."""
    monkeypatch.setenv("CIRCUIT_TEST_DATABASE_URL", embedded_server.superuser)
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    folder = app_folder / "app"
    code, printed, said = circuit_script(app_folder, "init", "app")
    assert code == 0, printed + said
    return folder


def add(folder, code, tests):
    triggers, tested = folder / "app" / "triggers.py", folder / "tests" / "test_triggers.py"
    triggers.write_text(triggers.read_text().replace("trigger\n", "trigger, http\n", 1) + code)
    tested.write_text(tested.read_text() + tests)


def report_of(folder, *arguments):
    """The command's exit code, and its report."""
    code, printed, said = circuit_script(folder, "test", "--json", *arguments)
    assert printed, said
    return code, json.loads(printed)


def test_the_app_that_init_made_may_be_deployed(app):
    add(app, GOOD, GREETED)
    code, found = report_of(app)
    assert (code, found["passed"], found["refusals"]) == (0, True, [])
    assert found["coverage"]["handlers"] == {"ContactTrigger.score_new_leads": 100, "greet": 100, "lead_score": 100}
    assert found["coverage"]["total"] == 100
    assert found["bulk"]["greet"] == {"records": 200, "succeeded": True, "reason": ""}
    assert set(found["bulk"]) == {"greet", "ContactTrigger.score_new_leads"}
    assert len(found["slowest"]) == 5
    assert found["slowest"][0]["seconds"] >= found["slowest"][-1]["seconds"]


def test_a_handler_under_75_percent_and_one_near_its_limit_are_refused_and_told(app):
    add(app, GOOD + SPARSE + NEAR, GREETED + SPARSELY + NEARLY)
    code, printed, said = circuit_script(app, "test")
    assert code == 1, printed + said
    words = " ".join(printed.split())
    assert "sparse is covered to 74 percent, and 75 are needed. Test app/triggers.py, lines" in words
    assert "near uses 90 percent of its limit dml_statements, in tests/test_triggers.py::test_it_is_near" in words
    assert 'allow_limits = ["near.dml_statements"]' in words
    assert "dml_statements 9 of 10 (!)" in words
    assert "All tests pass, and a deploy would be refused." in words
    code, found = report_of(app)
    assert (code, found["passed"], len(found["refusals"])) == (1, True, 2)
    assert found["coverage"]["handlers"]["sparse"] == 74
    (near,) = found["limits"]
    assert (near["handler"], near["limit"], near["used"], near["ceiling"]) == ("near", "dml_statements", 9, 10)
    assert (near["share"], near["allowed"]) == (0.9, False)


def test_a_limit_that_is_allowed_refuses_nothing(app):
    add(app, NEAR, NEARLY)
    settings = app / "circuit.toml"
    settings.write_text(settings.read_text() + '\n[test]\nallow_limits = ["near.dml_statements"]\n')
    code, found = report_of(app)
    assert (code, found["refusals"]) == (0, [])
    assert found["limits"][0]["allowed"]


@pytest.mark.slow
def test_a_trigger_that_does_not_take_200_records_is_refused(app):
    add(app, PER_RECORD, ASKED)
    code, found = report_of(app)
    assert code == 1
    assert not found["bulk"]["asks_each"]["succeeded"]
    assert "callouts" in found["bulk"]["asks_each"]["reason"]
    (refusal,) = found["refusals"]
    assert refusal.startswith("asks_each does not take 200 records at once: it breached")
    code, found = report_of(app, "--no-bulk")
    assert (code, found["bulk"], found["refusals"]) == (0, {}, [])


@pytest.mark.slow
def test_a_choice_of_tests_and_a_failing_one_say_what_is_not_known(app):
    add(app, GOOD, GREETED)
    code, found = report_of(app, "-k", "greeted")
    assert (code, found["passed"], len(found["refusals"])) == (0, True, 1)
    assert "Only some of the tests ran" in found["refusals"][0]
    add(app, "", "\n\ndef test_nothing_is_right():\n    assert False\n")
    code, found = report_of(app)
    assert (code, found["passed"], found["bulk"]) == (1, False, {})
    assert "Not every test passes" in found["refusals"][0]


def test_an_app_that_no_test_asks_for_is_not_covered(app):
    for each in (app / "tests").iterdir():
        each.unlink()
    (app / "tests" / "test_nothing.py").write_text("def test_nothing():\n    pass\n")
    code, found = report_of(app)
    assert code == 1
    assert found["coverage"]["handlers"]["lead_score"] == 0
    assert any(each.startswith("lead_score is covered to 0 percent") for each in found["refusals"])


def test_lines_of_what_a_conftest_imports_count(app):
    (app / "app" / "prices.py").write_text("def price(plan):\n    return 9 if plan else 0\n")
    (app / "tests" / "conftest.py").write_text("from app.prices import price as price\n")
    add(app, "", "\n\ndef test_a_price():\n    from app.prices import price\n    assert price(None) == 0\n")
    code, found = report_of(app, "--no-bulk")
    assert (code, found["coverage"]["files"]["app/prices.py"]) == (0, 100)


def test_watch_runs_again_when_the_app_is_saved_and_q_ends_it(app):
    endpoints = app / "app" / "endpoints.py"
    with Terminal.open("test", "--watch", folder=app) as terminal:
        terminal.wait_for("q ends")
        assert "4 passed" in terminal.seen
        terminal.seen = ""
        endpoints.write_text(endpoints.read_text().replace("total=score.total", "total=-1"))
        terminal.wait_for("q ends")
        assert "1 failed" in terminal.seen
        terminal.seen = ""
        terminal.type(b"r")
        terminal.wait_for("q ends")
        terminal.type(b"q")
        assert terminal.wait() == 1
    assert "Traceback (most recent call last)" not in terminal.seen
