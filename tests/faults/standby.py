"""A primary with a synchronous standby: Debian's PostgreSQL, since the wheel has no pg_basebackup."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg

from circuit_script.db.server_user import ServerUser, choose
from tests.servers import DEBIAN_15, TEMPLATE, Server, as_url, prepare, until

SYNCHRONOUS = "-c synchronous_standby_names=* -c synchronous_commit=on"


class Pair:
    """``url`` leads to whichever of the two takes writes, as an operator would write it for a platform."""

    own_disk = False

    def __init__(self, folder: Path) -> None:
        self._user: ServerUser = choose(folder)
        self._homes = [folder / "primary", folder / "standby"]
        for home in self._homes:
            self._user.own_folder(home)
        first, second = self._homes
        trust = ["--auth=trust", "-E", "UTF8", "--locale=C"]
        self._run("initdb", "-D", first / "data", "-U", "postgres", *trust)
        self._start(first)  # alone at first: nobody would confirm a commit
        self._server = prepare(Server(self._superuser(first), "circuit", secrets.token_hex(12), "pair"))
        self._name = self._server.create_database(TEMPLATE)
        self._run("pg_basebackup", "-D", second / "data", "-R", "-X", "stream", "-h", first, "-U", "postgres")
        self._start(second)
        self._run("pg_ctl", "stop", "-w", "-m", "fast", "-D", first / "data")
        self._start(first, SYNCHRONOUS)
        until(self._in_step, "the standby confirms what is committed", 60)

    @property
    def url(self) -> str:
        both = ",".join(map(str, self._homes))
        return as_url(
            "",
            user=self._server.login,
            password=self._server.password,
            dbname=self._name,
            host=both,
            port="5432,5432",
            target_session_attrs="read-write",
        )

    @property
    def socket(self) -> str:
        return str(self._homes[0] / ".s.PGSQL.5432")

    def url_at(self, port: int) -> str:
        """The platform finds the one that takes writes by itself: no proxy stands between."""
        return self.url

    async def fail_over(self) -> None:
        """The primary's host is gone from one moment to the next; the standby is promoted."""
        postmaster = psutil.Process(int((self._homes[0] / "data" / "postmaster.pid").read_text().split("\n", 1)[0]))
        for each in (postmaster, *postmaster.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.send_signal(signal.SIGKILL)
        await asyncio.to_thread(self._run, "pg_ctl", "promote", "-w", "-D", self._homes[1] / "data")

    async def fill(self, *, wal: bool) -> None:
        """Its disk is everybody's."""

    async def free(self) -> None:
        """Nothing was filled."""

    async def ensure(self) -> None:
        """One of the two runs."""

    def stop(self) -> None:
        for home in self._homes:
            with contextlib.suppress(AssertionError):
                self._run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", home / "data")

    def _start(self, home: Path, more: str = "") -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories={home} -c fsync=off {more}"
        self._run("pg_ctl", "start", "-w", "-D", home / "data", "-l", home / "log", "-o", options)

    def _in_step(self) -> bool:
        with psycopg.connect(self._superuser(self._homes[0]), autocommit=True) as connection:
            found = connection.execute("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'").fetchone()
        return found == (1,)

    def _superuser(self, home: Path) -> str:
        return as_url("", user="postgres", dbname="postgres", host=str(home), port="5432")

    def _run(self, command: str, *arguments: str | Path) -> None:
        code, printed = asyncio.run(self._user.run(DEBIAN_15 / command, *arguments, cwd=Path("/tmp")))
        assert code == 0, printed


@contextlib.contextmanager
def a_pair() -> Iterator[Pair]:
    """Both, in step; gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="cs-pair-", dir="/tmp"))
    os.chmod(folder, 0o755)
    pair = Pair(folder)
    try:
        yield pair
    finally:
        pair.stop()
        shutil.rmtree(folder, ignore_errors=True)
