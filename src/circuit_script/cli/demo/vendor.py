"""GoHighLevel as the demo plays it: the vendor's real payload shapes, signed with a throwaway key.

Shapes: ContactCreate, ContactUpdate, InboundMessage, AppointmentCreate of the vendor's webhook documentation,
with the ``timestamp`` and ``webhookId`` that newer deliveries carry. Everything is drawn from one seeded
generator, so that the same seed gives the same bytes.
"""

from __future__ import annotations

import base64
import random
import string
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from circuit_script.cli.demo import words

Payload = dict[str, Any]
_ID_LETTERS = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class Signed:
    """One request as the vendor would send it."""

    headers: Mapping[str, str]
    body: bytes


class Vendor:
    """Makes signed deliveries for one location (the vendor's word for an account)."""

    def __init__(self, *, seed: int, location: str, now: datetime, key: Ed25519PrivateKey | None = None) -> None:
        self.random = random.Random(f"{seed}/{location}")
        self.location = location
        self.now = now.astimezone(UTC)
        self._key = key or Ed25519PrivateKey.from_private_bytes(random.Random(seed).randbytes(32))

    @property
    def public_key(self) -> str:
        """The throwaway key's public half as circuit.toml wants it: base64 of the DER form."""
        der = self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(der).decode()

    def identifier(self) -> str:
        """Twenty letters and digits, as the vendor's own ids."""
        return "".join(self.random.choices(_ID_LETTERS, k=20))

    def webhook(self, payload: Payload) -> Signed:
        """The payload with its own timestamp and webhookId, signed."""
        stamped = payload | {
            "timestamp": _iso(self.now),
            "webhookId": str(UUID(int=self.random.getrandbits(128), version=4)),
        }
        return self.sign(msgspec.json.encode(stamped))

    def sign(self, body: bytes) -> Signed:
        signature = base64.b64encode(self._key.sign(body)).decode()
        return Signed({"content-type": "application/json", "x-ghl-signature": signature}, body)

    def contact(self, **fields: Any) -> Payload:
        """A new person with an address, perhaps a company, and what a form asked: all but ``type``."""
        pick = self.random.choice
        first, last = pick(words.FIRST_NAMES), pick(words.LAST_NAMES)
        city, state, postal_code = pick(words.CITIES)
        company = f"{pick(words.COMPANIES)} {pick(words.TRADES)}" if self.random.random() < 0.7 else ""
        domain = "".join(c for c in company.lower() if c.isascii() and c.isalpha()) or "mail"
        mailbox = "".join(c for c in f"{first}.{last}".lower() if c.isascii() and (c.isalpha() or c == "."))
        return {
            "locationId": self.location,
            "id": self.identifier(),
            "address1": f"{self.random.randint(1, 9800)} {pick(words.STREETS)}",
            "city": city,
            "state": state,
            "companyName": company,
            "country": "US",
            "source": pick(words.SOURCES),
            "dateAdded": _iso(self.now - timedelta(minutes=self.random.randint(0, 600))),
            "dnd": False,
            "email": f"{mailbox}@{domain}.example",
            "name": f"{first} {last}",
            "firstName": first,
            "lastName": last,
            "phone": f"+1214555{self.random.randint(100, 199):04d}",
            "postalCode": postal_code,
            "tags": self.random.sample(words.TAGS, self.random.randint(0, 3)),
            "website": f"https://www.{domain}.example/" if company else "",
            "attachments": [],
            "assignedTo": self.identifier(),
            "customFields": self._answers(),
        } | fields

    def _answers(self) -> list[dict[str, Any]]:
        """What the lead's form asked; each answer may be missing."""
        chance, pick = self.random.random, self.random.choice
        known: dict[str, Any] = {}
        if chance() < 0.8:
            known["segment"] = pick(words.SEGMENTS)
        if chance() < 0.6:
            known["budget"] = f"${self.random.randint(20, 160)}"
        if chance() < 0.7:
            known["buying_for"] = pick(("myself", "my family", "my company"))
        if chance() < 0.5:
            known["jobTitle"] = pick(words.JOB_TITLES)
        if chance() < 0.7:
            known["service"] = pick(words.SERVICES)
        if chance() < 0.7:
            known["timeline"] = pick(words.TIMELINES)
        if chance() < 0.8:
            known["sms_consent"] = chance() < 0.7
        return [{"id": name, "value": value} for name, value in known.items()]

    def message(self, contact: Payload) -> Payload:
        """An in-bound SMS, call or e-mail of this contact."""
        kind = self.random.choice(("SMS", "CALL", "Email"))
        common = {
            "type": "InboundMessage",
            "locationId": self.location,
            "contactId": contact["id"],
            "conversationId": self.identifier(),
            "dateAdded": _iso(self.now - timedelta(minutes=self.random.randint(0, 45))),
            "direction": "inbound",
            "messageType": kind,
            "messageId": self.identifier(),
            "attachments": [],
        }
        return common | self._message_part(kind, contact)

    def _message_part(self, kind: str, contact: Payload) -> Payload:
        text = self.random.choice(words.TEXTS)
        if kind == "SMS":
            return {"body": text, "contentType": "text/plain", "status": "delivered"}
        if kind == "CALL":
            seconds = self.random.choice((0, 25, 70, 140, 420))
            status = "completed" if seconds else "voicemail"
            return {"userId": self.identifier(), "status": status, "callDuration": seconds, "callStatus": status}
        return {
            "body": f'<div style="font-size: 11pt;">{text}</div>',
            "emailMessageId": self.identifier(),
            "threadId": self.identifier(),
            "from": f"{contact['name']} <{contact['email']}>",
            "to": ["front.desk@gym.example"],
            "subject": self.random.choice(words.SUBJECTS),
        }

    def appointment(self, contact: Payload) -> Payload:
        """A booking of this contact through the booking widget."""
        start = self.now + timedelta(hours=self.random.randint(20, 200))
        booked = _iso(self.now - timedelta(minutes=self.random.randint(0, 45)))
        user = self.identifier()
        return {
            "type": "AppointmentCreate",
            "locationId": self.location,
            "appointment": {
                "id": self.identifier(),
                "address": contact["address1"],
                "title": self.random.choice(words.TITLES),
                "calendarId": self.identifier(),
                "contactId": contact["id"],
                "groupId": self.identifier(),
                "appointmentStatus": "confirmed",
                "assignedUserId": user,
                "users": [user],
                "notes": "",
                "source": "booking_widget",
                "startTime": _iso(start),
                "endTime": _iso(start + timedelta(minutes=45)),
                "dateAdded": booked,
                "dateUpdated": booked,
            },
        }


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
