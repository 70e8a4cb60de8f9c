"""Lockout: the more attempts to sign in have failed, for an account or from an address, the longer the next one waits.

What is counted is an attempt, not a failure, and before its password is looked at: a thousand at once are a thousand.
An account that does not exist counts like one that does. Who is locked out signs in by a one-time link.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from hashlib import sha256

import psycopg

from circuit_script.db.pool import Connection

LONGEST = 900.0  # seconds that somebody waits at most
FORGOTTEN = 86400.0  # seconds after the last attempt
SWEPT = 200  # old ones that an attempt deletes

# The first `free` attempts wait for nothing; then 2 s, 4 s, 8 s …
_TAKE = """
INSERT INTO circuit.sign_in_attempts AS a (kind, key) VALUES (%(kind)s, %(key)s)
ON CONFLICT (kind, key) DO UPDATE SET (n, last_at, until) = (
    SELECT n, clock_timestamp(), clock_timestamp() + make_interval(secs =>
        CASE WHEN n <= %(free)s THEN 0 ELSE least(%(longest)s, 2.0 ^ least(n - %(free)s, 20)) END)
    FROM (SELECT CASE WHEN a.last_at < clock_timestamp() - make_interval(secs => %(forgotten)s) THEN 1
                      ELSE a.n + 1 END AS n) AS counted)
WHERE a.until <= clock_timestamp()
RETURNING greatest(0, extract(epoch FROM until - clock_timestamp()))::float8
"""
_WAITS = """
SELECT greatest(0.001, extract(epoch FROM until - clock_timestamp()))::float8
FROM circuit.sign_in_attempts WHERE kind = %(kind)s AND key = %(key)s
"""
_RIGHT = "DELETE FROM circuit.sign_in_attempts WHERE kind = 'account' AND key = %s"
_GIVE_BACK = """
UPDATE circuit.sign_in_attempts SET n = greatest(0, n - 1), until = clock_timestamp() WHERE kind = %s AND key = %s
"""
_SWEEP = f"""
DELETE FROM circuit.sign_in_attempts WHERE (kind, key) IN (
    SELECT kind, key FROM circuit.sign_in_attempts
    WHERE last_at < clock_timestamp() - make_interval(secs => %s) ORDER BY last_at LIMIT {SWEPT}
    FOR UPDATE SKIP LOCKED)
"""
_FREE = {"address": 20, "account": 5}  # in the order in which they are locked


@dataclass(frozen=True, slots=True)
class Taken:
    """An attempt that may be made; should it fail, the next one must wait for so many seconds."""

    account: bytes
    address: bytes
    wait: float


@dataclass(frozen=True, slots=True)
class TooSoon:
    """One that may not be made for so many seconds."""

    wait: float


async def take(connection: Connection, name: str, address: str) -> Taken | TooSoon:
    """Count an attempt for this account, as it was written, from this address."""
    keys = {"address": _address_key(address), "account": _digest(name)}
    waits: list[float] = []
    refused = 0.0
    async with connection.transaction():
        for kind, free in _FREE.items():
            values = {"kind": kind, "key": keys[kind], "free": free, "longest": LONGEST, "forgotten": FORGOTTEN}
            row = await (await connection.execute(_TAKE, values)).fetchone()
            if row is None:
                row = await (await connection.execute(_WAITS, values)).fetchone()
                refused = row[0] if row else 1.0
                raise psycopg.Rollback
            waits.append(row[0])
    if refused:
        return TooSoon(refused)
    await connection.execute(_SWEEP.encode(), [FORGOTTEN])
    return Taken(keys["account"], keys["address"], max(waits))


async def succeeded(connection: Connection, taken: Taken) -> None:
    """It was right: the account's are forgotten, and this one does not count against where it came from."""
    await connection.execute(_GIVE_BACK, ["address", taken.address])
    await connection.execute(_RIGHT, [taken.account])


async def not_made(connection: Connection, taken: Taken) -> None:
    """The password was not looked at after all."""
    await connection.execute(_GIVE_BACK, ["address", taken.address])
    await connection.execute(_GIVE_BACK, ["account", taken.account])


def client_address(peer: str, forwarded_for: str | None) -> str:
    """Who speaks to us. A proxy on this host says so in the last part of its ``X-Forwarded-For``; others' words are not
    taken, since anybody may write any."""
    if forwarded_for and _is_loopback(peer):
        return forwarded_for.rpartition(",")[2].strip()[:100] or peer
    return peer


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _address_key(address: str) -> bytes:
    """Who has one address of IPv6 has all that share its first half."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return _digest(address)
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is None:
            return _digest(str(ipaddress.ip_network((found, 64), strict=False)))
        found = found.ipv4_mapped
    return _digest(str(found))


def _digest(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogatepass")).digest()
