"""Sessions: who signs in gets a random token in a cookie; of it, only the hash is stored.

Each sign-in makes a new one. It ends when it was not used for `IDLE` seconds, at its fixed end, when its person signs
out, and when the person's password or roles change.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import structlog

from circuit_script.access import attempts, passwords
from circuit_script.access.people import MEMBERSHIPS, name_of, person_from
from circuit_script.access.roles import Person
from circuit_script.access.secret import csrf_of, digest_of, is_secret, new_secret
from circuit_script.clock import uuid7
from circuit_script.db.pool import Connection

log = structlog.get_logger()

LASTS = 12 * 3600.0  # seconds, where nothing else is said
IDLE = 2 * 3600.0  # seconds without use
MOST = 20  # sessions of one person; the oldest ends

_STORED = "SELECT id, password FROM circuit.people WHERE name = %s"
# It changes the account's row, so that it comes either before a change of password or role, which then ends it, or
# after, and finds another password.
_OPEN = """
WITH found AS (
    UPDATE circuit.people SET signed_in_at = clock_timestamp()
    WHERE id = %(person)s AND (%(by_link)s OR password = %(password)s) RETURNING id)
INSERT INTO circuit.sessions (hash, id, person, address, ends_at)
SELECT %(hash)s, %(id)s, found.id, %(address)s, clock_timestamp() + make_interval(secs => %(lasts)s) FROM found
RETURNING id
"""
_CLEAN = f"""
DELETE FROM circuit.sessions WHERE hash = ANY(ARRAY(
    SELECT hash FROM circuit.sessions WHERE hash = %(replaces)s OR ends_at <= clock_timestamp() OR hash = ANY(ARRAY(
        SELECT hash FROM circuit.sessions WHERE person = %(person)s ORDER BY created_at DESC OFFSET {MOST}))
    FOR UPDATE SKIP LOCKED))
"""
_REHASH = "UPDATE circuit.people SET password = %s WHERE id = %s AND password = %s"
_FIND = f"""
SELECT s.id, s.ends_at, s.seen_at < clock_timestamp() - interval '1 minute', p.id, p.name, {MEMBERSHIPS}
FROM circuit.sessions s JOIN circuit.people p ON p.id = s.person
WHERE s.hash = %(hash)s AND s.ends_at > clock_timestamp()
AND s.seen_at > clock_timestamp() - make_interval(secs => %(idle)s)
"""
_OPEN_AMONG = """
SELECT hash FROM circuit.sessions WHERE hash = ANY(%s) AND ends_at > clock_timestamp()
AND seen_at > clock_timestamp() - make_interval(secs => %s)
"""
_SEEN = "UPDATE circuit.sessions SET seen_at = clock_timestamp() WHERE hash = %s"
_END = "DELETE FROM circuit.sessions WHERE hash = %s"
_END_ALL = "DELETE FROM circuit.sessions WHERE person = %s AND (%s::uuid IS NULL OR id = %s)"
_LIST = """
SELECT id, address, created_at, seen_at, ends_at FROM circuit.sessions
WHERE person = %s AND ends_at > clock_timestamp() AND seen_at > clock_timestamp() - make_interval(secs => %s)
ORDER BY seen_at DESC
"""


@dataclass(frozen=True, slots=True)
class Session:
    """``csrf`` must come with whatever changes something, in the header ``X-CSRF-Token`` or in the form: a page of
    another origin does not know it."""

    id: UUID
    person: Person
    csrf: str = field(repr=False)
    ends: datetime


@dataclass(frozen=True, slots=True)
class SignedIn:
    """``cookie`` is the secret: it goes into the browser's cookie and nowhere else."""

    cookie: str = field(repr=False)
    session: Session


@dataclass(frozen=True, slots=True)
class Refused:
    """Nobody signed in. Seconds after which another attempt is looked at; it says nothing of why."""

    retry_after: float = 0.0


@dataclass(frozen=True, slots=True)
class OpenSession:
    """One of a person's sessions, for a list."""

    id: UUID
    address: str
    created_at: datetime
    seen_at: datetime
    ends_at: datetime


