"""E-mail by Resend."""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import AsyncIterator

import pytest

from circuit_script.config import ConnectorSettings
from circuit_script.connectors.connector import Delivered, Delivery, Effect, Later, Refused, SlowDown, Unknown
from circuit_script.connectors.resend import Resend
from tests.crm.vendor_server import Answer
from tests.messaging.stage import Stage, effect, older, staged
from tests.messaging.vendors import ResendVendor, said

SETTINGS = ConnectorSettings(sender="Acme <hello@acme.example>", senders={"birch": "hello@birch.example"})
DAY = 86_400.0
ResendStage = Stage[ResendVendor, Resend]


@pytest.fixture
async def stage() -> AsyncIterator[ResendStage]:
    async with staged(ResendVendor(), lambda parts: Resend(parts, wait=0.01), SETTINGS) as opened:
        yield opened


def mail(to: str = "ann@example.com", operation: str = "send", tenant: str = "acme", **more: object) -> Effect:
    return effect(operation, {"to": [to], "subject": "Hello", "text": "Hi", **more}, tenant=tenant)


async def test_an_email_says_all_that_it_was_given(stage: ResendStage) -> None:
    content = base64.b64encode("naïve".encode()).decode()
    sent = effect(
        "send",
        {
            "to": ["ann@example.com", "Bo Ek <bo@example.com>"],
            "subject": "Grüße 👋",
            "text": "plain",
            "html": "<p>ü</p>",
            "cc": ["cc@example.com"],
            "bcc": "bcc@example.com",
            "reply_to": ["desk@acme.example"],
            "headers": {"List-Unsubscribe": "<https://acme.example/u>"},
            "tags": {"kind": "welcome"},
            "attachments": [{"filename": "a.txt", "content": content, "content_type": "text/plain"}],
        },
    )
    assert await stage.done(sent) == stage.vendor.mails[0]["id"]
    (found,) = stage.vendor.mails
    assert found["from"] == "Acme <hello@acme.example>"
    assert found["to"] == ["ann@example.com", "Bo Ek <bo@example.com>"]
    assert (found["subject"], found["text"], found["html"]) == ("Grüße 👋", "plain", "<p>ü</p>")
    assert (found["cc"], found["bcc"], found["reply_to"]) == (
        ["cc@example.com"],
        ["bcc@example.com"],
        ["desk@acme.example"],
    )
    assert found["headers"] == {"List-Unsubscribe": "<https://acme.example/u>"}
    assert {each["name"]: each["value"] for each in found["tags"]} == {"effect": str(sent.id), "kind": "welcome"}
    assert found["attachments"] == [{"filename": "a.txt", "content": content, "content_type": "text/plain"}]


async def test_the_effects_id_is_the_key_so_that_sending_twice_makes_one(stage: ResendStage) -> None:
    sent = mail()
    assert await stage.done(sent) == await stage.done(sent)
    assert len(stage.vendor.mails) == 1
    assert [each.headers["idempotency-key"] for each in stage.vendor.requests] == [str(sent.id)] * 2


async def test_other_words_under_the_same_id_are_refused(stage: ResendStage) -> None:
    sent = mail()
    await stage.done(sent)
    changed = effect("send", {**sent.payload, "text": "Other"}, identifier=sent.id)
    result = await stage.one(changed)
    assert isinstance(result, Refused)
    assert "invalid_idempotent_request" in result.reason


async def test_each_tenant_uses_its_own_key_and_sender(stage: ResendStage) -> None:
    await stage.done(mail())
    await stage.done(mail(tenant="birch"))
    assert [(each["team"], each["from"]) for each in stage.vendor.mails] == [
        ("acme", "Acme <hello@acme.example>"),
        ("birch", "hello@birch.example"),
    ]
    foreign = effect("send", mail().payload, tenant="birch", target="hello@acme.example")
    assert isinstance(await stage.one(foreign), Refused)


async def test_a_tenant_without_a_key_waits(stage: ResendStage) -> None:
    result = await stage.one(mail(tenant="cedar"))
    assert isinstance(result, Later)
    assert result.down
    assert "resend.key" in result.reason


