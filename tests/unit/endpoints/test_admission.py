"""Calls without a tenant: a key names it, nobody comes in without one where one is asked, and no handler sees it."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import msgspec
import psycopg
import pytest

from circuit_script.endpoints.admission import Admission
from circuit_script.endpoints.protocol import Answer, Call, Chunk, End, Head, Offer
from circuit_script.endpoints.reply import Caller
from circuit_script.endpoints.routes import Routes
from circuit_script.execution.outcome import EndpointSpec, HttpRequest, Way
from circuit_script.tenants.keys import KeyRing

KEY = f"cs_{'k' * 43}"
WRONG = f"cs_{'w' * 43}"


class Heard:
    """A caller, and one behind it that keeps what it was asked."""

    gone = False

    def __init__(self) -> None:
        self.answers: list[Answer | Head | Chunk | End] = []
        self.calls: list[Call] = []

    def send(self, message: Answer | Head | Chunk | End) -> None:
        self.answers.append(message)

    def on_gone(self, call: Callable[[], None]) -> None:
        raise AssertionError("nobody waits here")

    async def answer(self, call: Call, caller: Caller) -> None:
        self.calls.append(call)


def call(*headers: tuple[str, str], tenant: str = "", method: str = "GET") -> Call:
    return Call("", tenant, HttpRequest(method, "/score", "", headers, b""))


async def admitted(asked: Call, auth: str = "none", away: bool = False, known: bool = True) -> Heard:
    async def tenant_of(digest: bytes) -> str | None:
        if away:
            raise psycopg.OperationalError
        return "acme" if digest == sha256(KEY.encode()).digest() else None

    heard = Heard()
    routes = Routes([Offer("score", EndpointSpec((Way(("GET",), "/score"),), auth=auth, kind="web"))] if known else [])
    find = lambda call: routes.find(call.request.method, call.request.path)  # noqa: E731
    await Admission(heard, KeyRing(tenant_of), find).answer(asked, heard)
    return heard


def problem(heard: Heard) -> tuple[int, str]:
    (answer,) = heard.answers
    assert isinstance(answer, Answer)
    assert heard.calls == []
    return answer.status, msgspec.json.decode(answer.body)["reason"]


async def test_without_a_key_an_open_route_belongs_to_the_default_tenant() -> None:
    (run,) = (await admitted(call())).calls
    assert (run.tenant, run.endpoint) == ("default", "score")


@pytest.mark.parametrize("header", [("authorization", f"Bearer {KEY}"), ("x-api-key", KEY)])
@pytest.mark.parametrize("auth", ["key", "none"])
async def test_a_key_names_the_tenant_and_is_not_handed_on(header: tuple[str, str], auth: str) -> None:
    (run,) = (await admitted(call(header, ("accept", "*/*")), auth)).calls
    assert (run.tenant, run.request.headers) == ("acme", (("accept", "*/*"),))


async def test_a_credential_of_the_app_itself_is_handed_on() -> None:
    own = ("authorization", "Bearer of-the-app")
    (run,) = (await admitted(call(own))).calls
    assert run.request.headers == (own,)


@pytest.mark.parametrize("auth", ["key", "none"])
async def test_a_wrong_key_is_refused_everywhere(auth: str) -> None:
    assert problem(await admitted(call(("x-api-key", WRONG)), auth)) == (401, "wrong-key")


async def test_where_a_key_is_asked_nobody_comes_in_without() -> None:
    heard = await admitted(call(), "key")
    assert problem(heard) == (401, "no-key")
    challenge = ("www-authenticate", 'Bearer realm="circuit-script"')
    assert challenge in heard.answers[0].headers  # type: ignore[union-attr]  # an Answer


async def test_two_keys_are_one_too_many() -> None:
    asked = call(("x-api-key", KEY), ("authorization", f"Bearer {WRONG}"))
    assert problem(await admitted(asked)) == (400, "several-keys")


async def test_while_the_database_is_away_a_key_is_not_taken_for_wrong() -> None:
    assert problem(await admitted(call(("x-api-key", KEY)), away=True)) == (503, "database-unavailable")


async def test_a_route_that_the_release_does_not_have_is_not_found() -> None:
    assert problem(await admitted(call(), known=False)) == (404, "unknown-endpoint")


async def test_a_wrong_method_is_told_what_the_route_takes() -> None:
    heard = await admitted(call(method="POST"))
    assert problem(heard) == (405, "wrong-method")
    assert ("allow", "GET, HEAD, OPTIONS") in heard.answers[0].headers  # type: ignore[union-attr]  # an Answer
    assert (await admitted(call(method="OPTIONS"))).answers == [Answer(204, [("allow", "GET, HEAD, OPTIONS")], b"")]


async def test_a_head_runs_as_the_get_that_its_route_knows() -> None:
    (run,) = (await admitted(call(method="HEAD"))).calls
    assert run.request.method == "GET"


async def test_a_call_that_the_gateway_has_authenticated_passes() -> None:
    asked = call(tenant="acme")
    heard = await admitted(asked, "key")
    assert heard.calls == [asked]
