"""Senders of other making: an HMAC as circuit.toml describes it, at ``/webhooks/hmac/{name}``."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from circuit_script.config import SourceSettings
from circuit_script.errors import ConfigError
from circuit_script.events.sources.source import (
    EVENTS,
    RESERVED,
    Parsed,
    Reason,
    Record,
    Request,
    Source,
    draft,
    identifier,
    order_key,
    read_object,
    stable_id,
    storable,
    unauthorized,
)
from circuit_script.events.sources.standard import kind_of
from circuit_script.events.sources.verify import Keyring, Template
from circuit_script.settings_sources import HmacSettings

_READ = {"text": str.encode, "base64": lambda text: base64.b64decode(text, validate=True), "hex": bytes.fromhex}


class Sender:
    """One sender: how it signs, and where in its JSON what stands."""

    def __init__(self, name: str, settings: HmacSettings) -> None:
        """Raises ConfigError."""
        where = f"sources.hmac.{name}"
        self.name = name
        self.settings = settings
        self.template = Template(
            settings, Keyring.of(settings.secrets, f"{where}.secrets", _READ[settings.secret_encoding]), where
        )
        places = (settings.id, settings.type, settings.record, settings.account)
        self.headers = tuple(each[7:].lower() for each in places if each.startswith("header:"))
        for type_, kind in settings.objects.items():
            object_, _, event = kind.rpartition(".")
            if not object_ or event not in EVENTS or object_ in RESERVED:
                raise ConfigError(
                    f"{where}.objects.{type_} is {kind!r}.",
                    cure='Write an object and an event, like "Contact.afterInsert".',
                    page="unknown-event",
                )

    def parse(self, request: Request, signer: str) -> Parsed:
        settings = self.settings
        payload = read_object(request.body)
        type_ = identifier(_at(settings.type, payload, request))
        object_, event = kind_of(settings.objects.get(type_, type_))
        id_ = identifier(_at(settings.record, payload, request)) or stable_id(payload)
        account = signer or identifier(_at(settings.account, payload, request)) or self.name
        order = order_key(object_, id_, payload)
        once = identifier(_at(settings.id, payload, request))
        drafted = draft(object_, event, id_, order)
        # Ids are compared within an account: those of two senders must not meet in one.
        return Parsed(account, identifier(f"{self.name}:{once}") if once else None, (drafted,))


class Hmac(Source):
    """Whoever signs with an HMAC and is not known here by name; an account is the sender, unless its JSON names one."""

    name = "hmac"
    has_accounts = True

    def __init__(self, senders: Mapping[str, HmacSettings]) -> None:
        """``senders`` is the last part of the path → how that one signs. Raises ConfigError."""
        self._senders = {name: Sender(name, each) for name, each in senders.items()}
        own = {each for sender in self._senders.values() for each in (*sender.template.headers, *sender.headers)}
        secret = {"authorization", "cookie"} & own
        self.kept_headers = tuple(sorted({"content-type", "user-agent", *own} - secret))
        self.secret_headers = tuple(sorted(secret))

    @classmethod
    def from_settings(cls, settings: SourceSettings) -> Hmac:
        return cls(settings.hmac)

    def verify(self, request: Request) -> str:
        return self._sender(request).template.check(request)

    def parse(self, request: Request, signer: str = "") -> Parsed:
        return self._sender(request).parse(request, signer)

    def _sender(self, request: Request) -> Sender:
        found = self._senders.get(request.account or "")
        if found is None:
            unauthorized(Reason.UNKNOWN_ACCOUNT, "No such sender is configured.")
        return found

    @staticmethod
    def records(body: bytes) -> list[Record]:
        """The whole payload. Its id is the event's, which only the settings of that time could tell."""
        payload = storable(read_object(body), body)
        return [{**payload, "id": identifier(payload.get("id")) or stable_id(payload)}]


def _at(place: str, payload: Record, request: Request) -> Any:
    """What stands at ``data.id`` of the payload, or in the header of ``header:x-id``."""
    if place.startswith("header:"):
        return request.headers.get(place[7:].lower())
    value: Any = payload if place else None
    for part in place.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
