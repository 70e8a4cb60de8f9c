"""One-time links: whoever opens one within ten minutes is signed in, once. The first owner comes in by one."""

from __future__ import annotations

from circuit_script.access.people import find_person, first_owner
from circuit_script.access.secret import digest_of, is_secret, new_secret
from circuit_script.access.sessions import LASTS, Refused, SignedIn, open_session
from circuit_script.db.pool import Connection

VALID = 600.0  # seconds
PATH = "/sign-in?link="

_MAKE = """
INSERT INTO circuit.sign_in_links (hash, person, ends_at)
VALUES (%s, %s, clock_timestamp() + make_interval(secs => %s))
"""
_CLEAN = "DELETE FROM circuit.sign_in_links WHERE ends_at <= clock_timestamp()"
_TAKE = "DELETE FROM circuit.sign_in_links WHERE hash = %s RETURNING person, ends_at > clock_timestamp()"


async def one_time_link(connection: Connection, url: str, name: str | None = None, *, by: str = "one-time link") -> str:
    """An address below ``url`` (the dashboard's) by which ``name`` signs in once; without one, the oldest owner, who is
    made where there is none. Raises PeopleRefused when nobody has that name."""
    person = (await find_person(connection, name)).person if name is not None else await first_owner(connection, by)
    secret = new_secret()
    await connection.execute(_CLEAN)
    await connection.execute(_MAKE, [digest_of(secret), person.id, VALID])
    return f"{url.rstrip('/')}{PATH}{secret}"


async def redeem(
    connection: Connection, token: str, address: str = "", *, lasts: float = LASTS, replaces: str = ""
) -> SignedIn | Refused:
    """Sign in by what follows `PATH` in a link; it is used up by that. Redeem it when the person presses a button, not
    when the page is fetched: programs that read mail fetch every address in it."""
    if not is_secret(token):
        return Refused()
    async with connection.transaction():
        row = await (await connection.execute(_TAKE, [digest_of(token)])).fetchone()
        if row is None or not row[1]:
            return Refused()
        return await open_session(connection, row[0], address, lasts=lasts, replaces=replaces) or Refused()
