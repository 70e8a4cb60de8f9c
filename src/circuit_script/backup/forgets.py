"""The list of who was forgotten, as a file beside the copies: it outlives the database that it is of."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from circuit_script.erasure import Remembered
from circuit_script.errors import BackupRefused


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
