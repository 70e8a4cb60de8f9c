"""Connections to PostgreSQL: autocommit, UTF-8, and errors that say what to do.

`tenant_reading` is the one way to read for a person or a handler: row security shows that tenant's rows only.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any
from weakref import WeakKeyDictionary

import msgspec
import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.types.json import set_json_loads
from psycopg_pool import AsyncConnectionPool

from circuit_script.errors import ConfigError, DatabaseUnavailable

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


class Pool(AsyncConnectionPool[Connection]):
    """A pool that keeps nothing of who was cut while he waited for a connection.

    The library keeps his exception where a frame of its traceback leads to it: all his frames would wait for the
    garbage collector.
    """

    async def getconn(self, timeout: float | None = None) -> Connection:
        try:
            return await super().getconn(timeout)
        except asyncio.CancelledError as cancelled:
            cancelled.__traceback__ = None
            raise asyncio.CancelledError(*cancelled.args) from None


set_json_loads(msgspec.json.decode)

_CONNECT_TIMEOUT = 10  # seconds
_FRESH = 0.25  # seconds between two uses of a connection, up to which it is taken to be well
_looked_at: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()
# A host that vanished without a word is noticed within about ten seconds (TCP only; what the URL says comes first).
_KEEPALIVE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}
_PREFER_INDEXES = "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off"

# One round trip. set_config('role', …, true) is SET LOCAL ROLE.
_BECOME_TENANT = """
    SELECT set_config('circuit.tenant', %s, true), set_config('transaction_read_only', 'on', true),
           set_config('role', 'circuit_tenant', true)
"""

# SQLSTATE or libpq's words → what to do.
_CURES = (
    ("28P01", "Check the user and password in DATABASE_URL."),
    ("password authentication failed", "Check the user and password in DATABASE_URL."),
    ("28000", "Allow this user and host in the server's pg_hba.conf."),
    ("no pg_hba.conf entry", "Allow this user and host in the server's pg_hba.conf."),
    ("does not exist", "Create the database or role that DATABASE_URL names."),
    ("too many clients", "Raise max_connections, or put PgBouncer in front (pooler = true)."),
    ("remaining connection slots", "Raise max_connections, or put PgBouncer in front (pooler = true)."),
    ("could not translate host name", "Check the host in DATABASE_URL."),
    ("failed to resolve host", "Check the host in DATABASE_URL."),
    ("Connection refused", "Start the server, or check host and port in DATABASE_URL."),
    ("No such file or directory", "Start the server, or check the socket folder in DATABASE_URL."),
    ("timeout", "Check that the server can be reached from here."),
)


async def open_connection(url: str, *, pooler: bool = True, name: str = "circuit-script") -> Connection:
    """One autocommit connection. Raises DatabaseUnavailable with a cure, ConfigError for a malformed URL.

    ``pooler`` (the safe default) sends no server-side prepared statements.
    """
    _check(url)
    try:
        return await psycopg.AsyncConnection.connect(url, **_options(url, pooler, name))
    except psycopg.Error as error:
        raise unavailable(error) from error


async def prefer_indexes(connection: Connection) -> None:
    """Plan for tables that grow: the plans of prepared statements are kept, and the first ones date from empty
    tables, where reading all of them costs nothing."""
    await connection.execute(_PREFER_INDEXES)


async def open_pool(
    url: str, *, min_size: int, max_size: int, name: str, pooler: bool = False, indexes: bool = False
) -> Pool:
    """An open pool with ``min_size`` connections made; the caller closes it.

    With ``pooler`` (PgBouncer in transaction mode) statements are not prepared on the server. With ``indexes``
    its statements are planned by ``prefer_indexes`` (needless with a pooler, where nothing is prepared).
    """
    await (await open_connection(url, name=name)).close()  # says why, where the pool would only say "timeout"
    pool = Pool(
        url,
        kwargs=_options(url, pooler, name),
        min_size=min_size,
        max_size=max_size,
        name=name,
        open=False,
        configure=prefer_indexes if indexes and not pooler else None,
        check=_check_unless_fresh,
    )
    try:
        await pool.open(wait=True, timeout=_CONNECT_TIMEOUT)
    except psycopg.Error as error:
        await pool.close()
        raise unavailable(error) from error
    return pool


async def _check_unless_fresh(connection: Connection) -> None:
    """See that the server is still there, unless it was a moment ago: a look costs a round trip."""
    looked = _looked_at.get(connection, 0.0)
    moment = time.monotonic()
    if moment - looked > _FRESH:
        await AsyncConnectionPool.check_connection(connection)
    _looked_at[connection] = moment


@contextlib.asynccontextmanager
async def tenant_reading(connection: Connection, tenant: str) -> AsyncIterator[None]:
    """A read-only transaction that sees ``tenant``'s rows and no others.

    Never inside another transaction: the role would outlive this block.
    """
    if connection.info.transaction_status is not TransactionStatus.IDLE:
        raise RuntimeError("tenant_reading must not be used inside a transaction")
    async with connection.transaction():
        await connection.execute(_BECOME_TENANT, (tenant,))
        yield


def unavailable(error: psycopg.Error) -> DatabaseUnavailable:
    """The driver's error as ours, with what to do about it."""
    text = str(error)
    cure = next((cure for words, cure in _CURES if words in (error.sqlstate, text) or words in text), "")
    detail = " ".join(text.split())
    return DatabaseUnavailable(detail, cure=cure or "Check DATABASE_URL and the server's log.")


def _options(url: str, pooler: bool, name: str) -> dict[str, Any]:
    said = conninfo_to_dict(url)
    return {
        **{key: value for key, value in _KEEPALIVE.items() if key not in said},
        "autocommit": True,
        "prepare_threshold": None if pooler else 5,
        "client_encoding": "utf8",
        "application_name": name,
        "connect_timeout": _CONNECT_TIMEOUT,
    }


def _check(url: str) -> None:
    try:
        conninfo_to_dict(url)
    except psycopg.Error:
        raise ConfigError(
            "DATABASE_URL is not a PostgreSQL address.",
            cure="It looks like postgresql://user:password@host:5432/database.",
            page="database-unavailable",
        ) from None  # the cause would print the password
