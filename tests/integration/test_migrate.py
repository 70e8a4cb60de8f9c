from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from circuit_script.db import migrate as migrate_module
from circuit_script.db.migrate import MIGRATIONS, migrate, read_migrations
from circuit_script.db.pool import open_connection
from circuit_script.errors import ConfigError, DatabaseUnavailable, StartError
from tests.servers import Server, as_url


def numbered(path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (path / f"{name}.sql").write_text(text)
    return path


async def rows(url: str, query: str) -> list[tuple[object, ...]]:
    connection = await open_connection(url)
    try:
        return await (await connection.execute(query.encode())).fetchall()
    finally:
        await connection.close()


@pytest.mark.every_server
async def test_all_migrations_apply_once_and_are_recorded(empty_database: str) -> None:
    applied = await migrate(empty_database)

    assert applied == [migration.name for migration in read_migrations()]
    assert await migrate(empty_database) == []
    recorded = await rows(empty_database, "SELECT name FROM circuit.migrations ORDER BY applied_at, name")
    assert [name for (name,) in recorded] == applied


@pytest.mark.every_server
async def test_several_starts_at_the_same_moment_apply_each_migration_once(empty_database: str, tmp_path: Path) -> None:
    folder = numbered(
        tmp_path,
        {
            "0001_first.pre": "CREATE TABLE circuit.once (n int); INSERT INTO circuit.once VALUES (1);",
            "0002_second.pre": "INSERT INTO circuit.once VALUES (2);",
        },
    )

    applied = await asyncio.gather(*(migrate(empty_database, folder=folder) for _ in range(6)))

    assert sorted(name for names in applied for name in names) == ["0001_first.pre", "0002_second.pre"]
    assert await rows(empty_database, "SELECT n FROM circuit.once ORDER BY n") == [(1,), (2,)]


async def test_two_processes_that_start_at_once_share_the_work(empty_database: str) -> None:
    code = (
        "import asyncio, sys; from circuit_script.db.migrate import migrate\nprint(*asyncio.run(migrate(sys.argv[1])))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, empty_database], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    printed = [process.communicate(timeout=60)[0] for process in started]

    assert [process.returncode for process in started] == [0, 0]
    assert sorted(" ".join(printed).split()) == [migration.name for migration in read_migrations()]


async def test_pre_comes_before_post_and_numbers_rise(tmp_path: Path) -> None:
    numbered(tmp_path, {"0002_b.pre": "", "0001_a.post": "", "0001_a.pre": "", "0010_c.pre": ""})

    assert [migration.name for migration in read_migrations(tmp_path)] == [
        "0001_a.pre",
        "0001_a.post",
        "0002_b.pre",
        "0010_c.pre",
    ]


async def test_a_file_with_another_name_is_refused(tmp_path: Path) -> None:
    numbered(tmp_path, {"1_first": ""})
    with pytest.raises(StartError, match=r"1_first\.sql is not named"):
        read_migrations(tmp_path)


async def test_a_migration_that_fails_leaves_nothing_behind(empty_database: str, tmp_path: Path) -> None:
    numbered(tmp_path, {"0001_half.pre": "CREATE TABLE circuit.half (n int); SELECT 1/0;"})

    with pytest.raises(StartError, match=r"0001_half\.pre failed: division by zero"):
        await migrate(empty_database, folder=tmp_path)

    assert await rows(empty_database, "SELECT to_regclass('circuit.half')") == [(None,)]
    assert await rows(empty_database, "SELECT * FROM circuit.migrations") == []


def told(words: list[str], *files: str) -> list[str]:
    """What is told of these, besides."""
    return [each for each in words if all(file in each for file in files)]


async def test_a_version_runs_on_the_schema_of_the_next_release_and_says_so(
    empty_database: str, tmp_path: Path
) -> None:
    numbered(tmp_path, {"0001_a.pre": "SELECT 1;", "0002_later.pre": "SELECT 1;"})
    numbered(tmp_path, {"0003_next.pre": "-- Of tomorrow.\n-- release: 0.2\nCREATE TABLE circuit.next (n int);"})
    await migrate(empty_database, folder=tmp_path)
    for newer in ("0002_later.pre", "0003_next.pre"):
        (tmp_path / f"{newer}.sql").unlink()
    words: list[str] = []

    assert await migrate(empty_database, folder=tmp_path, tell=words.append) == []

    assert told(words, "0002_later.pre, 0003_next.pre", "This one runs on it") == words != []
    recorded = await rows(empty_database, "SELECT name, release FROM circuit.migrations ORDER BY name")
    assert recorded == [("0001_a.pre", "0.1"), ("0002_later.pre", "0.1"), ("0003_next.pre", "0.2")]


async def test_a_database_that_is_two_releases_ahead_is_refused(empty_database: str, tmp_path: Path) -> None:
    numbered(
        tmp_path, {"0001_a.pre": "SELECT 1;", "0002_b.pre": "-- release: 0.2\n", "0003_c.pre": "-- release: 0.3\n"}
    )
    await migrate(empty_database, folder=tmp_path)
    for newer in ("0002_b.pre", "0003_c.pre"):
        (tmp_path / f"{newer}.sql").unlink()

    with pytest.raises(
        StartError, match=r"does not know: 0002_b\.pre, 0003_c\.pre.*0\.2, 0\.3.*ahead of 0\.1.*a newer one"
    ):
        await migrate(empty_database, folder=tmp_path)


@pytest.mark.parametrize(
    ("files", "asked"),
    [
        ({"0002_b.pre": "", "0003_c.pre": "-- needs: 0002_b.pre\n"}, "0002_b.pre"),
        ({"0002_gone.post": ""}, "0002_gone.post"),
    ],
)
async def test_a_database_that_needs_newer_code_is_refused(
    empty_database: str, tmp_path: Path, files: dict[str, str], asked: str
) -> None:
    numbered(tmp_path, {"0001_a.pre": "SELECT 1;", **files})
    await migrate(empty_database, folder=tmp_path)
    for newer in files:
        (tmp_path / f"{newer}.sql").unlink()

    with pytest.raises(StartError, match=rf"asks for a version that knows {asked}\."):
        await migrate(empty_database, folder=tmp_path)


async def test_what_is_gone_since_nobody_used_it_lets_those_start_that_did_not(
    empty_database: str, tmp_path: Path
) -> None:
    numbered(tmp_path, {"0001_a.pre": "SELECT 1;", "0002_gone.post": "-- needs: 0001_a.pre\nSELECT 1;"})
    await migrate(empty_database, folder=tmp_path)
    (tmp_path / "0002_gone.post.sql").unlink()
    words: list[str] = []
    assert await migrate(empty_database, folder=tmp_path, tell=words.append) == []
    assert told(words, "0002_gone.post") == words != []


async def test_a_database_of_another_line_of_versions_is_refused(empty_database: str, tmp_path: Path) -> None:
    numbered(tmp_path, {"0001_a.pre": "SELECT 1;", "0003_theirs.pre": "SELECT 1;"})
    await migrate(empty_database, folder=tmp_path)
    (tmp_path / "0003_theirs.pre.sql").unlink()
    numbered(tmp_path, {"0002_ours.pre": "CREATE TABLE circuit.ours (n int);"})

    with pytest.raises(StartError, match=r"does not know: 0003_theirs\.pre\. It lacks .* 0002_ours\.pre\."):
        await migrate(empty_database, folder=tmp_path)
    assert await rows(empty_database, "SELECT to_regclass('circuit.ours')") == [(None,)]


async def test_a_database_from_before_migrations_told_their_release_is_taken_as_of_the_first(
    empty_database: str, tmp_path: Path
) -> None:
    numbered(tmp_path, {"0001_a.pre": "SELECT 1;"})
    await migrate(empty_database, folder=tmp_path)
    connection = await open_connection(empty_database)
    async with connection:
        await connection.execute("ALTER TABLE circuit.migrations DROP COLUMN release, DROP COLUMN needs")
    numbered(tmp_path, {"0002_b.pre": "-- release: 0.2\n"})
    assert await migrate(empty_database, folder=tmp_path) == ["0002_b.pre"]
    query = "SELECT name, release, needs FROM circuit.migrations ORDER BY name"
    assert await rows(empty_database, query) == [("0001_a.pre", "0.1", ""), ("0002_b.pre", "0.2", "")]


async def test_an_edited_migration_is_refused(empty_database: str, tmp_path: Path) -> None:
    numbered(tmp_path, {"0001_a.pre": "SELECT 1;"})
    await migrate(empty_database, folder=tmp_path)
    numbered(tmp_path, {"0001_a.pre": "SELECT 2;"})

    with pytest.raises(StartError, match=r"edited after they were applied: 0001_a\.pre"):
        await migrate(empty_database, folder=tmp_path)


async def test_a_server_that_is_too_old_is_refused(empty_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate_module, "OLDEST_SERVER", 99)
    with pytest.raises(StartError, match=r"The server is PostgreSQL 1\d\. Circuit Script needs 99 or newer"):
        await migrate(empty_database)


async def test_a_database_without_unicode_is_refused(server: Server) -> None:
    server.run("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0")
    try:
        with pytest.raises(StartError, match=r"encoding is LATIN1.*ENCODING 'UTF8'"):
            await migrate(server.url("latin"))
    finally:
        server.drop_database("latin")


async def test_a_malformed_url_is_refused_without_repeating_its_password() -> None:
    with pytest.raises(ConfigError, match="It looks like postgresql://") as caught:
        await migrate("postgres//me:hunter2@host")
    assert "hunter2" not in str(caught.value)


async def test_a_wrong_password_names_the_setting(server: Server) -> None:
    wrong = as_url(server.superuser, user=server.login, password="wrong", dbname="postgres")
    with pytest.raises(DatabaseUnavailable, match="Check the user and password in DATABASE_URL"):
        await migrate(wrong)


async def test_a_server_that_is_not_there_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match="Start the server, or check"):
        await migrate(f"postgresql://me:x@/db?host={tmp_path}")


async def test_a_missing_database_is_named(server: Server) -> None:
    with pytest.raises(DatabaseUnavailable, match="Create the database or role that DATABASE_URL names"):
        await migrate(server.url("no_such_database"))


async def test_a_user_that_may_not_grant_roles_gets_the_statements_to_run(server: Server, empty_database: str) -> None:
    name = str(psycopg.conninfo.conninfo_to_dict(empty_database)["dbname"])
    server.run("CREATE ROLE nobody_special LOGIN PASSWORD 'x'")
    try:
        url = as_url(server.superuser, user="nobody_special", password="x", dbname=name)
        with pytest.raises(StartError) as caught:
            await migrate(url)
        statements = caught.value.cure.removeprefix("As a superuser run: ")
        assert 'GRANT circuit_road TO "nobody_special"' in statements

        server.run(statements, database=name)
        with pytest.raises(StartError, match=r"GRANT CREATE ON DATABASE .* TO \"nobody_special\"") as caught:
            await migrate(url)
        server.run(caught.value.cure.removeprefix("As its owner run: "), database=name)

        assert await migrate(url) == [migration.name for migration in read_migrations()]
    finally:
        server.run("DROP OWNED BY nobody_special CASCADE", database=name)
        server.run("DROP ROLE nobody_special")


@pytest.mark.parametrize(
    ("spoil", "repair"),
    [
        ("ALTER ROLE circuit_tenant BYPASSRLS", "ALTER ROLE circuit_tenant NOBYPASSRLS"),
        ("ALTER ROLE circuit_tenant SUPERUSER", "ALTER ROLE circuit_tenant NOSUPERUSER"),
        ("GRANT circuit_road TO circuit_tenant", "REVOKE circuit_road FROM circuit_tenant"),
    ],
)
async def test_a_tenant_role_that_bypasses_row_security_is_refused(
    server: Server, database: str, spoil: str, repair: str
) -> None:
    server.run(spoil)
    try:
        with pytest.raises(StartError, match=r"circuit_tenant bypasses row security.*ALTER ROLE circuit_tenant"):
            await migrate(database)
    finally:
        server.run(repair)
    assert await migrate(database) == []


async def test_executions_of_days_that_were_there_before_may_be_held_and_nothing_else_is_new(
    empty_database: str, tmp_path: Path
) -> None:
    for path in MIGRATIONS.glob("*.sql"):
        if path.name < "0024":
            (tmp_path / path.name).write_text(path.read_text())
    await migrate(empty_database, folder=tmp_path)
    await migrate(empty_database)
    await rows(empty_database, "SELECT circuit.make_partitions(10)")
    days = await rows(empty_database, "SELECT FROM pg_inherits WHERE inhparent = 'circuit.executions'::regclass")
    insert = (
        "INSERT INTO circuit.executions (id, tenant, release, handler, object, event, records, status, started_at,"
        " usage)"
        " SELECT circuit.uuid_floor(now() + n * interval '1 day'), 'acme', 1, 1, 'Contact', 'x', 1, '{}', now(), '{{}}'"
        " FROM generate_series(-1, 20, 1) n RETURNING tableoid"
    )
    assert len(set(await rows(empty_database, insert.format("held")))) == len(days) > 10, "each of them has one"
    with pytest.raises(psycopg.errors.CheckViolation):
        await rows(empty_database, insert.format("lost"))


async def test_every_migration_of_the_package_is_found() -> None:
    assert {f"{migration.name}.sql" for migration in read_migrations()} == {p.name for p in MIGRATIONS.glob("*.sql")}
    assert read_migrations()
