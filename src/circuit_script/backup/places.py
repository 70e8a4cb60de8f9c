"""Where copies are kept: a folder, or a prefix of a bucket."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from circuit_script.errors import BackupRefused

SUFFIX = ".backup"
BY_PLAN = "planned"
FORGETS = "forgets.json"
_PLANNED = re.compile(rf"circuit-([0-9a-f]{{8}})-\d{{8}}T\d{{6}}Z-{BY_PLAN}\{SUFFIX}(\.part)?")


class Place(Protocol):
    """A place for files with names."""

    async def put(self, file: Path, name: str) -> str:
        """Keep a copy of the file; where it is now."""

    async def names(self) -> list[str]:
        """What lies there."""

    async def fetch(self, name: str, to: Path) -> None: ...

    async def remove(self, name: str) -> None: ...


class FolderPlace:
    """A folder of this host, or one that is mounted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, file: Path, name: str) -> str:
        return await asyncio.to_thread(self._put, file, name)

    def _put(self, file: Path, name: str) -> str:
        target = self._folder / name
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            _copy(file, target.with_name(f"{name}.part"), target)
        except OSError as error:
            raise _not_there(self._folder, error) from error
        return str(target)

    async def names(self) -> list[str]:
        try:
            return sorted(each.name for each in self._folder.iterdir()) if self._folder.is_dir() else []
        except OSError as error:
            raise _not_there(self._folder, error) from error

    async def fetch(self, name: str, to: Path) -> None:
        try:
            await asyncio.to_thread(shutil.copyfile, self._folder / name, to)
        except OSError as error:
            raise _not_there(self._folder / name, error) from error

    async def remove(self, name: str) -> None:
        try:
            (self._folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise _not_there(self._folder / name, error) from error


def is_remote(target: str) -> bool:
    """Whether it is an address of a bucket."""
    return target.startswith("s3://")


def open_place(target: str, endpoint_url: str | None = None) -> Place:
    """The place that ``target`` names. Raises BackupRefused when it cannot be one."""
    if not is_remote(target):
        return FolderPlace(Path(target))
    from circuit_script.backup.s3 import Bucket  # only who keeps copies there has boto3

    return Bucket.of(target, endpoint_url)


def file_name(installation: str, moment: datetime, *, planned: bool = False) -> str:
    """The name of a copy: whose it is, and of when. Those made by plan are known by it, and deleted in their turn."""
    return (
        f"circuit-{installation[:8]}-{moment.astimezone(UTC):%Y%m%dT%H%M%SZ}{f'-{BY_PLAN}' if planned else ''}{SUFFIX}"
    )


def outdated(names: list[str], installation: str, keep: int) -> list[str]:
    """Copies that this installation made by plan, but for the latest ``keep``, and what it left half made."""
    own = [found for name in sorted(names) if (found := _PLANNED.fullmatch(name)) and found[1] == installation[:8]]
    return [found[0] for found in own if found[2]] + [found[0] for found in own if not found[2]][:-keep]


def _copy(file: Path, part: Path, target: Path) -> None:
    """Whole or not at all, and from its first byte on for its owner only."""
    part.unlink(missing_ok=True)
    try:
        with file.open("rb") as read, open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as written:
            shutil.copyfileobj(read, written, 1 << 20)
            written.flush()
            os.fsync(written.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _not_there(path: Path, error: OSError) -> BackupRefused:
    return BackupRefused(f"{path}: {error.strerror}.", cure="Choose another place, or let this user use it.")
