"""What a stand-in GoHighLevel knows: locations and their records, in the vendor's own shapes.

Field names and shapes are those of the vendor's API contract (contacts, opportunities, conversations, calendars,
locations) and of its webhook documentation. Everything lives in memory; ids are drawn from a seeded generator.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

Doc = dict[str, Any]
_LETTERS = string.ascii_letters + string.digits
NOT_ASKED = object()

TEXTS = (
    "firstName", "lastName", "email", "phone", "address1", "city", "state", "country", "postalCode", "website",
    "timezone", "source", "dateOfBirth", "companyName", "assignedTo", "gender",
)  # fmt: skip
OPPORTUNITY = ("name", "pipelineId", "pipelineStageId", "status", "monetaryValue", "assignedTo", "source")
APPOINTMENT = ("title", "calendarId", "contactId", "appointmentStatus", "assignedUserId", "address", "startTime",
               "endTime", "notes", "description")  # fmt: skip
TASK = ("title", "body", "dueDate", "completed", "assignedTo")
STATUSES = ("open", "won", "lost", "abandoned")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


class Said(Exception):
    """The vendor says no: its status and body."""

    def __init__(self, status: int, message: str | list[str], **more: Any) -> None:
        names = {
            400: "Bad Request",
            401: "Unauthorized",
            403: "Forbidden",
            404: "Not Found",
            422: "Unprocessable Entity",
        }
        self.status = status
        self.body = {"statusCode": status, "message": message, **({"error": names[status]} if status in names else {})}
        self.body |= more
        super().__init__(str(message))


def unprocessable(*messages: str) -> Said:
    return Said(422, list(messages))


@dataclass(slots=True)
class World:
    """All records. ``changed`` is told of every change: (webhook type, the vendor's document, done by the API)."""

    seed: int = 1
    duplicates_allowed: bool = False
    clock: Callable[[], float] = field(default=lambda: datetime.now(UTC).timestamp())
    changed: Callable[[str, Doc, bool], None] = field(default=lambda kind, doc, by_api: None)
    locations: dict[str, Doc] = field(default_factory=dict)
    contacts: dict[str, Doc] = field(default_factory=dict)
    opportunities: dict[str, Doc] = field(default_factory=dict)
    conversations: dict[str, Doc] = field(default_factory=dict)
    messages: dict[str, Doc] = field(default_factory=dict)
    appointments: dict[str, Doc] = field(default_factory=dict)
    calendars: dict[str, Doc] = field(default_factory=dict)
    notes: dict[str, Doc] = field(default_factory=dict)
    tasks: dict[str, Doc] = field(default_factory=dict)
    tags: dict[str, Doc] = field(default_factory=dict)
    fields: dict[str, Doc] = field(default_factory=dict)
    pipelines: dict[str, Doc] = field(default_factory=dict)
    _random: random.Random = field(init=False)
    _last: float = 0.0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def identifier(self) -> str:
        """Twenty letters and digits, as the vendor's own ids."""
        return "".join(self._random.choices(_LETTERS, k=20))

    def now(self) -> str:
        """The present, to the millisecond; no two are alike, so that what was made later is newer."""
        self._last = max(self.clock(), self._last + 0.001)
        return moment(self._last)

    # --- places

    def location(self, identifier: str, name: str = "Acme", company: str = "company1") -> Doc:
        """A location (the vendor's word for an account) with a pipeline and a calendar."""
        if identifier in self.locations:
            return self.locations[identifier]
        made: Doc = {
            "id": identifier,
            "companyId": company,
            "name": name,
            "country": "US",
            "timezone": "America/New_York",
        }
        self.locations[identifier] = made
        stages = [{"id": self.identifier(), "name": each, "position": n} for n, each in enumerate(("New", "Talking"))]
        pipeline: Doc = {"id": self.identifier(), "name": "Sales", "stages": stages, "locationId": identifier}
        self.pipelines[pipeline["id"]] = pipeline
        calendar: Doc = {"id": self.identifier(), "name": "Visits", "locationId": identifier, "isActive": True}
        self.calendars[calendar["id"]] = calendar
        return made

    def custom_field(
        self, location: str, name: str, data_type: str = "TEXT", model: str = "contact", options: Sequence[str] = ()
    ) -> Doc:
        key = f"{model}.{re.sub(r'[^a-z0-9]+', '_', name.lower()).strip('_')}"
        made: Doc = {"id": self.identifier(), "name": name, "fieldKey": key, "dataType": data_type, "model": model,
                "locationId": location, "position": len(self.fields) * 50, "placeholder": ""}  # fmt: skip
        if options:
            made["picklistOptions"] = list(options)
        self.fields[made["id"]] = made
        return made

    # --- contacts

    def contact(self, location: str, given: Mapping[str, Any], *, by_api: bool = False) -> Doc:
        """A new one. Raises Said, also for one who is there already where the location allows no duplicates."""
        known = self.duplicate(location, given.get("email"), given.get("phone"))
        if known is not None and not self.duplicates_allowed:
            found, by = known
            raise Said(400, "This location does not allow duplicated contacts.",
                       meta={"contactId": found["id"], "contactName": name_of(found), "matchingField": by})  # fmt: skip
        stamp = self.now()
        made: Doc = {"id": self.identifier(), "locationId": location, "type": "lead", "dnd": False, "tags": [],
                     "customFields": {}, "dateAdded": stamp, "dateUpdated": stamp}  # fmt: skip
        self._fill(made, given, "contact")
        self.contacts[made["id"]] = made
        self.changed("ContactCreate", made, by_api)
        return made

    def edit_contact(self, doc: Doc, given: Mapping[str, Any], *, by_api: bool = False) -> Doc:
        self._fill(doc, given, "contact")
        doc["dateUpdated"] = self.now()
        self.changed("ContactUpdate", doc, by_api)
        return doc

    def tag(self, doc: Doc, names: Iterable[str], *, add: bool, by_api: bool = False) -> list[str]:
        """Add or remove tags; those that it has now. The vendor writes them in lower case."""
        lowered = [each.strip().lower() for each in names]
        before = list(doc["tags"])
        doc["tags"] = [*before, *(each for each in lowered if each not in before)] if add else [
            each for each in before if each not in lowered]  # fmt: skip
        if doc["tags"] != before:
            doc["dateUpdated"] = self.now()
            self.changed("ContactTagUpdate", doc, by_api)
        return list(doc["tags"])

    def duplicate(self, location: str, email: object, phone: object) -> tuple[Doc, str] | None:
        """Who is there already, and by which field: e-mail comes first."""
        for by, wanted in (("email", email), ("phone", phone)):
            if not isinstance(wanted, str) or not wanted:
                continue
            for each in self.contacts.values():
                if each["locationId"] == location and str(each.get(by, "")).lower() == wanted.lower():
                    return each, by
        return None

    def _fill(self, doc: Doc, given: Mapping[str, Any], model: str) -> None:
        """Take what is given. Raises Said for what the vendor refuses."""
        if given.get("name") and not (given.get("firstName") or given.get("lastName")):
            first, _, last = str(given["name"]).partition(" ")
            given = {**given, "firstName": first, "lastName": last or None}
        email = given.get("email")
        if email and not _EMAIL.fullmatch(str(email)):
            raise unprocessable("email must be an email")
        for name in TEXTS:
            if name in given:
                if given[name] is None or given[name] == "":
                    doc.pop(name, None)
                elif not isinstance(given[name], str):
                    raise unprocessable(f"{name} must be a string")
                else:
                    doc[name] = given[name]
        if "dnd" in given:
            if not isinstance(given["dnd"], bool):
                raise unprocessable("dnd must be a boolean value")
            doc["dnd"] = given["dnd"]
        if "tags" in given:
            doc["tags"] = [str(each).lower() for each in given["tags"] or ()]
        self._fill_custom(doc, given.get("customFields") or (), model)

    def _fill_custom(self, doc: Doc, entries: Iterable[Mapping[str, Any]], model: str) -> None:
        for entry in entries:
            found = self._field(doc["locationId"], entry, model)
            value = entry.get("field_value", entry.get("value", entry.get("fieldValue")))
            if found is None:
                raise Said(400, f"Custom field {entry.get('id') or entry.get('key')} not found")
            if value is None or value == "" or value == []:
                doc["customFields"].pop(found["id"], None)
            else:
                doc["customFields"][found["id"]] = coerced(found, value)

    def _field(self, location: str, entry: Mapping[str, Any], model: str) -> Doc | None:
        if (found := self.fields.get(str(entry.get("id")))) is not None:
            return found if found["locationId"] == location else None
        key = str(entry.get("key") or "")
        wanted = key if key.startswith(f"{model}.") else f"{model}.{key}"
        same = (each for each in self.fields.values() if each["locationId"] == location and each["fieldKey"] == wanted)
        return next(same, None)

    # --- opportunities

    def opportunity(self, location: str, given: Mapping[str, Any], *, by_api: bool = False) -> Doc:
        if given.get("contactId") not in self.contacts:
            raise Said(400, f"Contact with id {given.get('contactId')} not found")
        if given.get("pipelineId") not in self.pipelines:
            raise Said(400, "The pipeline id is invalid.")
        stamp = self.now()
        made: Doc = {"id": self.identifier(), "locationId": location, "status": "open", "customFields": {},
                     "contactId": given["contactId"], "createdAt": stamp, "updatedAt": stamp,
                     "lastStatusChangeAt": stamp, "lastStageChangeAt": stamp}  # fmt: skip
        made["pipelineStageId"] = self.pipelines[given["pipelineId"]]["stages"][0]["id"]
        self._fill_opportunity(made, given)
        self.opportunities[made["id"]] = made
        self.changed("OpportunityCreate", made, by_api)
        return made

    def edit_opportunity(self, doc: Doc, given: Mapping[str, Any], *, by_api: bool = False) -> Doc:
        before = dict(doc)
        self._fill_opportunity(doc, given)
        doc["updatedAt"] = self.now()
        kind = "OpportunityUpdate"
        if doc["status"] != before["status"]:
            kind, doc["lastStatusChangeAt"] = "OpportunityStatusUpdate", doc["updatedAt"]
        elif doc.get("pipelineStageId") != before.get("pipelineStageId"):
            kind, doc["lastStageChangeAt"] = "OpportunityStageUpdate", doc["updatedAt"]
        self.changed(kind, doc, by_api)
        return doc

    def _fill_opportunity(self, doc: Doc, given: Mapping[str, Any]) -> None:
        if "status" in given and given["status"] not in STATUSES:
            raise unprocessable("status must be one of the following values: open, won, lost, abandoned")
        for name in OPPORTUNITY:
            if name in given:
                if given[name] is None:
                    doc.pop(name, None)
                else:
                    doc[name] = given[name]
        self._fill_custom(doc, given.get("customFields") or (), "opportunity")

    # --- messages

    def conversation(self, contact: Doc) -> Doc:
        for each in self.conversations.values():
            if each["contactId"] == contact["id"]:
                return each
        made: Doc = {"id": self.identifier(), "contactId": contact["id"], "locationId": contact["locationId"],
                     "lastMessageBody": "", "lastMessageType": "TYPE_SMS", "type": "TYPE_PHONE", "unreadCount": 0,
                     "fullName": name_of(contact), "contactName": name_of(contact), "deleted": False, "inbox": True,
                     "email": contact.get("email", ""), "phone": contact.get("phone", "")}  # fmt: skip
        self.conversations[made["id"]] = made
        return made

    def message(self, contact: Doc, given: Mapping[str, Any], *, inbound: bool = False, by_api: bool = False) -> Doc:
        """One message of a contact, sent or received."""
        kind = str(given.get("type", "SMS"))
        body = given.get("message") or given.get("html") or ""
        if not inbound and contact["dnd"]:
            raise Said(400, "Cannot send message as DND is active for this contact.")
        held = self.conversation(contact)
        numbers = {"SMS": 2, "Email": 3, "WhatsApp": 19}
        made: Doc = {"id": self.identifier(), "type": numbers.get(kind, 2), "messageType": f"TYPE_{kind.upper()}",
                     "locationId": contact["locationId"], "contactId": contact["id"], "conversationId": held["id"],
                     "dateAdded": self.now(), "body": body, "direction": "inbound" if inbound else "outbound",
                     "status": "delivered", "contentType": "text/html" if kind == "Email" else "text/plain",
                     "attachments": list(given.get("attachments") or ()), "source": "api"}  # fmt: skip
        if given.get("subject"):
            made["subject"] = given["subject"]
        self.messages[made["id"]] = made
        held |= {"lastMessageBody": body, "lastMessageType": made["messageType"], "lastMessageDate": made["dateAdded"]}
        self.changed("InboundMessage" if inbound else "OutboundMessage", made, by_api)
        return made

    # --- notes, tasks, appointments, tags

    def note(self, contact: Doc, given: Mapping[str, Any], *, by_api: bool = False) -> Doc:
        made = {"id": self.identifier(), "contactId": contact["id"], "locationId": contact["locationId"],
                "dateAdded": self.now(), **_taken(given, ("body", "userId", "title", "color", "pinned"))}  # fmt: skip
        self.notes[made["id"]] = made
        self.changed("NoteCreate", made, by_api)
        return made

    def task(self, contact: Doc, given: Mapping[str, Any], *, by_api: bool = False) -> Doc:
        missing = [each for each in ("title", "dueDate", "completed") if each not in given]
        if missing:
            raise unprocessable(*(f"{each} should not be empty" for each in missing))
        made = {"id": self.identifier(), "contactId": contact["id"], "locationId": contact["locationId"],
                "dateAdded": self.now(), **_taken(given, TASK)}  # fmt: skip
        self.tasks[made["id"]] = made
        self.changed("TaskCreate", made, by_api)
        return made

    def edit(self, kind: str, doc: Doc, given: Mapping[str, Any], names: Iterable[str], *, by_api: bool = False) -> Doc:
        for name in names:
            if name in given:
                doc[name] = given[name]
        self.changed(kind, doc, by_api)
        return doc

    def appointment(self, location: str, given: Mapping[str, Any], *, by_api: bool = False) -> Doc:
        if given.get("calendarId") not in self.calendars:
            raise Said(400, f"Calendar with id {given.get('calendarId')} not found")
        if given.get("contactId") not in self.contacts:
            raise Said(400, f"Contact with id {given.get('contactId')} not found")
        millis(given["startTime"])
        stamp = self.now()
        made: Doc = {"id": self.identifier(), "locationId": location, "title": "", "groupId": "", "assignedUserId": "",
                     "users": [], "appointmentStatus": "confirmed", "dateAdded": stamp, "dateUpdated": stamp,
                     "endTime": given["startTime"], **_taken(given, APPOINTMENT)}  # fmt: skip
        self.appointments[made["id"]] = made
        self.changed("AppointmentCreate", made, by_api)
        return made

    def location_tag(self, location: str, name: str) -> Doc:
        made = {"id": self.identifier(), "name": name.lower(), "locationId": location}
        self.tags[made["id"]] = made
        return made


def _taken(given: Mapping[str, Any], names: Iterable[str]) -> Doc:
    return {each: given[each] for each in names if given.get(each) is not None}


def coerced(custom: Mapping[str, Any], value: Any) -> Any:
    """A custom field's value as the vendor keeps it, by the field's type. Raises Said."""
    match custom["dataType"]:
        case "NUMERICAL" | "MONETORY":
            try:
                number = float(value)
            except (TypeError, ValueError):
                raise Said(400, f"{custom['name']} must be a number") from None
            return int(number) if number == int(number) and abs(number) < 2**53 else number
        case "MULTIPLE_OPTIONS" | "CHECKBOX":
            return [str(each) for each in (value if isinstance(value, list) else [value])]
        case _:
            return value if isinstance(value, str) else str(value)


def name_of(contact: Mapping[str, Any]) -> str:
    return " ".join(part for part in (contact.get("firstName"), contact.get("lastName")) if part)


def moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def millis(value: Any) -> int:
    """Milliseconds since 1970 of what stands in a query or a record. Raises Said."""
    text = str(value)
    try:
        if text.lstrip("-").isdecimal():
            return int(text)
        found = datetime.fromisoformat(text)
    except ValueError:
        raise unprocessable(f"{text[:40]} is no date") from None
    return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)
