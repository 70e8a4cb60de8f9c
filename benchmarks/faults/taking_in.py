"""Events straight into the ledger, by the statement that intake uses: a whole batch at once, or a backlog quickly."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from circuit_script.clock import uuid7
from circuit_script.db.pool import open_connection
from circuit_script.events.intake import order_hash
from circuit_script.events.ledger import Ledger, LedgerRow
from circuit_script.events.sources import EventDraft

GROUP = 500


def contact(tenant: str, record: str, **fields: object) -> LedgerRow:
    """A contact that was created, as the source `standard` tells it."""
    body = msgspec.json.encode({"type": "Contact.afterInsert", "data": {"id": record, **fields}})
    draft = EventDraft("Contact", "afterInsert", record, record)
    hashes = (order_hash(tenant, record),)
    return LedgerRow(uuid7(), "standard", tenant, tenant, str(uuid7()), None, b"{}", body, (draft,), hashes)


async def take_in(url: str, rows: Sequence[LedgerRow]) -> None:
    """Commit them, in groups of 500, and wake who sleeps."""
    ledger = Ledger(lambda: open_connection(url, pooler=False))
    try:
        for start in range(0, len(rows), GROUP):
            await ledger.take_in(rows[start : start + GROUP])
        await ledger.run("NOTIFY circuit_queue", ())
    finally:
        await ledger.close()
