"""Settings → what is polled: each object that a CRM outside keeps for a tenant and that a trigger handles."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Iterator

import structlog

from circuit_script.config import Settings
from circuit_script.connectors.connector import Connector
from circuit_script.connectors.homes import LOCAL, Vendor
from circuit_script.db.pool import Connection, Pool
from circuit_script.events.chores import failed, succeeded
from circuit_script.events.mirror_moves import OLD, MirrorState, read_states
from circuit_script.events.reconcile import CHORE, Poll, Target, changed_field
from circuit_script.events.reconcile.poll import leave_alone, not_due
from circuit_script.events.sources.source import RESERVED
from circuit_script.wiring.homes import Housing

TICK = 15.0  # seconds between two looks at what is due
HANDLED = "SELECT DISTINCT object FROM circuit.routes WHERE event IN ('afterInsert', 'afterUpdate') ORDER BY object"

Unpolled = tuple[str, str, str]

log = structlog.get_logger()


async def handled_objects(connection: Connection) -> list[str]:
    """The objects whose inserts or updates the live release handles."""
    return [name for (name,) in await (await connection.execute(HANDLED)).fetchall()]


def targets_of(settings: Settings, housing: Housing, handled: Collection[str]) -> Iterator[Target | Unpolled]:
    """What is to be polled; and, as (tenant, connector, object), what cannot be: its CRM has no field that says when a
    record was changed."""
    for tenant in settings.tenant_names:
        for object_ in sorted({*handled} - RESERVED):
            home = housing.of(tenant, object_)
            wanted = settings.reconcile.objects.get(home)
            vendor: Connector | None = None if home == LOCAL else housing.connectors.get(home)
            if vendor is None or not isinstance(vendor, Vendor) or (wanted is not None and object_ not in wanted):
                continue
            stamp = changed_field(vendor, object_)
            yield (tenant, home, object_) if stamp is None else Target(tenant, object_, vendor, stamp)


async def held(settings: Settings, connection: Connection) -> frozenset[str]:
    """CRMs of whose deliveries an old service takes care: what has changed there is not ours to act on."""
    states = await read_states(connection) if settings.mirror else {}
    return frozenset(each for each in settings.mirror if states.get(each, MirrorState(each, OLD)).acts == OLD)


class Reconciler:
    """The polls of a worker. Whichever worker comes first polls an object; the others see that it is done."""

    def __init__(self, settings: Settings, database: Pool, housing: Housing, *, tick: float = TICK) -> None:
        self._settings = settings
        self._database = database
        self._housing = housing
        self._tick = min(tick, settings.reconcile.seconds)
        self._told: set[tuple[str, str, str]] = set()

    async def run(self) -> None:
        """Until it is cancelled. Raises psycopg.Error, after which it is begun again."""
        if not self._settings.reconcile.enabled:
            await asyncio.Event().wait()
        while True:
            await asyncio.sleep(self._tick * random.uniform(0.5, 1.0))
            await self.round()

    async def round(self) -> None:
        """Poll what is due, one object after the other. One tenant's trouble ends nothing but its own polls."""
        every = self._settings.reconcile.seconds
        async with self._database.connection() as connection:
            handled = await handled_objects(connection)
            left = await held(self._settings, connection)
            await leave_alone(connection, left)
        fresh = await not_due(self._database, every)
        stopped: set[tuple[str, str]] = set()
        polled, troubles = 0, []
        for target in targets_of(self._settings, self._housing, handled):
            if not isinstance(target, Target):
                self._tell_unpolled(target)
                continue
            place = (target.tenant, target.crm.name)
            if (*place, target.object) in fresh or place in stopped:
                continue
            if target.crm.name in left:
                self._tell_held(target)
                continue
            done = await Poll(self._database, every=every).run(target)
            polled += 1
            if done.stop:
                stopped.add(place)
            if done.stop and done.connected:
                troubles.append(f"{done.tenant}, {done.connector}: {done.note}")
        if polled:
            async with self._database.connection() as connection:
                if troubles:
                    await failed(connection, CHORE, "; ".join(troubles))
                else:
                    await succeeded(connection, CHORE)

    def _tell_held(self, target: Target) -> None:
        place = target.tenant, target.crm.name, target.object
        if place not in self._told:
            self._told.add(place)
            log.info("reconcile.held", tenant=place[0], connector=place[1], object=place[2],
                     next="an old service acts on its deliveries; it is polled after the cutover")  # fmt: skip

    def _tell_unpolled(self, place: tuple[str, str, str]) -> None:
        if place not in self._told:
            self._told.add(place)
            tenant, connector, object_ = place
            log.info("reconcile.unpolled", tenant=tenant, connector=connector, object=object_,
                     next="this connector does not say when its records were changed")  # fmt: skip
