"""Authors let callouts, models, reads, commits and workers fail, and prove what their retries do."""

import pytest

from tests.acceptance.author import circuit_script, write_tests

pytestmark = pytest.mark.story

APP = """
from circuit_script import CircuitDB, Retries, endpoint, http, llm, send_webhook, trigger

STARTED = []


@trigger("Contact", ["afterInsert"])
async def pay(context):
    for place, contact in enumerate(context.new_records):
        async with context.record(contact):
            paid = await http.post("https://pay.example.com/charges", json={"of": contact.id})
            scored = await http.get(f"https://scores.example.com/{contact.id}")
            await CircuitDB.update("Contact", {"id": contact.id, "paid": paid.json()["id"], "score": scored.json()})
            await send_webhook("sales", {"contact": contact.id, "attempt": context.event_at(place)["attempt"]})


@trigger("Contact", ["afterUpdate"], retries=Retries(permanent=(KeyError,), attempts=3))
async def sum_up(context):
    STARTED.append(1)
    found = await CircuitDB.query("Contact").where(city="Waco").limit(5)
    said = await llm.complete(f"Sum up {len(found)}, {len(STARTED)}")
    await CircuitDB.update("Contact", [{"id": each.id, "summary": said} for each in context.new_records])
    if "wrong" in context.new_records[0]:
        raise KeyError("wrong")


@endpoint("chat", methods=["POST"])
async def chat(question: str):
    await CircuitDB.insert("Note", {"body": question})
    return {"heard": question}
"""
SETTINGS = '[addresses.sales]\nurl = "https://sales.example.com/hook"\n'
TESTS = """
import pytest

from circuit_script.errors import TrialRefused


def mocks(circuit):
    circuit.mock_callout("GET", "https://scores.example.com/*", json=7)
    return circuit.mock_callout("POST", "https://pay.example.com/charges", json=lambda callout: {"id": "p1"})


def test_what_a_killed_worker_had_paid_is_not_paid_again(circuit):
    paying = mocks(circuit)
    people = circuit.create_test_contacts(3)
    with circuit.fail("worker", times=2) as fault:
        run = circuit.insert("Contact", people)
    run.assert_succeeded()
    assert fault.happened == 2
    assert len(paying.calls) == 3
    assert len(run.effects) == 3
    assert len(run.sends) == 3
    assert [each.status for each in run.retried] == ["failed", "failed"]
    assert all(len(each.discarded) == 6 for each in run.retried)
    assert len(circuit.query("Contact", {"score": 7})) == 3


def test_a_callout_that_breaks_fails_its_record_alone_and_is_made_again(circuit):
    paying = mocks(circuit)
    people = circuit.create_test_contacts(3)
    with circuit.fail("callout"):
        run = circuit.insert("Contact", people)
    run.assert_succeeded()
    assert len(paying.calls) == 3
    assert len(circuit.callouts) == 7
    (first,) = run.retried
    assert (first.status, len(first.errors)) == ("partial", 1)
    assert sorted(each.payload["attempt"] for each in run.sends) == [1, 1, 2]


def test_it_gives_up_after_its_attempts(circuit):
    mocks(circuit)
    with circuit.fail("callout", times=100) as fault:
        run = circuit.insert("Contact", circuit.create_test_contact())
    run.assert_failed("broke")
    assert fault.happened == 5
    run.assert_no_effect("Contact")


def test_an_outcome_that_is_not_taken_runs_again_without_a_second_answer_of_the_model(circuit):
    model = circuit.mock_model("fine")
    circuit.seed("Contact", {"id": "c1", "city": "Waco"})
    with circuit.fail("commit", times=7):
        run = circuit.update("Contact", {"id": "c1", "name": "Ann"})
    run.assert_succeeded()
    assert len(run.retried) == 7
    assert circuit.get("Contact", "c1")["summary"] == "fine"


@pytest.mark.parametrize("what", ["model", "query"])
def test_what_cannot_be_asked_is_asked_again(circuit, what):
    circuit.mock_model("fine")
    circuit.seed("Contact", {"id": "c1", "city": "Waco"})
    with circuit.fail(what, times=2):
        run = circuit.update("Contact", {"id": "c1"})
    run.assert_effect("Contact", summary="fine")
    assert len(run.retried) == 2


def test_what_is_permanent_is_not_tried_again(circuit):
    circuit.mock_model("fine")
    circuit.seed("Contact", {"id": "c1"})
    with circuit.fail("query"):
        run = circuit.update("Contact", {"id": "c1", "wrong": True})
    run.assert_failed("KeyError")
    assert len(run.retried) == 1


def test_who_calls_an_endpoint_hears_that_nothing_was_kept(circuit):
    with circuit.fail("commit"):
        answered = circuit.call("chat?question=when", method="POST")
    assert answered.status >= 500
    assert circuit.query("Note") == []
    circuit.call("chat?question=when", method="POST").assert_status(200)


def test_a_block_in_which_nothing_fails_proves_nothing(circuit):
    with pytest.raises(AssertionError, match="no model was met"), circuit.fail("model"):
        circuit.call("chat?question=when", method="POST")
    with pytest.raises(TrialRefused, match="'callout'"), circuit.fail("calout"):
        pass
"""


def test_retries_are_proved_by_what_fails(app, embedded_server, monkeypatch):
    monkeypatch.setenv("CIRCUIT_TEST_DATABASE_URL", embedded_server.superuser)
    (app / "app.py").write_text(APP)
    (app / "circuit.toml").write_text(SETTINGS)
    write_tests(app, TESTS)
    code, printed, said = circuit_script(app, "test", "--no-bulk", "--", "-q")
    assert code == 0, printed + said
    assert "9 passed" in printed
