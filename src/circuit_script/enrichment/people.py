"""Who somebody is at work: of a CSV file that the company owns, or of an API that it may use. Nothing is scraped."""

from __future__ import annotations

import asyncio
import csv
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from circuit_script.enrichment.asking import Call, NotAnswered, Reply, refused, text, unreadable
from circuit_script.enrichment.leads import Lead, folded, key_of
from circuit_script.settings_enrichment import LinkedInSettings

SHOWN = "the LinkedIn API"
CEILING = 256 * 1024
MOST_BYTES = 64 * 1024 * 1024  # of a file
MOST_ROWS = 500_000
MOST_TENANTS = 10_000
FACTS = ("title", "company", "industry", "size")
# What files call it, in lower case and without signs; LinkedIn's own exports are among them.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "email": ("email", "e mail", "email address", "e mail address", "work email"),
    "name": ("name", "full name", "fullname"),
    "first": ("first name", "firstname", "given name"),
    "last": ("last name", "lastname", "surname", "family name"),
    "title": ("title", "job title", "jobtitle", "position", "headline"),
    "company": ("company", "company name", "companyname", "organization", "organisation", "employer"),
    "industry": ("industry", "company industry"),
    "size": ("size", "company size", "companysize", "employees", "number of employees", "headcount"),
}

Person = dict[str, str | None]


class PeopleFile:
    """A CSV file with a head. It is read when it is first needed, and again when it has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._by_mail: dict[str, Person] = {}
        self._by_person: dict[tuple[str, str], Person | None] = {}  # None: several people
        self._reading = threading.Lock()

    async def find(self, leads: list[Lead]) -> list[Person | str]:
        """For each the person, or why there is none. Raises NotAnswered when the file cannot be read."""
        await asyncio.to_thread(self._read_if_new)
        return [self._find(lead) for lead in leads]

    def _find(self, lead: Lead) -> Person | str:
        if lead.email and (found := self._by_mail.get(lead.email)) is not None:
            return found
        if lead.person is None:
            return "not listed" if lead.email else "no e-mail address, and no name with a company"
        person = self._by_person.get(lead.person, "not listed")
        return "several people of that name and company" if person is None else person

    def _read_if_new(self) -> None:
        with self._reading:
            try:
                about = os.stat(self._path)
                seen = (about.st_mtime_ns, about.st_size)
                if seen == self._seen:
                    return
                if about.st_size > MOST_BYTES:
                    raise NotAnswered(f"unavailable: {self._path.name} is larger than {MOST_BYTES:,} bytes")
                self._read()
            except (OSError, UnicodeError, csv.Error):
                raise NotAnswered(f"unavailable: {self._path.name} cannot be read") from None
            self._seen = seen

    def _read(self) -> None:
        by_mail: dict[str, Person] = {}
        by_person: dict[tuple[str, str], Person | None] = {}
        with open(self._path, encoding="utf-8-sig", errors="replace", newline="") as file:
            rows = csv.reader(line.replace("\0", "") for line in file)
            places = _places(next(rows, []))
            named = "name" in places or {"first", "last"} <= places.keys()
            if "email" not in places and not (named and "company" in places):
                raise NotAnswered(f"unavailable: {self._path.name} has no column email, and none for name and company")
            for number, row in enumerate(rows):
                if number >= MOST_ROWS:
                    break
                said = {name: (text(row[place]) if place < len(row) else None) for name, place in places.items()}
                person: Person = {fact: said.get(fact) for fact in FACTS}
                if mail := (said.get("email") or "").lower():
                    by_mail[mail] = person
                name = said.get("name") or " ".join(filter(None, (said.get("first"), said.get("last"))))
                whom = folded(name), folded(said.get("company") or "")
                if all(whom):
                    known = by_person.get(whom, person)
                    by_person[whom] = person if known == person else None
        self._by_mail, self._by_person = by_mail, by_person


def _places(head: list[str]) -> dict[str, int]:
    """Which column has what."""
    names = [folded(each) for each in head]
    found = {
        what: next((names.index(name) for name in known if name in names), None) for what, known in COLUMNS.items()
    }
    return {what: place for what, place in found.items() if place is not None}


def key_of_person(lead: Lead) -> bytes | None:
    """None where it cannot be said who it is."""
    if lead.email:
        return key_of("mail", lead.email)
    return None if lead.person is None else key_of("person", *lead.person)


def look_up(lead: Lead, settings: LinkedInSettings, token: str) -> Call:
    """Ask for one person, by e-mail address, or else by name and company."""
    params = (("email", lead.email),) if lead.email else (("name", lead.name), ("company", lead.company))
    headers = {"authorization": f"Bearer {token}", "accept": "application/json"}
    if settings.version:
        headers["linkedin-version"] = settings.version
    return Call(
        "GET", settings.url, SHOWN, settings.timeout, headers=headers, params=params, secrets=(token,), ceiling=CEILING
    )


def person_of(reply: Reply) -> Person | None:
    """The person; None when there is nobody. Raises NotAnswered."""
    if reply.status in (204, 404):
        return None
    if reply.status in (401, 403):
        raise NotAnswered(f"unavailable: {SHOWN} does not accept linkedin.token (HTTP {reply.status})")
    if reply.status != 200:
        raise refused(SHOWN, reply)
    try:
        said: dict[str, Any] = msgspec.json.decode(reply.body, type=dict[str, Any])
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise unreadable(SHOWN) from None
    size = said.get("size")
    found: Person = {fact: text(said.get(fact)) for fact in FACTS}
    if isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 10**9:
        found["size"] = str(size)
    return found if any(found.values()) else None


class PerMinute:
    """How many calls of a tenant may still leave."""

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._left_at: OrderedDict[str, deque[float]] = OrderedDict()

    def take(self, tenant: str) -> bool:
        """Whether one may leave now; it is then counted."""
        now = self._clock()
        times = self._left_at.setdefault(tenant, deque())
        self._left_at.move_to_end(tenant)
        if len(self._left_at) > MOST_TENANTS:
            self._left_at.popitem(last=False)
        while times and times[0] <= now - 60.0:
            times.popleft()
        if len(times) >= self._most:
            return False
        times.append(now)
        return True
