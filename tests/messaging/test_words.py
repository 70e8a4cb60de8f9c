"""What is told of a message before it leaves: numbers, addresses, segments; and what an author is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

import circuit_script
from circuit_script import make_call, react_slack, send_email, send_slack, send_sms, update_slack
from circuit_script.config import Address, ConnectorSettings, Settings
from circuit_script.connectors.registry import make_vendors, sends, vendor_urls
from circuit_script.errors import RequestRefused
from circuit_script.execution.broker.messages import nowhere
from circuit_script.schemas.messages import MESSENGERS, MOST_ATTACHED, Counted, Wrong, address, count, number


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("x" * 160, Counted("GSM-7", 160, 1)),
        ("x" * 161, Counted("GSM-7", 161, 2)),
        ("x" * 306, Counted("GSM-7", 306, 2)),
        ("x" * 307, Counted("GSM-7", 307, 3)),
        ("€" * 80, Counted("GSM-7", 160, 1)),
        ("€" * 81, Counted("GSM-7", 162, 2)),
        ("€" * 153, Counted("GSM-7", 306, 3)),  # one of 153 cannot be half in a segment
        ("Ünder £10 à ñ", Counted("GSM-7", 13, 1)),
        ("ж" * 70, Counted("UCS-2", 70, 1)),
        ("ж" * 71, Counted("UCS-2", 71, 2)),
        ("👋" * 35, Counted("UCS-2", 70, 1)),
        ("👋" * 67, Counted("UCS-2", 134, 3)),  # a pair is not split: 33 in each of the segments
        ("plain “quotes”", Counted("UCS-2", 14, 1)),
    ],
)
def test_segments_are_counted_as_carriers_do(body: str, expected: Counted) -> None:
    assert count(body) == expected


@pytest.mark.parametrize("said", ["+15125550123", "+1 (512) 555-0123", "+49 30.901820", "+1\u00a0512 555 0123"])
def test_a_number_in_e164_is_taken_as_people_write_it(said: str) -> None:
    assert number(said).startswith("+")
    assert number(said)[1:].isdecimal()


@pytest.mark.parametrize(
    "said",
    ["", "5125550123", "+0512555", "+123", "+1234567890123456", "+1512555012x", "+१५१२५५५०१२३", None, 15125550123],
)
def test_what_is_no_number_is_said(said: object) -> None:
    with pytest.raises(Wrong, match=r"to: .* is no telephone number in E\.164"):
        number(said)


ADDRESSES = (
    "a@example.com",
    "a.b+c@mail.example.co.uk",
    "Ann Ek <ann@example.com>",
    '"Ek, Ann" <ann@example.com>',
    "Zoë <z@example.com>",
)
NO_ADDRESSES = (
    "",
    "a",
    "a@b",
    "@example.com",
    "a@.com",
    "a@example..com",
    "a b@example.com",
    "a@exa mple.com",
    "a@example.com, b@example.com",
    "A <a@example.com> <b@example.com>",
    "a@example.com\nBcc: b@example.com",
    "A\r\nX: y <a@example.com>",
    "a" * 65 + "@example.com",
    "a@" + "b" * 64 + ".com",
    ".a@example.com",
    None,
    5,
)


@pytest.mark.parametrize("said", ADDRESSES)
def test_an_address_may_have_a_name(said: str) -> None:
    assert address(said) == said


@pytest.mark.parametrize("said", NO_ADDRESSES)
def test_what_is_no_address_is_said(said: object) -> None:
    with pytest.raises(Wrong, match=r"to: .* is no e-mail address"):
        address(said)


class Asked:
    """In the place of a session: hears what would be asked of the broker."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    async def request(self, verb: str, asked: dict[str, Any], kind: object) -> dict[str, str]:
        assert verb == "send"
        self.sent.append(asked)
        return {"id": "effect-1"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    from circuit_script.execution import session

    found = Asked()
    monkeypatch.setattr(session, "_active", found)
    return found


REFUSED: list[tuple[Any, str]] = [
    (lambda: send_sms("555", "x"), "send_sms: to: '555' is no telephone number"),
    (lambda: send_sms("+15125550123", ""), "send_sms: body is empty"),
    (lambda: send_sms("+15125550123", "x" * 1601), "send_sms: body has 1,601 characters; 1,600 are the most"),
    (lambda: send_sms("+15125550123", "\ud83d"), "cannot be sent"),
    (lambda: send_email("nobody", "Hi", text="x"), "send_email: to: 'nobody' is no e-mail address"),
    (lambda: send_email([], "Hi", text="x"), "there are 0 people"),
    (lambda: send_email([f"a{n}@example.com" for n in range(51)], "Hi", text="x"), "there are 51 people"),
    (lambda: send_email("a@example.com", "Hi\nBcc: b", text="x"), "subject has characters"),
    (lambda: send_email("a@example.com", "Hi"), "neither text nor html"),
    (lambda: send_email("a@example.com", "Hi", text="x" * (4 * 1024 * 1024 + 1)), "text has 4,194,305 characters"),
    (lambda: send_email("a@example.com", "Hi", text="x", headers={"X-A": "b\r\nc"}), "headers: X-A"),
    (lambda: send_email("a@example.com", "Hi", text="x", tags={"a": "b c"}), "tags: 'b c'"),
    (lambda: send_email("a@example.com", "Hi", text="x", unsubscribe="http://a.example"), "unsubscribe"),
    (lambda: send_email("a@example.com", "Hi", text="x", sender="me"), "sender: 'me' is no e-mail address"),
    (lambda: send_email("a@example.com", "Hi", text="x", attachments=[{"filename": "a", "content": "t"}]), "is bytes"),
    (lambda: send_email("a@example.com", "Hi", text="x",
                        attachments=[{"filename": "a", "content": b"x" * (MOST_ATTACHED + 1)}]), "more than"),
    (lambda: send_email("a@example.com", "Hi", text="x", bulk=True, attachments=[{"filename": "a", "content": b"x"}]),
     "leave bulk out"),
    (lambda: send_slack("general", "x"), "send_slack: channel: 'general' is no channel"),
    (lambda: send_slack("C0123456789", " "), "text is empty"),
    (lambda: send_slack("C0123456789", "x", blocks=[{}] * 51), "51 blocks"),
    (lambda: send_slack("C0123456789", "x", thread="yesterday"), "thread: 'yesterday'"),
    (lambda: update_slack("C0123456789", "x", "y"), "update_slack: message: 'x'"),
    (lambda: react_slack("C0123456789", "1.2", ""), "react_slack: emoji is empty"),
    (lambda: make_call("911", "a"), "make_call: to: '911'"),
    (lambda: make_call("+15125550123", ""), "assistant is empty"),
    (lambda: make_call("+15125550123", "a", earliest=datetime(2026, 1, 1)), "time zone"),
    (lambda: make_call("+15125550123", "a", latest=datetime(2026, 1, 1, tzinfo=UTC)), "latest needs an earliest"),
]  # fmt: skip


@pytest.mark.parametrize(("send", "words"), REFUSED)
async def test_what_cannot_be_sent_is_refused_where_it_is_asked_for(asked: Asked, send: Any, words: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        await send()
    assert words in str(caught.value)
    assert asked.sent == []


async def test_what_can_be_sent_says_who_carries_it_and_from_whom(asked: Asked) -> None:
    await send_sms("+1 512 555 0123", "Hi €")
    await send_sms("+15125550123", "Hi", sender="MG" + "1" * 32)
    await send_email(["a@example.com"], "Hi", html="<p>x</p>", unsubscribe="stop@acme.example", bulk=True)
    await send_slack("C0123456789", "x", thread="1503435956.000247")
    await make_call("+15125550123", "a-1", earliest=datetime(2026, 1, 1, tzinfo=UTC), sender="p-1")
    assert [(each["connector"], each["operation"], each["to"]) for each in asked.sent] == [
        ("twilio", "sms", "usual"),
        ("twilio", "sms", "MG" + "1" * 32),
        ("resend", "batch", "usual"),
        ("slack", "post", "C0123456789"),
        ("vapi", "call", "p-1"),
    ]
    assert asked.sent[0]["payload"] == {"to": "+15125550123", "body": "Hi €", "encoding": "GSM-7", "segments": 1}
    assert asked.sent[2]["payload"]["headers"] == {"List-Unsubscribe": "<mailto:stop@acme.example>"}
    assert asked.sent[4]["payload"]["earliest"] == "2026-01-01T00:00:00+00:00"


def test_an_author_finds_them_beside_the_rest() -> None:
    names = {"send_sms", "send_email", "send_slack", "update_slack", "react_slack", "make_call", "send_webhook"}
    assert names <= set(circuit_script.__all__)
    assert list(circuit_script.__all__) == sorted(circuit_script.__all__, key=lambda each: (each[0].islower(), each))


def test_only_who_is_set_up_carries_messages() -> None:
    settings = Settings(connectors={"twilio": ConnectorSettings(), "hubspot": ConnectorSettings()},
                        addresses={"shop": Address(url="https://shop.example")})  # fmt: skip
    assert sends(settings, "twilio", "usual")
    assert sends(settings, "webhook", "shop")
    for connector, target in (("resend", "usual"), ("hubspot", "Contact"), ("webhook", "usual"), ("local", "Contact")):
        assert not sends(settings, connector, target)
    assert "[connectors.resend]" in nowhere("resend", "usual").cure
    assert "[addresses.shop]" in nowhere("webhook", "shop").cure


def test_every_one_that_carries_messages_is_made_where_it_is_named() -> None:
    settings = Settings(connectors=dict.fromkeys(MESSENGERS, ConnectorSettings()))
    made = make_vendors(settings, httpx.AsyncClient())
    assert {each.name for each in made} == MESSENGERS
    assert set(vendor_urls(settings)) == MESSENGERS
    assert make_vendors(Settings(), httpx.AsyncClient()) == []
