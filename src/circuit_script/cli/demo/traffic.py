"""The demo's traffic: what arrives, in which order, and what each delivery must come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from circuit_script.cli.demo.vendor import Payload, Signed, Vendor

RAISES = "raises0nTheF1rstTry0"  # ids of the two contacts that the demo app cannot handle
ENDLESS = "endless0LoopContact0"
_APART = 150  # so far behind its first comes a duplicate or an update, on whichever connection


class Expectation(StrEnum):
    """What must become of a delivery, in the words of the final table."""

    SUCCEEDS = "succeeds"
    DUPLICATE = "duplicate"
    FORGED = "forged"
    MALFORMED = "malformed"
    ECHO = "echo"
    RAISES = "raises"
    ENDLESS = "endless"

    @property
    def status(self) -> int:
        """The HTTP status that the vendor must get."""
        return {"duplicate": 200, "forged": 401, "malformed": 400}.get(self.value, 202)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request to POST, and what must become of it. ``type`` is the vendor's name for it."""

    headers: Mapping[str, str]
    body: bytes
    expectation: Expectation
    type: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """How many deliveries of each kind make up ``total``."""

    created: int
    updated: int
    messages: int
    appointments: int
    duplicates: int
    forged: int
    malformed: int
    echoes: int

    @classmethod
    def of(cls, total: int) -> Plan:
        """The demo's mix for this many deliveries; at least 50, so that each kind is among them."""
        if total < 50:
            raise ValueError(f"the demo needs at least 50 deliveries, not {total}")
        duplicates = total // 40
        forged = malformed = echoes = max(total // 100, 1)
        good = total - duplicates - forged - malformed - echoes - 2
        updated, messages, appointments = good // 5, good // 5, good // 10
        created = good - updated - messages - appointments
        return cls(created, updated, messages, appointments, duplicates, forged, malformed, echoes)


def deliveries(vendor: Vendor, plan: Plan) -> list[Delivery]:
    """All deliveries but the echoes (those need what the platform has written), in sending order."""
    contacts = [vendor.contact() for _ in range(plan.created)]
    first = [_good(vendor, {"type": "ContactCreate", **contact}) for contact in contacts]
    spread = _Sequence(first)
    for position, contact in _later(vendor, contacts, plan.updated):
        spread.add(position, _good(vendor, _changed(contact)))
    for position, contact in _later(vendor, contacts, plan.messages):
        spread.add(position, _good(vendor, vendor.message(contact)))
    for position, contact in _later(vendor, contacts, plan.appointments):
        spread.add(position, _good(vendor, vendor.appointment(contact)))
    for index in vendor.random.sample(range(len(first)), plan.duplicates):
        original = first[index]
        repeated = Delivery(original.headers, original.body, Expectation.DUPLICATE, original.type)
        spread.add(index + _APART, repeated)
    anywhere = vendor.random.randrange
    for number in range(plan.forged):
        spread.add(anywhere(len(first)), _forged(vendor, number))
    for number in range(plan.malformed):
        spread.add(anywhere(len(first)), _malformed(vendor, number))
    for identifier, expectation in ((RAISES, Expectation.RAISES), (ENDLESS, Expectation.ENDLESS)):
        contact = {"type": "ContactCreate", **vendor.contact(id=identifier)}
        spread.add(anywhere(len(first)), _good(vendor, contact, expectation))
    return spread.ordered()


def echo(vendor: Vendor, contact: Payload, written: Mapping[str, Any]) -> Delivery:
    """The vendor's "contact updated" about our own write: the contact as sent, with the fields and tags that we
    wrote."""
    custom = [field for field in contact.get("customFields", []) if field["id"] not in written]
    custom += [{"id": name, "value": value} for name, value in written.items() if name != "tags"]
    tags = written.get("tags", contact.get("tags", []))
    payload = {"type": "ContactUpdate", **contact, "tags": tags, "customFields": custom}
    return _good(vendor, payload, Expectation.ECHO)


def latest_contacts(sent: Sequence[Delivery]) -> dict[str, Payload]:
    """Each contact as the vendor last sent it, by id; those that the demo's app cannot handle are left out."""
    found: dict[str, Payload] = {}
    for delivery in sent:
        if delivery.expectation is Expectation.SUCCEEDS and delivery.type.startswith("Contact"):
            payload = msgspec.json.decode(delivery.body)
            found[payload["id"]] = {
                name: value for name, value in payload.items() if name not in ("type", "timestamp", "webhookId")
            }
    return found


def expected(sent: Sequence[Delivery]) -> Counter[Expectation]:
    """How many deliveries must end each way."""
    return Counter(delivery.expectation for delivery in sent)


class _Sequence:
    """Deliveries by position; those added to one position keep the order in which they were added."""

    def __init__(self, first: Sequence[Delivery]) -> None:
        self._placed = [(float(index), 0, delivery) for index, delivery in enumerate(first)]

    def add(self, position: int, delivery: Delivery) -> None:
        self._placed.append((position + 0.5, len(self._placed), delivery))

    def ordered(self) -> list[Delivery]:
        return [delivery for _, _, delivery in sorted(self._placed, key=lambda item: item[:2])]


def _later(vendor: Vendor, contacts: Sequence[Payload], count: int) -> list[tuple[int, Payload]]:
    """``count`` different contacts, each with a position well behind its creation."""
    chosen = sorted(vendor.random.sample(range(len(contacts)), count))
    return [(index + _APART + vendor.random.randrange(50), contacts[index]) for index in chosen]


def _good(vendor: Vendor, payload: Payload, expectation: Expectation = Expectation.SUCCEEDS) -> Delivery:
    signed = vendor.webhook(payload)
    return Delivery(signed.headers, signed.body, expectation, payload["type"])


def _changed(contact: Payload) -> Payload:
    """The contact with one answer that matters to its score changed."""
    answers = {field["id"]: field["value"] for field in contact["customFields"]}
    service = next(each for each in ("membership", "family plan") if each != answers.get("service"))
    custom = [{"id": name, "value": value} for name, value in {**answers, "service": service}.items()]
    return {"type": "ContactUpdate", **contact, "customFields": custom}


def _forged(vendor: Vendor, number: int) -> Delivery:
    """A body with no signature, another body's, a broken one, or one by another key; in turn."""
    signed = vendor.webhook({"type": "ContactCreate", **vendor.contact()})
    other = Vendor(seed=-1, location=vendor.location, now=vendor.now).sign(signed.body)
    plain = {name: value for name, value in signed.headers.items() if name != "x-ghl-signature"}
    variants = (
        Signed(plain, signed.body),
        Signed(signed.headers, signed.body.replace(b'"US"', b'"XX"')),
        Signed(plain | {"x-ghl-signature": "not base64!"}, signed.body),
        other,
    )
    chosen = variants[number % len(variants)]
    return Delivery(chosen.headers, chosen.body, Expectation.FORGED)


def _malformed(vendor: Vendor, number: int) -> Delivery:
    """A well-signed body that is no webhook: cut off, no JSON, not UTF-8, or without a type; in turn."""
    whole = vendor.webhook({"type": "ContactCreate", **vendor.contact()}).body
    variants = (whole[: len(whole) // 2], b"first=Ada&last=Alder", b'{"type": "\xff\xfe"}', b'["ContactCreate"]')
    signed = vendor.sign(variants[number % len(variants)] + b" " * (number // len(variants)))
    return Delivery(signed.headers, signed.body, Expectation.MALFORMED)
