"""Mocks answer what libraries send by themselves, too: in real children, by the library's own code."""

import pytest

from circuit_script.config import load_settings
from circuit_script.wiring import Trial, open_bench
from circuit_script.wiring.callouts import Callouts

APP = """
from circuit_script import http, log, trigger

URL = "https://api.example.com/people/7"
BODY = {"name": "Ana"}

def requests_post(url):
    import requests
    answer = requests.post(url, json=BODY, timeout=5)
    return answer.status_code, answer.json(), answer.headers["x-kind"]

def urllib3_post(url):
    import urllib3
    answer = urllib3.PoolManager().request("POST", url, json=BODY)
    return answer.status, answer.json(), answer.headers["x-kind"]

def urllib_post(url):
    import json, urllib.request
    with urllib.request.urlopen(url, data=json.dumps(BODY).encode()) as answer:
        return answer.status, json.load(answer), answer.headers["x-kind"]

def stdlib_post(url):
    import http.client, json
    connection = http.client.HTTPSConnection("api.example.com")
    connection.request("POST", "/people/7", json.dumps(BODY))
    answer = connection.getresponse()
    return answer.status, json.load(answer), answer.getheader("x-kind")

async def httpx_post(url):
    import httpx
    async with httpx.AsyncClient() as client:
        answer = await client.post(url, json=BODY)
    return answer.status_code, answer.json(), answer.headers["x-kind"]

def httpx2_post(url):
    import httpx2
    answer = httpx2.post(url, json=BODY)
    return answer.status_code, answer.json(), answer.headers["x-kind"]

async def aiohttp_post(url):
    import aiohttp
    async with aiohttp.ClientSession() as session:
        async with session.post(url, json=BODY) as answer:
            return answer.status, await answer.json(), answer.headers["x-kind"]

async def ours(url):
    answer = await http.post(url, json=BODY)
    return answer.status_code, answer.json(), answer.headers["x-kind"]

@trigger("Contact", ["afterInsert"])
async def look(context):
    record = context.new_records[0]
    found = globals()[record["by"]](record.get("url", URL))
    if hasattr(found, "__await__"):
        found = await found
    log.info(str(found))
"""
LIBRARIES = [
    "requests_post",
    "urllib3_post",
    "urllib_post",
    "stdlib_post",
    "httpx_post",
    "httpx2_post",
    "aiohttp_post",
    "ours",
]


@pytest.fixture
async def settings(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "circuit.toml").write_text('[callouts]\negress = ["api.example.com"]\n')
    return load_settings(tmp_path)


async def test_what_is_mocked_is_answered_and_what_is_not_fails_with_its_address(settings, database):
    callouts = Callouts("it is not mocked")
    async with open_bench(settings) as bench, Trial(settings, database, bench=bench, callouts=callouts) as trial:
        for library in LIBRARIES:
            said = {"you": "Ana"}
            mock = callouts.mock(
                "POST",
                "https://api.example.com/people/*",
                json=lambda callout: {"you": callout.json()["name"]},
                status=201,
                headers={"X-Kind": "made up"},
                times=1,
            )
            result = await trial.run("look", {"id": "1", "by": library})
            assert result.succeeded, (library, result.reason, result.detail)
            assert [line.message for line in result.log] == [str((201, said, "made up"))], library
            assert [(call.method, call.url) for call in mock.calls] == [("POST", "https://api.example.com/people/7")], (
                library
            )
            assert result.usage["callouts"] == 1

            result = await trial.run("look", {"id": "1", "by": library})
            assert not result.succeeded, library
            assert "not mocked" in result.reason + result.detail, (library, result.reason)
            assert callouts.refused.pop() == "POST https://api.example.com/people/7"
            assert callouts.refused == [] or library == "urllib3_post", (library, callouts.refused)  # it tries again
            callouts.refused.clear()


async def test_the_lists_of_the_app_hold_in_a_trial(settings, database):
    callouts = Callouts("it is not mocked")
    callouts.mock("*", "https://other.example/*", json={})
    async with open_bench(settings) as bench, Trial(settings, database, bench=bench, callouts=callouts) as trial:
        for library in ("ours", "requests_post"):
            result = await trial.run("look", {"id": "1", "by": library, "url": "https://other.example/x"})
            assert "other.example is not in the egress list of the app" in result.reason, result
    assert callouts.made == []
