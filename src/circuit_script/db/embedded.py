"""The PostgreSQL that comes with Circuit Script: it lives in the app's ``.circuit`` and starts by itself.

    .circuit/postgres.password             of the login role `circuit`         (0600)
    .circuit/postgres.superuser.password   of the bootstrap superuser          (0600)
    .circuit/postgres.lock                 one process at a time starts or stops
    .circuit/postgres.location             where the data is, if not here
    .circuit/postgres/{data,socket,log}    owned by the server's user, closed to others

It listens on a Unix socket only and asks every user for a password (SCRAM): governed children run on the same
host. Nothing but the folders named here gets other permissions. The server outlives whoever started it; the
next start finds it and uses it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import psycopg

from circuit_script.db import server_lock, server_user
from circuit_script.errors import DatabaseUnavailable, NotRunning, StartError

LOGIN = "circuit"
SUPERUSER = "postgres"
PORT = 5432  # names the socket's file; no TCP port is opened
_SOCKET_PATH_MAX = 100  # sun_path holds 108 bytes on Linux and 104 on macOS
_ORPHANS_TIMEOUT = 15  # seconds that backends of a killed server get to end
_START_TIMEOUT = 300  # seconds; recovery after a crash may have much to read

# Of SCRAM, for our own two passwords: rounds make a weak one harder to guess. Ours are 192 random bits, which nobody
# guesses, and the usual 4,096 rounds take 12 ms of the processor at each connection. Roles that you add get those.
_ONE_ROUND = "scram_iterations=1"

_CONFIGURATION = """\
# Written at every start. Your own settings go into yours.conf beside this file.
listen_addresses = ''
port = {port}
unix_socket_directories = '{socket}'
unix_socket_permissions = 0700
password_encryption = 'scram-sha-256'
scram_iterations = 4096
max_connections = 60
shared_buffers = 64MB
effective_cache_size = 512MB
work_mem = 8MB
maintenance_work_mem = 64MB
fsync = on
synchronous_commit = on
wal_compression = off
max_wal_size = 1GB
min_wal_size = 128MB
checkpoint_timeout = 10min
wal_level = replica
max_wal_senders = 0
random_page_cost = 1.1
jit = off
autovacuum_naptime = 15s
logging_collector = off
log_min_duration_statement = -1
log_line_prefix = '%m [%p] '
timezone = 'UTC'
include_if_exists = 'yours.conf'
"""

# The server's own words (lower case) for a failure that has a cure.
_CURES = (
    ("no space left on device", "Free some space on the disk that holds {data}."),
    ("could not write", "Free some space on the disk that holds {data}, or check that it is writable."),
    ("permission denied", "Give this user the folder {data}, or run as its owner."),
    ("read-only file system", "Put the app on a disk that can be written to, or set DATABASE_URL."),
    ("could not create shared memory", "Give the machine or container more shared memory (/dev/shm)."),
    ("invalid data in file", "Restore {data} from a backup, or set DATABASE_URL."),
)


class EmbeddedPostgres:
    """One PostgreSQL for the app in ``folder`` (its data goes to ``folder/.circuit``)."""

    def __init__(self, folder: Path) -> None:
        self._circuit = folder.resolve() / ".circuit"

    async def start(self) -> str:
        """Start it, or find it running; the login role's conninfo URL.

        Makes the database on the first start. Raises StartError or DatabaseUnavailable, each with a cure.
        """
        with self._explained():
            self._circuit.mkdir(parents=True, exist_ok=True)
            async with self._alone():
                return await self._start()

    async def stop(self) -> None:
        """Stop it, for everybody who uses it. Nothing happens when it is not running."""
        if not self._circuit.is_dir():
            return
        with self._explained():
            async with self._alone():
                home = self._home_so_far()
                if home is not None and server_lock.is_running(home / "data"):
                    user = server_user.choose(home)
                    bin_, _ = server_user.binaries(user)
                    await user.run(bin_ / "pg_ctl", "stop", "-D", home / "data", "-m", "fast", "-t", "60", cwd=home)

    def dismiss(self) -> None:
        """Tell it to stop, and do not wait: whoever uses it is cut off, what is committed stays."""
        home = self._home_so_far()
        if home is not None and server_lock.is_running(home / "data"):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int((home / "data" / "postmaster.pid").read_text("ascii").split("\n", 1)[0]), signal.SIGINT)

    def running(self) -> bool:
        """Whether its process lives (it may still be starting or recovering)."""
        home = self._home_so_far()
        return home is not None and server_lock.is_running(home / "data")

    @property
    def home(self) -> Path | None:
        """Where its data is; None until that has been decided."""
        return self._home_so_far()

    @property
    def running_url(self) -> str:
        """The login role's conninfo URL. Raises StartError when the server is not running; never starts it."""
        home = self._home_so_far()
        if home is None or not self.running():
            raise NotRunning(
                f"The database of {self._circuit.parent} is stopped.",
                cure="Start the app (circuit-script dev), or set DATABASE_URL.",
            )
        return self._url(home, LOGIN, LOGIN)

    @property
    def superuser_url(self) -> str:
        """The bootstrap superuser's conninfo URL, for repair and tests; the platform never uses it."""
        home = self._home_so_far()
        if home is None:
            raise StartError(
                "The embedded PostgreSQL has not been started yet.", cure="Start it first.", page="not-running"
            )
        return self._url(home, SUPERUSER, "postgres")

    async def _start(self) -> str:
        user = server_user.choose(self._home_so_far() or self._circuit / "postgres")
        self._circuit.chmod(0o711 if user.switch else 0o700)
        home = self._settled_home(user)
        bin_, major = server_user.binaries(user)
        data = home / "data"
        if not data.exists():
            await self._create(user, home, bin_)
        _refuse_other_version(data, major)
        url = self._url(home, LOGIN, LOGIN)
        if (data / "postmaster.pid").exists() and await _answers(url):
            return url
        await self._launch(user, home, bin_)
        if not await _answers(url):
            raise DatabaseUnavailable(
                "The embedded PostgreSQL started but does not let us in.", cure=f"Its log is {home / 'log'}."
            )
        return url

    def _home_so_far(self) -> Path | None:
        """Where the data is, once it has been decided."""
        pointer = self._circuit / "postgres.location"
        if pointer.exists():
            return Path(pointer.read_text("utf-8").strip())
        own = self._circuit / "postgres"
        return own if own.is_dir() else None

    def _settled_home(self, user: server_user.ServerUser) -> Path:
        home = self._home_so_far()
        if home is None:
            home = server_user.home_for(user, self._circuit / "postgres")
            if home.parent != self._circuit:
                _write_private(self._circuit / "postgres.location", f"{home}\n")
        if not user.reaches(home):
            raise StartError(
                f"The server's user cannot reach {home}: a folder above it is closed to others.",
                cure=f"Open the folder for walking (chmod o+x), or move the data and name its new place in "
                f"{self._circuit / 'postgres.location'}.",
                page="folder-not-writable",
            )
        user.own_folder(home)
        user.own_folder(_socket_folder(home))
        return home

    async def _create(self, user: server_user.ServerUser, home: Path, bin_: Path) -> None:
        """Make the database beside its place and rename it: a half-made one is never taken for whole."""
        _remove_unfinished(home)
        attempt = secrets.token_hex(4)  # a name of its own: the initdb of a killed start may still be writing
        scratch, password_file = home / f"data.new-{attempt}", home / f"password.new-{attempt}"
        superuser, login = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        try:
            _write_private(password_file, superuser)
            if user.switch:
                os.chown(password_file, user.uid, user.gid)
            await self._initialise(user, home, bin_, scratch, password_file)
            (scratch / "pg_hba.conf").write_text("local all all scram-sha-256\n", "utf-8")
            await self._make_login(user, home, bin_, scratch, login)
            _write_private(self._circuit / "postgres.superuser.password", superuser)
            _write_private(self._circuit / "postgres.password", login)
            scratch.rename(home / "data")
            _sync_folder(home)
        finally:
            _remove_unfinished(home)

    async def _initialise(
        self, user: server_user.ServerUser, home: Path, bin_: Path, scratch: Path, password_file: Path
    ) -> None:
        code, printed = await user.run(
            bin_ / "initdb",
            *("-D", scratch, "-U", SUPERUSER, f"--pwfile={password_file}"),
            *("--auth=scram-sha-256", "--encoding=UTF8"),
            *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            *("--set", _ONE_ROUND),
            cwd=home,
        )
        if code:
            raise _failure("The embedded PostgreSQL could not be made.", printed, home)

    async def _make_login(
        self, user: server_user.ServerUser, home: Path, bin_: Path, scratch: Path, password: str
    ) -> None:
        """Single-user mode: no server answers before it has its passwords."""
        code, printed = await user.run(
            *(bin_ / "postgres", "--single", "-D", scratch, "-c", _ONE_ROUND, "postgres"),
            cwd=home,
            stdin=f"CREATE ROLE {LOGIN} LOGIN NOSUPERUSER CREATEROLE PASSWORD '{password}'\n"
            f"CREATE DATABASE {LOGIN} OWNER {LOGIN}\n",
        )
        if code or "ERROR:" in printed:
            raise _failure("The embedded PostgreSQL could not be set up.", printed.replace(password, "…"), home)

    async def _launch(self, user: server_user.ServerUser, home: Path, bin_: Path) -> None:
        """pg_ctl detaches the server from us, so that it survives our end."""
        data, log = home / "data", home / "log"
        text = _CONFIGURATION.format(port=PORT, socket=str(_socket_folder(home)).replace("'", "''"))
        _write_private(data / "postgresql.conf", text)
        if user.switch:
            os.chown(data / "postgresql.conf", user.uid, user.gid)
        if log.exists():
            log.replace(home / "log.previous")
        for lock in (data / "postmaster.pid", _socket_folder(home) / f".s.PGSQL.{PORT}.lock"):
            server_lock.free_stale(lock, data)
        deadline = asyncio.get_running_loop().time() + _ORPHANS_TIMEOUT
        while True:
            code, printed = await user.run(
                *(bin_ / "pg_ctl", "start", "-D", data, "-l", log, "-w", "-t", str(_START_TIMEOUT)), cwd=home
            )
            if not code:
                return
            printed += log.read_text("utf-8", errors="replace") if log.exists() else ""
            orphaned = "is still in use" in printed or "is already in use" in printed
            if not orphaned or asyncio.get_running_loop().time() > deadline:
                raise _failure("The embedded PostgreSQL did not start.", printed, home)
            await asyncio.sleep(0.1)  # a killed server's last backends are about to notice

    def _url(self, home: Path, role: str, database: str) -> str:
        path = self._circuit / ("postgres.password" if role == LOGIN else "postgres.superuser.password")
        try:
            password = path.read_text("utf-8").strip()
        except FileNotFoundError:
            raise StartError(
                f"The password of the embedded PostgreSQL is gone: {path}.",
                cure=f"Restore it, or move {home} and {self._circuit} away to begin with an empty database.",
                page="database-password",
            ) from None
        where = urlencode({"host": str(_socket_folder(home)), "port": PORT}, quote_via=quote)
        return f"postgresql://{role}:{password}@/{database}?{where}"

    @contextlib.asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Hold the folder's lock. The kernel frees it when its holder dies."""
        file = os.open(self._circuit / "postgres.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(0.01)
            yield
        finally:
            os.close(file)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn the operating system's refusals into errors that say what to do."""
        try:
            yield
        except OSError as error:
            raise StartError(
                f"{error.strerror}: {error.filename or self._circuit}.",
                cure=_cure(error, self._circuit),
                page="folder-not-writable",
            ) from error


async def _answers(url: str) -> bool:
    """Whether the server lets us in; waits while it is still starting up or recovering."""
    deadline = asyncio.get_running_loop().time() + _START_TIMEOUT
    while True:
        try:
            connection = await psycopg.AsyncConnection.connect(url, connect_timeout=10)
        except psycopg.OperationalError as error:
            if not _is_starting(error) or asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(0.02)
        else:
            await connection.close()
            return True


def _is_starting(error: psycopg.OperationalError) -> bool:
    # libpq gives no SQLSTATE for a refused connection, only the text.
    return "the database system is" in str(error)


def _refuse_other_version(data: Path, major: int) -> None:
    stored = int((data / "PG_VERSION").read_text("ascii").strip())
    if stored > major:
        raise StartError(
            f"The data in {data} is of PostgreSQL {stored}, newer than the {major} that is installed here.",
            cure="Install the version of Circuit Script that made it: pip install --upgrade circuit-script.",
            page="database-version",
        )
    if stored < major:
        raise StartError(
            f"The data in {data} is of PostgreSQL {stored}, and {major} is installed here.",
            cure=f"Dump it with the version that made it, or run pg_upgrade from {stored} to {major}.",
            page="database-version",
        )


def _remove_unfinished(home: Path) -> None:
    for scratch in home.glob("data.new-*"):
        shutil.rmtree(scratch, ignore_errors=True)
    for file in home.glob("password.new-*"):
        file.unlink(missing_ok=True)


def _socket_folder(home: Path) -> Path:
    own = home / "socket"
    if len(os.fsencode(own / f".s.PGSQL.{PORT}")) <= _SOCKET_PATH_MAX:
        return own
    name = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    return (server_user.REACHABLE if os.geteuid() == 0 else Path("/tmp")) / f"socket-{name}"


def _failure(what: str, printed: str, home: Path) -> StartError:
    lower = printed.lower()
    cure = next((cure for words, cure in _CURES if words in lower), f"Its log is {home / 'log'}.")
    lines = [
        line for line in printed.splitlines() if any(word in line for word in ("FATAL", "PANIC", "error:", "ERROR"))
    ]
    detail = (lines or printed.strip().splitlines() or [""])[-1].strip()
    return StartError(f"{what} {detail}", cure=cure.format(data=home / "data"), page="embedded-postgres")


def _cure(error: OSError, folder: Path) -> str:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return f"Free some space on the disk that holds {folder}."
        case errno.EACCES | errno.EPERM:
            return f"Let this user write to {folder.parent}, run as its owner, or set DATABASE_URL."
        case errno.EROFS:
            return "Put the app on a disk that can be written to, or set DATABASE_URL."
        case errno.ENOTDIR | errno.EEXIST:
            return f"Move the file {folder} away: a folder of that name is needed."
        case _:
            return "Set DATABASE_URL to use another PostgreSQL."


def _write_private(path: Path, text: str) -> None:
    """Write ``text`` whole or not at all, readable by its owner only."""
    scratch = path.with_name(f"{path.name}.tmp")
    scratch.unlink(missing_ok=True)
    file = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    scratch.rename(path)


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
