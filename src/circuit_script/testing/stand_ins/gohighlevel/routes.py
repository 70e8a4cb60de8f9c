"""What the stand-in does for each request: one function for each of the vendor's operations that we use."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from circuit_script.testing.stand_ins.gohighlevel import shapes
from circuit_script.testing.stand_ins.gohighlevel.access import Grant, Tokens
from circuit_script.testing.stand_ins.gohighlevel.search import search
from circuit_script.testing.stand_ins.gohighlevel.world import (
    APPOINTMENT,
    TASK,
    Doc,
    Said,
    World,
    millis,
    name_of,
    unprocessable,
)

V_JULY = "2021-07-28"
V_APRIL = "2021-04-15"


@dataclass(slots=True)
class Asked:
    """One request, as an operation needs it. ``grant`` is None for those that need no token."""

    world: World
    tokens: Tokens
    path: tuple[str, ...]
    query: dict[str, str]
    raw: bytes
    grant: Grant | None

    @property
    def body(self) -> Doc:
        try:
            found = json.loads(self.raw or b"{}")
        except ValueError:
            raise Said(400, "Unexpected token in JSON") from None
        if not isinstance(found, dict):
            raise unprocessable("the body must be an object")
        return found

    @property
    def form(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(self.raw.decode()).items()}

    def location(self, said: object) -> str:
        """The location that the request names, which must be the token's. Raises Said."""
        grant = self.holder
        if not said:
            raise unprocessable("locationId should not be empty", "locationId must be a string")
        allowed = self.tokens.companies.get(str(said)) == grant.account if grant.company else said == grant.account
        if not allowed:
            raise Said(403, "The token does not have access to this location.")
        return str(said)

    @property
    def holder(self) -> Grant:
        assert self.grant is not None
        return self.grant

    def one(self, kind: str, docs: dict[str, Doc], identifier: str) -> Doc:
        """The record of that id in a location of the token. Raises Said."""
        found = docs.get(identifier)
        if found is None:
            raise Said(400, f"{kind} with id {identifier} not found")
        self.location(found["locationId"])
        return found


Answer = tuple[int, Any]
Operation = Callable[[Asked], Answer]


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    pattern: re.Pattern[str]
    version: str | None
    scope: str | None
    run: Operation


ROUTES: list[Route] = []


def route(
    method: str, path: str, version: str | None = V_JULY, scope: str | None = None
) -> Callable[[Operation], Operation]:
    def add(run: Operation) -> Operation:
        pattern = re.compile(re.sub(r"\{\w+\}", r"([^/]+)", path.rstrip("/")) + "/?")
        ROUTES.append(Route(method, pattern, version, scope, run))
        return run

    return add


def find(method: str, path: str) -> tuple[Route, tuple[str, ...]] | None:
    for each in ROUTES:
        if each.method == method and (found := each.pattern.fullmatch(path)):
            return each, found.groups()
    return None


def _of(docs: dict[str, Doc], **wanted: Any) -> list[Doc]:
    return [each for each in docs.values() if all(each.get(name) == value for name, value in wanted.items())]


# --- OAuth


@route("POST", "/oauth/token", None)
def token(asked: Asked) -> Answer:
    return 200, asked.tokens.token(asked.form)


@route("POST", "/oauth/locationToken", V_JULY, "oauth.write")
def location_token(asked: Asked) -> Answer:
    return 200, asked.tokens.location_token(asked.holder, asked.form)


# --- contacts


@route("POST", "/contacts/search", scope="contacts.readonly")
def search_contacts(asked: Asked) -> Answer:
    location = asked.location(asked.body.get("locationId"))
    page, total = search(_of(asked.world.contacts, locationId=location), asked.body, asked.world.fields)
    return 200, {"contacts": [shapes.found_contact(each) for each in page], "total": total, "traceId": "t"}


@route("GET", "/contacts/search/duplicate", scope="contacts.readonly")
def duplicate(asked: Asked) -> Answer:
    location = asked.location(asked.query.get("locationId"))
    found = asked.world.duplicate(location, asked.query.get("email"), asked.query.get("number"))
    return 200, {"contact": shapes.contact(found[0]) if found else None}