async def sign_in(
    connection: Connection, name: str, password: str, address: str, *, lasts: float = LASTS, replaces: str = ""
) -> SignedIn | Refused:
    """Sign in from ``address``. ``replaces`` is the cookie that the browser had: its session ends.

    A wrong name is answered like a wrong password, after the same work.
    """
    wanted = name_of(name)
    match await attempts.take(connection, wanted or name[:1000], address):
        case attempts.TooSoon(wait):
            return Refused(wait)
        case taken:
            pass
    row = await (await connection.execute(_STORED, [wanted])).fetchone() if wanted else None
    person, stored = row or (None, None)
    try:
        right = await passwords.is_right(password, stored)
    except passwords.Busy:
        await attempts.not_made(connection, taken)
        return Refused(1.0)
    if not right or stored is None or person is None:
        log.warning("people.refused", account=wanted if person else None, address=_shown(address), wait=taken.wait)
        return Refused(taken.wait)
    signed_in = await open_session(connection, person, address, password=stored, lasts=lasts, replaces=replaces)
    if signed_in is None:  # the password was changed in this moment
        return Refused(taken.wait)
    await attempts.succeeded(connection, taken)
    log.info("people.signed_in", person=signed_in.session.person.name, address=_shown(address))
    if passwords.is_outdated(stored):
        with suppress(passwords.Busy):
            await connection.execute(_REHASH, [await passwords.hashed(password), person, stored])
    return signed_in


async def open_session(
    connection: Connection,
    person: UUID,
    address: str,
    *,
    password: str | None = None,
    lasts: float = LASTS,
    replaces: str = "",
) -> SignedIn | None:
    """A session of this person; None when there is no such account, or not with this (hashed) ``password``."""
    cookie, hash_ = _new()
    values = {
        "person": person, "password": password, "by_link": password is None, "hash": hash_, "id": uuid7(),
        "address": _shown(address), "lasts": lasts, "replaces": digest_of(replaces) if is_secret(replaces) else b"",
    }  # fmt: skip
    if await (await connection.execute(_OPEN, values)).fetchone() is None:
        return None
    await connection.execute(_CLEAN.encode(), values)
    session = await session_of(connection, cookie)
    return None if session is None else SignedIn(cookie, session)


async def session_of(connection: Connection, cookie: str | None, *, touch: bool = True) -> Session | None:
    """The session of a cookie, with the roles that its person has now. ``touch`` says that the person did something:
    a page that looks by itself keeps no session awake."""
    if not cookie or not is_secret(cookie):
        return None
    hash_ = digest_of(cookie)
    row = await (await connection.execute(_FIND.encode(), {"hash": hash_, "idle": IDLE})).fetchone()
    if row is None:
        return None
    if touch and row[2]:
        await connection.execute(_SEEN, [hash_])
    return Session(row[0], person_from(*row[3:]), csrf_of(cookie), row[1])


async def open_among(connection: Connection, cookies: Iterable[str]) -> set[str]:
    """Those of these cookies whose sessions are open."""
    digests = {digest_of(each): each for each in cookies if is_secret(each)}
    rows = await (await connection.execute(_OPEN_AMONG, [list(digests), IDLE])).fetchall()
    return {digests[bytes(row[0])] for row in rows}


async def sign_out(connection: Connection, cookie: str | None) -> None:
    """End the session of this cookie, if there is one."""
    if cookie and is_secret(cookie):
        await connection.execute(_END, [digest_of(cookie)])


async def sign_out_everywhere(connection: Connection, person: UUID, *, only: UUID | None = None) -> int:
    """End a person's sessions, or ``only`` one of them; how many there were."""
    return (await connection.execute(_END_ALL, [person, only, only])).rowcount


async def sessions_of(connection: Connection, person: UUID) -> list[OpenSession]:
    """A person's open sessions, the one last used first."""
    rows = await (await connection.execute(_LIST, [person, IDLE])).fetchall()
    return [OpenSession(*row) for row in rows]


def _new() -> tuple[str, bytes]:
    cookie = new_secret()
    return cookie, digest_of(cookie)


def _shown(address: str) -> str:
    return "".join(each if each.isprintable() else "\ufffd" for each in address[:100])
