"""Insert, update, upsert and delete: one effect, one request (tags take one more)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from circuit_script.connectors.api import Failed
from circuit_script.connectors.connector import Delivered, Delivery, Effect, Fields, Later, Refused
from circuit_script.connectors.gohighlevel.asking import Asking, place
from circuit_script.connectors.gohighlevel.fields import CustomFields, text, written
from circuit_script.connectors.gohighlevel.objects import (
    ADD_TAGS,
    CONTACT,
    JULY,
    KINDS,
    MESSAGE,
    NOT_NULLABLE,
    OPPORTUNITY,
    Kind,
)
from circuit_script.errors import NotConnected, QueryRefused, SecretMissing, SecretsUnavailable

MARKER = "circuit_reference"  # a custom field of contacts: where there is one, inserts write their reference into it


class Wrong(Exception):
    """It cannot be written, and why."""


class Writing:
    """Writes of all tenants."""

    def __init__(self, asking: Asking, customs: CustomFields) -> None:
        self._asking = asking
        self._customs = customs

    async def write(self, operation: str, effect: Effect) -> Delivery:
        kind = KINDS.get(effect.target)
        if kind is None:
            return Refused(f"GoHighLevel has no {effect.target[:80]!r}; it has {', '.join(sorted(KINDS))}")
        try:
            identifier, fields = parts_of(effect)
            match operation:
                case "insert":
                    return await self._insert(kind, effect, fields)
                case "upsert" if is_reference(identifier):
                    return await (self._upsert if kind is CONTACT else self._insert)(kind, effect, fields)
                case "update" | "upsert":
                    return await self._update(kind, effect, identifier, fields)
                case "delete":
                    return await self._delete(kind, effect, identifier, fields)
                case _:
                    return Refused(f"GoHighLevel knows no {operation!r}")
        except (Wrong, QueryRefused) as wrong:
            return Refused(f"{operation} {effect.target}: {wrong}")
        except Failed as failed:
            return failed.delivery
        except (NotConnected, SecretMissing, SecretsUnavailable) as error:
            return Later(str(error), down=True)

    async def _insert(self, kind: Kind, effect: Effect, fields: Fields) -> Delivery:
        if kind.create is None:
            raise Wrong("it is only read there")
        tenant = effect.tenant
        location = await self._asking.location(tenant)
        contact = str(fields.get("contactId") or "")
        if kind.of_contact and not contact:
            raise Wrong(f"a {kind.name} needs its contactId")
        body, tags, _ = await self._body(kind, tenant, fields, new=True)
        if kind is CONTACT:
            if tags:
                body["tags"] = list(dict.fromkeys([*body.get("tags", ()), *tags]))
            await self._mark(effect, body)
        if kind.located:
            body["locationId"] = location
        path = place(kind.create, contact=contact, location=location)
        try:
            answer = await self._asking.ask(tenant, kind.version, "POST", path, writes=True, json=body)
        except Failed as failed:
            if kind is CONTACT and failed.code == "duplicate":
                return _taken(failed)
            raise
        return Delivered(made_id(kind, answer))

    async def _upsert(self, kind: Kind, effect: Effect, fields: Fields) -> Delivery:
        """By e-mail or phone, as the location looks for duplicates."""
        if not (fields.get("email") or fields.get("phone")):  # there is nothing to find anybody by
            return await self._insert(kind, effect, fields)
        tenant = effect.tenant
        body, add, remove = await self._body(kind, tenant, fields, new=True)
        body["locationId"] = await self._asking.location(tenant)
        answer = await self._asking.ask(tenant, JULY, "POST", "/contacts/upsert", writes=True, json=body)
        made = made_id(kind, answer)
        if made is not None:
            await self._tags(tenant, made, add, remove)
        return Delivered(made)

    async def _update(self, kind: Kind, effect: Effect, identifier: str, fields: Fields) -> Delivery:
        if kind.update is None:
            raise Wrong("it cannot be changed there")
        tenant = effect.tenant
        contact, id_ = _owner(kind, identifier, fields)
        body, add, remove = await self._body(kind, tenant, fields, new=False)
        if body or not (add or remove):
            if not body:
                return Delivered()  # nothing of it is the vendor's to change
            path = place(kind.update, id_=id_, contact=contact)
            await self._asking.ask(tenant, kind.version, "PUT", path, writes=True, json=body)
        await self._tags(tenant, id_, add, remove)
        return Delivered(id_ if effect.operation == "upsert" else None)

    async def _delete(self, kind: Kind, effect: Effect, identifier: str, fields: Fields) -> Delivery:
        if kind.delete is None:
            raise Wrong("it cannot be deleted there")
        contact, id_ = _owner(kind, identifier, fields)
        location = await self._asking.location(effect.tenant)
        path = place(kind.delete, id_=id_, contact=contact, location=location)
        body: dict[str, Any] | None = {} if kind.name == "Appointment" else None  # its contract wants a body
        try:
            await self._asking.ask(effect.tenant, kind.version, "DELETE", path, writes=True, json=body)
        except Failed as failed:
            if not failed.missing:
                raise
        return Delivered()

    async def _tags(self, tenant: str, contact: str, add: list[str], remove: list[str]) -> None:
        path = place("/contacts/{id}/tags", id_=contact)
        for method, tags in (("POST", add), ("DELETE", remove)):
            if tags:
                await self._asking.ask(tenant, JULY, method, path, writes=True, json={"tags": tags})

    async def _body(
        self, kind: Kind, tenant: str, fields: Mapping[str, Any], *, new: bool
    ) -> tuple[dict[str, Any], list[str], list[str]]:
        """What is sent, tags to add, tags to remove. Raises Wrong, Failed."""
        body: dict[str, Any] = {}
        changes: dict[str, list[str]] = {"addTags": [], "removeTags": []}
        custom: dict[str, Any] = {}
        for name, value in fields.items():
            if kind is CONTACT and name in changes:
                changes[name] = _texts(name, value)
            elif (theirs := kind.takes.get(name)) is not None:
                if name == "contactId" and (kind.of_contact or (kind is OPPORTUNITY and not new)):
                    continue  # it stands in the path, or stays what it is
                if value is None and new:
                    continue
                body[theirs] = _value(kind, name, value)
            elif name not in kind.keeps:
                custom[name] = value
        if custom:
            body["customFields"] = await self._entries(kind, tenant, custom, new=new)
            if not body["customFields"]:
                del body["customFields"]
        if kind is MESSAGE:
            _as_message(body)
        return body, changes[ADD_TAGS], changes["removeTags"]

    async def _entries(self, kind: Kind, tenant: str, custom: Mapping[str, Any], *, new: bool) -> list[dict[str, Any]]:
        model = kind.model
        if model is None:
            raise Wrong(f"{kind.name} has no field {next(iter(custom))[:80]!r}; it has {', '.join(sorted(kind.takes))}")
        known = await self._customs.of(tenant, *((model, name) for name in custom))
        entries = {}
        for name, value in custom.items():
            found = known.find(model, name)
            if found is None:
                raise Wrong(
                    f"{kind.name} has no field {name[:80]!r}: make a custom field in GoHighLevel whose key is "
                    f"{model}.{name[:80]}, or write one that is there"
                )
            if value is None and new:
                continue
            try:
                entries[found.id] = written(found, value)
            except ValueError as error:
                raise Wrong(str(error)) from None
        return list(entries.values())

    async def _mark(self, effect: Effect, body: dict[str, Any]) -> None:
        known = await self._customs.for_reading(effect.tenant)
        if (marker := known.find("contact", MARKER)) is not None:
            body.setdefault("customFields", []).append({"id": marker.id, "field_value": str(effect.id)})


def parts_of(effect: Effect) -> tuple[str, Fields]:
    """The record's id and the fields of an effect. Raises Wrong."""
    identifier = str(effect.payload.get("id") or effect.record or "")
    fields = effect.payload.get("fields", {})
    if not isinstance(fields, dict):
        raise Wrong("its fields are no mapping")
    if not identifier and effect.operation != "insert":
        raise Wrong("it has no id")
    return identifier, fields


