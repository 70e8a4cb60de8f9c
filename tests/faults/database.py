"""The PostgreSQL of a run: on a small disk of its own where that can be had, so that the disk can be full."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg

from circuit_script.db.embedded import EmbeddedPostgres
from circuit_script.errors import StartError
from tests import servers

DISK = 1200  # MB


class Database:
    """The wheel's server. ``url`` goes straight to it, past every proxy."""

    def __init__(self, folder: Path, *, own_disk: bool) -> None:
        self.own_disk = own_disk
        self._folder = folder
        self._postgres = EmbeddedPostgres(folder)
        self._ballast = folder / "ballast"
        self._server = servers.embedded(folder)
        # A tmpfs is small: the log is kept short, and so a crash's recovery too.
        self._server.run("ALTER SYSTEM SET max_wal_size = '80MB'", "ALTER SYSTEM SET min_wal_size = '32MB'")
        self._server.run("SELECT pg_reload_conf()")
        self.name = self._server.create_database(servers.TEMPLATE)
        self.url = self._server.url(self.name)

    @property
    def socket(self) -> str:
        return next(str(path) for path in self._home.rglob(".s.PGSQL.*") if path.suffix != ".lock")

    def url_at(self, port: int) -> str:
        """The URL by a proxy on loopback."""
        return servers.as_url(self.url, host="127.0.0.1", port=str(port))

    async def restart(self) -> None:
        """End it at once, as a crash does, and start it again."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(self._pid(), signal.SIGQUIT)
        while await asyncio.to_thread(self._postgres.running):
            await asyncio.sleep(0.01)
        try:
            await self.ensure()
        except StartError:
            if not self._ballast.exists():  # a full disk lets no server start: :meth:`free` will
                await self.ensure()

    async def ensure(self) -> None:
        """Start it if it does not run: a full disk may have ended it."""
        if not await asyncio.to_thread(self._postgres.running):
            await self._postgres.start()

    async def terminate(self) -> None:
        """End the sessions of the platform."""
        with contextlib.suppress(psycopg.Error):
            await asyncio.to_thread(
                self._server.run,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                f"WHERE datname = '{self.name}' AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
            )

    async def fill(self, *, wal: bool) -> None:
        """Leave no byte on its disk; with ``wal`` it also needs a new segment of its log at once."""
        await asyncio.to_thread(self._fill)
        if wal:
            with contextlib.suppress(psycopg.Error):
                await asyncio.to_thread(self._server.run, *["SELECT pg_switch_wal()"] * 6)

    async def free(self) -> None:
        self._ballast.unlink(missing_ok=True)
        await self.ensure()

    def _fill(self) -> None:
        with self._ballast.open("wb") as file, contextlib.suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, max(1, shutil.disk_usage(self._folder).free))
        piece = b"\0" * 4096
        with self._ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(piece):
                pass

    @property
    def _home(self) -> Path:
        pointer = self._folder / ".circuit" / "postgres.location"
        return Path(pointer.read_text().strip()) if pointer.exists() else self._folder / ".circuit" / "postgres"

    def _pid(self) -> int:
        return int((self._home / "data" / "postmaster.pid").read_text().split("\n", 1)[0])


@contextlib.contextmanager
def started() -> Iterator[Database]:
    """A server in a folder of its own; gone afterwards."""
    parent = Path(tempfile.mkdtemp(prefix="cs-faults-", dir="/tmp"))
    folder = parent / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "tmpfs", str(folder)]
    own_disk = os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0
    for each in (parent, folder):
        each.chmod(0o755)
    try:
        yield Database(folder, own_disk=own_disk)
    finally:
        (folder / "ballast").unlink(missing_ok=True)
        asyncio.run(servers.remove(folder)) if not own_disk else _remove_disk(folder)
        shutil.rmtree(parent, ignore_errors=True)


def _remove_disk(folder: Path) -> None:
    with contextlib.suppress(OSError):
        asyncio.run(servers.remove(folder))
    subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)
