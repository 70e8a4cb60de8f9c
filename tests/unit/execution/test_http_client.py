from __future__ import annotations

import asyncio
import subprocess
import sys

import httpx
import pytest

import circuit_script
from circuit_script.execution.authoring.http_client import HttpRefused

PROBE = """
import sys
import circuit_script
from circuit_script import trigger
assert not {"httpx", "httpcore", "anyio"} & set(sys.modules)
from circuit_script import http
import httpx
assert isinstance(http, httpx.AsyncClient)
assert circuit_script.http is http
"""


def test_httpx_is_imported_by_who_uses_http_only() -> None:
    subprocess.run([sys.executable, "-c", PROBE], check=True, timeout=60)


def test_there_is_no_other_name_to_be_found() -> None:
    with pytest.raises(AttributeError, match="nothing_like_it"):
        circuit_script.nothing_like_it  # noqa: B018  # the look itself is what is tried
    assert "http" in dir(circuit_script)


def test_outside_of_a_handler_it_says_so() -> None:
    with pytest.raises(RuntimeError, match="inside a handler only"):
        asyncio.run(circuit_script.http.get("https://api.example.com/"))
    assert dict(circuit_script.http.cookies) == {}


def test_a_refusal_is_caught_by_who_knows_httpx_and_by_who_knows_us() -> None:
    request = httpx.Request("GET", "https://api.example.com/")
    refused = HttpRefused("it rests.", "Wait.", "circuit-open", 3.0, request)
    assert isinstance(refused, httpx.HTTPError)
    assert isinstance(refused, circuit_script.CalloutRefused)
    assert isinstance(refused, circuit_script.RequestRefused)
    assert (refused.request, refused.retry_after, refused.page) == (request, 3.0, "circuit-open")
    assert str(refused) == "The callout was refused. it rests. Wait."