def is_reference(identifier: str) -> bool:
    """An id that was made here, for a record that the vendor has still to make."""
    try:
        return not identifier or str(UUID(identifier)) == identifier.lower()
    except ValueError:
        return False


def made_id(kind: Kind, answer: Any) -> str | None:
    """The id that the vendor gave, wherever its answer has it."""
    if not isinstance(answer, Mapping):
        return None
    inner = answer.get(kind.wrapped) if kind.wrapped else None
    for each in (inner, answer):
        if isinstance(each, Mapping):
            for name in ("id", "_id", "messageId"):
                if isinstance(found := each.get(name), str) and found:
                    return found
    return None


def _owner(kind: Kind, identifier: str, fields: Mapping[str, Any]) -> tuple[str, str]:
    """A record's contact, where it is found by it, and its own id. Raises Wrong."""
    if not kind.of_contact:
        return "", identifier
    contact, _, id_ = identifier.rpartition("/")
    contact = contact or str(fields.get("contactId") or "")
    if not contact:
        raise Wrong(
            f'a {kind.name} is found by its contact, too: give its contactId, or its id as "contact/{identifier[:60]}"'
        )
    return contact, id_


def _taken(failed: Failed) -> Refused:
    """Who is there already."""
    reason = str(failed.delivery.reason)
    try:
        meta = failed.response.json().get("meta", {}) if failed.response is not None else {}
        found = meta.get("contactId")
        by = meta.get("matchingField")
    except (ValueError, AttributeError):
        return Refused(reason)
    return Refused(f"{reason} (it is {str(found)[:40]}, by {str(by)[:40]}; use upsert)")


def _value(kind: Kind, name: str, value: Any) -> Any:
    if name in kind.texts:
        if value is None:
            return "" if name in NOT_NULLABLE else None
        if isinstance(value, list | dict):
            raise Wrong(f"{name} is text there, not a {type(value).__name__}")
        return text(value)
    if name == "tags":
        return _texts(name, value)
    if name == "dnd":
        return bool(value)
    return value


def _texts(name: str, value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list | tuple):
        raise Wrong(f"{name} is a list of texts, not a {type(value).__name__}")
    return [text(each) for each in value]


def _as_message(body: dict[str, Any]) -> None:
    """What a message says stands under ``html`` for e-mails, under ``message`` for all others."""
    if "contactId" not in body:
        raise Wrong("a Message needs its contactId")
    body.setdefault("type", "SMS")
    if body["type"] == "Email" and "html" not in body and "message" in body:
        body["html"] = body.pop("message")
