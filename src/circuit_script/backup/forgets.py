"""The list of who was forgotten, as a file beside the copies: it outlives the database that it is of.

In a place that many hosts write to, and that has no lock, each writer puts a list of its own and then removes those
that it had read: what another has put meanwhile stays.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from circuit_script.backup.places import FORGETS, Place
from circuit_script.clock import uuid7
from circuit_script.erasure import Remembered
from circuit_script.errors import BackupRefused

_ONE = re.compile(r"forgets(-[0-9a-f]{32})?\.json")


def read_forgets(path: Path) -> list[Remembered]:
    """The list in the file; none where there is no file. Raises BackupRefused when it cannot be read: who was
    forgotten must not come back unnoticed."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Remembered])
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError) as error:
        raise BackupRefused(
            f"{path} should list who was forgotten, and cannot be read: {error}.",
            cure="Mend it, or move it away if it is no such list.",
        ) from None


def write_forgets(path: Path, entries: Sequence[Remembered]) -> None:
    """Whole or not at all. What the file had of another database stays in it, and what another process adds to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        _write(path, entries)
    finally:
        os.close(folder)


def _write(path: Path, entries: Sequence[Remembered]) -> None:
    both = {(each.hash, each.at): each for each in [*read_forgets(path), *entries]}
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    number = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(number, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(sorted(both.values(), key=lambda each: each.at))))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


async def lists_in(place: Place) -> list[Remembered]:
    """What every list there says. Raises BackupRefused."""
    return (await _fetched(place))[0]


async def add_list(place: Place, entries: Sequence[Remembered]) -> str:
    """Put ``entries`` there, with what the lists there say; where that is now. Raises BackupRefused."""
    known, names = await _fetched(place)
    with tempfile.TemporaryDirectory(prefix="forgets-") as folder:
        file = Path(folder) / FORGETS
        write_forgets(file, [*known, *entries])
        where = await place.put(file, f"forgets-{uuid7().hex}.json")
    for name in names:
        with contextlib.suppress(BackupRefused):  # one that stays says nothing else
            await place.remove(name)
    return where


async def _fetched(place: Place) -> tuple[list[Remembered], list[str]]:
    """The entries of all lists there, and those lists' names."""
    names = _lists(await place.names())
    while True:
        try:
            return [entry for name in names for entry in await _fetch(place, name)], names
        except BackupRefused:  # another writer has replaced some meanwhile, or they cannot be read
            before, names = names, _lists(await place.names())
            if names == before:
                raise


async def _fetch(place: Place, name: str) -> list[Remembered]:
    with tempfile.TemporaryDirectory(prefix="forgets-") as folder:
        file = Path(folder) / FORGETS
        await place.fetch(name, file)
        return read_forgets(file)


def _lists(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if _ONE.fullmatch(name))
