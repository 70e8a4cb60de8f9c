"""The demo's traffic: what people do at the CRM, what strangers send to the platform, what each must come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from circuit_script.cli.demo.vendor import Payload, Signed, Vendor

RAISES = "Raisa"  # first names of the two contacts that the demo app cannot handle; nobody else has them
ENDLESS = "Endla"
BAD = {RAISES: "Onthefirsttry", ENDLESS: "Loop"}


class Expectation(StrEnum):
    """What must become of a stranger's delivery, in the words of the final table."""

    FORGED = "forged"
    MALFORMED = "malformed"

    @property
    def status(self) -> int:
        """The HTTP status that it must get."""
        return 401 if self is Expectation.FORGED else 400


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request to POST, and what must become of it."""

    headers: Mapping[str, str]
    body: bytes
    expectation: Expectation


@dataclass(frozen=True, slots=True)
class Plan:
    """How many of each kind make up ``total``. Of ``created`` two are contacts that the app cannot handle."""

    created: int
    updated: int
    messages: int
    appointments: int
    forged: int
    malformed: int

    @classmethod
    def of(cls, total: int) -> Plan:
        """The demo's mix for this many deliveries; at least 50, so that each kind is among them. Those that come twice
        and the echoes of our own writes come on top."""
        if total < 50:
            raise ValueError(f"the demo needs at least 50 deliveries, not {total}")
        forged = malformed = max(total // 100, 1)
        good = total - forged - malformed
        updated, messages, appointments = good // 6, good // 6, good // 10
        return cls(good - updated - messages - appointments, updated, messages, appointments, forged, malformed)

    @property
    def people(self) -> int:
        return self.created + self.updated + self.messages + self.appointments


@dataclass(frozen=True, slots=True)
class Act:
    """Something that somebody does at the CRM's desk: ``what`` is its place there."""

    what: str
    payload: Payload


def newcomers(vendor: Vendor, plan: Plan) -> list[Payload]:
    """The contacts that come in, in their order; the CRM gives them their ids."""
    found = [vendor.contact() for _ in range(plan.created - len(BAD))]
    for first, last in BAD.items():
        place = vendor.random.randrange(len(found) + 1)
        found.insert(place, vendor.contact(firstName=first, lastName=last, name=f"{first} {last}"))
    return found


def rounds(vendor: Vendor, plan: Plan, contacts: list[Payload]) -> tuple[list[Act], list[Act]]:
    """What then happens: first bookings, then messages, also of those who have booked; changed answers in both. In a
    round each is of another contact, in any order."""
    known = [each for each in contacts if each["firstName"] not in BAD]
    vendor.random.shuffle(known)
    booked, half = known[: plan.appointments], plan.updated // 2
    first = [Act("appointments", vendor.appointment(each)["appointment"]) for each in booked]
    first += [Act("edits", _changed(each)) for each in known[plan.appointments :][:half]]
    second = [Act("messages", _message(vendor, each)) for each in known[: plan.messages]]
    second += [Act("edits", _changed(each)) for each in known[::-1][: plan.updated - half]]
    vendor.random.shuffle(first)
    vendor.random.shuffle(second)
    return first, second


def strangers(vendor: Vendor, plan: Plan) -> list[Delivery]:
    """What must be refused: forged deliveries, and well-signed ones that are no webhooks."""
    found = [_forged(vendor, number) for number in range(plan.forged)]
    found += [_malformed(vendor, number) for number in range(plan.malformed)]
    vendor.random.shuffle(found)
    return found


def _changed(contact: Payload) -> Payload:
    """One answer that matters to the contact's score, changed."""
    answers = {field["id"]: field["value"] for field in contact["customFields"]}
    service = next(each for each in ("membership", "family plan") if each != answers.get("service"))
    return {"id": contact["id"], "customFields": [{"id": "service", "value": service}]}


def _message(vendor: Vendor, contact: Payload) -> Payload:
    """An in-bound message as it reaches the CRM."""
    said = vendor.message(contact)
    kind = {"CALL": "Call"}.get(said["messageType"], said["messageType"])
    return {"contactId": contact["id"], "type": kind, "message": said.get("body", ""), "subject": said.get("subject")}


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
