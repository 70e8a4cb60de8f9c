"""Webhooks as vendors send them, of any object and event, signed with the keys of this app's development."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec
import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from circuit_script.cli.demo.vendor import Payload, Signed, Vendor
from circuit_script.cli.dev.keys import ACCOUNT, GOHIGHLEVEL, STANDARD, dev_folder
from circuit_script.config import Settings
from circuit_script.connectors.webhook import signature
from circuit_script.errors import StartError
from circuit_script.events.sources.gohighlevel import GoHighLevel
from circuit_script.events.sources.source import EVENTS
from circuit_script.events.sources.standard import Standard

LOCATION = "ve9EPM428h8vShlRW1KT"
_TYPES = {"afterInsert": "Create", "afterUpdate": "Update", "afterDelete": "Delete"}


@dataclass(frozen=True, slots=True)
class Sample:
    """One webhook, ready to be posted to ``path``. ``record`` is the id of the record that it is about."""

    path: str
    signed: Signed
    record: str


Maker = Callable[[Settings, str, Payload, str | None], Sample]


def make_sample(settings: Settings, source: str, event: str, data: Payload, account: str | None = None) -> Sample:
    """A webhook of ``source`` about ``event`` ("Contact.afterInsert"); ``data`` goes over the sample's own fields.

    Raises BadParameter for an event that there is not, StartError when there is no key to sign with.
    """
    check_event(event)
    return MAKERS[source](settings, event, data, account)


def check_event(event: str) -> None:
    """Raises BadParameter for an event that there is not."""
    object_, _, change = event.rpartition(".")
    if not object_ or change not in EVENTS:
        near = get_close_matches(change or event, sorted(EVENTS), n=1)
        cure = f"Did you mean {object_ or 'Contact'}.{near[0] if near else 'afterInsert'}?"
        raise typer.BadParameter(f"There is no event {event!r}. {cure}", param_hint="--event")


def _gohighlevel(settings: Settings, event: str, data: Payload, account: str | None) -> Sample:
    vendor = Vendor(
        seed=secrets.randbits(64),
        location=account or _first_account(settings, GoHighLevel.name) or LOCATION,
        now=datetime.now(UTC),
        key=_private_key(dev_folder(settings) / GOHIGHLEVEL),
    )
    payload = data if "type" in data else _payload(vendor, event, data)
    record = payload.get("appointment") or payload
    name = next((name for name in ("id", "messageId", "emailMessageId") if record.get(name)), "")
    return Sample(f"/webhooks/{GoHighLevel.name}", vendor.webhook(payload), str(record.get(name, "")))


def _payload(vendor: Vendor, event: str, data: Payload) -> Payload:
    object_, _, change = event.rpartition(".")
    if change not in _TYPES:
        cure = "Send it as a Standard Webhook: circuit-script send standard."
        raise typer.BadParameter(f"GoHighLevel has no webhook for {event}. {cure}", param_hint="--event")
    contact = vendor.contact()
    type_ = {"type": f"{object_}{_TYPES[change]}"}
    match object_:
        case "Contact":
            return contact | data | type_
        case "Message":
            return vendor.message(contact) | data
        case "Appointment":
            sample = vendor.appointment(contact)
            return sample | type_ | {"appointment": sample["appointment"] | data}
        case _:
            common = {"locationId": vendor.location, "id": vendor.identifier(), "contactId": contact["id"]}
            return common | data | type_


def _standard(settings: Settings, event: str, data: Payload, account: str | None) -> Sample:
    account = account or _first_account(settings, Standard.name) or ACCOUNT
    secret = _secret_of(settings, account)
    vendor = Vendor(seed=secrets.randbits(64), location=account, now=datetime.now(UTC))
    sample: dict[str, Any] = {"id": vendor.identifier()}
    if event.startswith("Contact."):
        sample = {name: value for name, value in vendor.contact().items() if name != "locationId"}
    record = sample | data
    body = msgspec.json.encode({"type": event, "data": record})
    headers = signature(secret, f"msg_{secrets.token_hex(12)}", int(time.time()), body)
    signed = Signed({"content-type": "application/json", **headers}, body)
    return Sample(f"/webhooks/{Standard.name}/{account}", signed, str(record["id"]))


MAKERS: dict[str, Maker] = {GoHighLevel.name: _gohighlevel, Standard.name: _standard}


def _first_account(settings: Settings, source: str) -> str | None:
    """An account that belongs to a tenant, where the app maps them."""
    return next((account for sources in settings.accounts.values() for account in sources.get(source, ())), None)


def _secret_of(settings: Settings, account: str) -> str:
    if configured := settings.sources.standard.secrets.get(account):
        return configured[0]
    if account == ACCOUNT:
        return _read(dev_folder(settings) / STANDARD).strip()
    raise StartError(
        f"There is no key to sign with: account {account!r} of Standard Webhooks has no secret.",
        cure=f"Add it to [sources.standard.secrets] in circuit.toml, or leave --account away for {ACCOUNT!r}.",
        page="signing-key",
    )


def _private_key(path: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(_read(path).encode(), None)
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        cure = "Remove it; circuit-script dev makes another."
        raise StartError(f"{path} is not an Ed25519 key.", cure=cure, page="signing-key")
    return key


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError:
        raise StartError(
            f"There is no key to sign with: {path}.",
            cure="Start circuit-script dev here, which makes test keys and accepts them.",
            page="signing-key",
        ) from None
