"""Cancels what a person has chosen, jobs whose moment has not come included."""

from __future__ import annotations

from collections.abc import Callable

from circuit_script.db.pool import Connection
from circuit_script.events import controls
from circuit_script.events.controls import Selection
from circuit_script.jobs.store import take_in_meant


async def cancel(
    connection: Connection, selection: Selection, *, reason: str, by: str, told: Callable[[int], None] = lambda _: None
) -> int:
    """As ``controls.cancel``. Delayed jobs go to the queue first, with their moment: so they have their outcome in the
    ledger, and their finalizer."""
    if selection.kind != "connector":
        await take_in_meant(connection, selection.meant())
    return await controls.cancel(connection, selection, reason=reason, by=by, told=told)
