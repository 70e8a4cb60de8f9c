"""What tests of messages share: secrets of two tenants, effects, connectors on their stand-ins."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar
from uuid import UUID

import httpx

from circuit_script.clock import uuid7
from circuit_script.config import ConnectorSettings
from circuit_script.connectors.connector import Connector, Delivered, Delivery, Effect
from circuit_script.connectors.parts import Parts
from circuit_script.schemas.messages import USUAL
from tests.crm.stage import MemorySecrets
from tests.messaging.vendors import Messenger

ACME, BIRCH = "AC" + "a" * 32, "AC" + "b" * 32
SECRETS = {
    "acme": {
        "twilio.account_sid": ACME,
        "twilio.auth_token": "token-of-acme-1",
        "resend.key": "re_key_of_acme",
        "slack.token": "xoxb-token-of-acme",
        "vapi.key": "vapi-key-of-acme",
    },
    "birch": {
        "twilio.account_sid": BIRCH,
        "twilio.auth_token": "token-of-birch-1",
        "resend.key": "re_key_of_birch",
        "slack.token": "xoxb-token-of-birch",
        "vapi.key": "vapi-key-of-birch",
    },
}
V = TypeVar("V", bound=Messenger)
C = TypeVar("C", bound=Connector)


def secrets() -> MemorySecrets:
    found = MemorySecrets()
    for tenant, values in SECRETS.items():
        found.values |= {(tenant, name): value for name, value in values.items()}
    return found


def effect(operation: str, payload: Mapping[str, Any], *, target: str = USUAL, tenant: str = "acme",
           identifier: UUID | None = None) -> Effect:  # fmt: skip
    return Effect(identifier or uuid7(), tenant, operation, target, "c1", dict(payload))


class Stage(Generic[V, C]):
    """A connector on its stand-in. What it delivers and hears of later goes through here."""

    def __init__(self, vendor: V, connector: C, kept: MemorySecrets) -> None:
        self.vendor = vendor
        self.connector = connector
        self.secrets = kept

    async def deliver(self, *effects: Effect) -> list[Delivery]:
        found = await self.connector.deliver(effects[0].operation, effects)
        return list(found) if isinstance(found, Sequence) else [found] * len(effects)

    async def one(self, effect: Effect) -> Delivery:
        (result,) = await self.deliver(effect)
        return result

    async def done(self, effect: Effect) -> str | None:
        result = await self.one(effect)
        assert isinstance(result, Delivered), result
        return result.vendor_id


@contextlib.asynccontextmanager
async def staged(
    vendor: V, make: Callable[[Parts], C], settings: ConnectorSettings, *, base: str = ""
) -> AsyncIterator[Stage[V, C]]:
    """Both until the block ends; what does not fit the vendor's contract fails."""
    kept = secrets()
    with vendor:
        async with httpx.AsyncClient(trust_env=False) as client:
            settings = settings.model_copy(update={"url": vendor.url + base})
            parts = Parts(settings, client, kept, accounts={})
            yield Stage(vendor, make(parts), kept)
        assert vendor.contract.violations == [], vendor.contract.violations


def older(effect: Effect, seconds: float) -> Effect:
    """The same effect as if it had been made so much earlier."""
    shifted = (effect.id.int >> 80) - int(seconds * 1000)
    return replace(effect, id=UUID(int=shifted << 80 | (effect.id.int & (1 << 80) - 1)))
