"""What is said of an account: what our objects and fields are called there, which properties hold ids of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from circuit_script.connectors.connector import Rate

BASE = "https://api.hubapi.com"

# Our objects and those of HubSpot. One that is not here goes by its own name: `2-3465404`, `p1234_invoices`.
OBJECTS: Mapping[str, str] = {
    "Contact": "contacts",
    "Company": "companies",
    "Opportunity": "deals",
    "Task": "tasks",
    "Note": "notes",
    "Appointment": "meetings",
}

_OWNED: Mapping[str, str] = {"assignedTo": "hubspot_owner_id", "dateUpdated": "hs_lastmodifieddate"}

# Our fields and HubSpot's properties, by its object. One that is not here goes by its own name.
FIELDS: Mapping[str, Mapping[str, str]] = {
    "contacts": {
        "firstName": "firstname",
        "lastName": "lastname",
        "email": "email",
        "phone": "phone",
        "companyName": "company",
        "address1": "address",
        "city": "city",
        "state": "state",
        "postalCode": "zip",
        "country": "country",
        "website": "website",
        "dateOfBirth": "date_of_birth",
        "assignedTo": "hubspot_owner_id",
        "dateAdded": "createdate",
        "dateUpdated": "lastmodifieddate",
    },
    "companies": {"name": "name", "phone": "phone", "website": "website", "dateAdded": "createdate", **_OWNED},
    "deals": {
        "name": "dealname",
        "monetaryValue": "amount",
        "pipelineId": "pipeline",
        "pipelineStageId": "dealstage",
        "closeDate": "closedate",
        "dateAdded": "createdate",
        **_OWNED,
    },
    "tasks": {
        "title": "hs_task_subject",
        "body": "hs_task_body",
        "dueDate": "hs_timestamp",
        "status": "hs_task_status",
        "dateAdded": "hs_createdate",
        **_OWNED,
    },
    "notes": {"body": "hs_note_body", "date": "hs_timestamp", "dateAdded": "hs_createdate", **_OWNED},
    "meetings": {
        "title": "hs_meeting_title",
        "startTime": "hs_meeting_start_time",
        "endTime": "hs_meeting_end_time",
        "address": "hs_meeting_location",
        "notes": "hs_meeting_body",
        "assignedUserId": "hubspot_owner_id",
        "dateAdded": "hs_createdate",
        "dateUpdated": "hs_lastmodifieddate",
    },
}
# The type of an association with a contact, by the object that has it (HubSpot's own numbers).
WITH_CONTACT: Mapping[str, int] = {"deals": 3, "tasks": 204, "notes": 202, "meetings": 200}
CONTACT = "contactId"
TIMED = frozenset({"tasks", "notes", "meetings"})  # they need hs_timestamp


@dataclass(frozen=True, slots=True)
class HubSpotSettings:
    """``objects`` (ours → HubSpot's) and ``fields`` (our object → our field → property) are added to the tables above.

    ``external_ids`` (our object → property) names a property of unique values that may hold ids of ours: by it an
    insert of which no answer came is found again, and records are upserted. ``rate`` is what an account takes.
    """

    base_url: str = BASE
    objects: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    external_ids: Mapping[str, str] = field(default_factory=dict)
    rate: Rate | None = field(default_factory=lambda: Rate(100, 10.0, of="connector"))
    searches: int = 4  # in a second; HubSpot takes five of an account
