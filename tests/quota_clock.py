"""The clock by which quotas begin anew, as a test sets it."""

from __future__ import annotations

from circuit_script.db.pool import Pool


async def shift(pool: Pool, moment: str) -> None:
    """Let it stand at a moment, from which it goes on."""
    async with pool.connection() as connection:
        row = await (
            await connection.execute("SELECT (%s::timestamptz - clock_timestamp())::text", [moment])
        ).fetchone()
        assert row is not None
        await connection.execute(
            "CREATE OR REPLACE FUNCTION circuit.quota_now() RETURNS timestamptz LANGUAGE sql VOLATILE "
            f"RETURN clock_timestamp() + interval '{row[0]}'"
        )