@route("POST", "/contacts/upsert", scope="contacts.write")
def upsert_contact(asked: Asked) -> Answer:
    body = asked.body
    location = asked.location(body.get("locationId"))
    found = asked.world.duplicate(location, body.get("email"), body.get("phone"))
    if found is None or (body.get("createNewIfDuplicateAllowed") and asked.world.duplicates_allowed):
        made = asked.world.contact(location, body, by_api=True)
    else:
        made = asked.world.edit_contact(found[0], body, by_api=True)
    return 200, {"new": found is None, "contact": shapes.contact(made), "traceId": "t"}


@route("POST", "/contacts/", scope="contacts.write")
def create_contact(asked: Asked) -> Answer:
    location = asked.location(asked.body.get("locationId"))
    return 201, {"contact": shapes.contact(asked.world.contact(location, asked.body, by_api=True))}


@route("GET", "/contacts/{id}", scope="contacts.readonly")
def get_contact(asked: Asked) -> Answer:
    return 200, {"contact": shapes.contact(asked.one("Contact", asked.world.contacts, asked.path[0]))}


@route("PUT", "/contacts/{id}", scope="contacts.write")
def update_contact(asked: Asked) -> Answer:
    doc = asked.one("Contact", asked.world.contacts, asked.path[0])
    done = asked.world.edit_contact(doc, asked.body, by_api=True)
    return 200, {"succeded": True, "contact": shapes.contact(done)}


@route("DELETE", "/contacts/{id}", scope="contacts.write")
def delete_contact(asked: Asked) -> Answer:
    doc = asked.one("Contact", asked.world.contacts, asked.path[0])
    del asked.world.contacts[doc["id"]]
    asked.world.changed("ContactDelete", doc, True)
    return 200, {"succeded": True}


@route("POST", "/contacts/{id}/tags", scope="contacts.write")
def add_tags(asked: Asked) -> Answer:
    doc = asked.one("Contact", asked.world.contacts, asked.path[0])
    return 201, {"tags": asked.world.tag(doc, asked.body["tags"], add=True, by_api=True)}


@route("DELETE", "/contacts/{id}/tags", scope="contacts.write")
def remove_tags(asked: Asked) -> Answer:
    doc = asked.one("Contact", asked.world.contacts, asked.path[0])
    return 200, {"tags": asked.world.tag(doc, asked.body["tags"], add=False, by_api=True)}


@route("GET", "/contacts/{id}/appointments", scope="contacts.readonly")
def appointments_of(asked: Asked) -> Answer:
    doc = asked.one("Contact", asked.world.contacts, asked.path[0])
    return 200, {"events": _of(asked.world.appointments, contactId=doc["id"])}


# --- notes and tasks of a contact

NOTE = ("body", "userId", "title", "color", "pinned")


@route("GET", "/contacts/{id}/notes", scope="contacts.readonly")
def notes_of(asked: Asked) -> Answer:
    doc = asked.one("Contact", asked.world.contacts, asked.path[0])
    return 200, {"notes": [shapes.note(each) for each in _of(asked.world.notes, contactId=doc["id"])]}


@route("POST", "/contacts/{id}/notes", scope="contacts.write")
def create_note(asked: Asked) -> Answer:
    doc = asked.one("Contact", asked.world.contacts, asked.path[0])
    if not asked.body.get("body"):
        raise unprocessable("body should not be empty")
    return 201, {"note": shapes.note(asked.world.note(doc, asked.body, by_api=True))}


@route("GET", "/contacts/{id}/notes/{note}", scope="contacts.readonly")
def get_note(asked: Asked) -> Answer:
    return 200, {"note": shapes.note(asked.one("Note", asked.world.notes, asked.path[1]))}


@route("PUT", "/contacts/{id}/notes/{note}", scope="contacts.write")
def update_note(asked: Asked) -> Answer:
    doc = asked.one("Note", asked.world.notes, asked.path[1])
    return 200, {"note": shapes.note(asked.world.edit("NoteUpdate", doc, asked.body, NOTE, by_api=True))}


@route("DELETE", "/contacts/{id}/notes/{note}", scope="contacts.write")
def delete_note(asked: Asked) -> Answer:
    doc = asked.one("Note", asked.world.notes, asked.path[1])
    del asked.world.notes[doc["id"]]
    asked.world.changed("NoteDelete", doc, True)
    return 200, {"succeded": True}


