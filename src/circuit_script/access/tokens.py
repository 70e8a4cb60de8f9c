"""Personal tokens: what a program of a person sends as ``Authorization: Bearer csp_…``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import psycopg

from circuit_script.access.people import MEMBERSHIPS, find_person, person_from
from circuit_script.access.roles import Person, Role
from circuit_script.access.secret import digest_of, is_secret, new_secret
from circuit_script.clock import uuid7
from circuit_script.db.pool import Connection
from circuit_script.errors import PeopleRefused

PREFIX = "csp_"
SHOWN = 11  # characters of a token that a list shows
MAX_NAME = 100

_MAKE = """
INSERT INTO circuit.person_tokens (id, person, name, prefix, hash, most, ends_at)
VALUES (%s, %s, %s, %s, %s, %s, clock_timestamp() + make_interval(secs => %s))
RETURNING created_at, ends_at
"""
_LIST = """
SELECT t.id, p.name, t.name, t.prefix, t.most, t.created_at, t.last_used_at, t.ends_at
FROM circuit.person_tokens t JOIN circuit.people p ON p.id = t.person
WHERE %(person)s::uuid IS NULL OR p.id = %(person)s ORDER BY p.name, t.created_at, t.id
"""
_REVOKE = "DELETE FROM circuit.person_tokens WHERE person = %s AND %s IN (name, prefix, id::text)"
_FIND = f"""
SELECT t.id, coalesce(t.last_used_at < clock_timestamp() - interval '1 minute', true), t.most, p.id, p.name,
       {MEMBERSHIPS}
FROM circuit.person_tokens t JOIN circuit.people p ON p.id = t.person
WHERE t.hash = %s AND (t.ends_at IS NULL OR t.ends_at > clock_timestamp())
"""
_USED = "UPDATE circuit.person_tokens SET last_used_at = clock_timestamp() WHERE id = %s"


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token. ``most`` is the role that it does not go beyond, ``ends_at`` None when it has no end.
    The token itself is known once, to whoever made it."""

    id: UUID
    person: str
    name: str
    prefix: str
    most: Role | None
    created_at: datetime
    last_used_at: datetime | None
    ends_at: datetime | None


async def make_token(
    connection: Connection, person: str, name: str, *, most: Role | None = None, lasts: float | None = None
) -> tuple[str, Token]:
    """A new token of this person, and what is kept of it. Raises PeopleRefused."""
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise PeopleRefused(f"{name[:100]!r} is no name of a token.", cure=f"1 to {MAX_NAME} printable characters.")
    owner = (await find_person(connection, person)).person
    token, id_ = PREFIX + new_secret(), uuid7()
    try:
        cursor = await connection.execute(
            _MAKE, [id_, owner.id, name, token[:SHOWN], digest_of(token), most and most.value, lasts]
        )
    except psycopg.errors.UniqueViolation:
        raise PeopleRefused(f"{owner.name} has a token {name!r} already.") from None
    row = await cursor.fetchone()
    assert row is not None  # INSERT … RETURNING
    return token, Token(id_, owner.name, name, token[:SHOWN], most, row[0], None, row[1])


async def list_tokens(connection: Connection, person: UUID | None = None) -> list[Token]:
    """Every token, or those of one person."""
    rows = await (await connection.execute(_LIST, {"person": person})).fetchall()
    return [
        Token(id_, owner, name, prefix, most and Role(most), created, used, ends)
        for id_, owner, name, prefix, most, created, used, ends in rows
    ]


async def revoke_token(connection: Connection, person: UUID, which: str) -> None:
    """Revoke a person's token by its name, how it begins, or its id. Raises PeopleRefused when there is none."""
    if not (await connection.execute(_REVOKE, [person, which])).rowcount:
        raise PeopleRefused(f"There is no token {which[:100]!r}.", cure="Look: circuit-script people tokens")


async def person_of_token(connection: Connection, token: str) -> Person | None:
    """Whose token it is, with the roles that it has now; None when it is wrong, revoked or over."""
    if not token.startswith(PREFIX) or not is_secret(token[len(PREFIX) :]):
        return None
    row = await (await connection.execute(_FIND.encode(), [digest_of(token)])).fetchone()
    if row is None:
        return None
    if row[1]:
        await connection.execute(_USED, [row[0]])
    return person_from(*row[3:]).at_most(row[2] and Role(row[2]))
