"""Two tenants on one platform: neither sees a row of the other, by any way of reading."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg import sql

from circuit_script.cli.demo.vendor import Vendor
from tests.acceptance.platform import Platform, served
from tests.acceptance.vendor import Sent, contact_stream, make_vendor, send_all
from tests.servers import Server

TENANTS = {"alpha": "loc-A", "beta": "loc-B"}
TENANT_MAP = "\n".join(f'[tenants.{tenant}]\ngohighlevel = ["{location}"]' for tenant, location in TENANTS.items())

# `Keep` leaves secrets about; `Spy` reads in every way it can and writes down whatever it saw.
TRIGGERS = """
from circuit_script import CircuitDB, CircuitTrigger, RequestRefused, log, send_webhook, trigger

SEEN_BY_THIS_PROCESS = []


class Keep(CircuitTrigger):
    @trigger("Contact", ["afterInsert"])
    async def keep(self, context):
        for contact in context.new_records:
            SEEN_BY_THIS_PROCESS.append(f"secret of {context.tenant}")
            log.info(f"secret of {context.tenant}")
            secret = f"secret of {context.tenant}"
            row = {"contactId": contact["id"], "secret": secret, "shared": "same", "nothing": None}
            await CircuitDB.insert("Note", {**row, "id": f"note-{context.tenant}"})
            await CircuitDB.insert("Note", {**row, "id": "note-of-both"})


class Spy(CircuitTrigger):
    @trigger("Contact", ["afterUpdate"])
    async def spy(self, context):
        for contact in context.new_records:
            other = contact["other"]
            ids = [contact["their_contact"], f"note-{other}", "note-of-both", "*", "%"]
            seen = [SEEN_BY_THIS_PROCESS]
            for name in ("Contact", "Note", "LeadScore", "contact", "%"):
                seen.append(await CircuitDB.get(name, ids))
                wheres = [
                    {}, {"id": ids}, {"id": ids[0]}, {"contactId": ids[0]}, {"contactId": ids}, {"shared": "same"},
                    {"secret": f"secret of {other}"}, {"secret": [f"secret of {other}"]}, {"nothing": None},
                    {"tenant": other}, {"tenant": [other]}, {"locationId": contact["their_location"]},
                ]
                for where in wheres:
                    for order in (None, "id", "-id", "secret", "-secret"):
                        if len(seen) < 90:
                            seen.append(await CircuitDB.query(name, where, order_by=order, limit=1000))
            for write in (CircuitDB.update, CircuitDB.delete):
                try:
                    rows = [{"id": f"note-{other}"}] if write is CircuitDB.update else f"note-{other}"
                    await write("Note", rows)
                    seen.append(f"wrote note-{other}")
                except RequestRefused:
                    pass
            await CircuitDB.insert("Report", {"contactId": contact["id"], "seen": repr(seen)})
"""


@dataclass(frozen=True)
class Two:
    """A platform with both tenants' records in it."""

    platform: Platform
    vendors: dict[str, Vendor]
    contacts: dict[str, Sent]


@pytest.fixture(scope="module")
def two(embedded_server: Server) -> Iterator[Two]:
    vendors = {tenant: make_vendor(location=location) for tenant, location in TENANTS.items()}
    key = vendors["alpha"].public_key
    with served(embedded_server, TRIGGERS, public_key=key, more=TENANT_MAP) as platform:
        contacts = {tenant: contact_stream(vendor, 1)[0] for tenant, vendor in vendors.items()}
        send_all(platform.port, contacts.values())
        platform.wait_settled()
        yield Two(platform, vendors, contacts)


def other_than(tenant: str) -> str:
    return next(each for each in TENANTS if each != tenant)


@pytest.mark.parametrize("tenant", TENANTS)
def test_a_handler_reads_nothing_of_the_other_tenant(two: Two, tenant: str) -> None:
    other = other_than(tenant)
    theirs = two.contacts[other].contact
    fields = {"other": other, "their_contact": theirs, "their_location": TENANTS[other]}
    _, update = contact_stream(two.vendors[tenant], 2, **fields)
    send_all(two.platform.port, [update])
    two.platform.wait_settled()
    [(owner, seen)] = two.platform.rows(
        "SELECT tenant, data ->> 'seen' FROM circuit.records WHERE object = 'Report' AND contact = %s", update.contact
    )
    assert owner == tenant
    assert f"secret of {tenant}" in seen, "it read its own"
    assert f"secret of {other}" not in seen
    assert f"wrote note-{other}" not in seen
    kept = "SELECT data ->> 'secret' FROM circuit.records WHERE id = %s AND NOT deleted"
    assert two.platform.rows(kept, f"note-{other}") == [(f"secret of {other}",)]


RELATIONS = """
SELECT c.relname, EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant'),
       has_table_privilege('circuit_tenant', c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
FROM pg_class c WHERE c.relnamespace = 'circuit'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
ORDER BY 1
"""
# What every tenant may read though it names none: names of handlers and releases, no row of anybody; and of schedules
# those that fire for it.
OPEN = {"handlers", "releases", "schedules"}
FILLED = {"records", "deliveries", "events", "outcomes", "executions"}


@pytest.mark.parametrize("tenant", TENANTS)
def test_no_table_and_no_view_shows_the_other_tenants_rows(two: Two, tenant: str) -> None:
    relations = two.platform.rows(RELATIONS)
    assert not [name for name, _, may_write in relations if may_write]
    shown = {}
    for name, has_tenant, _ in relations:
        found = as_tenant(two.platform, tenant, name, names_tenant=has_tenant)
        if found is not None:
            shown[name] = (has_tenant, found)
    assert {name for name, (has_tenant, _) in shown.items() if not has_tenant} == OPEN
    foreign = {name: found for name, (has_tenant, found) in shown.items() if has_tenant and found not in ([], [tenant])}
    assert not foreign
    for name in FILLED:
        assert shown[name] == (True, [tenant]), f"{name} shows its own rows"
        assert as_tenant(two.platform, None, name) == [], f"{name} shows nothing to nobody"


def as_tenant(platform: Platform, tenant: str | None, relation: str, *, names_tenant: bool = True) -> list[Any] | None:
    """Whose rows are seen there in the role that reads for a handler; None when it may not look."""
    with psycopg.connect(platform.url) as connection:
        connection.execute("SELECT set_config('circuit.tenant', %s, true)", [tenant or ""])
        connection.execute("SET LOCAL ROLE circuit_tenant")
        what = sql.Identifier("tenant") if names_tenant else sql.Literal(True)
        statement = sql.SQL("SELECT DISTINCT {} FROM circuit.{}").format(what, sql.Identifier(relation))
        try:
            rows = connection.execute(statement).fetchall()
        except psycopg.errors.InsufficientPrivilege:
            return None
    return [row[0] for row in rows]


def test_an_account_that_nobody_owns_is_kept_and_handled_by_nobody(two: Two) -> None:
    stranger = make_vendor(location="loc-C")
    sent = contact_stream(stranger, 1)[0]
    send_all(two.platform.port, [sent])
    two.platform.wait_settled()
    [(tenant, handled)] = two.platform.rows(
        "SELECT tenant, handled FROM circuit.events WHERE record = %s", sent.contact
    )
    assert (tenant, handled) == (None, 0)
    for known in TENANTS:
        assert as_tenant(two.platform, known, "deliveries") == [known]
