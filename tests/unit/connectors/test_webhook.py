from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from circuit_script.clock import uuid7
from circuit_script.config import Address
from circuit_script.connectors import webhook
from circuit_script.connectors.connector import Delivered, Delivery, Effect, InDoubt, Later, Refused, SlowDown, Unknown
from circuit_script.connectors.registry import make_registry
from circuit_script.connectors.webhook import WebhookConnector, retry_after, signature
from tests.loopback import NOBODY
from tests.receiver import Got, receiving, response

SECRET = "whsec_" + base64.b64encode(b"a secret of 24 bytes ...").decode()


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(verify=NOBODY) as made:
        yield made


def effect(target: str = "alerts", **payload: Any) -> Effect:
    return Effect(uuid7(), "acme", "post", target, "c1", payload)


async def post(client: httpx.AsyncClient, url: str, *effects: Effect, secret: str = "") -> list[Delivery]:
    connector = WebhookConnector({"alerts": Address(url=url, secret=secret)}, client)
    return list(await connector.deliver("post", effects))


async def test_an_effect_is_posted_as_json_with_its_id_as_idempotency_key(client: httpx.AsyncClient) -> None:
    sent = effect(lead="Zoë", score=91)

    async with receiving(lambda got: response(200)) as receiver:
        assert await post(client, receiver.url + "/in", sent) == [Delivered()]

    (got,) = receiver.got
    assert got.line == "POST /in HTTP/1.1"
    assert got.body == '{"lead":"Zoë","score":91}'.encode()
    assert got.headers["content-type"] == "application/json"
    assert got.headers["idempotency-key"] == got.headers["webhook-id"] == str(sent.id)
    assert "webhook-signature" not in got.headers


async def test_a_receiver_with_the_vendors_own_library_accepts_the_signature(client: httpx.AsyncClient) -> None:
    verified = []

    def answer(got: Got) -> bytes:
        verified.append(Webhook(SECRET).verify(got.body, got.headers))
        return response(204)

    async with receiving(answer) as receiver:
        assert await post(client, receiver.url, effect(score=91), secret=SECRET) == [Delivered()]

    assert verified == [{"score": 91}]


@given(st.binary(min_size=1, max_size=64), st.binary(max_size=200))
def test_signatures_agree_with_the_standardwebhooks_package(key: bytes, body: bytes) -> None:
    secret = "whsec_" + base64.b64encode(key).decode()
    text = body.decode("latin-1")

    theirs = Webhook(secret).sign("msg_1", datetime.fromtimestamp(1_700_000_000, UTC), text)

    assert signature(secret, "msg_1", 1_700_000_000, text.encode())["webhook-signature"] == theirs


@pytest.mark.parametrize("secret", ["not base64!", "häßlich", "whsec_$$"])
def test_a_secret_that_is_not_base64_signs_as_it_stands(secret: str) -> None:
    assert signature(secret, "m", 1, b"")["webhook-signature"].startswith("v1,")


@pytest.mark.parametrize(
    ("raw", "result"),
    [
        (response(200, b"ok"), Delivered()),
        (response(202), Delivered()),
        (response(400, b"no such lead"), Refused("HTTP 400: no such lead")),
        (response(410), Refused("HTTP 410: ")),
        (response(302, location="http://elsewhere"), Refused("HTTP 302: ")),
        (response(400, b"x" * 500), Refused("HTTP 400: " + "x" * 200)),
        (response(500, b"oops"), Later("HTTP 500", down=True)),
        (response(503, retry_after="7"), Later("HTTP 503", 7.0, down=True)),
        (response(409), Later("HTTP 409")),
        (response(429, retry_after="120"), SlowDown("HTTP 429", 120.0)),
        (response(429, retry_after="999999"), SlowDown("HTTP 429", 3600.0)),
        (response(429, retry_after="Wed, 21 Oct 2026 07:28:00 GMT"), SlowDown("HTTP 429", 0.0)),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nbad", Delivered()),
    ],
)
async def test_the_answers_status_says_what_became_of_the_effect(
    client: httpx.AsyncClient, raw: bytes, result: Delivery
) -> None:
    async with receiving(lambda got: raw) as receiver:
        assert await post(client, receiver.url, effect()) == [result]


