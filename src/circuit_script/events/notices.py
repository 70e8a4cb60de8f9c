"""Notices to tenants about their quotas: events of the object ``Quota`` in the tenant's own ledger."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog

from circuit_script.clock import uuid7
from circuit_script.events.intake import order_hash
from circuit_script.events.ledger import Connection, Ledger, LedgerRow, Unstorable
from circuit_script.events.sources import EventDraft
from circuit_script.events.sources.circuit import Circuit
from circuit_script.tenants.entitlement import NOTICE, Notice

EVENT = "afterUpdate"

log = structlog.get_logger()


class Notices:
    """Takes notices into the ledger, each once: its id is made of what it says. They are rare, so that no connection is
    kept for them."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]], *, pooler: bool = False) -> None:
        self._connect = connect
        self._pooler = pooler

    async def add(self, notice: Notice) -> None:
        """Commit it, unless it is there. Raises LedgerAway."""
        ledger = Ledger(self._connect, pooler=self._pooler)
        try:
            await ledger.take_in([_row(notice)])
        except Unstorable as error:
            log.error("quota.notice", tenant=notice.tenant, error=str(error), next="it is lost")
        finally:
            await ledger.close()


def fields_of(notice: Notice) -> dict[str, Any]:
    """What a handler gets as the record."""
    period = notice.period
    return {
        "id": f"{notice.quota}-{period.name}",
        "quota": notice.quota,
        "period": period.name,
        "used": period.used,
        "ceiling": period.ceiling,
        "percent": notice.percent,
        "resets_at": period.resets_at.isoformat(),
        "tier": notice.tier.name,
        "upgrade": notice.tier.allows.upgrade,
    }


def _row(notice: Notice) -> LedgerRow:
    record, tenant = fields_of(notice), notice.tenant
    draft = EventDraft(NOTICE, EVENT, record["id"], record["id"])
    return LedgerRow(
        id=uuid7(),
        source=Circuit.name,
        account=tenant,
        tenant=tenant,
        vendor_id=f"{record['id']} {notice.period.starts} {notice.percent} of {notice.period.ceiling}",
        record_key=None,
        headers=b"{}",
        body=msgspec.json.encode({"type": f"{NOTICE}.{EVENT}", "data": record}),
        events=(draft,),
        order_hashes=(order_hash(tenant, draft.order_key),),
    )
