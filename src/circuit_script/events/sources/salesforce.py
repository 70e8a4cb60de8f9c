"""Salesforce's outbound messages: SOAP without a signature, so the address is the secret.

A message goes to ``/webhooks/salesforce/{secret}``, since Salesforce lets nobody add a header; the secret is of one
organization, and the message must say that it is from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from circuit_script.config import SourceSettings
from circuit_script.connectors.salesforce.settings import FIELDS, OBJECTS
from circuit_script.errors import ConfigError
from circuit_script.events.sources.source import (
    Parsed,
    Reason,
    Record,
    Reply,
    Request,
    Source,
    draft,
    identifier,
    ids_together,
    malformed,
    order_key,
    stable_id,
    unauthorized,
)
from circuit_script.events.sources.verify import Keyring, raw

SHORTEST = 24  # characters of a secret: nothing else keeps strangers out
MOST_NOTIFICATIONS = 100
MOST_ELEMENTS = 100_000
DEEPEST = 20
SOAP = "http://schemas.xmlsoap.org/soap/envelope/"
OUTBOUND = "http://soap.sforce.com/2005/09/outbound"
INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"

_ACK = (
    f'<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="{SOAP}"><soapenv:Body>'
    f'<notificationsResponse xmlns="{OUTBOUND}"><Ack>%s</Ack></notificationsResponse>'
    "</soapenv:Body></soapenv:Envelope>"
)
_OURS = {theirs: ours for ours, theirs in OBJECTS.items()}


@dataclass(slots=True)
class Element:
    """One element; names are ``{namespace} local``, as expat joins them."""

    name: str
    attributes: Mapping[str, str]
    children: list[Element] = field(default_factory=list)
    text: str = ""

    @property
    def local(self) -> str:
        return self.name.rpartition(" ")[2]

    def named(self, name: str) -> list[Element]:
        return [each for each in self.children if each.name == name]


class Salesforce(Source):
    """Outbound messages of workflow rules and flows; an account is an OrganizationId."""

    name = "salesforce"
    has_accounts = True  # in its place stands the secret
    taken = Reply((_ACK % "true").encode(), "text/xml; charset=utf-8")
    later = Reply((_ACK % "false").encode(), "text/xml; charset=utf-8")

    def __init__(self, secrets: Mapping[str, Sequence[str]]) -> None:
        """``secrets`` are by OrganizationId, of 15 or 18 characters. Raises ConfigError for one that can be guessed."""
        if any(len(each.strip()) < SHORTEST for several in secrets.values() for each in several):
            raise ConfigError(
                f"sources.salesforce.secrets holds a secret of less than {SHORTEST} characters.",
                cure='Make one: python -c "import secrets; print(secrets.token_urlsafe(32))"',
                page="signing-key",
            )
        self._keys = Keyring.of(secrets, "sources.salesforce.secrets")

    @classmethod
    def from_settings(cls, settings: SourceSettings) -> Salesforce:
        return cls(settings.salesforce.secrets)

    def verify(self, request: Request) -> str:
        return self._keys.signer(lambda key: [key], [raw(request.account or "")])

    def parse(self, request: Request, signer: str = "") -> Parsed:
        organization, notifications = _read(request.body)
        # The last three of 18 characters only repeat which of the others are capitals.
        if not signer or organization[:15] != signer[:15]:
            unauthorized(Reason.UNKNOWN_ACCOUNT, "The secret is of another organization.")
        drafts = []
        for _, type_, record in notifications:
            object_ = _OURS.get(type_, type_)
            drafts.append(draft(object_, _event_of(record), record["id"], order_key(object_, record["id"], record)))
        return Parsed(signer, ids_together([id_ for id_, _, _ in notifications]), tuple(drafts))

    @staticmethod
    def records(body: bytes) -> list[Record]:
        return [record for _, _, record in _read(body)[1]]


def _read(body: bytes) -> tuple[str, list[tuple[str, str, Record]]]:
    """OrganizationId, and of each notification its id, its type, and its record. Raises IntakeRefused(400)."""
    envelope = read_xml(body)
    bodies = envelope.named(f"{SOAP} Body") if envelope.name == f"{SOAP} Envelope" else []
    messages = bodies[0].named(f"{OUTBOUND} notifications") if len(bodies) == 1 else []
    if len(messages) != 1:
        malformed(Reason.NOT_XML, "The body is not an outbound message.")
    (message,) = messages
    organizations = message.named(f"{OUTBOUND} OrganizationId")
    notifications = message.named(f"{OUTBOUND} Notification")
    if len(organizations) != 1 or not notifications:
        malformed(Reason.NO_EVENTS, "The message names no organization, or no record.")
    if len(notifications) > MOST_NOTIFICATIONS:
        malformed(Reason.TOO_MANY_EVENTS, f"The message has more than {MOST_NOTIFICATIONS} notifications.")
    return identifier(organizations[0].text.strip()), [_notification(each) for each in notifications]


def _notification(element: Element) -> tuple[str, str, Record]:
    objects = element.named(f"{OUTBOUND} sObject")
    if len(objects) != 1:
        malformed(Reason.NO_EVENTS, "A notification is without its record.")
    (record,) = objects
    type_ = identifier(record.attributes.get(f"{INSTANCE} type", "").rpartition(":")[2])
    ours = {theirs: ours for ours, theirs in FIELDS.get(type_, {}).items()} | {"Id": "id"}
    fields = {ours.get(each.local, each.local): _value(each) for each in record.children}
    id_ = fields.get("id")
    fields["id"] = identifier(id_) if isinstance(id_, str) and id_ else stable_id(fields)
    ids = element.named(f"{OUTBOUND} Id")
    return identifier(ids[0].text.strip()) if len(ids) == 1 else "", type_, fields


def _value(element: Element) -> Any:
    """Text, None for ``xsi:nil``; a record within a record is one here, too."""
    if element.attributes.get(f"{INSTANCE} nil") in ("true", "1"):
        return None
    return {each.local: _value(each) for each in element.children} if element.children else element.text


def _event_of(record: Record) -> str:
    """A message does not say what happened. Only a record that was just made was changed last when it was made."""
    made, changed = record.get("dateAdded", record.get("CreatedDate")), record.get("dateUpdated")
    changed = changed or record.get("LastModifiedDate")
    return "afterInsert" if made and made == changed else "afterUpdate"


def read_xml(body: bytes) -> Element:
    """The document of a stranger: UTF-8, without a document type, entities or processing instructions, bounded in depth
    and size. Raises IntakeRefused(400)."""
    from xml.parsers import expat

    root: list[Element] = []
    open_: list[Element] = []
    text: list[list[str]] = []
    count = 0

    def refuse(*_: Any) -> Any:
        malformed(Reason.NOT_XML, "The body has a document type, an entity or an instruction; none is needed here.")

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1
        if len(open_) >= DEEPEST or count > MOST_ELEMENTS:
            malformed(Reason.TOO_DEEP, f"The body is nested deeper than {DEEPEST} levels, or has too many elements.")
        element = Element(name, attributes)
        (open_[-1].children if open_ else root).append(element)
        open_.append(element)
        text.append([])

    def end(_: str) -> None:
        open_.pop().text = "".join(text.pop())

    def characters(data: str) -> None:
        text[-1].append(data)

    parser = expat.ParserCreate("UTF-8", " ")
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.UnparsedEntityDeclHandler = refuse
    parser.ExternalEntityRefHandler = refuse
    parser.ProcessingInstructionHandler = refuse
    parser.SkippedEntityHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = characters
    try:
        parser.Parse(body, True)
    except (expat.ExpatError, ValueError):
        malformed(Reason.NOT_XML, "The body is not well-formed XML in UTF-8.")
    return root[0]