async def test_a_connection_cut_before_the_answer_leaves_it_unknown(client: httpx.AsyncClient) -> None:
    async with receiving(lambda got: None) as receiver:
        (result,) = await post(client, receiver.url, effect())

    assert isinstance(result, Unknown)
    assert len(receiver.got) == 1, "it was sent once; repeating is the courier's decision"


async def test_an_answer_cut_within_its_body_has_said_enough(client: httpx.AsyncClient) -> None:
    cut = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\nconnection: close\r\n\r\nbeginning"

    async with receiving(lambda got: cut if len(receiver.got) == 1 else None) as receiver:
        connector = post(client, receiver.url, effect())
        task = asyncio.create_task(connector)
        assert await asyncio.wait_for(task, 5) == [Delivered()]


async def test_nobody_listening_means_later_since_nothing_left(client: httpx.AsyncClient) -> None:
    async with receiving(lambda got: response(200)) as receiver:
        pass

    (result,) = await post(client, receiver.url, effect())

    assert isinstance(result, Later)
    assert result.after is None


async def test_a_receiver_that_never_answers_is_unknown_and_takes_no_time_from_the_others(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "PATIENCE", 0.2)
    slow, quick = effect("slow"), effect("quick")

    async with receiving(lambda got: response(200)) as ready, receiving(lambda got: b"") as silent:
        connector = WebhookConnector({"slow": Address(url=silent.url), "quick": Address(url=ready.url)}, client)
        results = await connector.deliver("post", [slow, quick])

    assert isinstance(results[0], Unknown)
    assert results[1] == Delivered()


@pytest.mark.parametrize("url", ["http://", "http://[::1", "https://exa mple/", "http://x:99999"])
async def test_an_address_that_cannot_be_one_refuses_its_own_effects_only(client: httpx.AsyncClient, url: str) -> None:
    async with receiving(lambda got: response(200)) as receiver:
        addresses = {"broken": Address(url=url), "alerts": Address(url=receiver.url)}
        connector = WebhookConnector(addresses, client)
        broken, good = await connector.deliver("post", [effect("broken"), effect()])

    assert isinstance(broken, Refused | Later), broken
    assert good == Delivered()


async def test_an_address_that_is_not_configured_is_refused_with_what_to_add(client: httpx.AsyncClient) -> None:
    (result,) = await WebhookConnector({}, client).deliver("post", [effect("pager")])

    assert isinstance(result, Refused)
    assert "[addresses.pager]" in result.reason


async def test_results_are_parallel_to_the_effects(client: httpx.AsyncClient) -> None:
    def answer(got: Got) -> bytes:
        return response(400, b"even") if b"2" in got.body else response(200)

    async with receiving(answer) as receiver:
        results = await post(client, receiver.url, *(effect(n=n) for n in (1, 2, 3)))

    assert results == [Delivered(), Refused("HTTP 400: even"), Delivered()]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("0", 0.0), ("30", 30.0), ("", None), (None, None), ("-5", None), ("1.5", None), ("9" * 400, None)],
)
def test_retry_after_is_whole_seconds_or_nothing(header: str | None, seconds: float | None) -> None:
    assert retry_after(header) == seconds


def test_the_registry_knows_webhook_and_how_to_settle_its_doubts(client: httpx.AsyncClient) -> None:
    registry = make_registry({"alerts": Address(url="http://x")}, client)

    assert registry["webhook"].operations["post"].in_doubt is InDoubt.REPEAT
    assert set(registry) == {"webhook"}


@pytest.mark.parametrize("form", ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"])
def test_a_retry_after_may_be_a_date_of_any_form_that_http_has(form: str) -> None:
    in_a_minute, in_a_day = (datetime.now(UTC) + timedelta(seconds=each) for each in (61, 86_400))

    wait = retry_after(in_a_minute.strftime(form))
    assert wait is not None
    assert 0 < wait <= 61
    assert retry_after(in_a_day.strftime(form)) == 3600.0, "an hour at most"