@route("GET", "/contacts/{id}/tasks", scope="contacts.readonly")
def tasks_of(asked: Asked) -> Answer:
    doc = asked.one("Contact", asked.world.contacts, asked.path[0])
    return 200, {"tasks": [shapes.without_location(each) for each in _of(asked.world.tasks, contactId=doc["id"])]}


@route("POST", "/contacts/{id}/tasks", scope="contacts.write")
def create_task(asked: Asked) -> Answer:
    doc = asked.one("Contact", asked.world.contacts, asked.path[0])
    return 201, {"task": shapes.without_location(asked.world.task(doc, asked.body, by_api=True))}


@route("GET", "/contacts/{id}/tasks/{task}", scope="contacts.readonly")
def get_task(asked: Asked) -> Answer:
    return 200, {"task": shapes.without_location(asked.one("Task", asked.world.tasks, asked.path[1]))}


@route("PUT", "/contacts/{id}/tasks/{task}", scope="contacts.write")
def update_task(asked: Asked) -> Answer:
    doc = asked.one("Task", asked.world.tasks, asked.path[1])
    kind = "TaskComplete" if asked.body.get("completed") else "TaskUpdate"
    return 200, {"task": shapes.without_location(asked.world.edit(kind, doc, asked.body, TASK, by_api=True))}


@route("DELETE", "/contacts/{id}/tasks/{task}", scope="contacts.write")
def delete_task(asked: Asked) -> Answer:
    doc = asked.one("Task", asked.world.tasks, asked.path[1])
    del asked.world.tasks[doc["id"]]
    asked.world.changed("TaskDelete", doc, True)
    return 200, {"succeded": True}


@route("POST", "/locations/{id}/tasks/search", scope="locations/tasks.readonly")
def search_tasks(asked: Asked) -> Answer:
    found = _of(asked.world.tasks, locationId=asked.location(asked.path[0]))
    body = asked.body
    if body.get("contactId"):
        found = [each for each in found if each["contactId"] in body["contactId"]]
    if "completed" in body:
        found = [each for each in found if each.get("completed", False) == body["completed"]]
    skip, limit = int(body.get("skip", 0)), int(body.get("limit", 25))
    return 200, {"tasks": [shapes.without_location(each) for each in found[skip : skip + limit]]}


# --- opportunities


@route("GET", "/opportunities/pipelines", scope="opportunities.readonly")
def pipelines(asked: Asked) -> Answer:
    return 200, {"pipelines": _of(asked.world.pipelines, locationId=asked.location(asked.query.get("locationId")))}


@route("GET", "/opportunities/search", scope="opportunities.readonly")
def search_opportunities(asked: Asked) -> Answer:
    query = asked.query
    found = _of(asked.world.opportunities, locationId=asked.location(query.get("location_id")))
    names = {"pipeline_id": "pipelineId", "pipeline_stage_id": "pipelineStageId", "contact_id": "contactId",
             "assigned_to": "assignedTo", "id": "id", "status": "status"}  # fmt: skip
    for asked_as, name in names.items():
        if (wanted := query.get(asked_as)) and not (name == "status" and wanted == "all"):
            found = [each for each in found if each.get(name) == wanted]
    limit = int(query.get("limit", 20))
    if not 1 <= limit <= 100:
        raise unprocessable("limit must not be greater than 100")
    found.sort(key=lambda each: (each["createdAt"], each["id"]), reverse=True)
    total = len(found)
    if "startAfterId" in query:
        bound = (int(query["startAfter"]), query["startAfterId"])
        found = [each for each in found if (millis(each["createdAt"]), each["id"]) < bound]
    page = found[:limit]
    meta: Doc = {"total": total, "currentPage": 1}
    if page:
        meta |= {"startAfter": millis(page[-1]["createdAt"]), "startAfterId": page[-1]["id"]}
    shown = [shapes.opportunity(each, asked.world.contacts) for each in page]
    return 200, {"opportunities": shown, "meta": meta, "aggregations": {}}


@route("POST", "/opportunities/", scope="opportunities.write")
def create_opportunity(asked: Asked) -> Answer:
    location = asked.location(asked.body.get("locationId"))
    made = asked.world.opportunity(location, asked.body, by_api=True)
    return 201, {"opportunity": shapes.opportunity(made, asked.world.contacts)}


