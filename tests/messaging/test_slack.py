"""Messages into Slack."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from circuit_script.config import ConnectorSettings
from circuit_script.connectors.connector import Delivered, Delivery, Effect, InDoubt, Later, Refused, SlowDown, Unknown
from circuit_script.connectors.slack import Slack
from tests.crm.vendor_server import Answer
from tests.messaging.stage import Stage, effect, staged
from tests.messaging.vendors import SlackVendor, no

SlackStage = Stage[SlackVendor, Slack]
CHANNEL = "C0ACME0001"


@pytest.fixture
async def stage() -> AsyncIterator[SlackStage]:
    async with staged(SlackVendor(), lambda parts: Slack(parts, wait=0.01), ConnectorSettings(), base="/api") as opened:
        yield opened


def post(text: str = "Hello", channel: str = CHANNEL, tenant: str = "acme", **more: Any) -> Effect:
    return effect("post", {"text": text, **more}, target=channel, tenant=tenant)


async def test_a_message_is_posted_changed_and_reacted_to(stage: SlackStage) -> None:
    blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": "*hi*"}}]
    stamp = await stage.done(post("Grüße 👋 & <ok>", blocks=blocks))
    assert stamp is not None
    await stage.done(effect("update", {"text": "Changed", "message": stamp}, target=CHANNEL))
    for _ in range(2):  # that it is there already is as good
        await stage.done(effect("react", {"emoji": ":eyes:", "message": stamp}, target=CHANNEL))
    (found,) = stage.vendor.messages
    assert (found["ts"], found["text"], found["reactions"], found["blocks"]) == (stamp, "Changed", ["eyes"], blocks)


async def test_a_reply_goes_into_its_thread(stage: SlackStage) -> None:
    stamp = await stage.done(post())
    await stage.done(post("Reply", thread=stamp))
    assert stage.vendor.messages[1]["thread_ts"] == stamp


async def test_each_tenant_uses_its_own_token(stage: SlackStage) -> None:
    await stage.done(post())
    await stage.done(post(channel="C0BIRCH001", tenant="birch"))
    assert [each["team"] for each in stage.vendor.messages] == ["acme", "birch"]
    assert isinstance(await stage.one(post(tenant="birch")), Refused)
    waits = await stage.one(post(tenant="cedar"))
    assert isinstance(waits, Later)
    assert waits.down


@pytest.mark.parametrize(
    ("operation", "payload"),
    [
        ("post", {}),
        ("post", {"text": ""}),
        ("post", {"text": "x" * 40_001}),
        ("post", {"text": "x", "blocks": "no"}),
        ("post", {"text": "x", "blocks": [{}] * 51}),
        ("post", {"text": "x", "thread": "yesterday"}),
        ("update", {"text": "x"}),
        ("react", {"message": "1.1"}),
        ("shout", {"text": "x"}),
    ],
)
async def test_what_cannot_be_sent_is_refused_before_anybody_is_asked(
    stage: SlackStage, operation: str, payload: dict[str, Any]
) -> None:
    assert isinstance(await stage.one(effect(operation, payload, target=CHANNEL)), Refused)
    assert stage.vendor.requests == []


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        *((each, SlowDown) for each in ("ratelimited", "rate_limited")),
        *((each, Later) for each in ("invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired",
                                     "service_unavailable", "team_added_to_org", "request_timeout")),
        *((each, Unknown) for each in ("internal_error", "fatal_error")),
        *((each, Refused) for each in ("channel_not_found", "not_in_channel", "is_archived", "is_inactive",
                                       "restricted_action", "missing_scope", "no_permission", "msg_too_long", "no_text",
                                       "too_many_attachments", "invalid_blocks", "message_not_found",
                                       "cant_update_message", "edit_window_closed", "invalid_name", "too_many_emoji",
                                       "too_many_reactions", "never_heard_of")),
    ],
)  # fmt: skip
async def test_every_error_means_what_the_table_says(stage: SlackStage, error: str, kind: type[Delivery]) -> None:
    stage.vendor.wrongs.append(no(error))
    result = await stage.one(post())
    assert isinstance(result, kind)
    assert error in result.reason  # type: ignore[union-attr]  # none of them is Delivered
    assert "xoxb-token" not in result.reason  # type: ignore[union-attr]  # as above


async def test_answers_that_are_not_slacks(stage: SlackStage) -> None:
    stage.vendor.contract._app = None  # they are none of the contract's
    limited = Answer(429, b"", {"retry-after": "7"})
    stage.vendor.wrongs += [limited, Answer(503, b"away"), Answer(200, b"<html>"), Answer(200, [1])]
    slow = await stage.one(post())
    assert isinstance(slow, SlowDown)
    assert slow.after == 7.0
    assert [type(await stage.one(post())) for _ in range(3)] == [Unknown, Unknown, Unknown]


async def test_real_refusals_are_said_in_words(stage: SlackStage) -> None:
    stage.vendor.others.add("C0OTHER001")
    stage.vendor.archived.add(CHANNEL)
    for channel, words in (("C0OTHER001", "invite"), ("C0NOWHERE1", "no such channel"), (CHANNEL, "archived")):
        result = await stage.one(post(channel=channel))
        assert isinstance(result, Refused)
        assert words in result.reason


async def test_a_channel_that_gets_too_much_slows_down(stage: SlackStage) -> None:
    stage.vendor.paced = {}
    await stage.done(post())
    slow = await stage.one(post())
    assert isinstance(slow, SlowDown)
    assert slow.after == 1.0
    rate = stage.connector.operations["post"].rate
    assert rate is not None
    assert (rate.calls, rate.seconds, rate.of) == (1, 1.0, "target")


@pytest.mark.parametrize("in_thread", [False, True])
async def test_a_message_whose_answer_was_lost_is_found(stage: SlackStage, in_thread: bool) -> None:
    stamp = await stage.done(post("the first"))
    lost = post(**({"thread": stamp} if in_thread else {}))
    stage.vendor.fail_next("drop_after")
    assert isinstance(await stage.one(lost), Unknown)
    await stage.done(post())  # the same words, of another effect
    stage.vendor.pages = 1
    assert await stage.connector.look_up(lost) == Delivered(stage.vendor.messages[1]["ts"])
    assert len(stage.vendor.messages) == 3


async def test_a_message_that_never_came_may_be_posted_again(stage: SlackStage) -> None:
    lost = post()
    stage.vendor.fail_next("drop_before")
    await stage.one(lost)
    assert isinstance(await stage.connector.look_up(lost), Later)


async def test_where_history_cannot_be_read_a_person_is_asked(stage: SlackStage) -> None:
    stage.vendor.readable = False
    assert await stage.connector.look_up(post()) is None
    stage.vendor.readable = True
    assert await stage.connector.look_up(post(channel="#general")) is None
    stage.vendor.fail_next("500")
    assert await stage.connector.look_up(post()) is None


async def test_changes_and_reactions_may_be_done_again(stage: SlackStage) -> None:
    assert {name: each.in_doubt for name, each in stage.connector.operations.items()} == {
        "post": InDoubt.LOOK_UP,
        "update": InDoubt.REPEAT,
        "react": InDoubt.REPEAT,
    }
    assert isinstance(await stage.connector.look_up(effect("update", {}, target=CHANNEL)), Later)
