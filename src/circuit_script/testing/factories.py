"""Records to test with: realistic, and the same in every run that has the same seed. All people are invented."""

from __future__ import annotations

import random
import string
from datetime import UTC, datetime, timedelta
from typing import Any

Fields = dict[str, Any]

FIRST_NAMES = (
    "Ada", "Amir", "Bea", "Björn", "Carla", "Chidi", "Dagny", "Dario", "Elif", "Emeka", "Fleur", "Farid", "Greta",
    "Hana", "Hugo", "Ines", "Jamal", "Keiko", "Kofi", "Leila", "Luca", "Mara", "Nadia", "Olu", "Petra", "Quinn",
    "Rosa", "Saoirse", "Tariq", "Uma", "Vera", "Wanda", "Yara", "Zoë",
)  # fmt: skip
LAST_NAMES = (
    "Achterberg", "Adeyemi", "Alder", "Bancroft", "Bellini", "Castellan", "Dahlgren", "Delacour", "Fairburn", "Farrow",
    "Garrick", "Haddad", "Holloway", "Ibarra", "Jansen", "Kowalczyk", "Lindqvist", "Marchetti", "Nakagawa", "Nwosu",
    "O’Halloran", "Okonkwo", "Pemberton", "Rahimi", "Santangelo", "Tiernan", "Vasquez", "Whitlock", "Zielinski",
)  # fmt: skip
COMPANIES = (
    "Alder & Finch",
    "Beacon Row",
    "Brightwater",
    "Copperfield",
    "Fernhill",
    "Ironbridge",
    "Juniper",
    "Westbrook",
)
TRADES = ("Dental", "Fitness", "Plumbing", "Roofing", "Landscaping", "Bakery", "Consulting", "Veterinary")
CITIES = (
    ("Dallas", "TX", "75201"), ("Irving", "TX", "75061"), ("Plano", "TX", "75023"), ("Fort Worth", "TX", "76102"),
    ("Waco", "TX", "76701"), ("Austin", "TX", "78701"), ("Tulsa", "OK", "74103"),
)  # fmt: skip
STREETS = ("Elm St", "Maple Ave", "Commerce St", "Main St", "Ross Ave", "Mill Rd")
SOURCES = ("website form", "google ads", "facebook lead ad", "referral", "landing page", "phone", "walk-in")
TAGS = ("spring-offer", "newsletter", "tour", "family-plan", "corporate", "callback", "returning")
TEXTS = (
    "Yes, I would love to come by this week. What times do you have?",
    "How much is the family plan?",
    "Could somebody call me back, please?",
    "Not interested, thank you.",
    "Do you have a place free on Saturday morning?",
    "We would like to start on the first of the month.",
)
TITLES = ("Tour of the house", "First consultation", "Trial session", "Contract signing")
STAGES = ("new", "contacted", "visit booked", "offer sent")

NOW = datetime(2026, 5, 4, 9, 30, tzinfo=UTC)
_ID_LETTERS = string.ascii_letters + string.digits


class Factory:
    """Makes records in the shapes of a CRM. The same ``seed`` gives the same records in the same order; times lie
    before ``now``."""

    def __init__(self, seed: int | str = 0, now: datetime = NOW) -> None:
        self.random = random.Random(f"circuit/{seed}")
        self.now = now

    def contact(self, **fields: Any) -> Fields:
        """A person who asked for something; ``fields`` come in the place of what was made up."""
        pick = self.random.choice
        first, last = fields.get("firstName") or pick(FIRST_NAMES), fields.get("lastName") or pick(LAST_NAMES)
        city, state, postal_code = pick(CITIES)
        company = f"{pick(COMPANIES)} {pick(TRADES)}" if self.random.random() < 0.7 else ""
        domain = "".join(c for c in company.lower() if c.isascii() and c.isalpha()) or "mail"
        mailbox = "".join(c for c in f"{first}.{last}".lower() if c.isascii() and (c.isalpha() or c == "."))
        return {
            "id": self._identifier(),
            "name": f"{first} {last}",
            "firstName": first,
            "lastName": last,
            "email": f"{mailbox}@{domain}.example",
            "phone": f"+1214555{self.random.randint(100, 199):04d}",
            "companyName": company,
            "address1": f"{self.random.randint(1, 9800)} {pick(STREETS)}",
            "city": city,
            "state": state,
            "postalCode": postal_code,
            "country": "US",
            "source": pick(SOURCES),
            "tags": self.random.sample(TAGS, self.random.randint(0, 3)),
            "dnd": False,
            "dateAdded": self._before(600),
        } | fields

    def opportunity(self, contact: Fields | None = None, **fields: Any) -> Fields:
        """A deal of this contact (of a new one when none is given)."""
        contact = contact or self.contact()
        return {
            "id": self._identifier(),
            "contactId": contact["id"],
            "name": f"{contact.get('name', contact['id'])}: {self.random.choice(TITLES).lower()}",
            "status": "open",
            "stage": self.random.choice(STAGES),
            "monetaryValue": self.random.randint(4, 250) * 100,
            "source": contact.get("source", ""),
            "dateAdded": self._before(600),
        } | fields

    def message(self, contact: Fields | None = None, **fields: Any) -> Fields:
        """An in-bound text message of this contact."""
        contact = contact or self.contact()
        return {
            "id": self._identifier(),
            "contactId": contact["id"],
            "direction": "inbound",
            "messageType": "SMS",
            "body": self.random.choice(TEXTS),
            "status": "delivered",
            "dateAdded": self._before(45),
        } | fields

    def appointment(self, contact: Fields | None = None, **fields: Any) -> Fields:
        """A visit that this contact booked, of 45 minutes, within nine days."""
        contact = contact or self.contact()
        start = self.now + timedelta(hours=self.random.randint(20, 200))
        return {
            "id": self._identifier(),
            "contactId": contact["id"],
            "title": self.random.choice(TITLES),
            "appointmentStatus": "confirmed",
            "startTime": _iso(start),
            "endTime": _iso(start + timedelta(minutes=45)),
            "dateAdded": self._before(45),
        } | fields

    def record(self, object: str, **fields: Any) -> Fields:
        """A record of this object; of an object that is not known here, one with an id only."""
        match object:
            case "Contact":
                return self.contact(**fields)
            case "Opportunity":
                return self.opportunity(**fields)
            case "Message":
                return self.message(**fields)
            case "Appointment":
                return self.appointment(**fields)
            case _:
                return {"id": self._identifier(), "dateAdded": self._before(600)} | fields

    def _identifier(self) -> str:
        return "".join(self.random.choices(_ID_LETTERS, k=20))

    def _before(self, minutes: int) -> str:
        return _iso(self.now - timedelta(minutes=self.random.randint(0, minutes)))


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
