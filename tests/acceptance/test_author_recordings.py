"""Answers of models are recorded once, and from then on come from a file beside the tests."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from tests.acceptance.author import circuit_script, write_tests

pytestmark = pytest.mark.story

KEY = "sk-not-for-any-file"
APP = """
from circuit_script import CircuitDB, endpoint, llm, trigger


@trigger("Contact", ["afterInsert"], batch_size=10)
async def sum_up(context):
    for record in context.new_records:
        said = await llm.complete(f"Sum up: {record['notes']}")
        await CircuitDB.update("Contact", {"id": record.id, "summary": said})
"""
TESTS = """
def test_a_contact_is_summed_up(circuit):
    model = circuit.recorded_models("summary")
    people = [circuit.create_test_contact(notes=notes) for notes in ("likes tea", "likes tea", "likes coffee")]
    run = circuit.insert("Contact", people)
    run.assert_succeeded()
    assert [each.fields["summary"] for each in run.effects] == ["answer 1", "answer 2", "answer 3"]
    assert len(model.calls) == 3
    circuit.recorded_models("summary")  # once more, in the same test
    run = circuit.insert("Contact", circuit.create_test_contact(notes="likes milk"))
    run.assert_effect("Contact", summary="answer 4")
"""


class Provider(BaseHTTPRequestHandler):
    """A model that counts what it is asked, and wants the key."""

    asked: ClassVar[list[str]] = []

    def do_POST(self):
        self.asked.append(self.headers["authorization"])
        self.rfile.read(int(self.headers["content-length"]))
        message = {"role": "assistant", "content": f"answer {len(self.asked)}"}
        usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        body = json.dumps(
            {"id": "x", "object": "chat.completion", "created": 1, "model": "m1", "choices": [choice], "usage": usage}
        ).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def provider():
    Provider.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.slow
def test_what_is_recorded_once_is_answered_without_a_provider_or_a_key(app, provider, monkeypatch):
    (app / "app.py").write_text(APP)
    (app / "circuit.toml").write_text(
        f'[llm]\nmodel = "m1"\n[llm.providers.ours]\nurl = "{provider}"\nkey_env = "OURS_KEY"\nmodels = ["m1"]\n'
        '[llm.prices."m1"]\ninput = 1.0\noutput = 2.0\n'
    )
    write_tests(app, TESTS)
    monkeypatch.setenv("OURS_KEY", KEY)
    code, printed, said = circuit_script(app, "test", "--record", "--no-bulk")
    assert code == 0, printed + said
    assert Provider.asked == [f"Bearer {KEY}"] * 4
    kept = (app / "tests" / "recorded" / "summary.json").read_text()
    assert KEY not in kept
    assert "Bearer" not in kept

    monkeypatch.delenv("OURS_KEY")
    code, printed, said = circuit_script(app, "test")  # the trigger takes 200 records, too
    assert code == 0, printed + said
    assert len(Provider.asked) == 4

    (app / "app.py").write_text(APP.replace("Sum up", "Summarise"))
    code, printed, said = circuit_script(app, "test")
    assert code == 1, printed + said
    assert "has no answer to what the model is asked now" in printed
    assert '-   "content": "Sum up: likes tea",' in printed
    assert '+   "content": "Summarise: likes tea",' in printed
    assert "circuit-script test --record -k test_a_contact_is_summed_up" in printed
