"""Text messages by Twilio."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from circuit_script.config import ConnectorSettings, RateSettings
from circuit_script.connectors.connector import Delivered, Delivery, Effect, Later, Refused, SlowDown, Unknown
from circuit_script.connectors.parts import Parts
from circuit_script.connectors.twilio import Twilio
from circuit_script.errors import SecretMissing
from tests.messaging.stage import ACME, BIRCH, Stage, effect, older, staged
from tests.messaging.vendors import TwilioVendor, error

SETTINGS = ConnectorSettings(
    sender="+15125550100", senders={"birch": "+15125550200"}, callback="https://hooks.example/twilio"
)
TO = "+15125550142"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def stage(clock: Clock) -> AsyncIterator[Stage[TwilioVendor, Twilio]]:
    def make(parts: Parts) -> Twilio:
        return Twilio(parts, listed=0.01, clock=clock)

    async with staged(TwilioVendor(), make, SETTINGS) as opened:
        yield opened


def sms(body: str = "Hello", to: str = TO, **more: object) -> Effect:
    return effect("sms", {"to": to, "body": body}, **more)  # type: ignore[arg-type]  # as effect takes it


async def test_a_message_goes_out_from_the_tenants_sender_with_the_callback(stage: Stage[TwilioVendor, Twilio]) -> None:
    sid = await stage.done(sms("Grüße 👋 – «ok»"))
    (message,) = stage.vendor.messages
    assert message["sid"] == sid
    assert (message["account_sid"], message["from"], message["to"]) == (ACME, "+15125550100", TO)
    assert message["body"] == "Grüße 👋 – «ok»"
    assert message["callback"] == "https://hooks.example/twilio"


async def test_each_tenant_uses_its_own_account_and_sender_and_no_others(stage: Stage[TwilioVendor, Twilio]) -> None:
    await stage.done(sms())
    await stage.done(sms(tenant="birch"))
    assert [(each["account_sid"], each["from"]) for each in stage.vendor.messages] == [
        (ACME, "+15125550100"),
        (BIRCH, "+15125550200"),
    ]
    told = await stage.one(sms(tenant="birch", target="+15125550100"))  # acme's number
    assert isinstance(told, Refused)
    assert len(stage.vendor.messages) == 2


async def test_a_tenant_without_keys_waits_and_says_what_is_missing(stage: Stage[TwilioVendor, Twilio]) -> None:
    result = await stage.one(sms(tenant="cedar"))
    assert isinstance(result, Later)
    assert result.down
    assert "twilio.account_sid" in result.reason
    assert SecretMissing.__name__ not in result.reason
    assert stage.vendor.requests == []


async def test_a_messaging_service_sends_under_its_own_name(stage: Stage[TwilioVendor, Twilio]) -> None:
    await stage.done(sms(target="MG" + "1" * 32))
    (message,) = stage.vendor.messages
    assert (message["from"], message["messaging_service_sid"]) == (None, "MG" + "1" * 32)


async def test_without_a_sender_nothing_leaves() -> None:
    async with staged(TwilioVendor(), Twilio, ConnectorSettings()) as stage:
        result = await stage.one(sms())
        assert isinstance(result, Refused)
        assert "[connectors.twilio] sender" in result.reason
        assert stage.vendor.requests == []


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"to": "555", "body": "x"},
        {"to": TO},
        {"to": TO, "body": " "},
        {"to": TO, "body": "x" * 1601},
        {"to": TO, "body": "\ud800"},
        {"to": TO, "body": 7},
        {"to": [TO], "body": "x"},
    ],
)
async def test_what_cannot_be_a_message_is_refused_before_anybody_is_asked(
    stage: Stage[TwilioVendor, Twilio], payload: dict[str, object]
) -> None:
    assert isinstance(await stage.one(effect("sms", payload)), Refused)
    assert stage.vendor.requests == []


async def test_who_has_said_stop_is_left_alone_and_that_is_said(stage: Stage[TwilioVendor, Twilio]) -> None:
    stage.vendor.stopped.add(("+15125550100", TO))
    result = await stage.one(sms())
    assert isinstance(result, Refused)
    assert "STOP" in result.reason
    assert "21610" in result.reason
    assert stage.vendor.messages == []


async def test_numbers_that_twilio_does_not_take_are_refused_in_words(stage: Stage[TwilioVendor, Twilio]) -> None:
    stage.vendor.landlines.add(TO)
    landline = await stage.one(sms())
    wrong = await stage.one(sms(to="+19995550100"))
    assert isinstance(landline, Refused)
    assert "takes no text messages" in landline.reason
    assert isinstance(wrong, Refused)
    assert "21211" in wrong.reason


LATER = (Later, False)
ROWS: list[tuple[int, int, tuple[type[Delivery], object]]] = [
    (429, 20429, (SlowDown, None)),
    (429, 21611, (Later, 300.0)),
    (400, 30001, (Later, 300.0)),
    (400, 30022, (Later, None)),
    (429, 14107, (Later, 60.0)),
    (429, 63038, (SlowDown, 3600.0)),
    (400, 21610, (Refused, None)),
    (400, 21211, (Refused, None)),
    (400, 21614, (Refused, None)),
    (400, 21408, (Refused, None)),
    (400, 21606, (Refused, None)),
    (400, 21617, (Refused, None)),
    (400, 99999, (Refused, None)),
    (401, 20003, (Later, None)),
    (403, 20003, (Later, None)),
    (401, 20005, (Later, None)),
    (404, 20404, (Later, None)),
    (401, 1, (Later, None)),
    (429, 1, (SlowDown, None)),
    (500, 20500, (Unknown, None)),
    (503, 20503, (Unknown, None)),
]


@pytest.mark.parametrize(("status", "code", "expected"), ROWS)
async def test_every_error_means_what_the_table_says(
    stage: Stage[TwilioVendor, Twilio], status: int, code: int, expected: tuple[type[Delivery], object]
) -> None:
    stage.vendor.wrongs.append(error(status, code, "said by the vendor"))
    result = await stage.one(sms())
    assert isinstance(result, expected[0])
    assert getattr(result, "after", None) == expected[1]
    assert str(code) in result.reason
    assert "token-of-acme" not in result.reason


async def test_a_token_that_was_changed_is_read_again(stage: Stage[TwilioVendor, Twilio]) -> None:
    await stage.done(sms())
    stage.vendor.accounts[ACME] = "token-of-acme-2"
    result = await stage.one(sms())
    assert isinstance(result, Later)
    assert result.down
    await stage.secrets.put("acme", "twilio.auth_token", "token-of-acme-2")
    await stage.done(sms())


async def test_a_long_message_keeps_its_sender_waiting_for_its_segments(
    stage: Stage[TwilioVendor, Twilio], clock: Clock
) -> None:
    await stage.done(sms("x" * 400))  # three segments
    waits = await stage.one(sms("next"))
    assert isinstance(waits, SlowDown)
    assert waits.after == 2.0
    await stage.done(sms("other sender", target="MG" + "1" * 32))
    await stage.done(sms("other tenant", tenant="birch"))
    clock.now += 2.0
    await stage.done(sms("next"))


async def test_the_pace_is_the_configured_one(clock: Clock) -> None:
    settings = SETTINGS.model_copy(update={"rates": {"sms": RateSettings(calls=10, seconds=1)}})
    async with staged(TwilioVendor(), lambda parts: Twilio(parts, clock=clock), settings) as stage:
        await stage.done(sms("x" * 400))
        waits = await stage.one(sms("next"))
        assert isinstance(waits, SlowDown)
        assert waits.after == pytest.approx(0.2)


async def test_thirty_messages_to_one_number_in_thirty_seconds_are_a_loop(
    stage: Stage[TwilioVendor, Twilio], clock: Clock
) -> None:
    for _ in range(30):
        await stage.done(sms("you said?"))
        clock.now += 0.9
    looping = await stage.one(sms("you said?"))
    assert isinstance(looping, Refused)
    assert "loop" in looping.reason
    await stage.done(sms("somebody else", to="+15125550143"))
    clock.now += 30
    await stage.done(sms("you said?"))


async def test_the_courier_lets_one_message_a_second_leave_for_each_sender(
    stage: Stage[TwilioVendor, Twilio],
) -> None:
    rate = stage.connector.operations["sms"].rate
    assert rate is not None
    assert (rate.calls, rate.seconds, rate.of) == (1, 1.0, "target")


async def test_a_message_whose_answer_was_lost_is_found_and_not_sent_again(stage: Stage[TwilioVendor, Twilio]) -> None:
    lost = sms("“Hi” – see you…")
    stage.vendor.fail_next("drop_after")
    assert isinstance(await stage.one(lost), Unknown)
    stage.vendor.messages[0]["body"] = '"Hi" - see you...'  # as a service with smart encoding sends it
    assert await stage.connector.look_up(lost) == Delivered(stage.vendor.messages[0]["sid"])
    assert len(stage.vendor.heard("POST")) == 1


async def test_a_message_that_never_came_may_be_sent_again(stage: Stage[TwilioVendor, Twilio]) -> None:
    lost = sms()
    stage.vendor.fail_next("drop_before")
    assert isinstance(await stage.one(lost), Unknown)
    assert isinstance(await stage.connector.look_up(lost), Later)


async def test_what_is_listed_a_little_later_is_found_too(stage: Stage[TwilioVendor, Twilio]) -> None:
    lost = sms()
    stage.vendor.fail_next("drop_after")
    await stage.one(lost)
    stage.vendor.lag = 1
    assert await stage.connector.look_up(lost) == Delivered(stage.vendor.messages[0]["sid"])


async def test_of_two_that_it_could_be_a_person_says_which(stage: Stage[TwilioVendor, Twilio]) -> None:
    lost = sms()
    for _ in range(2):
        stage.vendor.put(ACME, TO, "Hello", "+15125550100")
    assert await stage.connector.look_up(lost) is None


async def test_what_another_effect_has_sent_is_not_taken_for_this_one(stage: Stage[TwilioVendor, Twilio]) -> None:
    first, second = sms(), sms()
    await stage.done(first)
    assert isinstance(await stage.connector.look_up(second), Later)
    stage.vendor.fail_next("drop_after")
    await stage.one(second)
    assert await stage.connector.look_up(second) == Delivered(stage.vendor.messages[1]["sid"])


async def test_older_messages_replies_and_other_words_are_not_this_one(stage: Stage[TwilioVendor, Twilio]) -> None:
    lost = sms()
    stage.vendor.put(ACME, TO, "Hello", "+15125550100", made=datetime.now(UTC) - timedelta(hours=1))
    stage.vendor.put(ACME, TO, "Hello", "+15125550100", direction="inbound")
    stage.vendor.put(ACME, TO, "Something else", "+15125550100")
    stage.vendor.put(BIRCH, TO, "Hello", "+15125550200")
    assert isinstance(await stage.connector.look_up(lost), Later)


async def test_it_is_found_behind_a_page_of_others(stage: Stage[TwilioVendor, Twilio]) -> None:
    lost = sms()
    wanted = stage.vendor.put(ACME, TO, "Hello", "+15125550100")
    for n in range(150):
        stage.vendor.put(ACME, TO, f"other {n}", "+15125550100")
    assert await stage.connector.look_up(lost) == Delivered(wanted["sid"])
    assert len(stage.vendor.heard("GET")) == 2


async def test_where_there_are_too_many_to_look_at_a_person_is_asked(stage: Stage[TwilioVendor, Twilio]) -> None:
    for n in range(501):
        stage.vendor.put(ACME, TO, f"other {n}", "+15125550100")
    assert await stage.connector.look_up(sms()) is None


async def test_a_list_that_cannot_be_had_says_nothing(stage: Stage[TwilioVendor, Twilio]) -> None:
    for how in ("500", "drop_before", "401"):
        stage.vendor.fail_next(how, 2)  # type: ignore[arg-type]  # one of its ways
        assert await stage.connector.look_up(sms()) is None
        stage.vendor.faults.clear()


async def test_an_old_effect_that_was_held_back_is_looked_for_since_it_was_made(
    stage: Stage[TwilioVendor, Twilio],
) -> None:
    lost = older(sms(), 7200)
    stage.vendor.put(ACME, TO, "Hello", "+15125550100", made=datetime.now(UTC) - timedelta(hours=1))
    assert isinstance(await stage.connector.look_up(lost), Delivered)


async def test_an_answer_that_makes_no_sense_is_still_a_message_that_was_taken(
    stage: Stage[TwilioVendor, Twilio],
) -> None:
    from tests.crm.vendor_server import Answer

    stage.vendor.contract._app = None  # it is none of the contract's
    for body in (b"<html>", b"[1]", {"sid": 5}, {"sid": "x" * 10_000}):
        stage.vendor.wrongs.append(Answer(201, body))
        assert await stage.one(sms()) == Delivered()
