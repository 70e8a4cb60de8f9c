"""Accounts: who there is, what each may do for whom. What matters to an account ends its sessions."""

from __future__ import annotations

import unicodedata
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import psycopg

from circuit_script.access.passwords import Busy, hashed, refuse_weak
from circuit_script.access.roles import ALL, Person, Role
from circuit_script.clock import uuid7
from circuit_script.db.pool import Connection
from circuit_script.errors import PeopleRefused

LONGEST_NAME = 254  # characters, as of an e-mail address

MEMBERSHIPS = """
coalesce((SELECT jsonb_object_agg(m.scope, m.role) FROM circuit.memberships m WHERE m.person = p.id), '{}')
"""
_ACCOUNTS = f"""
SELECT p.id, p.name, {MEMBERSHIPS}, p.password IS NOT NULL, p.created_at, p.created_by, p.signed_in_at,
       (SELECT count(*) FROM circuit.sessions s WHERE s.person = p.id AND s.ends_at > clock_timestamp())
FROM circuit.people p WHERE %(name)s::text IS NULL OR p.name = %(name)s ORDER BY p.name
"""
_ADD = "INSERT INTO circuit.people (id, name, password, password_at, created_by) VALUES (%s, %s, %s, %s, %s)"
_REMOVE = "DELETE FROM circuit.people WHERE id = %s"
_PASSWORD = "UPDATE circuit.people SET password = %s, password_at = clock_timestamp() WHERE id = %s"
_GRANT = """
INSERT INTO circuit.memberships AS m (person, scope, role, granted_by) VALUES (%s, %s, %s, %s)
ON CONFLICT (person, scope) DO UPDATE
SET role = excluded.role, granted_by = excluded.granted_by, granted_at = excluded.granted_at
"""
_REVOKE = "DELETE FROM circuit.memberships WHERE person = %s AND scope = %s"
_TOUCH = "UPDATE circuit.people SET name = name WHERE id = %s"
_END_SESSIONS = "DELETE FROM circuit.sessions WHERE person = %s"
_END_LINKS = "DELETE FROM circuit.sign_in_links WHERE person = %s"
_OWNERS = """
SELECT p.id, p.name FROM circuit.people p JOIN circuit.memberships m ON m.person = p.id
WHERE m.scope = '*' AND m.role = 'owner' ORDER BY p.created_at, p.id
"""
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('circuit.people'))"


@dataclass(frozen=True, slots=True)
class Account:
    """A person, and what is known of the account. Without a password it signs in by one-time links only."""

    person: Person
    has_password: bool
    created_at: datetime
    created_by: str
    signed_in_at: datetime | None
    sessions: int


def name_of(text: str) -> str | None:
    """The name of an account as it is stored, for which case and width of letters count as one; None for what can be
    no name."""
    if not 0 < len(text) <= LONGEST_NAME * 4:
        return None
    name = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).strip()
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable() or any(each.isspace() for each in name):
        return None
    return name


def person_from(id_: UUID, name: str, memberships: Mapping[str, str]) -> Person:
    """A person as the database has it."""
    return Person(id_, name, {tenant: Role(role) for tenant, role in memberships.items()})


async def list_people(connection: Connection) -> list[Account]:
    """Every account, by name."""
    return await _accounts(connection, None)


async def find_person(connection: Connection, name: str) -> Account:
    """The account of that name. Raises PeopleRefused when there is none."""
    wanted = name_of(name)
    found = await _accounts(connection, wanted) if wanted else []
    if not found:
        raise PeopleRefused(f"There is nobody called {name[:100]!r}.", cure="Look: circuit-script people list")
    return found[0]


async def add_person(connection: Connection, name: str, by: str, *, password: str | None = None) -> Account:
    """A new account without any role. Raises PeopleRefused for a name that cannot be one or is taken, and for a
    password that is too weak."""
    wanted = name_of(name)
    if wanted is None:
        raise PeopleRefused(
            f"{name[:100]!r} is no name of an account.",
            cure=f"Take an e-mail address: 1 to {LONGEST_NAME} characters, no spaces.",
        )
    stored = None if password is None else await _stored(wanted, password)
    try:
        moment = None if stored is None else "now"
        await connection.execute(_ADD, [uuid7(), wanted, stored, moment, by])
    except psycopg.errors.UniqueViolation:
        raise PeopleRefused(f"There is somebody called {wanted!r} already.") from None
    return await find_person(connection, wanted)


