from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from circuit_script.db import server_user
from circuit_script.db.embedded import EmbeddedPostgres
from circuit_script.db.server_user import ServerUser
from circuit_script.errors import StartError
from tests import servers
from tests.servers import until

STARTED_AT = "SELECT pg_postmaster_start_time()"
START = """
import asyncio, concurrent.futures.thread, encodings.ascii, encodings.idna, os, pathlib, sys
from circuit_script.db.embedded import EmbeddedPostgres
from circuit_script.errors import StartError
async def main():
    postgres = EmbeddedPostgres(pathlib.Path(sys.argv[1]))
    try:
        print(await postgres.start(), flush=True)
    except StartError as error:
        print(error, flush=True)
    if sys.argv[2:] == ["stop"]:
        await postgres.stop()
    elif sys.argv[2:] == ["stay"]:
        await asyncio.Event().wait()
if "AS_NOBODY" in os.environ:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
asyncio.run(main())
"""
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def one(url: str, query: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
        return None if row is None else row[0]


def postmaster(folder: Path) -> int:
    return int((folder / ".circuit/postgres/data/postmaster.pid").read_text().splitlines()[0])


def starter(folder: Path, *arguments: str, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", START, str(folder), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]  # options vary


@pytest.fixture(scope="session")
def made_once() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="cs-", dir="/tmp"))
    folder.chmod(0o711)

    async def make() -> None:
        await EmbeddedPostgres(folder).start()
        await EmbeddedPostgres(folder).stop()

    asyncio.run(make())
    yield folder
    asyncio.run(servers.remove(folder))


@pytest.fixture
def made_folder(app_folder: Path, made_once: Path) -> Path:
    """An app's folder whose database exists and does not run: a copy, for making one takes a second."""
    subprocess.run(["cp", "-a", str(made_once / ".circuit"), str(app_folder)], check=True)
    return app_folder


async def test_it_starts_asks_for_a_password_and_opens_no_tcp_port(app_folder: Path) -> None:
    url = await EmbeddedPostgres(app_folder).start()

    assert one(url, "SHOW listen_addresses") == ""
    assert one(url, "SELECT current_user || '/' || current_database()") == "circuit/circuit"
    assert one(url, "SELECT rolsuper::text || rolcreaterole FROM pg_roles WHERE rolname = 'circuit'") == "falsetrue"
    assert [one(url, f"SHOW {name}") for name in ("fsync", "synchronous_commit", "server_encoding")] == [
        "on",
        "on",
        "UTF8",
    ]
    for password in ("", "wrong"):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(url, password=password)
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(url, user="postgres", password=password)


