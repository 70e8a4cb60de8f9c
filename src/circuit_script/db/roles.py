"""The two roles that divide the platform from its tenants (a server has them once, for all its databases).

circuit_road     intake, dispatch, outcome: passes row security by its policies
circuit_tenant   every read for a person or a handler: sees the rows of `circuit.tenant` only
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import errors, sql

from circuit_script.db.pool import Connection
from circuit_script.errors import StartError

ROAD = "circuit_road"
TENANT = "circuit_tenant"
_TRIES = 10

_STATE = """
    SELECT current_user::text,
           current_setting('server_version_num')::int >= 160000,
           array(SELECT rolname::text FROM pg_roles WHERE rolname IN ('circuit_road', 'circuit_tenant'))
"""

# MEMBER and USAGE raise for a role that does not exist, so these run once both are there.
_MAY_USE = "SELECT pg_has_role(current_user, 'circuit_road', 'USAGE')"
_MAY_BECOME = {
    True: "SELECT pg_has_role(current_user, 'circuit_tenant', 'SET')",
    False: "SELECT pg_has_role(current_user, 'circuit_tenant', 'MEMBER')",
}
_BYPASSES = """
    SELECT rolsuper OR rolbypassrls OR pg_has_role('circuit_tenant', 'circuit_road', 'MEMBER')
      FROM pg_roles WHERE rolname = 'circuit_tenant'
"""


_Statement = sql.SQL | sql.Composed


@dataclass(frozen=True, slots=True)
class _State:
    login: str
    with_options: bool  # GRANT … WITH INHERIT exists from PostgreSQL 16 on
    present: frozenset[str]


async def ensure_roles(connection: Connection) -> None:
    """Create both roles where missing and let the login role use them.

    StartError holds the statements that this user may not run.
    """
    for attempt in range(5):
        state = await _read(connection)
        missing = await _statements(connection, state)
        if not missing:
            break
        try:
            async with connection.transaction():
                for statement in missing:
                    await connection.execute(statement)
        except errors.InsufficientPrivilege as error:
            raise _not_allowed(connection, missing) from error
        except (errors.DuplicateObject, errors.UniqueViolation, errors.InternalError) as error:
            if attempt == 4:
                raise _not_allowed(connection, missing) from error  # roles are shared: another start was at it too
    await _refuse_bypass(connection)


async def _read(connection: Connection) -> _State:
    row = await (await connection.execute(_STATE)).fetchone()
    assert row is not None  # a SELECT without FROM has one row
    return _State(row[0], row[1], frozenset(row[2]))


async def _statements(connection: Connection, state: _State) -> list[_Statement]:
    """What is still to be run, in order; empty when the login role has all it needs."""
    statements: list[_Statement] = [
        sql.SQL(f"CREATE ROLE {role} NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE")
        for role in (ROAD, TENANT)
        if role not in state.present
    ]
    if ROAD not in state.present or not await _holds(connection, _MAY_USE):
        statements.append(_grant(ROAD, state, "INHERIT TRUE"))
    if TENANT not in state.present or not await _holds(connection, _MAY_BECOME[state.with_options]):
        statements.append(_grant(TENANT, state, "INHERIT FALSE, SET TRUE"))
    return statements


def _grant(role: str, state: _State, options: str) -> _Statement:
    grant = sql.SQL(f"GRANT {role} TO {{}}").format(sql.Identifier(state.login))
    return grant + sql.SQL(f" WITH {options}") if state.with_options else grant


async def _holds(connection: Connection, question: str) -> bool:
    try:
        row = await (await connection.execute(question)).fetchone()
    except errors.UndefinedObject:
        return False
    return row is not None and bool(row[0])


async def _refuse_bypass(connection: Connection) -> None:
    if await _holds(connection, _BYPASSES):
        raise StartError(
            f"The role {TENANT} bypasses row security, so one tenant could read another's data.",
            cure=f"As a superuser: ALTER ROLE {TENANT} NOSUPERUSER NOBYPASSRLS; REVOKE {ROAD} FROM {TENANT};",
            page="roles-not-allowed",
        )


def _not_allowed(connection: Connection, statements: list[_Statement]) -> StartError:
    text = " ".join(f"{statement.as_string(connection)};" for statement in statements)
    detail = "This database user may not create or grant roles."
    return StartError(detail, cure=f"As a superuser run: {text}", page="roles-not-allowed")
