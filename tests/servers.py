"""The PostgreSQL servers that the tests run on, each started once per session and ended with it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlencode

import psutil
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from circuit_script.db.embedded import EmbeddedPostgres
from circuit_script.db.migrate import migrate
from circuit_script.db.server_user import ServerUser, choose
from circuit_script.errors import StartError

DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
MEMORY = Path("/dev/shm")
ROOM = 6_000_000_000  # bytes of memory that must be free for a server to live there: each worker of a run has one
FORGETFUL = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "256MB"}  # no test cuts the power
TEMPLATE = f"circuit_template_{os.getpid()}"
_numbers = itertools.count()


@dataclass(frozen=True)
class Server:
    """One server: ``superuser`` is its bootstrap URL, ``login`` a role like the platform's own."""

    superuser: str
    login: str
    password: str
    name: str
    through: str | None = None  # a pooler's conninfo in front of it
    close: Callable[[], None] = field(default=lambda: None)

    def url(self, database: str) -> str:
        """The platform's URL of ``database`` (through the pooler where there is one)."""
        return as_url(self.through or self.superuser, user=self.login, password=self.password, dbname=database)

    def run(self, *statements: sql.Composable | str, database: str = "postgres") -> None:
        """Run statements as the superuser, each in autocommit."""
        with psycopg.connect(make_conninfo(self.superuser, dbname=database), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode() if isinstance(statement, str) else statement)

    def create_database(self, template: str | None) -> str:
        """A new database of the login role; its name."""
        name = f"circuit_test_{os.getpid()}_{next(_numbers)}"
        self.run(
            sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {} STRATEGY file_copy").format(
                sql.Identifier(name), sql.Identifier(self.login), sql.Identifier(template or "template1")
            )
        )
        return name

    def drop_database(self, name: str) -> None:
        self.run(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def in_memory() -> str:
    """Where a server of the session lives: in memory if there is room, since a new database is 300 new files.

    What is killed in tests is processes, so that it is as lasting there as on a disk.
    """
    with contextlib.suppress(OSError):
        if os.path.ismount(MEMORY) and min(psutil.virtual_memory().available, shutil.disk_usage(MEMORY).free) > ROOM:
            return str(MEMORY)
    return "/tmp"


def as_url(conninfo: str, **changes: str) -> str:
    """``conninfo`` as a URL, the form in which users write it."""
    parts = conninfo_to_dict(conninfo) | changes
    user, password, database = (quote(str(parts.pop(key, "")), safe="") for key in ("user", "password", "dbname"))
    return f"postgresql://{user}:{password}@/{database}?{urlencode(parts, quote_via=quote)}"


def prepare(server: Server) -> Server:
    """Give a server the login role and the migrated template, fast and forgetful settings included."""
    login = sql.Identifier(server.login)
    with psycopg.connect(server.superuser, autocommit=True) as connection:
        query = "SELECT 1 FROM pg_roles WHERE rolname = %s"
        if not connection.execute(query, (server.login,)).fetchone():  # an embedded server has made its own
            verb = sql.SQL("CREATE ROLE {} LOGIN NOSUPERUSER CREATEROLE PASSWORD {}")
            connection.execute(verb.format(login, sql.Literal(server.password)))
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(TEMPLATE), login))
    direct = as_url(server.superuser, user=server.login, password=server.password, dbname=TEMPLATE)
    try:
        asyncio.run(migrate(direct))
    except StartError as error:  # an earlier run's login role made the roles, so only a superuser may grant them
        server.run(error.cure.removeprefix("As a superuser run: "))
        asyncio.run(migrate(direct))
    return server


def embedded(folder: Path) -> Server:
    """The wheel's PostgreSQL, started as the platform starts it."""
    postgres = EmbeddedPostgres(folder)
    url = asyncio.run(postgres.start())
    server = Server(
        superuser=postgres.superuser_url,
        login="circuit",
        password=str(conninfo_to_dict(url)["password"]),
        name="embedded",
    )
    server.run(*(f"ALTER SYSTEM SET {name} = '{value}'" for name, value in FORGETFUL.items()))
    server.run("SELECT pg_reload_conf()")
    return prepare(server)


