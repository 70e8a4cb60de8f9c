"""Our objects and fields, and GoHighLevel's: names, paths, versions, and which fields may be written.

Our names are the vendor's own, as its webhooks use them. Where its API calls the same thing otherwise (``createdAt``,
``address``), the API's name is translated. From the vendor's published API (contacts, opportunities, conversations,
calendars, locations), whose parts want different values of the header ``Version``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from circuit_script.connectors.connector import Fields

JULY = "2021-07-28"
APRIL = "2021-04-15"


@dataclass(frozen=True, slots=True)
class Kind:
    """One object. In paths stand {id}, {contact} and {location}; None is not possible there.

    ``wrapped`` is the name under which an answer holds the record; ``takes`` are the fields that can be written, ours →
    the vendor's; ``keeps`` those that the vendor keeps itself: they may stand in what is written and are left out.
    ``model`` names its custom fields; ``located``: a new one names its location; ``texts`` are always text there.
    """

    name: str
    version: str
    wrapped: str | None
    takes: Mapping[str, str] = field(default_factory=dict)
    create: str | None = None
    one: str | None = None
    update: str | None = None
    delete: str | None = None
    model: str | None = None
    located: bool = False
    keeps: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()
    renamed: Mapping[str, str] = field(default_factory=dict)  # the vendor's → ours, in what is read
    hidden: frozenset[str] = frozenset()

    @property
    def of_contact(self) -> bool:
        """It is found by its contact only."""
        return self.one is not None and "{contact}" in self.one


def _same(*names: str) -> dict[str, str]:
    return {each: each for each in names}


CONTACT_TEXTS = (
    "firstName", "lastName", "name", "email", "phone", "address1", "city", "state", "postalCode", "website", "timezone",
    "source", "dateOfBirth", "country", "companyName", "assignedTo", "gender",
)  # fmt: skip
NOT_NULLABLE = frozenset({"postalCode", "country", "companyName", "gender"})  # cleared by "" there
ADD_TAGS, REMOVE_TAGS = "addTags", "removeTags"
_KEPT = frozenset({"id", "locationId", "dateAdded", "dateUpdated", "customFields"})

CONTACT = Kind(
    "Contact", JULY, "contact", _same(*CONTACT_TEXTS, "dnd", "dndSettings", "inboundDndSettings", "tags"),
    create="/contacts/", one="/contacts/{id}", update="/contacts/{id}", delete="/contacts/{id}", model="contact",
    located=True, texts=frozenset(CONTACT_TEXTS),
    keeps=_KEPT | {"type", "attachments", "attributionSource", "lastAttributionSource", "businessId", "followers",
                   "lastActivity", "validEmail", "additionalEmails", "additionalPhones"},
    renamed={"firstNameRaw": "firstName", "lastNameRaw": "lastName", "contactName": "name", "address": "address1"},
    hidden=frozenset({"searchAfter", "firstNameLowerCase", "lastNameLowerCase", "fullNameLowerCase", "emailLowerCase",
                      "keyword", "phoneLabel"}),
)  # fmt: skip
OPPORTUNITY = Kind(
    "Opportunity", JULY, "opportunity",
    _same("name", "pipelineId", "pipelineStageId", "status", "monetaryValue", "assignedTo", "contactId"),
    create="/opportunities/", one="/opportunities/{id}", update="/opportunities/{id}", delete="/opportunities/{id}",
    model="opportunity", located=True,
    keeps=_KEPT | {"source", "lastStatusChangeAt", "lastStageChangeAt", "lastActionDate", "contact"},
    renamed={"createdAt": "dateAdded", "updatedAt": "dateUpdated"},
    hidden=frozenset({"indexVersion", "relations", "notes", "tasks", "calendarEvents", "contact", "attributions",
                      "sort"}),
)  # fmt: skip
MESSAGE = Kind(
    "Message", APRIL, None,
    {**_same("contactId", "type", "message", "html", "subject", "emailFrom", "emailTo", "emailCc", "emailBcc",
             "attachments", "fromNumber", "toNumber", "threadId", "replyMessageId", "templateId", "scheduledTimestamp",
             "appointmentId", "conversationProviderId"), "messageType": "type", "body": "message"},
    create="/conversations/messages", one="/conversations/messages/{id}",
    keeps=_KEPT | {"conversationId", "direction", "status", "contentType", "userId"},
)  # fmt: skip
CONVERSATION = Kind("Conversation", APRIL, None, one="/conversations/{id}", hidden=frozenset({"sort"}))
APPOINTMENT = Kind(
    "Appointment", APRIL, "event",
    _same("title", "calendarId", "contactId", "appointmentStatus", "assignedUserId", "address", "startTime", "endTime",
          "description", "meetingLocationType", "ignoreDateRange", "ignoreFreeSlotValidation", "toNotify", "rrule"),
    create="/calendars/events/appointments", one="/calendars/events/appointments/{id}",
    update="/calendars/events/appointments/{id}", delete="/calendars/events/{id}", located=True,
    keeps=_KEPT | {"groupId", "users", "notes", "source", "isRecurring", "createdBy"},
)  # fmt: skip
NOTE = Kind(
    "Note", JULY, "note", _same("body", "userId", "title", "color", "pinned", "contactId"),
    create="/contacts/{contact}/notes", one="/contacts/{contact}/notes/{id}",
    update="/contacts/{contact}/notes/{id}", delete="/contacts/{contact}/notes/{id}", keeps=_KEPT,
)  # fmt: skip
TASK = Kind(
    "Task", JULY, "task", _same("title", "body", "dueDate", "completed", "assignedTo", "contactId"),
    create="/contacts/{contact}/tasks", one="/contacts/{contact}/tasks/{id}",
    update="/contacts/{contact}/tasks/{id}", delete="/contacts/{contact}/tasks/{id}", keeps=_KEPT,
)  # fmt: skip
TAG = Kind("Tag", JULY, "tag", _same("name"), create="/locations/{location}/tags",
           one="/locations/{location}/tags/{id}", delete="/locations/{location}/tags/{id}", keeps=_KEPT)  # fmt: skip
CALENDAR = Kind("Calendar", APRIL, "calendar", one="/calendars/{id}")
CUSTOM_FIELD = Kind("CustomField", JULY, "customField", one="/locations/{location}/customFields/{id}")
PIPELINE = Kind("Pipeline", JULY, None)

KINDS: Mapping[str, Kind] = {
    each.name: each
    for each in (CONTACT, OPPORTUNITY, MESSAGE, CONVERSATION, APPOINTMENT, NOTE, TASK, TAG, CALENDAR, CUSTOM_FIELD,
                 PIPELINE)
}  # fmt: skip


def row_of(kind: Kind, found: Mapping[str, Any], keys: Mapping[str, str]) -> Fields:
    """The vendor's record as a row: our names, nothing that is empty, custom fields under their ids and their keys.

    ``keys`` says the key of each custom field's id. Raises ValueError for what is no record.
    """
    identifier = found.get("id", found.get("_id"))
    if not identifier:
        raise ValueError(f"{kind.name} without an id")
    row: Fields = {"id": str(identifier)}
    for name, value in found.items():
        if name in kind.hidden or name in ("customFields", "custom_fields", "_id", "id") or empty(value):
            continue
        ours = kind.renamed.get(name, name)
        if ours in row and name != ours:
            continue
        row[ours] = value
    if kind is CONTACT:
        _names(row, found)
    if kind is MESSAGE:
        row["messageType"] = str(row.get("messageType", "")).removeprefix("TYPE_")
        row.pop("type", None)
    if kind is CONVERSATION and isinstance(stamp := row.get("lastMessageDate"), int | float):
        row["lastMessageDate"] = text_of(stamp / 1000)
    entries = found.get("customFields") or found.get("custom_fields")
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, Mapping) and isinstance(key := entry.get("id"), str):
            said = next((entry[each] for each in _VALUES if each in entry), None)
            if not empty(said):
                row[key] = said
                if (known := keys.get(key)) is not None:
                    row.setdefault(known, said)
    return row


_VALUES = ("value", "fieldValue", "field_value", "fieldValueString", "fieldValueNumber", "fieldValueArray")


def _names(row: Fields, found: Mapping[str, Any]) -> None:
    """A search has names in lower case, and newer ones as they are written, too; the latter where there is a choice."""
    for name in ("firstName", "lastName"):
        if name not in row and not empty(lower := found.get(f"{name}LowerCase")):
            row[name] = lower
    if row.get("firstName") or row.get("lastName"):
        row["name"] = " ".join(str(part) for part in (row.get("firstName"), row.get("lastName")) if part)


def empty(value: Any) -> bool:
    return value is None or value == "" or value == [] or value == {}


def text_of(seconds: float) -> str:
    """A moment as the vendor writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def listed(answer: Any, name: str) -> Sequence[Mapping[str, Any]]:
    """The records that an answer holds under that name; what is none is left out."""
    found = answer.get(name) if isinstance(answer, Mapping) else None
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []
