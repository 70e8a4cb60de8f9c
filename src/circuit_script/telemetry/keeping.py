"""The log in the long run: how long each level is kept, and indexes of what was there before them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
import structlog
from psycopg import sql

from circuit_script.db.pool import Connection, Pool
from circuit_script.telemetry.lines import LEVELS

log = structlog.get_logger()

PATIENCE = "SET lock_timeout = '60s'"
_PARTS = """
    SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'circuit.circuit_logs'::regclass
      AND (c.relname !~ '_[0-9]{8}$' OR right(c.relname, 8)::date < (now() AT TIME ZONE 'UTC')::date - %s::integer)
    ORDER BY c.relname
"""
# By the index, as words are dear to compare: once the lines of a level are gone, a look costs next to nothing.
_FORGET = """
    DELETE FROM {part} WHERE ctid = ANY (ARRAY(
        SELECT l.ctid FROM {part} l
        WHERE circuit.log_words(l.message, l.context, l.level, l.handler, l.tenant, l.record, l."user") @@ {lexeme}
          AND l.level = {level} AND l.execution < circuit.uuid_floor(
              ((now() AT TIME ZONE 'UTC')::date - {days})::timestamp AT TIME ZONE 'UTC')
        LIMIT %(chunk)s))
"""
_MISSING = """
    SELECT part, index, build, attach FROM circuit.indexes_to_build()
    UNION ALL SELECT part, index, build, attach FROM circuit.index_of_grades_to_build()
"""
_COUNT_NO_WORDS = "SELECT circuit.count_no_words()"
_UNDER_WAY = "SELECT EXISTS (SELECT FROM pg_stat_progress_create_index WHERE relid = to_regclass('circuit.' || %s))"


def whole_days(keep: Mapping[str, int], log_days: int | None) -> int | None:
    """After how many days nothing is left of a day's log, so that its partition can go as a whole."""
    ends = [log_days] if log_days is not None else []
    if set(keep) >= set(LEVELS):
        ends.append(max(1, *keep.values()))
    return min(ends) if ends else None


async def forgetting(connection: Connection, keep: Mapping[str, int]) -> list[tuple[str, str]]:
    """What to do for levels that are kept for some days: (words for it, a statement that deletes one ``chunk``)."""
    found: list[tuple[str, str]] = []
    for level, days in sorted(keep.items()):
        for (part,) in await (await connection.execute(_PARTS, (days,))).fetchall():
            values: dict[str, Any] = {
                "part": sql.Identifier("circuit", part),
                "lexeme": sql.SQL("{}::tsquery").format(sql.Literal(f"':level:{level}'")),
                "level": sql.Literal(level),
                "days": sql.Literal(days),
            }
            found.append((f"{part} {level}", sql.SQL(_FORGET).format(**values).as_string(connection)))
    return found


async def build_indexes(pool: Pool) -> int:
    """Build the indexes that a migration has left for large partitions, one after the other, while all goes on; how
    many. What cannot be built now, because others hold locks, is tried again the next time."""
    built = 0
    async with pool.connection() as connection:
        missing = await (await connection.execute(_MISSING)).fetchall()
        await connection.execute(PATIENCE)
        try:
            for part, index, build, attach in missing:
                if await _is_under_way(connection, part):
                    continue
                try:
                    await connection.execute(
                        sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS circuit.{}").format(sql.Identifier(index))
                    )  # half of one, of a try that was cut short
                    await connection.execute(build)
                    await connection.execute(attach)
                    built += 1
                except psycopg.errors.LockNotAvailable as error:
                    log.warning("index.waits", index=index, error=str(error), next="trying again later")
            await connection.execute(_COUNT_NO_WORDS)
        finally:
            await connection.execute("RESET lock_timeout")
    return built


async def _is_under_way(connection: Connection, part: str) -> bool:
    row = await (await connection.execute(_UNDER_WAY, (part,))).fetchone()
    return bool(row and row[0])
