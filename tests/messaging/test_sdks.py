"""The vendors' own clients speak to the same stand-ins and bring about the same: what we send is what they would."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from circuit_script.config import ConnectorSettings
from circuit_script.connectors.resend import Resend
from circuit_script.connectors.slack import Slack
from circuit_script.connectors.twilio import Twilio
from tests.crm.vendor_server import Heard
from tests.messaging.stage import ACME, effect, staged
from tests.messaging.vendors import ResendVendor, SlackVendor, TwilioVendor

TO = "+15125550142"


def without(message: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name not in names}


def form_of(heard: Heard) -> dict[str, str]:
    return heard.form()


async def test_twilios_own_client_does_the_same() -> None:
    rest = pytest.importorskip("twilio.rest", reason="twilio is not installed")
    http = pytest.importorskip("twilio.http.http_client")
    settings = ConnectorSettings(sender="+15125550100", callback="https://hooks.example/t")
    async with staged(TwilioVendor(), Twilio, settings) as stage:

        class Local(http.TwilioHttpClient):  # type: ignore[misc,name-defined]  # it is Any where it is not installed
            def request(self, method: str, url: str, *more: Any, **kept: Any) -> Any:
                return super().request(method, url.replace("https://api.twilio.com", stage.vendor.url), *more, **kept)

        client = rest.Client(ACME, "token-of-acme-1", http_client=Local())

        def theirs() -> str:
            made = client.messages.create(to=TO, from_="+15125550100", body="Grüße 👋 + 1&2=3",
                                          status_callback="https://hooks.example/t")  # fmt: skip
            return str(made.sid)

        sid = await asyncio.to_thread(theirs)
        await stage.done(effect("sms", {"to": TO, "body": "Grüße 👋 + 1&2=3"}))
        their_form, our_form = map(form_of, stage.vendor.heard("POST"))
        assert our_form == their_form
        first, second = stage.vendor.messages
        assert first["sid"] == sid
        assert without(first, "sid", "date_created") == without(second, "sid", "date_created")
        listed = await asyncio.to_thread(lambda: [each.sid for each in client.messages.list(to=TO)])
        assert listed == [second["sid"], first["sid"]]

        stage.vendor.stopped.add(("+15125550100", TO))
        with pytest.raises(Exception, match="unsubscribed") as caught:
            await asyncio.to_thread(theirs)
        assert getattr(caught.value, "code", None) == 21610


@contextmanager
def resend_at(url: str) -> Iterator[Any]:
    resend = pytest.importorskip("resend", reason="resend is not installed")
    before = resend.api_key, resend.api_url
    resend.api_key, resend.api_url = "re_key_of_acme", url
    try:
        yield resend
    finally:
        resend.api_key, resend.api_url = before


async def test_resends_own_client_does_the_same() -> None:
    settings = ConnectorSettings(sender="Acme <hello@acme.example>")
    payload = {"to": ["ann@example.com"], "subject": "Grüße", "text": "x", "html": "<p>x</p>",
               "reply_to": ["desk@acme.example"], "headers": {"X-A": "b"}}  # fmt: skip
    async with staged(ResendVendor(), Resend, settings) as stage:
        sent = effect("send", payload)
        tags = [{"name": "effect", "value": str(sent.id)}]
        with resend_at(stage.vendor.url) as resend:
            params = {"from": settings.sender, **payload, "tags": tags}
            key = {"idempotency_key": str(sent.id)}
            theirs = await asyncio.to_thread(resend.Emails.send, params, key)
            assert await stage.done(sent) == theirs["id"]  # the key is the same, and so is the e-mail
            assert len(stage.vendor.mails) == 1
            their_heard, our_heard = stage.vendor.heard("POST")
            assert our_heard.json() == their_heard.json()
            assert our_heard.headers["idempotency-key"] == their_heard.headers["idempotency-key"]

            wrong = {**params, "to": ["x@nowhere.invalid"]}
            both = await asyncio.to_thread(
                resend.Batch.send, [params, wrong], {"batch_validation": "permissive", "idempotency_key": "k"}
            )
            assert [each["index"] for each in both["errors"]] == [1]
            nobody = {**payload, "to": "x@nowhere.invalid"}
            ours = await stage.deliver(effect("batch", payload), effect("batch", nobody))
            assert [type(each).__name__ for each in ours] == ["Delivered", "Refused"]
            theirs_named, ours_named = (
                {name for name in each.headers if name in ("idempotency-key", "x-batch-validation", "authorization")}
                for each in stage.vendor.heard("POST")[-2:]
            )
            assert theirs_named == ours_named


async def test_slacks_own_client_does_the_same() -> None:
    sdk = pytest.importorskip("slack_sdk", reason="slack_sdk is not installed")
    blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": "*hi*"}}]
    async with staged(SlackVendor(), Slack, ConnectorSettings(), base="/api") as stage:
        client = sdk.WebClient(token="xoxb-token-of-acme", base_url=f"{stage.vendor.url}/api/")
        sent = effect("post", {"text": "Grüße 👋", "blocks": blocks}, target="C0ACME0001")
        metadata = {"event_type": "circuit_effect", "event_payload": {"id": str(sent.id)}}
        theirs = await asyncio.to_thread(
            client.chat_postMessage, channel="C0ACME0001", text="Grüße 👋", blocks=blocks, metadata=metadata
        )
        stamp = await stage.done(sent)
        first, second = stage.vendor.messages
        assert (first["ts"], second["ts"]) == (theirs["ts"], stamp)
        assert without(first, "ts") == without(second, "ts")
        assert without(stage.vendor.requests[0].json(), "unfurl_links") == stage.vendor.requests[1].json()

        await asyncio.to_thread(client.reactions_add, channel="C0ACME0001", timestamp=theirs["ts"], name="eyes")
        await stage.done(effect("react", {"message": stamp, "emoji": "eyes"}, target="C0ACME0001"))
        await asyncio.to_thread(client.chat_update, channel="C0ACME0001", ts=theirs["ts"], text="Changed")
        await stage.done(effect("update", {"message": stamp, "text": "Changed"}, target="C0ACME0001"))
        assert without(first, "ts") == without(second, "ts")
        found = await asyncio.to_thread(
            client.conversations_history, channel="C0ACME0001", include_all_metadata=True, limit=1
        )
        assert found["messages"][0]["metadata"] == metadata
        with pytest.raises(sdk.errors.SlackApiError) as caught:
            await asyncio.to_thread(client.chat_postMessage, channel="C0NOWHERE1", text="x")
        assert caught.value.response["error"] == "channel_not_found"