def foreign(url: str) -> Server:
    """A server that somebody else runs; what was made on it is dropped at the end."""
    bare = Server(superuser=url, login=f"circuit_test_{os.getpid()}", password=secrets.token_hex(12), name="foreign")

    def close() -> None:
        bare.drop_database(TEMPLATE)
        bare.run(sql.SQL("DROP ROLE {}").format(sql.Identifier(bare.login)))

    return prepare(Server(bare.superuser, bare.login, bare.password, bare.name, close=close))


def debian(folder: Path) -> Server:
    """Debian's PostgreSQL 15 on a Unix socket in ``folder``."""
    user = choose(folder / "data")
    user.own_folder(folder / "home")
    data = folder / "home" / "data"
    _run_as(user, DEBIAN_15 / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C")
    options = f"-c listen_addresses='' -c unix_socket_directories={folder / 'home'} "
    options += " ".join(f"-c {name}={value}" for name, value in FORGETFUL.items())
    pg_ctl, log = DEBIAN_15 / "pg_ctl", folder / "home" / "log"
    _run_as(user, pg_ctl, "start", "-w", "-D", data, "-l", log, "-o", options)
    superuser = as_url("", user="postgres", dbname="postgres", host=str(folder / "home"), port="5432")
    return prepare(
        Server(
            superuser,
            "circuit",
            secrets.token_hex(12),
            "debian 15",
            close=lambda: _run_as(user, pg_ctl, "stop", "-m", "immediate", "-D", data),
        )
    )


def bounced(server: Server, folder: Path) -> Server:
    """PgBouncer in transaction mode in front of ``server``."""
    parts = conninfo_to_dict(server.superuser)
    socket = Path(str(parts["host"]))
    user = choose(socket) if socket.is_absolute() else choose(folder)
    user.own_folder(folder / "bouncer")
    home = folder / "bouncer"
    (home / "users.txt").write_text(f'"{server.login}" "{server.password}"\n')
    (home / "bouncer.ini").write_text(
        f"[databases]\n* = host={parts['host']} port={parts.get('port', 5432)}\n"
        f"[pgbouncer]\npool_mode = transaction\nunix_socket_dir = {home}\nlisten_addr =\nlisten_port = 6432\n"
        f"auth_type = scram-sha-256\nauth_file = {home}/users.txt\nlogfile = {home}/log\n"
        f"pidfile = {home}/pid\nsyslog = 0\n"
        "default_pool_size = 5\nmax_client_conn = 200\nserver_idle_timeout = 5\n"
    )
    for file in ("users.txt", "bouncer.ini"):
        os.chown(home / file, user.uid, user.gid)
    process = subprocess.Popen(
        ["pgbouncer", "-q", str(home / "bouncer.ini")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **_identity(user),
    )

    def close() -> None:
        process.terminate()
        process.wait(10)

    until(lambda: (home / ".s.PGSQL.6432").exists(), "PgBouncer listens")
    return Server(
        server.superuser,
        server.login,
        server.password,
        "pgbouncer",
        through=make_conninfo("", host=str(home), port="6432"),
        close=close,
    )


def until(holds: Callable[[], bool], what: str, seconds: float = 45.0) -> None:
    """Poll until ``holds()``; fail with ``what`` when it never does."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.01)


async def remove(folder: Path) -> None:
    """End a server that a test left in ``folder`` and remove what it made, wherever that is."""
    pointer = folder / ".circuit" / "postgres.location"
    postgres = EmbeddedPostgres(folder)
    home = Path(pointer.read_text().strip()) if pointer.exists() else folder / ".circuit" / "postgres"
    if postgres.running():  # at once: what it would still write is about to be removed
        os.kill(int((home / "data" / "postmaster.pid").read_text().split("\n", 1)[0]), signal.SIGQUIT)
        until(lambda: not postgres.running(), "the server has ended")
    if pointer.exists():
        shutil.rmtree(home, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def _identity(user: ServerUser) -> dict[str, object]:
    return {"user": user.uid, "group": user.gid, "extra_groups": []} if user.switch else {}


def _run_as(user: ServerUser, *command: str | Path) -> None:
    code, printed = asyncio.run(user.run(*command, cwd=Path("/tmp")))
    assert code == 0, printed
