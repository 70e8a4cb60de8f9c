"""What a backup holds: every table of the schema but those that say who is at work in this moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from circuit_script.db.pool import Connection
from circuit_script.errors import BackupRefused

# Nobody owns a lane or holds a lease of a restored database; it is an installation of its own, was never tended, and
# nobody is signed in to it.
LEFT_OUT = frozenset(
    {"migrations", "lanes", "workers", "quota_leases", "courier_waits", "installation", "upkeep"}
    | {"sessions", "sign_in_links", "sign_in_attempts"}
)

_TABLES = """
SELECT c.relname::text, c.relkind = 'p', c.relforcerowsecurity,
       array_agg(a.attname::text ORDER BY a.attnum) FILTER (WHERE a.attgenerated = ''),
       greatest(0, CASE WHEN c.relkind = 'p' THEN (
           SELECT coalesce(sum(greatest(p.reltuples, 0)), 0) FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhrelid
           WHERE i.inhparent = c.oid) ELSE c.reltuples END)::bigint,
       array(SELECT right(p.relname, 8)::text FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhrelid
             WHERE i.inhparent = c.oid AND p.relname ~ '_[0-9]{8}$' ORDER BY 1)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = to_regnamespace('circuit') AND c.relkind IN ('r', 'p') AND NOT c.relispartition
GROUP BY c.oid, c.relname, c.relkind, c.relforcerowsecurity, c.reltuples ORDER BY c.relname
"""
_REFERENCES = """
SELECT DISTINCT r.relname::text, t.relname::text
FROM pg_constraint k JOIN pg_class r ON r.oid = k.conrelid JOIN pg_class t ON t.oid = k.confrelid
WHERE k.contype = 'f' AND r.relnamespace = to_regnamespace('circuit') AND k.conrelid <> k.confrelid
"""
# Row security does not refuse a reader: it leaves rows out. A backup must not be made like that.
_UNSEEN = """
SELECT c.relname::text FROM pg_class c
WHERE c.relnamespace = to_regnamespace('circuit') AND c.relrowsecurity AND NOT c.relispartition
AND NOT (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user)
AND NOT EXISTS (
    SELECT 1 FROM pg_policy p JOIN pg_roles r ON r.oid = ANY(p.polroles)
    WHERE p.polrelid = c.oid AND p.polpermissive AND p.polcmd IN ('*', 'r')
    AND pg_get_expr(p.polqual, p.polrelid) = 'true' AND pg_has_role(current_user, r.oid, 'USAGE'))
ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Table:
    """``columns`` are those that are stored, in their order; ``estimate`` is how many rows the server thinks it has."""

    name: str
    partitioned: bool
    forced: bool
    columns: tuple[str, ...]
    estimate: int
    days: tuple[str, ...]

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier("circuit", self.name)

    @property
    def listed(self) -> sql.Composed:
        return sql.SQL(", ").join(map(sql.Identifier, self.columns))


async def tables(connection: Connection) -> list[Table]:
    """The tables that a backup holds, each after those that it refers to."""
    rows = await (await connection.execute(_TABLES)).fetchall()
    found = {row[0]: Table(row[0], row[1], row[2], tuple(row[3]), row[4], tuple(row[5])) for row in rows}
    references = await (await connection.execute(_REFERENCES)).fetchall()
    return [found[name] for name in _sorted(list(found), references) if name not in LEFT_OUT]


async def refuse_unseen(connection: Connection) -> None:
    """Raises BackupRefused when this user would not see every row."""
    if rows := await (await connection.execute(_UNSEEN)).fetchall():
        raise BackupRefused(
            f"Row security would hide rows of {', '.join(name for (name,) in rows)} from this database user.",
            cure="Use the user in DATABASE_URL that the platform runs with, or a superuser.",
        )


def _sorted(names: Sequence[str], references: Sequence[tuple[str, str]]) -> list[str]:
    done: list[str] = []
    while len(done) < len(names):
        waits = {child for child, parent in references if parent not in done}
        ready = [name for name in names if name not in done and name not in waits]
        if not ready:
            raise BackupRefused("Tables refer to each other in a circle.", cure="Report this as a bug.")
        done += ready
    return done
