from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from circuit_script.clock import uuid7
from circuit_script.settings_see import LogSettings
from circuit_script.telemetry import LogWriter
from circuit_script.telemetry import writer as writing
from circuit_script.telemetry.commits import insert
from circuit_script.telemetry.keeping import build_indexes
from circuit_script.telemetry.printed import PrintedLines
from tests.road import Road, eventually, open_road

EXECUTION = uuid7()
LONG = "".join(map(chr, range(0x4E00, 0x4E00 + 5000)))  # more than an index takes, and nothing to compress
_HERE = "database = (SELECT oid FROM pg_database WHERE datname = current_database())"


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as made:
        yield made


async def written(road: Road, *lines: dict[str, Any], **options: Any) -> LogWriter:
    writer = LogWriter(road.pool, 1, **options)
    for line in lines:
        writer.add(EXECUTION, "score", "acme", line)
    writer.stop()
    await asyncio.wait_for(writer.run(), 10)
    return writer


async def test_lines_are_stored_with_what_they_belong_to(road: Road) -> None:
    line = {"at": 1_790_000_000.5, "level": "warning", "message": "hot", "context": {"score": 91}, "record": "c1"}

    await written(road, line, {"message": "bare"})

    assert await road.rows(
        "SELECT extract(epoch FROM at)::float, level, message, context, record, handler, tenant, release, execution "
        "FROM circuit.circuit_logs WHERE message = 'hot'"
    ) == [(1_790_000_000.5, "warning", "hot", {"score": 91}, "c1", "score", "acme", 1, EXECUTION)]
    assert await road.rows("SELECT level, context, record FROM circuit.circuit_logs WHERE message = 'bare'") == [
        ("info", None, None)
    ]


async def test_whatever_an_author_logs_can_be_stored(road: Road) -> None:
    lines: list[dict[str, Any]] = [
        {"message": "a\0b\ud800", "context": {"k\0": "v\0", "raw": b"\xff", "nan": float("nan")}, "record": "c\0"},
        {"message": "\\u0000", "context": {"text": "\\u0000"}},
        {"message": None, "level": "x" * 500, "at": "yesterday"},
        {"message": 5, "at": 1e30, "context": {("a", "b"): object()}},
        {"message": "x" * 100_000, "at": float("nan"), "context": "text"},
        {"message": "", "context": {"lone": "\ud800", 1: 2**80}},
    ]

    writer = await written(road, *lines)

    assert writer.dropped == 0
    stored = await road.rows("SELECT message FROM circuit.circuit_logs")
    assert len(stored) == len(lines)
    assert "a\ufffdb?" in stored
    assert max(map(len, stored)) == writing.MAX_MESSAGE


async def test_levels_that_are_not_kept_are_printed_only(road: Road) -> None:
    read, write = os.pipe()
    printed = PrintedLines(write)
    lines = [{"level": level, "message": level} for level in ("debug", "info", "error")]

    await written(road, *lines, printed=printed, unkept=LogSettings(keep={"debug": 0, "info": 7}).unkept)

    assert await road.rows("SELECT message FROM circuit.circuit_logs ORDER BY 1") == ["error", "info"]
    assert [json.loads(line)["message"] for line in os.read(read, 10_000).splitlines()] == ["debug", "info", "error"]
    os.close(read)
    os.close(write)
    assert (await written(road, *lines, unkept=frozenset({"debug", "info", "error"}))).written == 0


async def test_over_the_bound_lines_are_dropped_and_counted(road: Road) -> None:
    writer = await written(road, *({"message": str(n)} for n in range(25)), bound=10)

    assert writer.dropped == 15
    assert await road.rows("SELECT message FROM circuit.circuit_logs WHERE handler = 'score' ORDER BY at, message") == [
        str(n) for n in range(10)
    ]
    assert await road.rows("SELECT level, context, tenant FROM circuit.circuit_logs WHERE handler = 'circuit.log'") == [
        ("warning", {"dropped": 15}, "acme")
    ]


async def test_a_running_writer_writes_by_itself(road: Road) -> None:
    writer = LogWriter(road.pool, 1)
    task = asyncio.create_task(writer.run())

    writer.add(EXECUTION, "score", "acme", {"message": "one"})
    await road.until("SELECT message FROM circuit.circuit_logs", ["one"])
    writer.add(EXECUTION, "score", "acme", {"message": "two"})
    await road.until("SELECT count(*) FROM circuit.circuit_logs", [2])

    writer.stop()
    await asyncio.wait_for(task, 5)


