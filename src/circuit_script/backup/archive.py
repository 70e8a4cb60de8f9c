"""The file of a backup: a zip with one member per table, as COPY writes it, and a manifest with a checksum of each.

    unzip -p circuit.backup manifest.json          what is in it
    unzip -p circuit.backup tables/records.copy    a table, as text

The manifest's own checksum stands in the zip's comment, so at the very end of the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

import msgspec

from circuit_script.errors import BackupRefused

FORMAT = 1
MANIFEST = "manifest.json"
_COMMENT = b"circuit-script backup sha256:"
_READ = 1 << 20
_FAST = 1  # zlib's level: a backup waits for the database, not for the last percent


@dataclass(frozen=True, slots=True)
class TableEntry:
    """One table: the columns in their order, and what its member must be."""

    name: str
    columns: tuple[str, ...]
    rows: int
    bytes: int
    sha256: str
    days: tuple[str, ...] = ()  # of its partitions, YYYYMMDD

    @property
    def member(self) -> str:
        return f"tables/{self.name}.copy"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup is of. ``migrations`` maps names to checksums, ``sequences`` names to their last value."""

    format: int
    version: str
    server: str
    database: str
    installation: str
    taken_at: datetime
    migrations: dict[str, str]
    sequences: dict[str, int]
    tables: tuple[TableEntry, ...]

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables)


class Sink:
    """One table on its way into the file."""

    def __init__(self, member: IO[bytes]) -> None:
        self._member = member
        self._hash = hashlib.sha256()
        self._bytes = 0

    def write(self, data: bytes) -> None:
        self._hash.update(data)
        self._bytes += len(data)
        self._member.write(data)

    def entry(self, name: str, columns: tuple[str, ...], rows: int, days: tuple[str, ...]) -> TableEntry:
        return TableEntry(name, columns, rows, self._bytes, self._hash.hexdigest(), days)


class Writer:
    """Writes one backup. Nothing has the file's name before it is whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f"{path.name}.part")

    def __enter__(self) -> Writer:
        self._part.unlink(missing_ok=True)
        # Everything is in it: for its owner only.
        number = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(number, "w+b")
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_DEFLATED, compresslevel=_FAST)
        return self

    @contextlib.contextmanager
    def table(self, name: str) -> Iterator[Sink]:
        with self._zip.open(f"tables/{name}.copy", "w", force_zip64=True) as member:
            yield Sink(member)

    def finish(self, manifest: Manifest) -> None:
        text = msgspec.json.format(msgspec.json.encode(manifest))
        self._zip.writestr(MANIFEST, text)
        self._zip.comment = _COMMENT + hashlib.sha256(text).hexdigest().encode()
        self._zip.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.replace(self._path)

    def __exit__(self, *_: object) -> None:
        if not self._file.closed:  # it was cut short
            with contextlib.suppress(Exception):
                self._zip.close()
            self._file.close()
            self._part.unlink(missing_ok=True)


def verify(path: Path) -> Manifest:
    """The manifest, once every byte of the file was found as it was written. Raises BackupRefused."""
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = _manifest(archive, path)
            for table in manifest.tables:
                _check(archive, table, path)
            return manifest
    except FileNotFoundError:
        raise BackupRefused(f"There is no file {path}.", cure="Give the file that `backup` has made.") from None
    except OSError as error:
        raise BackupRefused(f"{path}: {error.strerror}.", cure="Let this user read it.") from None
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, NotImplementedError) as error:
        raise _spoiled(path, f"it is no whole backup ({error})") from None


@contextlib.contextmanager
def reading(path: Path, table: TableEntry) -> Iterator[Iterator[bytes]]:
    """The rows of a table, in parts."""
    with zipfile.ZipFile(path) as archive, archive.open(table.member) as member:
        yield iter(lambda: member.read(_READ), b"")


def _manifest(archive: zipfile.ZipFile, path: Path) -> Manifest:
    text = archive.read(MANIFEST)
    if archive.comment != _COMMENT + hashlib.sha256(text).hexdigest().encode():
        raise _spoiled(path, "its manifest is not the one that was written")
    try:
        number = msgspec.json.decode(text)["format"]
        if number != FORMAT:
            raise BackupRefused(
                f"{path} has the format {number}, and this version reads {FORMAT}.",
                cure="Restore it with the version of Circuit Script that made it, or a newer one.",
            )
        return msgspec.json.decode(text, type=Manifest)
    except (msgspec.MsgspecError, LookupError, TypeError) as error:
        raise _spoiled(path, f"its manifest cannot be read: {error}") from None


def _check(archive: zipfile.ZipFile, table: TableEntry, path: Path) -> None:
    digest, size, rows = hashlib.sha256(), 0, 0
    with archive.open(table.member) as member:
        while part := member.read(_READ):
            digest.update(part)
            size += len(part)
            rows += part.count(b"\n")
    if (size, rows, digest.hexdigest()) != (table.bytes, table.rows, table.sha256):
        raise _spoiled(path, f"the rows of {table.name} are not those that were written")


def _spoiled(path: Path, why: str) -> BackupRefused:
    return BackupRefused(
        f"{path} was cut short or changed: {why}.", cure="Fetch it again, or take another backup. Nothing was changed."
    )
