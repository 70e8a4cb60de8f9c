"""Landlock: what a process and those below it may do with files, and whom they may signal or trace.

It can only take away, needs no rights, and each layer holds beside those before it. The kernel's own page:
Documentation/userspace-api/landlock.rst. ABI 5 handles all rights on files, ABI 6 (Linux 6.12) scopes signals.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable

from circuit_script.execution.isolation.kernel import call

OLDEST = 6  # the ABI that `strict` needs
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION = 1  # flag of _CREATE: tell the ABI
_PATH_BENEATH = 1
_SIGNALS = 2
_SCOPES = _SIGNALS | 1  # and abstract Unix sockets

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_EVERY_RIGHT = (1 << 16) - 1
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_TCP = 3  # bind, connect
READ = _EXECUTE | _READ_FILE | _READ_DIR
WRITE = _EVERY_RIGHT & ~_IOCTL_DEV


def abi() -> int:
    """The version that this kernel speaks; 0 for none."""
    try:
        return call("landlock_create_ruleset", _CREATE, None, 0, _VERSION)
    except OSError:
        return 0


def scope() -> bool:
    """From here on this process, and what it starts, can signal and trace nobody outside. False without ABI 6."""
    if abi() < OLDEST:
        return False
    _enforce(_ruleset(0, 0))
    return True


def scope_signals() -> bool:
    """From here on this process, and what it starts, can signal and trace nobody outside. False without ABI 6."""
    if abi() < OLDEST:
        return False
    _enforce(_ruleset(0, 0, _SIGNALS))
    return True


def fence(read: Iterable[str], write: Iterable[str], listed: Iterable[str] = ()) -> None:
    """From here on only these paths can be read and run, only those be written to, and the names in these folders be
    ``listed``; no TCP; and `scope`.

    Paths that do not exist are left out. Raises OSError.
    """
    ruleset = _ruleset(_EVERY_RIGHT, _TCP)
    for rights, paths in ((READ, read), (WRITE, write), (_READ_DIR, listed)):
        for path in paths:
            _allow(ruleset, path, rights)
    _enforce(ruleset)


def _ruleset(files: int, network: int, scopes: int = _SCOPES) -> int:
    words = b"".join(each.to_bytes(8, "little") for each in (files, network, scopes))
    return call("landlock_create_ruleset", _CREATE, ctypes.create_string_buffer(words, 24), 24, 0)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError, NotADirectoryError):
        return
    try:
        if not stat.S_ISDIR(os.fstat(opened).st_mode):
            rights &= _OF_FILES
        rule = ctypes.create_string_buffer(rights.to_bytes(8, "little") + opened.to_bytes(4, "little"), 12)
        call("landlock_add_rule", _ADD, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(opened)


def _enforce(ruleset: int) -> None:
    try:
        call("landlock_restrict_self", _RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)
