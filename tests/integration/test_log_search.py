"""The search of the log: the index and a look at every line find the same, and nobody sees another tenant's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from circuit_script.clock import now, uuid7
from circuit_script.db.pool import open_connection, tenant_reading
from circuit_script.events.maintenance import once
from circuit_script.telemetry import Cursor, LogPage, LogQuery, LogReader, LogWriter
from circuit_script.telemetry import search as searching
from circuit_script.telemetry.keeping import build_indexes
from circuit_script.telemetry.redact import Redactor
from tests.road import Road, open_road

FAILED = """
    INSERT INTO circuit.executions (id, tenant, release, handler, object, event, records, status, reason, detail,
                                    started_at, usage)
    VALUES (%s, %s, 1, 1, 'Contact', 'afterInsert', 3, %s, %s, 'at line 7', now(), '{}')
"""
TRACE = "0af7651916cd43dd8448eb211c80319c"
LINES: list[tuple[str, dict[str, Any]]] = [
    ("acme", {"message": "Scored the new-lead Müller", "context": {"lead": 4711, "a": {"b": "X y", "t": ["p", "q"]}}}),
    ("acme", {"message": "no score for it", "level": "error", "record": "c-1", "context": {"user": "ann", "n": None}}),
    ("acme", {"message": "for no score", "level": "debug", "trace": TRACE, "context": {"said": 'a\nb "c" \\d'}}),
    ("beta", {"message": "Scored the new-lead Müller", "context": {"lead": 4711}, "record": "c-1"}),
    ("acme", {"message": "'); DROP & | ! :* <-> \\ \" % _", "context": {"'": "\\'", "=x=": "%", "k:v": "*"}}),
    ("acme", {"message": "\u202egnp.exe\u0000\ud800 日本語、東京", "context": "plain text in the place of fields"}),
    ("acme", {"message": "y" * 30_000, "context": {"long": "z" * 300_000, "k" * 500: "v" * 500}}),
]


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as made:
        yield made


async def filled(road: Road) -> None:
    writer = LogWriter(road.pool, 1, redactor=Redactor(personal=False))
    for tenant, line in LINES:
        writer.add(uuid7(), "Leads.score", tenant, line)
    writer.stop()
    await writer.run()
    assert (writer.written, writer.dropped) == (len(LINES), 0)
    async with road.pool.connection() as connection:
        for tenant, status in (("acme", "failed"), ("beta", "failed"), ("acme", "succeeded"), ("acme", "cancelled")):
            await connection.execute(FAILED, (uuid7(), tenant, status, "ValueError: no Müller"))


async def page(road: Road, query: LogQuery) -> LogPage:
    connection = await open_connection(road.url)
    async with connection:
        return await LogReader(connection, query).page()


@pytest.mark.parametrize("newest", [searching.NEWEST, 0], ids=["plain", "by the index"])
async def test_a_question_finds_what_it_means_and_a_tenant_its_own_only(
    road: Road, newest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "NEWEST", newest)
    await filled(road)
    expected: dict[str, list[Any]] = {
        "scored": [0, 3],
        "SCOR müll": [0, 3],
        "core": [],
        '"no score"': [1, 2],
        '"score for it"': [1],
        "score no": [1, 2],
        "new-lead": [0, 3],
        "lead=4711": [0, 3],
        "lead=47": [],
        "a.b=\"x Y\" a.t=q": [0],
        "4711": [0, 3],
        "level:error": [1, "acme", "beta"],
        "level:error score": [1],
        "level:info müller": [0, 3, "acme", "beta", "acme cancelled"],
        "line valueerror": ["acme", "beta", "acme cancelled"],
        "record:c-1": [1, 3],
        "record:c": [],
        "user:ann": [1],
        f"trace:{TRACE}": [2],
        "handler:score debug": [],
        "handler:Leads.score level:error": [1],
        '"a b"': [2],
        "drop": [4],
        "'=\\'": [4],
        "k:v=*": [],
        "日本語": [5],
        "plain fields": [5],
        "y" * 120: [6],
        f"long={'z' * 100}": [6],
        "until:1h": [],
        "nobody": [],
        "&": [0, 1, 2, 3, 4, 5, 6, "acme", "beta", "acme cancelled"],
    }  # fmt: skip
    connection = await open_connection(road.url)
    async with connection:
        for text, wanted in expected.items():
            asked = LogQuery.parse(text)
            whole = await LogReader(connection, asked).page()
            assert whole.before is None
            assert sorted(map(_name, whole.lines)) == sorted(str(each) for each in wanted), text
            for tenant in ("beta", "%"):
                mine = (await LogReader(connection, replace(asked, tenant=tenant)).page()).lines
                assert mine == [line for line in whole.lines if line.tenant == tenant], (text, tenant)


def _name(line: Any) -> str:
    """The number of a line, or whose failure it is."""
    if line.context is not None and "records" in line.context:
        return f"{line.tenant}{' cancelled' if line.message.startswith('cancelled') else ''}"
    stored = [str(each["message"]).replace("\0", "\ufffd").replace("\ud800", "?")[:20_000] for _, each in LINES]
    found = stored.index(line.message)
    return str(3 if found == 0 and line.tenant == "beta" else found)


async def test_pages_give_every_line_once_whatever_stands_at_the_same_place(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "NEWEST", 10)
    writer, at, same = LogWriter(road.pool, 1), now().timestamp(), uuid7()
    for n in range(40):
        moment = at if n % 3 else at + n  # most stand at one place
        writer.add(same if n < 30 else uuid7(), "score", "acme", {"message": f"line {n:02}", "at": moment})
    writer.stop()
    await writer.run()
    for query in (LogQuery(limit=7), LogQuery(limit=7, text="line", tenant="acme")):
        seen: list[str] = []
        before: str | None = None
        for _ in range(20):
            found = await page(road, replace(query, before=Cursor.parse(before) if before else None))
            seen += [line.message for line in found.lines]
            before = found.before
            if before is None:
                break
        assert sorted(seen) == [f"line {n:02}" for n in range(40)]


async def test_a_page_whose_time_is_up_says_how_far_it_has_looked_and_goes_on(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(road)
    old = [now() - timedelta(days=days) for days in (20, 9)]
    async with road.pool.connection() as connection:
        for moment in old:
            await connection.execute("SELECT circuit.make_partition('circuit_logs', %s::date)", (moment,))
            identifier = UUID(int=int(moment.timestamp() * 1000) << 80 | 7 << 76 | 2 << 62)
            await connection.execute(
                "INSERT INTO circuit.circuit_logs (at, level, message, execution, handler, tenant) "
                "VALUES (%s, 'info', 'a needle', %s, 'score', 'acme')",
                (moment, identifier),
            )
    monkeypatch.setattr(searching, "NEWEST", 1)
    monkeypatch.setattr(searching, "FIRST", 1)
    monkeypatch.setattr(searching, "STRETCH", 3)
    monkeypatch.setattr(searching, "BUDGET", 0.0)
    monkeypatch.setattr(searching, "LEAST", 5.0)
    query, found, looked = LogQuery(text="needle"), [], []
    for _ in range(100):
        part = await page(road, query)
        found += [line.at for line in part.lines]
        looked.append(part.looked_back_to)
        if part.before is None:
            break
        query = replace(query, before=Cursor.parse(part.before))
    assert found == sorted(old, reverse=True)
    stops = [each for each in looked if each is not None]
    assert len(stops) >= 2
    assert stops == sorted(stops, reverse=True)


async def test_a_tenant_reaches_the_functions_of_the_search_for_its_own_lines_only(road: Road) -> None:
    await filled(road)
    asked = "ROW(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, NULL, NULL)::circuit.log_asked"
    bounds = f"{asked}, '{UUID(int=0)}', '{UUID(int=(1 << 128) - 1)}', 'infinity', 1000, true"
    connection = await open_connection(road.url)
    async with connection:
        async with tenant_reading(connection, "beta"):
            for ended in ("true", "false"):
                rows = await (
                    await connection.execute(f"SELECT tenant FROM circuit.my_log({bounds}, {ended})")
                ).fetchall()
                assert {row[0] for row in rows} == {"beta"}
        for call in (f"circuit.find_log({asked}, NULL, {bounds.split(', ', 13)[-1]})", "circuit.log_floor(NULL, 1)"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                async with tenant_reading(connection, "beta"):
                    await connection.execute(f"SELECT * FROM {call}".encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with tenant_reading(connection, "beta"):
                await connection.execute("SELECT * FROM circuit.circuit_logs_other")


async def test_the_indexes_serve_the_search_and_every_new_partition_has_them(road: Road) -> None:
    async with road.pool.connection() as connection, connection.transaction():
        await connection.execute("SELECT circuit.make_partition('circuit_logs', current_date + 40)")
        await connection.execute("SET LOCAL enable_seqscan = off")
        plan = await (
            await connection.execute(
                "EXPLAIN SELECT FROM circuit.circuit_logs WHERE circuit.log_words("
                "message, context, level, handler, tenant, record, \"user\") @@ 'a'::tsquery"
            )
        ).fetchall()
        missing = await (await connection.execute("SELECT * FROM circuit.indexes_to_build()")).fetchall()
    text = "\n".join(row[0] for row in plan)
    assert text.count("Bitmap Index Scan") == text.count("Bitmap Heap Scan") > 8
    assert "Seq Scan" not in text
    assert missing == []


async def test_each_level_is_kept_for_its_days_and_what_nobody_named_for_ever(road: Road) -> None:
    writer = LogWriter(road.pool, 1)
    async with road.pool.connection() as connection:
        for days in (40, 9):  # one of them has no partition of its own
            moment = now() - timedelta(days=days)
            if days == 9:
                await connection.execute("SELECT circuit.make_partition('circuit_logs', %s::date)", (moment,))
            for level in ("debug", "info", "error"):
                identifier = UUID(int=int(moment.timestamp() * 1000) << 80 | 7 << 76 | 2 << 62)
                writer.add(identifier, "score", "acme", {"level": level, "message": f"{level} {days}"})
    for level in ("debug", "error"):
        writer.add(uuid7(), "score", "acme", {"level": level, "message": f"{level} 0 :level:debug"})
    writer.stop()
    await writer.run()
    await once(road.pool, 1000, log_keep={"debug": 7, "info": 30})
    assert await road.rows("SELECT message FROM circuit.circuit_logs ORDER BY 1") == [
        "debug 0 :level:debug", "error 0 :level:debug", "error 40", "error 9", "info 9"
    ]  # fmt: skip
    levels = ("debug", "info", "warning", "error", "critical")
    dropped = await once(road.pool, 1000, log_keep=dict.fromkeys(levels, 8))
    assert [name[:-8] for name in dropped] == ["circuit_logs_"]
    assert len(await road.rows("SELECT message FROM circuit.circuit_logs")) == 2


async def test_an_index_that_a_migration_left_out_is_built_while_lines_are_written(road: Road) -> None:
    await filled(road)
    await road.run("DROP INDEX circuit.circuit_logs_words")
    await road.run(
        "CREATE INDEX circuit_logs_words ON ONLY circuit.circuit_logs USING gin (circuit.log_words("
        'message, context, level, handler, tenant, record, "user"))'
    )
    assert await build_indexes(road.pool) == len(
        await road.rows("SELECT 1 FROM pg_inherits WHERE inhparent = 'circuit.circuit_logs'::regclass")
    )
    assert await build_indexes(road.pool) == 0
    assert await road.rows(
        "SELECT DISTINCT a.attstattarget FROM pg_inherits h JOIN pg_attribute a ON a.attrelid = h.inhrelid "
        "WHERE h.inhparent = 'circuit.circuit_logs_words'::regclass"
    ) == [0], "nobody counts words"
    assert await road.rows(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = 'circuit.circuit_logs_words'::regclass"
    ) == [True]