@pytest.mark.parametrize(
    "change",
    [
        {"to": []},
        {"to": "nobody"},
        {"to": 5},
        {"to": [f"a{n}@example.com" for n in range(51)]},
        {"subject": ""},
        {"subject": "two\nlines"},
        {"subject": "x" * 999},
        {"text": None},
        {"text": "\ud800"},
        {"html": "x" * (4 * 1024 * 1024)},
        {"headers": {"X: y": "z"}},
        {"headers": {"X-Y": "a\r\nBcc: b@example.com"}},
        {"headers": ["x"]},
        {"tags": {"effect": "x"}},
        {"tags": {"name": "nö"}},
        {"attachments": [{"filename": "a", "content": "?"}]},
        {"attachments": [{"filename": "a", "content": "QQ=="}] * 21},
        {"attachments": [{"filename": "a", "content": "QUFB" * 4_000_000}]},
        {"attachments": "QQ=="},
    ],
)
async def test_what_cannot_be_an_email_is_refused_before_anybody_is_asked(
    stage: ResendStage, change: dict[str, object]
) -> None:
    assert isinstance(await stage.one(effect("send", {**mail().payload, **change})), Refused)
    assert stage.vendor.requests == []


async def test_a_field_that_resend_does_not_take_is_named(stage: ResendStage) -> None:
    result = await stage.one(mail("x@nowhere.invalid"))
    assert isinstance(result, Refused)
    assert "`to`" in result.reason
    assert "422" in result.reason


@pytest.mark.parametrize(
    ("answer", "kind", "after"),
    [
        (said(400, "validation_error", "x"), Refused, None),
        (said(401, "missing_api_key", "x"), Later, None),
        (said(401, "restricted_api_key", "x"), Refused, None),
        (said(403, "invalid_api_key", "x"), Later, None),
        (said(403, "validation_error", "x"), Refused, None),
        (said(404, "not_found", "x"), Refused, None),
        (said(409, "concurrent_idempotent_requests", "x"), Later, None),
        (said(409, "invalid_idempotent_request", "x"), Refused, None),
        (said(422, "missing_required_field", "x"), Refused, None),
        (said(429, "rate_limit_exceeded", "x", **{"retry-after": "3"}), SlowDown, 3.0),
        (said(429, "rate_limit_exceeded", "x", **{"ratelimit-reset": "4"}), SlowDown, 4.0),
        (said(429, "daily_quota_exceeded", "x"), SlowDown, 3600.0),
        (said(429, "monthly_quota_exceeded", "x"), SlowDown, 21_600.0),
        (said(451, "security_error", "x"), Refused, None),
        (said(500, "application_error", "x"), Unknown, None),
        (Answer(502, b"<html>bad gateway</html>", kind="text/html"), Unknown, None),
    ],
    ids=lambda value: value.body["name"] if isinstance(value, Answer) and isinstance(value.body, dict) else None,
)
async def test_every_error_means_what_the_table_says(
    stage: ResendStage, answer: Answer, kind: type[Delivery], after: float | None
) -> None:
    stage.vendor.wrongs.append(answer)
    result = await stage.one(mail())
    assert isinstance(result, kind)
    assert getattr(result, "after", None) == after
    assert "re_key_of_acme" not in result.reason  # type: ignore[union-attr]  # none of them is Delivered


async def test_a_batch_is_one_request_and_each_email_has_its_id(stage: ResendStage) -> None:
    effects = [mail(f"a{n}@example.com", "batch") for n in range(100)]
    results = await stage.deliver(*effects)
    assert [each.vendor_id for each in results if isinstance(each, Delivered)] == [
        each["id"] for each in stage.vendor.mails
    ]
    assert [each["to"] for each in stage.vendor.mails] == [[f"a{n}@example.com"] for n in range(100)]
    assert len(stage.vendor.requests) == 1
    assert stage.connector.operations["batch"].bulk == 100
    for operation in stage.connector.operations.values():
        assert operation.rate is not None
        assert (operation.rate.calls, operation.rate.seconds, operation.rate.of) == (2, 1.0, "connector")


async def test_what_is_wrong_in_a_batch_fails_alone(stage: ResendStage) -> None:
    people = ["a@example.com", "x@nowhere.invalid", "b@example.com", "not an address", "c@example.com"]
    results = await stage.deliver(*(mail(each, "batch") for each in people))
    assert [type(each) for each in results] == [Delivered, Refused, Delivered, Refused, Delivered]
    assert [each["to"] for each in stage.vendor.mails] == [["a@example.com"], ["b@example.com"], ["c@example.com"]]
    assert [each.vendor_id for each in results if isinstance(each, Delivered)] == [
        each["id"] for each in stage.vendor.mails
    ]


