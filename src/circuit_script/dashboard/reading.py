"""How pages reach the database: ``reading`` for what is shown, ``acting`` for what is done.

    async with reading(view.tenant) as connection:      # read-only, row security, that tenant's rows only
        ...
    async with acting(view, Act.retry) as connection:   # signs in again, so to say: raises ActRefused
        ...

Both take from one small pool, so hold them for a few statements and never while a person thinks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from circuit_script.access import Act, session_of
from circuit_script.db.pool import Connection, Pool, tenant_reading
from circuit_script.errors import ActRefused

if TYPE_CHECKING:
    from circuit_script.dashboard.frame import View

PATIENCE = 5.0  # seconds for a place in the pool
LONGEST_READ = "5000"  # milliseconds of one statement of a page

_pools: list[Pool] = []


def use_pool(pool: Pool) -> None:
    """The pool of this process."""
    _pools[:] = [pool]


@asynccontextmanager
async def borrowed() -> AsyncIterator[Connection]:
    """A plain connection, for a reader that opens ``tenant_reading`` itself. Raises psycopg.Error."""
    async with _pools[0].connection(timeout=PATIENCE) as connection:
        yield connection


@asynccontextmanager
async def reading(tenant: str) -> AsyncIterator[Connection]:
    """A read-only transaction that sees this tenant's rows only. Raises psycopg.Error."""
    async with borrowed() as connection, tenant_reading(connection, tenant):
        await connection.execute("SELECT set_config('statement_timeout', %s, true)", [LONGEST_READ])
        yield connection


@asynccontextmanager
async def acting(view: View, act: Act, tenant: str | None = None) -> AsyncIterator[Connection]:
    """A connection of the platform's own, for whoever may do ``act`` for the tenant (that of the page, unless said).

    Whether the person is still signed in and has the role is asked again: the page may have stood open for hours, and
    what a browser sends need not come from a button. Raises ActRefused, psycopg.Error.
    """
    async with borrowed() as connection:
        session = await session_of(connection, view.cookie)
        if session is None:
            raise ActRefused("You are not signed in any more.", cure="Sign in again.")
        if not session.person.may(act, tenant or view.tenant):
            raise ActRefused(f"Your role does not allow it: {act.value.replace('_', ' ')}.")
        yield connection