@route("GET", "/opportunities/{id}", scope="opportunities.readonly")
def get_opportunity(asked: Asked) -> Answer:
    doc = asked.one("Opportunity", asked.world.opportunities, asked.path[0])
    return 200, {"opportunity": shapes.opportunity(doc, asked.world.contacts)}


@route("PUT", "/opportunities/{id}/status", scope="opportunities.write")
def opportunity_status(asked: Asked) -> Answer:
    doc = asked.one("Opportunity", asked.world.opportunities, asked.path[0])
    asked.world.edit_opportunity(doc, {"status": asked.body.get("status")}, by_api=True)
    return 200, {"succeded": True}


@route("PUT", "/opportunities/{id}", scope="opportunities.write")
def update_opportunity(asked: Asked) -> Answer:
    doc = asked.one("Opportunity", asked.world.opportunities, asked.path[0])
    done = asked.world.edit_opportunity(doc, asked.body, by_api=True)
    return 200, {"opportunity": shapes.opportunity(done, asked.world.contacts)}


@route("DELETE", "/opportunities/{id}", scope="opportunities.write")
def delete_opportunity(asked: Asked) -> Answer:
    doc = asked.one("Opportunity", asked.world.opportunities, asked.path[0])
    del asked.world.opportunities[doc["id"]]
    asked.world.changed("OpportunityDelete", doc, True)
    return 200, {"succeded": True}


# --- conversations and messages


@route("GET", "/conversations/search", V_APRIL, "conversations.readonly")
def search_conversations(asked: Asked) -> Answer:
    found = _of(asked.world.conversations, locationId=asked.location(asked.query.get("locationId")))
    for name in ("contactId", "id"):
        if wanted := asked.query.get(name):
            found = [each for each in found if each[name] == wanted]
    found.sort(key=lambda each: each.get("lastMessageDate", ""), reverse=True)
    if wanted := asked.query.get("startAfterDate"):
        found = [each for each in found if millis(each.get("lastMessageDate", 0)) < int(wanted)]
    shown = [{**each, "lastMessageDate": millis(each.get("lastMessageDate", 0))}
             for each in found[: int(asked.query.get("limit", 20))]]  # fmt: skip
    return 200, {"conversations": shown, "total": len(found)}


@route("GET", "/conversations/messages/export", V_APRIL, "conversations/message.readonly")
def export_messages(asked: Asked) -> Answer:
    found = _of(asked.world.messages, locationId=asked.location(asked.query.get("locationId")))
    for name in ("contactId", "conversationId"):
        if wanted := asked.query.get(name):
            found = [each for each in found if each[name] == wanted]
    channel = asked.query.get("channel")
    found = [each for each in found if (each["messageType"] == f"TYPE_{(channel or '').upper()}" if channel
                                        else each["messageType"] != "TYPE_EMAIL")]  # fmt: skip
    found.sort(key=lambda each: each["dateAdded"], reverse=asked.query.get("sortOrder", "desc") == "desc")
    start, limit = int(asked.query.get("cursor") or 0), int(asked.query.get("limit", 100))
    if not 10 <= limit <= 500:
        raise unprocessable("limit must be between 10 and 500")
    more = {"nextCursor": str(start + limit)} if start + limit < len(found) else {}
    return 200, {"messages": found[start : start + limit], "total": len(found), **more}


@route("POST", "/conversations/messages", V_APRIL, "conversations/message.write")
def send_message(asked: Asked) -> Answer:
    body = asked.body
    if body.get("type") not in ("SMS", "RCS", "Email", "WhatsApp", "IG", "FB", "Custom", "Live_Chat", "TIKTOK"):
        raise Said(400, "type must be one of the following values: SMS, Email, WhatsApp, …")
    contact = asked.one("Contact", asked.world.contacts, str(body.get("contactId")))
    made = asked.world.message(contact, body, by_api=True)
    return 200, {"conversationId": made["conversationId"], "messageId": made["id"]}


@route("GET", "/conversations/messages/{id}", V_APRIL, "conversations/message.readonly")
def get_message(asked: Asked) -> Answer:
    return 200, asked.one("Message", asked.world.messages, asked.path[0])


@route("GET", "/conversations/{id}", V_APRIL, "conversations.readonly")
def get_conversation(asked: Asked) -> Answer:
    return 200, shapes.conversation(asked.one("Conversation", asked.world.conversations, asked.path[0]))


