"""Removes what untrusted code has left in a folder: however deep, long-named, or closed against its own owner."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove(folder: str) -> bool:
    """Remove this folder with all that is in it; whether it is gone. Never raises OSError or RecursionError."""
    with suppress(OSError):
        os.rmdir(folder)
        return True
    try:
        top = os.open(folder, _FOLDER)
    except OSError:
        return not os.path.lexists(folder)
    try:
        _empty(top)
        os.rmdir(folder)
    except OSError:
        return False
    finally:
        os.close(top)
    return True


def _empty(top: int) -> None:
    """A folder below another is lifted to the top, so that neither depth nor the length of paths matters."""
    lifted = 0
    prefix = secrets.token_hex(8)
    while names := os.listdir(top):
        went_on = False
        for name in names:
            if _unlinked(name, top):
                went_on = True
                continue
            with suppress(OSError):
                found = _open(name, top)
                try:
                    for inner in os.listdir(found):
                        if not _unlinked(inner, found):
                            os.close(_open(inner, found))  # makes it one that can be moved
                            lifted += 1
                            os.rename(inner, f"{prefix}-{lifted}", src_dir_fd=found, dst_dir_fd=top)
                        went_on = True
                finally:
                    os.close(found)
                os.rmdir(name, dir_fd=top)
                went_on = True
        if not went_on:
            return


def _unlinked(name: str, folder: int) -> bool:
    """Whether it was no folder, and is gone."""
    try:
        os.unlink(name, dir_fd=folder)
    except OSError:
        return False
    return True


def _open(name: str, parent: int) -> int:
    """This folder, opened for its owner first where it was closed."""
    try:
        found = os.open(name, _FOLDER, dir_fd=parent)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=parent)
        return os.open(name, _FOLDER, dir_fd=parent)
    with suppress(OSError):
        os.fchmod(found, 0o700)
    return found