async def test_a_batch_that_is_refused_as_a_whole_is_for_the_courier_to_halve(stage: ResendStage) -> None:
    stage.vendor.permissive = False
    found = await stage.connector.deliver("batch", [mail("a@example.com", "batch"), mail("x@nowhere.invalid", "batch")])
    assert isinstance(found, Refused)
    mixed = await stage.deliver(
        mail("a@example.com", "batch"), mail("x@nowhere.invalid", "batch"), mail("nothing", "batch")
    )
    assert [type(each) for each in mixed] == [Later, Later, Refused]
    assert stage.vendor.mails == []


async def test_a_batch_that_says_too_little_is_in_doubt(stage: ResendStage) -> None:
    stage.vendor.wrongs.append(Answer(200, {"data": [{"id": "1"}]}))
    results = await stage.deliver(mail("a@example.com", "batch"), mail("b@example.com", "batch"))
    assert [type(each) for each in results] == [Unknown, Unknown]


async def test_a_batch_takes_no_attachments(stage: ResendStage) -> None:
    result = await stage.one(mail(operation="batch", attachments=[{"filename": "a", "content": "QQ=="}]))
    assert isinstance(result, Refused)
    assert stage.vendor.requests == []


async def test_an_email_in_doubt_is_sent_again_under_its_key_within_a_day(stage: ResendStage) -> None:
    lost = mail()
    stage.vendor.fail_next("drop_after")
    assert isinstance(await stage.one(lost), Unknown)
    assert isinstance(await stage.connector.look_up(lost), Later)
    assert await stage.done(lost) == stage.vendor.mails[0]["id"]
    assert len(stage.vendor.mails) == 1
    assert stage.vendor.heard("GET") == []


@pytest.mark.parametrize("tells", [True, False])
async def test_after_that_and_of_a_batch_it_is_looked_for(stage: ResendStage, tells: bool) -> None:
    stage.vendor.tells_tags = tells
    late, batched, never = older(mail(), DAY), mail(operation="batch"), mail("c@example.com", "batch")
    await stage.done(mail("before@example.com"))
    stage.vendor.only = "POST"
    stage.vendor.fail_next("drop_after", 2)
    assert isinstance(await stage.one(late), Unknown)
    found = await stage.connector.look_up(late)
    assert found == Delivered(stage.vendor.mails[1]["id"])
    assert [type(each) for each in await stage.deliver(batched)] == [Unknown]
    assert await stage.connector.look_up(batched) == Delivered(stage.vendor.mails[2]["id"])
    assert isinstance(await stage.connector.look_up(never), Later)


async def test_of_two_that_it_could_be_a_person_says_which(stage: ResendStage) -> None:
    lost = mail(operation="batch")
    for _ in range(2):
        stage.vendor._mail("acme", {"from": "hello@acme.example", "to": ["ann@example.com"], "subject": "Hello",
                                    "text": "Hi"})  # fmt: skip
    assert await stage.connector.look_up(lost) is None
    stage.vendor.tells_tags = True
    stage.vendor.mails[0]["tags"] = [{"name": "effect", "value": str(lost.id)}]
    stage.vendor.mails[1]["tags"] = [{"name": "effect", "value": "another"}]
    assert await stage.connector.look_up(lost) == Delivered(stage.vendor.mails[0]["id"])


async def test_a_key_that_may_not_read_leaves_it_to_a_person(stage: ResendStage) -> None:
    stage.vendor.wrongs.append(said(401, "restricted_api_key", "This API key is restricted to only send emails"))
    assert await stage.connector.look_up(mail(operation="batch")) is None


async def test_it_is_found_behind_pages_of_others_within_two_requests_a_second(stage: ResendStage) -> None:
    lost = mail(operation="batch")
    stage.vendor.fail_next("drop_after")
    await stage.deliver(lost)
    for n in range(120):
        stage.vendor._mail("acme", {"from": "hello@acme.example", "to": [f"o{n}@example.com"], "subject": "Other",
                                    "text": "Hi"})  # fmt: skip
    stage.vendor.bounded = deque()
    assert await stage.connector.look_up(lost) == Delivered(stage.vendor.mails[0]["id"])
    assert len(stage.vendor.heard("GET")) == 3