async def test_secrets_are_private_and_nothing_above_is_opened(app_folder: Path) -> None:
    app_folder.chmod(0o751)
    above = [(folder, folder.stat().st_mode) for folder in app_folder.parents]

    postgres = EmbeddedPostgres(app_folder)
    url = await postgres.start()

    circuit = app_folder / ".circuit"
    assert stat.S_IMODE(app_folder.stat().st_mode) == 0o751
    assert [(folder, folder.stat().st_mode) for folder in app_folder.parents] == above
    for name in ("postgres.password", "postgres.superuser.password"):
        assert stat.S_IMODE((circuit / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((circuit / "postgres").stat().st_mode) == 0o700
    assert one(postgres.superuser_url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is True
    log = (circuit / "postgres/log").read_text()
    assert psycopg.conninfo.conninfo_to_dict(url)["password"] not in log


async def test_a_running_server_is_found_and_a_stopped_one_keeps_its_data(made_folder: Path) -> None:
    postgres = EmbeddedPostgres(made_folder)
    url = await postgres.start()
    started_at = one(url, STARTED_AT)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS n")

    assert await EmbeddedPostgres(made_folder).start() == url
    assert one(url, STARTED_AT) == started_at

    await postgres.stop()
    assert await postgres.start() == url
    assert one(url, STARTED_AT) != started_at
    assert one(url, "SELECT n FROM kept") == 42


async def test_stopping_what_does_not_run_is_no_error(made_folder: Path) -> None:
    await EmbeddedPostgres(made_folder / "nothing").stop()
    postgres = EmbeddedPostgres(made_folder)
    await postgres.stop()
    assert not postgres.running()
    await postgres.start()
    assert postgres.running()
    await postgres.stop()
    await postgres.stop()
    assert not postgres.running()
    assert not (made_folder / ".circuit/postgres/data/postmaster.pid").exists()


async def test_the_server_outlives_the_kill_of_its_starter_and_is_used_again(made_folder: Path) -> None:
    with starter(made_folder, "stay", start_new_session=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        started_at = one(url, STARTED_AT)
        os.killpg(process.pid, signal.SIGKILL)

    assert one(url, STARTED_AT) == started_at
    assert await EmbeddedPostgres(made_folder).start() == url
    assert one(url, STARTED_AT) == started_at


async def test_two_processes_that_start_one_folder_at_once_share_one_server(app_folder: Path) -> None:
    started = [starter(app_folder) for _ in range(3)]
    urls = {process.communicate(timeout=60)[0].strip() for process in started}

    assert len(urls) == 1
    assert urls.pop().startswith("postgresql://circuit:")


async def test_a_killed_server_starts_again_with_all_that_was_committed(made_folder: Path) -> None:
    postgres = EmbeddedPostgres(made_folder)
    url = await postgres.start()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
        os.kill(postmaster(made_folder), signal.SIGKILL)
        until(lambda: not postgres.running(), "the server is dead")

        assert await postgres.start() == url  # the orphan of this connection is still about

    assert one(url, "SELECT count(*) FROM kept") == 1000


async def test_a_lock_file_that_names_an_innocent_process_does_not_stop_the_start(made_folder: Path) -> None:
    postgres = EmbeddedPostgres(made_folder)
    url = await postgres.start()
    lock = made_folder / ".circuit/postgres/data/postmaster.pid"
    lines = lock.read_text().splitlines()
    await postgres.stop()
    user = server_user.choose(lock.parent)
    identity = {"user": user.uid, "group": user.gid} if user.switch else {}
    innocent = subprocess.Popen(["sleep", "60"], cwd="/", **identity)  # type: ignore[call-overload]  # by user
    try:
        lock.write_text("\n".join([str(innocent.pid), *lines[1:]]) + "\n")
        if user.switch:
            os.chown(lock, user.uid, user.gid)
        lock.chmod(0o600)

        assert await postgres.start() == url
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


async def test_a_first_start_that_was_cut_off_is_begun_again(app_folder: Path) -> None:
    cut_off = starter(app_folder)
    home = app_folder / ".circuit/postgres"
    until(lambda: any(home.glob("data.new-*/PG_VERSION")), "initdb has begun")
    cut_off.kill()
    cut_off.communicate()
    assert not (home / "data").exists()

    url = await EmbeddedPostgres(app_folder).start()

    assert one(url, "SELECT 1") == 1
    assert not list(home.glob("*.new-*"))


@pytest.mark.parametrize(("version", "cure"), [("99", "Install the version"), ("14", "pg_upgrade from 14 to")])
async def test_data_of_another_version_is_refused_with_what_to_do(made_folder: Path, version: str, cure: str) -> None:
    postgres = EmbeddedPostgres(made_folder)
    await postgres.start()
    await postgres.stop()
    path = made_folder / ".circuit/postgres/data/PG_VERSION"
    kept = path.read_text()
    path.write_text(f"{version}\n")

    with pytest.raises(StartError, match=f"of PostgreSQL {version}.*{cure}"):
        await postgres.start()

    path.write_text(kept)
    assert await postgres.start()


async def test_a_lost_password_says_where_it_was(made_folder: Path) -> None:
    postgres = EmbeddedPostgres(made_folder)
    await postgres.start()
    (made_folder / ".circuit/postgres.password").unlink()

    with pytest.raises(StartError, match=r"postgres\.password\. Restore it"):
        await postgres.start()


async def test_a_file_where_the_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / ".circuit").write_text("")
    with pytest.raises(StartError, match=r"Move the file .*\.circuit away"):
        await EmbeddedPostgres(tmp_path).start()


async def test_a_configuration_that_does_not_start_shows_the_servers_own_reason(made_folder: Path) -> None:
    postgres = EmbeddedPostgres(made_folder)
    await postgres.start()
    await postgres.stop()
    (made_folder / ".circuit/postgres/data/yours.conf").write_text("max_connections = 'many'\n")

    with pytest.raises(StartError, match=r"did not start.*(max_connections|yours\.conf)"):
        await postgres.start()


async def test_a_path_too_long_for_a_socket_still_works(app_folder: Path) -> None:
    deep = app_folder / ("long" * 25)
    deep.mkdir()
    try:
        url = await EmbeddedPostgres(deep).start()
        assert one(url, "SELECT 1") == 1
        socket = Path(str(psycopg.conninfo.conninfo_to_dict(url)["host"]))
        assert not socket.is_relative_to(deep)
        assert stat.S_IMODE(socket.stat().st_mode) == 0o700
    finally:
        await servers.remove(deep)
        shutil.rmtree(socket, ignore_errors=True)


@root_only
async def test_root_puts_the_data_where_its_server_user_can_reach_it(app_folder: Path) -> None:
    closed = app_folder / "closed"
    closed.mkdir(mode=0o700)
    app = closed / "app"
    postgres = EmbeddedPostgres(app)
    try:
        url = await postgres.start()

        home = Path((app / ".circuit/postgres.location").read_text().strip())
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700
        assert (home / "data/PG_VERSION").exists()
        assert home.stat().st_uid != 0
        assert not (app / ".circuit/postgres").exists()
        await postgres.stop()
        assert await postgres.start() == url
    finally:
        await servers.remove(app)
    assert not home.exists()


@root_only
async def test_binaries_that_the_server_user_cannot_reach_are_copied(
    app_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reachable = app_folder / "reachable"
    reachable.mkdir(mode=0o755)
    monkeypatch.setattr(server_user, "REACHABLE", reachable)
    real = ServerUser.reaches
    monkeypatch.setattr(ServerUser, "reaches", lambda self, path: "site-packages" not in str(path) and real(self, path))

    user = server_user.choose(app_folder / "none")
    bin_, _ = server_user.binaries(user)

    assert bin_.is_relative_to(reachable)
    assert (await user.run(bin_ / "postgres", "--version", cwd=app_folder))[0] == 0
    assert server_user.binaries(user)[0] == bin_


@pytest.fixture
def small_disk(app_folder: Path) -> Iterator[Path]:
    disk = app_folder / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=12m,mode=755", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a small disk here")
    yield disk
    asyncio.run(EmbeddedPostgres(disk).stop())
    subprocess.run(["umount", "-l", str(disk)], check=True)


async def test_a_full_disk_says_so_and_a_larger_one_starts(small_disk: Path) -> None:
    with pytest.raises(StartError, match="Free some space on the disk"):
        await EmbeddedPostgres(small_disk).start()

    subprocess.run(["mount", "-o", "remount,size=400m", str(small_disk)], check=True)
    url = await EmbeddedPostgres(small_disk).start()
    assert one(url, "SELECT 1") == 1


def as_nobody(folder: Path, *arguments: str) -> str:
    # The script gives up root by itself, once it has loaded what another user might not reach.
    process = starter(folder, *arguments, env=os.environ | {"AS_NOBODY": "yes"})
    return process.communicate(timeout=60)[0].strip()


@root_only
async def test_a_folder_that_may_not_be_written_says_what_to_do(app_folder: Path) -> None:
    assert "Let this user write to" in as_nobody(app_folder)
    assert not (app_folder / ".circuit").exists()


@root_only
async def test_an_ordinary_user_starts_it_without_switching(app_folder: Path) -> None:
    os.chown(app_folder, 65534, 65534)
    assert as_nobody(app_folder, "stop").startswith("postgresql://circuit:")
    assert (app_folder / ".circuit/postgres/data").stat().st_uid == 65534


async def test_root_without_a_user_for_the_server_says_how_to_make_one(
    app_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody_by_that_name(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(server_user.pwd, "getpwnam", nobody_by_that_name)
    monkeypatch.setattr(server_user.shutil, "which", lambda name: None)
    with pytest.raises(StartError, match="useradd --system circuit-postgres"):
        server_user.choose(app_folder / "none")


async def test_a_folder_that_somebody_put_in_the_way_is_refused(app_folder: Path) -> None:
    (app_folder / "elsewhere").mkdir(mode=0o755)
    (app_folder / "socket").symlink_to(app_folder / "elsewhere")
    with pytest.raises(StartError, match="belongs to somebody else"):
        ServerUser(os.geteuid(), os.getegid(), switch=False).own_folder(app_folder / "socket")
    assert stat.S_IMODE((app_folder / "elsewhere").stat().st_mode) == 0o755
