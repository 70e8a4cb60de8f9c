import re

import httpx
import pytest

from circuit_script.errors import RequestRefused
from circuit_script.wiring.callouts import Callouts


async def ask(callouts, method, url, **parts):
    async with httpx.AsyncClient(transport=callouts) as client:
        return await client.request(method, url, **parts)


@pytest.mark.parametrize(
    ("pattern", "url"),
    [
        ("https://api.example.com/people/*", "https://api.example.com/people/7?full=1"),
        ("https://api.example.com/people", "https://api.example.com/people?page=2"),
        ("https://api.example.com/people?page=*", "https://api.example.com/people?page=2"),
        (re.compile(r"https://.*/\d+"), "https://api.example.com/7"),
    ],
)
async def test_a_mock_answers_what_fits_its_pattern(pattern, url):
    callouts = Callouts("no")
    callouts.mock("GET", pattern, json={"ok": True})
    assert (await ask(callouts, "GET", url)).json() == {"ok": True}


@pytest.mark.parametrize(
    ("method", "url"),
    [("POST", "https://a.example/x"), ("GET", "https://a.example/y"), ("GET", "https://a.example.evil/x")],
)
async def test_what_is_not_mocked_is_refused_and_remembered(method, url):
    callouts = Callouts("it is not mocked")
    callouts.mock("GET", "https://a.example/x")
    with pytest.raises(RequestRefused, match=r"not mocked"):
        await ask(callouts, method, url)
    assert callouts.refused == [f"{method} {url}"]


async def test_a_mock_remembers_what_it_was_asked():
    callouts = Callouts("no")
    mock = callouts.mock("*", "https://a.example/*", json=lambda callout: {"you": callout.json()["name"]}, status=201)
    answer = await ask(callouts, "POST", "https://a.example/x", json={"name": "Ana"})
    assert (answer.status_code, answer.json()) == (201, {"you": "Ana"})
    assert [call.method for call in mock.calls] == ["POST"]


async def test_the_latest_mock_answers_until_it_is_used_up():
    callouts = Callouts("no")
    callouts.mock("GET", "https://a.example/*", body="old")
    callouts.mock("GET", "https://a.example/*", status=503, times=1)
    assert [(await ask(callouts, "GET", "https://a.example/x")).status_code for _ in range(2)] == [503, 200]


def test_a_connection_past_the_broker_needs_leave():
    callouts = Callouts("no")
    with pytest.raises(RequestRefused):
        callouts.check_connection({"host": "10.0.0.1", "port": 80})
    callouts.allow_host("10.0.0.1")
    callouts.check_connection({"host": "10.0.0.1", "port": 80})
