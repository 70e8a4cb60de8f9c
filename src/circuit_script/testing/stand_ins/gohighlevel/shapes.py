"""Records as the vendor's answers and webhooks show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from circuit_script.testing.stand_ins.gohighlevel.world import Doc, millis, name_of

INNER = frozenset({"customFields"})
UNTOLD = frozenset({"dateUpdated"})  # of a contact, which its webhooks do not say


def contact(doc: Doc) -> Doc:
    """One contact, as it is got by its id."""
    shown = {name: value for name, value in doc.items() if name not in INNER}
    for name in ("firstName", "lastName", "email"):
        if name in doc:
            shown[f"{name}LowerCase"] = doc[name].lower()
    if name := name_of(doc):
        shown |= {"name": name, "fullNameLowerCase": name.lower()}
    return shown | {"tags": list(doc["tags"]), "customFields": entries(doc["customFields"])}


def found_contact(doc: Doc) -> Doc:
    """One contact, as a search finds it: names in lower case, and as they are under names of their own."""
    shown = contact(doc)
    shown.pop("name", None)
    for name in ("firstName", "lastName"):
        shown[f"{name}Raw"] = shown.pop(name, None)
    shown["address"] = shown.pop("address1", None)
    shown["contactName"] = name_of(doc) or None
    for name in ("email", "phone", "companyName", "city", "state", "country", "postalCode", "source", "website",
                 "timezone", "assignedTo", "dateOfBirth"):  # fmt: skip
        shown.setdefault(name, None)
    return shown | {"searchAfter": [millis(doc["dateAdded"]), doc["id"]]}


def opportunity(doc: Doc, contacts: Mapping[str, Doc]) -> Doc:
    person = contacts.get(doc["contactId"])
    shown = {name: value for name, value in doc.items() if name not in INNER}
    shown["customFields"] = [{"id": key, "fieldValue": value} for key, value in doc["customFields"].items()]
    if person is not None:
        shown["contact"] = {"id": person["id"], "name": name_of(person), "tags": list(person["tags"])} | {
            each: person[each] for each in ("email", "phone", "companyName") if each in person}  # fmt: skip
    return shown


def without_location(doc: Doc) -> Doc:
    return {name: value for name, value in doc.items() if name not in ("locationId", "dateAdded")}


def note(doc: Doc) -> Doc:
    return {name: value for name, value in doc.items() if name != "locationId"}


def conversation(doc: Doc) -> Doc:
    """As it is got by its id: its type is a number there."""
    return {name: doc[name] for name in ("id", "contactId", "locationId", "deleted", "inbox", "unreadCount")} | {
        "type": 1
    }


def entries(values: Mapping[str, Any]) -> list[Doc]:
    return [{"id": key, "value": value} for key, value in values.items()]


def webhook(kind: str, doc: Doc) -> Doc:
    """The body of a webhook, flat but for appointments, without the envelope's stamp and id."""
    if kind.startswith("Appointment"):
        inner = {name: value for name, value in doc.items() if name != "locationId"}
        return {"type": kind, "locationId": doc["locationId"], "appointment": inner}
    shown = {name: value for name, value in doc.items() if name not in INNER}
    if kind.startswith("Contact"):
        shown = {name: value for name, value in shown.items() if name not in UNTOLD}
        shown |= {"name": name_of(doc), "attachments": [], "customFields": entries(doc["customFields"])}
    elif kind.startswith("Opportunity"):
        shown["dateAdded"] = shown.pop("createdAt", None)
        for name in ("updatedAt", "lastStatusChangeAt", "lastStageChangeAt"):
            shown.pop(name, None)
    elif kind.endswith("Message"):
        shown["messageId"] = shown.pop("id")
        shown["messageType"] = shown["messageType"].removeprefix("TYPE_").replace("EMAIL", "Email")
    return {**shown, "type": kind}