# --- calendars and appointments


@route("GET", "/calendars/events", V_APRIL, "calendars/events.readonly")
def events(asked: Asked) -> Answer:
    query = asked.query
    location = asked.location(query.get("locationId"))
    ways = {"calendarId": "calendarId", "userId": "assignedUserId", "groupId": "groupId"}
    if not any(query.get(each) for each in ways):
        raise unprocessable("Either of calendarId, userId or groupId is required")
    begin, end = millis(query.get("startTime")), millis(query.get("endTime"))
    found = [each for each in _of(asked.world.appointments, locationId=location)
             if begin <= millis(each["startTime"]) <= end
             and all(each.get(name) == query[way] for way, name in ways.items() if query.get(way))]  # fmt: skip
    return 200, {"events": found}


@route("POST", "/calendars/events/appointments", V_APRIL, "calendars/events.write")
def create_appointment(asked: Asked) -> Answer:
    body = asked.body
    location = asked.location(body.get("locationId"))
    return 200, _booked(asked.world.appointment(location, body, by_api=True))


@route("GET", "/calendars/events/appointments/{id}", V_APRIL, "calendars/events.readonly")
def get_appointment(asked: Asked) -> Answer:
    return 200, {"event": asked.one("Appointment", asked.world.appointments, asked.path[0])}


@route("PUT", "/calendars/events/appointments/{id}", V_APRIL, "calendars/events.write")
def update_appointment(asked: Asked) -> Answer:
    doc = asked.one("Appointment", asked.world.appointments, asked.path[0])
    return 200, _booked(asked.world.edit("AppointmentUpdate", doc, asked.body, APPOINTMENT, by_api=True))


@route("DELETE", "/calendars/events/{id}", V_APRIL, "calendars/events.write")
def delete_appointment(asked: Asked) -> Answer:
    doc = asked.one("Appointment", asked.world.appointments, asked.path[0])
    del asked.world.appointments[doc["id"]]
    asked.world.changed("AppointmentDelete", doc, True)
    return 201, {"succeeded": True}


@route("GET", "/calendars/", V_APRIL, "calendars.readonly")
def calendars(asked: Asked) -> Answer:
    return 200, {"calendars": _of(asked.world.calendars, locationId=asked.location(asked.query.get("locationId")))}


@route("GET", "/calendars/{id}", V_APRIL, "calendars.readonly")
def get_calendar(asked: Asked) -> Answer:
    return 200, {"calendar": asked.one("Calendar", asked.world.calendars, asked.path[0])}


def _booked(doc: Doc) -> Doc:
    names = ("id", "calendarId", "locationId", "contactId", "startTime", "endTime", "title", "appointmentStatus",
             "assignedUserId", "address")  # fmt: skip
    return {name: doc[name] for name in names if name in doc}


# --- locations


@route("GET", "/locations/{id}", scope="locations.readonly")
def get_location(asked: Asked) -> Answer:
    return 200, {"location": asked.world.locations[asked.location(asked.path[0])]}


@route("GET", "/locations/{id}/customFields", scope="locations/customFields.readonly")
def custom_fields(asked: Asked) -> Answer:
    found = _of(asked.world.fields, locationId=asked.location(asked.path[0]))
    model = asked.query.get("model", "contact")
    return 200, {"customFields": [each for each in found if model in ("all", each["model"])]}


@route("POST", "/locations/{id}/customFields", scope="locations/customFields.write")
def create_custom_field(asked: Asked) -> Answer:
    location = asked.location(asked.path[0])
    body = asked.body
    made = asked.world.custom_field(location, body["name"], body["dataType"], body.get("model", "contact"))
    return 201, {"customField": made}


@route("GET", "/locations/{id}/tags", scope="locations/tags.readonly")
def location_tags(asked: Asked) -> Answer:
    return 200, {"tags": _of(asked.world.tags, locationId=asked.location(asked.path[0]))}


@route("POST", "/locations/{id}/tags", scope="locations/tags.write")
def create_tag(asked: Asked) -> Answer:
    return 200, {"tag": asked.world.location_tag(asked.location(asked.path[0]), asked.body["name"])}


def people_find(world: World, text: str) -> list[Doc]:
    """Whom a person who looks at the CRM finds by a name."""
    return [each for each in world.contacts.values() if text.lower() in name_of(each).lower()]
