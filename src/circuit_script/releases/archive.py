"""A release's files, kept as one compressed archive, so that past events can be tried with it again.

It holds what the release's content hash covers and nothing else: no circuit.toml, no .env, no folder beside the app's
own. What is unpacked is therefore checked by the same hash.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gzip
import io
import os
import tarfile
import tempfile
import time
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import structlog

from circuit_script.db.pool import Connection
from circuit_script.errors import ReplayRefused
from circuit_script.execution.isolation.emptying import remove
from circuit_script.releases.records import Release, content_hash, files_of

LARGEST = 16 * 1024 * 1024  # bytes, compressed
RATIO = 16  # a file that is larger by this is not even read
PREFIX = "circuit-release-"
YOUNG = 5.0  # seconds for which a folder may be about to be locked by who made it
_BROKEN = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError)
KNOWN = "SELECT FROM circuit.release_sources WHERE release = %s"
KEEP = "INSERT INTO circuit.release_sources (release, source) VALUES (%s, %s) ON CONFLICT DO NOTHING"
FIND = """
SELECT r.content_hash, s.source FROM circuit.releases r LEFT JOIN circuit.release_sources s ON s.release = r.id
WHERE r.id = %s
"""
THERE = """
SELECT s.release IS NOT NULL FROM circuit.releases r LEFT JOIN circuit.release_sources s ON s.release = r.id
WHERE r.id = %s
"""

log = structlog.get_logger()


class TooLarge(Exception):
    """The files are more than is kept."""


def pack(folder: Path) -> bytes:
    """The app's source and data files, as a gzipped tar. Raises OSError, and TooLarge once it is known: there may be
    more than fits in memory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(files_of(folder)):
            with contextlib.suppress(FileNotFoundError):  # an editor's file, gone by now
                size = path.stat().st_size
                if size > LARGEST * RATIO or buffer.tell() > LARGEST:
                    raise TooLarge
                data = path.read_bytes()
                entry = tarfile.TarInfo("/".join(path.relative_to(folder).parts))
                entry.size, entry.mode = len(data), 0o644
                archive.addfile(entry, io.BytesIO(data))
    if buffer.tell() > LARGEST:
        raise TooLarge
    return buffer.getvalue()


async def keep_source(connection: Connection, release: Release, folder: Path) -> None:
    """Keep the release's files, unless they are kept already. What cannot be kept is told in the log: the release is
    live all the same. Raises psycopg.Error."""
    if await (await connection.execute(KNOWN, [release.id])).fetchone() is not None:
        return
    why = ""
    try:
        source = await asyncio.to_thread(pack, folder)
        if await asyncio.to_thread(content_hash, folder) != release.content_hash:
            why = "its files have changed since it was imported"
    except TooLarge:
        why = f"at most {LARGEST:,} bytes are kept of its files, compressed, and there are more"
    except OSError as error:
        why = f"{error.filename}: {error.strerror}"
    if why:
        log.warning("release.source", release=release.id, why=why, next="past events cannot be tried with it later")
        return
    await connection.execute(KEEP, [release.id, source])


async def check_kept(connection: Connection, release: int) -> None:
    """Raises ReplayRefused unless there is such a release and its files were kept; psycopg.Error."""
    row = await (await connection.execute(THERE, [release])).fetchone()
    _checked(release, row is not None, row is not None and row[0])


@contextlib.asynccontextmanager
async def unpacked(connection: Connection, release: int) -> AsyncIterator[Path]:
    """The release's files in a private folder, removed at the end. Raises ReplayRefused when they were not kept."""
    row = await (await connection.execute(FIND, [release])).fetchone()
    digest, source = row if row is not None else (None, None)
    _checked(release, row is not None, source is not None)
    async with _own_folder() as place:
        try:
            await asyncio.to_thread(_unpack, bytes(source), place)
            same = await asyncio.to_thread(content_hash, place) == digest
        except _BROKEN:
            same = False
        if not same:
            raise ReplayRefused(f"The files of release {release} are not what they were.")
        yield place


@contextlib.asynccontextmanager
async def _own_folder() -> AsyncIterator[Path]:
    """A private folder, locked for as long as it is used and removed then, whatever was put into it."""
    folder = tempfile.mkdtemp(prefix=PREFIX)
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with contextlib.suppress(OSError):  # where nothing can be locked, nothing counts as abandoned either
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            yield Path(folder)
        finally:
            os.close(lock)
    finally:
        await asyncio.to_thread(remove, folder)


def remove_abandoned() -> None:
    """Remove the folders of releases that processes of this user had unpacked when they were killed."""
    with contextlib.suppress(OSError), os.scandir(tempfile.gettempdir()) as found:
        for entry in found:
            if entry.name.startswith(PREFIX):
                _remove_unused(entry.path)


def _remove_unused(folder: str) -> None:
    with contextlib.suppress(OSError):
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(lock)
            if found.st_uid == os.geteuid() and time.time() - found.st_mtime > YOUNG:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(folder)
        finally:
            os.close(lock)


def _checked(release: int, known: bool, kept: bool) -> None:
    if not known:
        raise ReplayRefused(f"There is no release {release}.", cure="`circuit-script status` names the live one.")
    if not kept:
        raise ReplayRefused(f"The files of release {release} were not kept.", cure="Replay through the live release.")


def _unpack(source: bytes, folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(source), mode="r:gz") as archive:
        archive.extractall(folder, filter="data")
    for place, folders, _ in os.walk(folder):
        for name in folders:
            os.chmod(os.path.join(place, name), 0o755)  # whatever our umask is: strict children have another uid
