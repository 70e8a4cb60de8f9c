import asyncio
import json

import httpx
import pytest

from circuit_script.config import load_settings
from circuit_script.errors import RequestRefused, TrialRefused
from circuit_script.testing.recorded import Place, RecordedModels
from circuit_script.wiring.callouts import Callouts

URL = "https://api.openai.com/v1/chat/completions"


def asking(text):
    return {"model": "gpt-5", "messages": [{"role": "user", "content": text}]}


def answer(text):
    return {"type": "application/json", "body": {"choices": [{"message": {"content": text}}]}}


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "circuit.toml").write_text("")
    return load_settings(tmp_path)


def recorded(tmp_path, settings, *entries, recording=False):
    """What this test has recorded, and callouts that it answers."""
    file = tmp_path / "recorded" / "said.json"
    file.parent.mkdir(exist_ok=True)
    name = RecordedModels.opened(Place(tmp_path, True), "said", settings).test
    kept = [{"asked": asking(text), "answer": answer(said)} for text, said in entries]
    file.write_text(json.dumps({name: kept, "another": [{"kept": True}]}))
    found = RecordedModels.opened(Place(tmp_path, recording), "said", settings)
    callouts = Callouts("no")
    return found, callouts, found.mock(callouts)


async def ask(callouts, text):
    async with httpx.AsyncClient(transport=callouts) as client:
        came = await client.post(URL, json=asking(text))
    return came.json()["choices"][0]["message"]["content"]


async def test_the_same_question_gets_its_answers_in_turn_and_then_the_last(tmp_path, settings):
    _, callouts, mock = recorded(tmp_path, settings, ("a", "1"), ("b", "2"), ("a", "3"))
    assert [await ask(callouts, text) for text in "aabaa"] == ["1", "3", "2", "3", "3"]
    assert len(mock.calls) == 5


async def test_a_question_that_has_changed_is_refused_with_the_difference_and_the_command(tmp_path, settings):
    found, callouts, _ = recorded(tmp_path, settings, ("likes tea", "1"), ("hates rain", "2"))
    with pytest.raises(RequestRefused, match="no recorded answer fits"):
        await ask(callouts, "likes teas")
    assert '-   "content": "likes tea",' in found.problem
    assert '+   "content": "likes teas",' in found.problem
    command = "circuit-script test --record -k test_a_question_that_has_changed_is_refused_with_the_difference"
    assert command in found.problem


async def test_many_records_get_recorded_answers_whatever_they_ask(tmp_path, settings):
    _, callouts, _ = recorded(tmp_path, settings, ("a", "1"), ("b", "2"))
    many = Callouts("no")
    many.prepare(callouts.prepared)
    assert [await ask(many, text) for text in ("b", "b", "something else")] == ["2", "2", "1"]


async def test_a_recording_without_a_key_says_which_is_missing(tmp_path, settings, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    found, callouts, _ = recorded(tmp_path, settings, recording=True)
    with pytest.raises(RequestRefused):
        await ask(callouts, "a")
    assert found.problem.startswith("OPENAI_API_KEY is not set")


@pytest.mark.parametrize(
    ("name", "said"),
    [("../said", "no name of a file"), ("nothing", r"nothing.json has no answers for test_recorded\.py::test_what")],
)
def test_what_is_not_there_is_refused_with_the_command(tmp_path, settings, name, said):
    with pytest.raises(TrialRefused, match=said):
        RecordedModels.opened(Place(tmp_path), name, settings)


@pytest.fixture
async def provider(tmp_path, monkeypatch):
    """Settings of an app whose model repeats what it is asked."""

    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        size = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        asked = json.loads(await reader.readexactly(int(size.partition(b":")[2])))
        body = json.dumps({"choices": [{"message": asked["messages"][0]}]}).encode()
        said = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: "
        writer.write(said + b"%d\r\n\r\n" % len(body) + body)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        (tmp_path / "circuit.toml").write_text(
            f'[llm]\nmodel = "gpt-5"\n[llm.providers.openai]\nurl = "http://127.0.0.1:{port}/v1"\n'
            'key_env = "OURS_KEY"\nmodels = ["gpt-5"]\n'
        )
        monkeypatch.setenv("OURS_KEY", "the key of ours")
        yield load_settings(tmp_path), f"http://127.0.0.1:{port}/v1/chat/completions"


async def test_tests_that_are_called_alike_keep_their_answers_apart(tmp_path, provider, monkeypatch):
    settings, url = provider
    names = ["test_a.py::test_it", "test_b.py::test_it", "test_b.py::test_it[of Ann]", "test_b.py::test_it[of Bob/Eve]"]
    for name in names:
        monkeypatch.setenv("PYTEST_CURRENT_TEST", f"tests/{name} (call)")
        callouts = Callouts("no")
        RecordedModels.opened(Place(tmp_path, True), "said", settings).mock(callouts)
        async with httpx.AsyncClient(transport=callouts) as client:
            await client.post(url, json=asking(name))
    kept = json.loads((tmp_path / "recorded" / "said.json").read_text())
    assert {name: each[0]["asked"] for name, each in kept.items()} == {name: asking(name) for name in names}
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "tests/test_b.py::test_it[of Bob/Eve::all] (call)")
    assert RecordedModels.opened(Place(tmp_path, True), "said", settings).command.endswith("-k test_it")


async def test_what_looks_like_a_key_is_not_recorded(tmp_path, provider):
    settings, url = provider
    callouts = Callouts("no")
    found = RecordedModels.opened(Place(tmp_path, True), "said", settings)
    found.mock(callouts)
    async with httpx.AsyncClient(transport=callouts) as client:
        with pytest.raises(RequestRefused, match="not written"):
            await client.post(url, json=asking("what is sk-proj-abcdefghijklmnopqrstuvwxyz0123 for?"))
    assert "Keep it out of the prompt" in found.problem
    assert not (tmp_path / "recorded").exists()


def test_a_damaged_file_is_named(tmp_path, settings):
    (tmp_path / "recorded").mkdir()
    (tmp_path / "recorded" / "said.json").write_text("{")
    with pytest.raises(TrialRefused, match=r"said\.json"):
        RecordedModels.opened(Place(tmp_path), "said", settings)