async def remove_person(connection: Connection, name: str) -> None:
    """Remove the account with its roles, sessions, links and tokens. Raises PeopleRefused, also for the last owner."""
    async with _changing(connection, name) as account:
        await connection.execute(_REMOVE, [account.person.id])


async def set_password(connection: Connection, name: str, password: str | None) -> None:
    """Set the password, or take it away; every session and link of the account ends. Raises PeopleRefused."""
    account = await find_person(connection, name)
    stored = None if password is None else await _stored(account.person.name, password)
    async with connection.transaction():
        await connection.execute(_PASSWORD, [stored, account.person.id])
        await _end(connection, account.person.id)


async def grant(connection: Connection, name: str, tenant: str, role: Role, by: str) -> None:
    """Give a role for a tenant (`ALL` for all), in the place of the one it has there. Its sessions end.

    Raises PeopleRefused when nobody has that name, or the last owner would be none any more.
    """
    if not tenant or not tenant.isprintable() or len(tenant) > LONGEST_NAME:
        raise PeopleRefused(f"{tenant[:100]!r} is no name of a tenant.", page="unknown-tenant")
    async with _changing(connection, name) as account:
        await connection.execute(_GRANT, [account.person.id, tenant, role.value, by])
        await _end(connection, account.person.id)


async def revoke(connection: Connection, name: str, tenant: str) -> None:
    """Take its role for a tenant away. Its sessions end. Raises PeopleRefused as `grant` does, or when it has none."""
    async with _changing(connection, name) as account:
        if tenant not in account.person.memberships:
            raise PeopleRefused(f"{account.person.name} has no role for {tenant!r}.")
        await connection.execute(_REVOKE, [account.person.id, tenant])
        await _end(connection, account.person.id)


async def first_owner(connection: Connection, by: str) -> Person:
    """The oldest owner of everything; made, under the name ``owner``, where there is none."""
    async with connection.transaction():
        await connection.execute(_LOCK)
        if owners := await (await connection.execute(_OWNERS)).fetchall():
            return (await find_person(connection, owners[0][1])).person
        if not await _accounts(connection, "owner"):
            await add_person(connection, "owner", by)
        account = await find_person(connection, "owner")
        await connection.execute(_GRANT, [account.person.id, ALL, Role.owner.value, by])
        return (await find_person(connection, "owner")).person


@asynccontextmanager
async def _changing(connection: Connection, name: str) -> AsyncIterator[Account]:
    """A transaction that changes who may do what, one at a time: two owners must not take each other's role away."""
    async with connection.transaction():
        await connection.execute(_LOCK)
        before = bool(await (await connection.execute(_OWNERS)).fetchall())
        yield await find_person(connection, name)
        if before and not await (await connection.execute(_OWNERS)).fetchall():
            raise PeopleRefused(
                "Nobody would be the owner of everything any more.",
                cure="Make another one first: circuit-script people grant NAME owner",
            )


async def _end(connection: Connection, person: UUID) -> None:
    # Locks the account's row, as signing in does: what is under way is seen here, or sees this.
    await connection.execute(_TOUCH, [person])
    await connection.execute(_END_SESSIONS, [person])
    await connection.execute(_END_LINKS, [person])


async def _stored(name: str, password: str) -> str:
    """What is kept of a new password. Raises PeopleRefused for one that is too weak."""
    refuse_weak(password)
    if name_of(password) == name:
        raise PeopleRefused("The password is the name.", cure="Take a sentence of your own.")
    try:
        return await hashed(password)
    except Busy:
        raise PeopleRefused("Too many people sign in at this moment.", cure="Try again in a second.") from None


async def _accounts(connection: Connection, name: str | None) -> list[Account]:
    rows = await (await connection.execute(_ACCOUNTS.encode(), {"name": name})).fetchall()
    return [Account(person_from(*row[:3]), *row[3:]) for row in rows]
