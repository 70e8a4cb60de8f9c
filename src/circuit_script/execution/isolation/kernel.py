"""System calls that Python has no function for, by number. Each raises OSError that names the call."""

from __future__ import annotations

import ctypes
import os

MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4
AT_RECURSIVE, AT_EMPTY_PATH = 0x8000, 0x1000
AT_FDCWD = -100
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 2, 4, 8, 32, 4096
MS_RDONLY, MS_REC, MS_PRIVATE, MS_SLAVE = 1, 16384, 1 << 18, 1 << 19
MNT_DETACH = 2
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWNET = 0x20000, 0x8000000, 0x10000000, 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_MOUNT_SETATTR = 442  # from 424 on every architecture has the same numbers


def call(name: str, number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """One system call. Integers are handed over as 64 bits."""
    given = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *given)
    if result < 0:
        raise _failed(name)
    return result


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    encoded = (source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), data.encode())
    if _libc.mount(*encoded) != 0:
        raise _failed(f"mount {target}")


def umount(target: str, flags: int = 0) -> None:
    if _libc.umount2(os.fsencode(target), flags) != 0:
        raise _failed(f"umount {target}")


def unshare(flags: int) -> None:
    if _libc.unshare(flags) != 0:
        raise _failed("unshare")


def pivot_root(new: str, old: str) -> None:
    call("pivot_root", _PIVOT_ROOT[os.uname().machine], os.fsencode(new), os.fsencode(old))


def read_only(mounted: str) -> None:
    """Make what is mounted here, and everything mounted below it, read-only, without devices and setuid programs."""
    attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
    words = ctypes.create_string_buffer(b"".join(each.to_bytes(8, "little") for each in (attributes, 0, 0, 0)), 32)
    call("mount_setattr", _MOUNT_SETATTR, AT_FDCWD, os.fsencode(mounted), AT_RECURSIVE, words, 32)


def _failed(name: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{name}: {os.strerror(number)}")