async def test_a_locked_table_never_makes_add_wait_and_does_not_keep_the_writer_for_ever(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "STALL", 0.3)
    monkeypatch.setattr(writing, "FLUSH", 0.0)
    writer = LogWriter(road.pool, 1, bound=100)
    task = asyncio.create_task(writer.run())
    async with road.pool.connection() as locker, locker.transaction():
        await locker.execute("LOCK TABLE circuit.circuit_logs IN ACCESS EXCLUSIVE MODE")
        writer.add(EXECUTION, "score", "acme", {"message": "stuck"})
        for n in range(500):
            writer.add(EXECUTION, "score", "acme", {"message": str(n)})
        assert writer.dropped == 401, "501 lines came, of which 100 wait"
        await road.until(f"SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND {_HERE}", [True])
        for n in range(150):
            writer.add(EXECUTION, "score", "acme", {"message": str(n)})

        async def given_up() -> bool:
            return writer.dropped == 651

        await eventually(given_up, "lines that could not be written are given up")

    writer.add(EXECUTION, "score", "acme", {"message": "after"})
    await road.until("SELECT count(*) FROM circuit.circuit_logs WHERE message = 'after'", [1])
    told = "SELECT sum((context ->> 'dropped')::integer) FROM circuit.circuit_logs WHERE handler = 'circuit.log'"
    await road.until(told, [651])
    writer.stop()
    await asyncio.wait_for(task, 5)


async def test_long_lines_are_written_a_few_at_a_time(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    async def seen(pool: Any, statement: str, columns: Any, patience: float) -> None:
        sizes.append(len(columns[2]))
        await insert(pool, statement, columns, patience)

    monkeypatch.setattr(writing, "insert", seen)
    writer = await written(road, *({"message": f"{n} {'x' * 10_000}", "record": LONG} for n in range(100)))
    assert (writer.written, writer.dropped) == (100, 0)
    assert len(sizes) > 3
    assert max(sizes) < 2 * writing.GROUP_BYTES


async def test_a_database_that_refuses_costs_lines_and_nothing_else(road: Road) -> None:
    await road.run("ALTER TABLE circuit.circuit_logs RENAME TO away")

    writer = await written(road, {"message": "lost"})

    assert writer.dropped == 1


async def test_stopping_with_nothing_to_write_ends_at_once(road: Road) -> None:
    assert (await written(road)).dropped == 0


class Losing:
    """The road's pool behind a wire that breaks at the first commit: before the server has heard it, or after."""

    def __init__(self, road: Road, *, heard: bool) -> None:
        self._road = road
        self._heard = heard
        self.lost = 0

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        async with self._road.pool.connection() as connection:
            execute = connection.execute

            async def breaking(statement: Any, *arguments: Any) -> Any:
                if statement != "COMMIT" or self.lost:
                    return await execute(statement, *arguments)
                self.lost += 1
                if self._heard:
                    await execute(statement)
                await connection.close()
                raise psycopg.OperationalError("the connection is lost")

            connection.execute = breaking  # type: ignore[method-assign, assignment]  # the wire, not what is tested
            try:
                yield connection
            finally:
                del connection.execute


@pytest.mark.parametrize("heard", [True, False])
async def test_lines_are_stored_once_and_only_once_though_the_answer_to_a_commit_is_lost(
    road: Road, heard: bool
) -> None:
    wire: Any = Losing(road, heard=heard)
    writer = LogWriter(wire, 1)
    task = asyncio.create_task(writer.run())
    for n in range(3):
        writer.add(EXECUTION, "score", "acme", {"message": str(n)})
    await road.until("SELECT message FROM circuit.circuit_logs ORDER BY 1", ["0", "1", "2"])
    writer.stop()
    await asyncio.wait_for(task, 10)
    assert await road.rows("SELECT message FROM circuit.circuit_logs ORDER BY 1") == ["0", "1", "2"]
    assert (wire.lost, writer.written, writer.dropped) == (1, 3, 0)


async def test_secrets_are_gone_before_a_line_is_stored_or_printed_and_a_reader_that_stalls_is_not_waited_for(
    road: Road,
) -> None:
    read, write = os.pipe()
    printed = PrintedLines(write, bound=50)
    line = {"message": "password=hunter2", "context": {"token": "t", "user": "ann", "lead": 4711, "text": "\ud800\0"}}

    await written(road, line, printed=printed)

    assert await road.rows('SELECT message, context, "user" FROM circuit.circuit_logs') == [
        ("password=[redacted]", {"token": "[redacted]", "user": "ann", "lead": 4711, "text": "?\ufffd"}, "ann")
    ]
    told = json.loads(os.read(read, 10_000))
    assert told["message"] == "password=[redacted]"
    assert told["context"]["token"] == "[redacted]"
    assert (told["trace"], told["execution"]) == (EXECUTION.hex, str(EXECUTION))

    stalled = PrintedLines(write, bound=50)
    writer = await written(road, *({"message": "x" * 10_000} for _ in range(500)), printed=stalled)
    assert (writer.written, writer.dropped) == (500, 0)
    assert stalled.dropped > 0
    os.close(read)
    stalled.stop()  # whoever wrote hears that nobody reads
    os.close(write)


async def test_autovacuum_leaves_the_log_of_a_day_alone_while_it_grows(road: Road) -> None:
    async with road.pool.connection() as connection:
        await connection.execute("SELECT circuit.make_partition('circuit_logs', (now() + interval '40 days')::date)")
    await build_indexes(road.pool)

    parts = await road.rows(
        "SELECT c.relname, coalesce(c.reloptions::text, '') ~ 'autovacuum_vacuum_insert_threshold=500000' "
        "FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid WHERE h.inhparent = 'circuit.circuit_logs'::regclass"
    )

    assert len(parts) > 5
    assert [part for part, calm in parts if not calm] == []
