"""Models in an app's tests answer what was said beforehand, whole and streamed."""

import pytest

from tests.acceptance.author import circuit_script, write_tests

pytestmark = pytest.mark.story

APP = """
from pydantic_ai import Agent

from circuit_script import CircuitDB, GovernedModel, endpoint, llm, trigger

agent = Agent(GovernedModel())


@agent.tool_plain
def opening_hours() -> str:
    return "nine to five"


@trigger("Contact", ["afterInsert"], batch_size=5)
async def summarise(context):
    for record in context.new_records:
        said = await llm.complete(f"Sum up {record['notes']}")
        await CircuitDB.update("Contact", {"id": record.id, "summary": said})


@endpoint("chat", methods=["POST"])
async def chat(question: str):
    async with agent.run_stream(question) as answer:
        async for text in answer.stream_text(delta=True):
            yield text
"""
TESTS = """
import pytest

from circuit_script.errors import TrialRefused


def test_answers_come_in_turn_and_the_last_one_stays(circuit):
    model = circuit.mock_model("first", "then")
    people = circuit.create_test_contacts(3, notes="likes tea")
    run = circuit.insert("Contact", people)
    run.assert_succeeded()
    assert [each.fields["summary"] for each in run.effects] == ["first", "then", "then"]
    assert "likes tea" in model.calls[0].json()["messages"][-1]["content"]
    assert run.limits.llm_calls == 3


def test_an_answer_may_be_a_function_of_what_was_asked(circuit):
    circuit.mock_model(lambda asked: asked["messages"][-1]["content"].upper())
    person = circuit.create_test_contact(notes="tea")
    circuit.insert("Contact", person).assert_effect("Contact", summary="SUM UP TEA")
    with pytest.raises(TrialRefused, match="no answer"):
        circuit.mock_model()


def test_a_tool_is_called_and_the_answer_is_streamed(circuit):
    call = {"id": "t1", "type": "function", "function": {"name": "opening_hours", "arguments": "{}"}}
    model = circuit.mock_model({"content": None, "tool_calls": [call]}, "From nine to five.")
    answer = circuit.call("chat", json="When?", query={"question": "When?"})
    answer.assert_status(200)
    assert "From nine to five." in answer.text
    assert model.calls[1].json()["messages"][-1]["content"] == "nine to five"
"""


def test_models_answer_what_was_said_beforehand(app, embedded_server, monkeypatch):
    monkeypatch.setenv("CIRCUIT_TEST_DATABASE_URL", embedded_server.superuser)
    (app / "app.py").write_text(APP)
    write_tests(app, TESTS)
    code, printed, said = circuit_script(app, "test")
    assert "3 passed" in printed, printed + said
    assert code == 0, printed
