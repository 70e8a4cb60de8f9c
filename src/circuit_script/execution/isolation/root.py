"""A root of its own for a strict zygote that root starts: an empty one, into which only what is needed is mounted.

The interpreter and the app are found at their own paths, read-only, also where folders above them are closed to
others. Nothing of the rest of the machine is there: no other app, no socket, no home.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from circuit_script.execution.isolation import kernel, paths
from circuit_script.execution.isolation.kernel import MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_REC

SLOTS = "/run/circuit"  # a folder for each child, for its temporary files
MOST_SLOTS = 192  # more than the largest worker has children
SLOT_SIZE = 64  # MB
_GROUND = "/sys"  # covered by the new root while it is built; nobody imports code from there


def enter(folder: Path, uid: int, gid: int, home: Path | None = None) -> list[str]:
    """Make the root and move in; the paths that can be read there. ``home`` is not among them. Needs root. Raises
    OSError."""
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC)
    kernel.mount("none", "/", flags=MS_REC | MS_PRIVATE)
    outside = [*paths.topmost([*paths.interpreter(folder, home), *_real(paths.system())]), *paths.DEVICES]
    outside = [path for path in outside if os.path.exists(path)]
    links = {path: os.readlink(path) for path in (*paths.SYSTEM, *paths.entries(folder)) if os.path.islink(path)}
    inside = [path for path in paths.entries(folder) if path not in links]
    opened = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in (*outside, *inside)}
    kernel.mount("circuit", _GROUND, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=4m")
    for path in outside:
        _bind(opened[path], path)
    target = _empty_folder(folder)
    for path in inside:
        _bind(opened[path], path)
    for path, leads_to in links.items():
        if not os.path.lexists(_GROUND + path):
            os.symlink(leads_to, _GROUND + path)
    kernel.read_only(target)
    _slots(uid, gid)
    _made_folder(_GROUND + "/proc")
    kernel.mount("proc", _GROUND + "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "hidepid=2")
    for each in opened.values():
        os.close(each)
    _made_folder(_GROUND + "/tmp")
    kernel.mount("circuit", _GROUND, "", kernel.MS_REMOUNT | MS_BIND | kernel.MS_RDONLY | MS_NOSUID | MS_NODEV)
    os.chdir(_GROUND)
    kernel.pivot_root(".", ".")
    kernel.umount(".", kernel.MNT_DETACH)
    os.chdir(folder)
    return [*outside, *paths.SYSTEM, str(folder), "/proc"]


def _empty_folder(folder: Path) -> str:
    """The app's folder as a new one, so that its own mode does not matter, and what is hidden is not there."""
    target = _GROUND + str(folder)
    if not os.path.exists(target):
        _made_folder(target)
    kernel.mount("circuit", target, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=4m")
    return target


def _bind(source: int, path: str) -> None:
    target = _GROUND + path
    mode = os.fstat(source).st_mode
    if os.path.lexists(target):
        return
    if stat.S_ISDIR(mode):
        _made_folder(target)
    elif stat.S_ISREG(mode) or stat.S_ISCHR(mode):
        _made_folder(os.path.dirname(target))
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    else:
        return  # a socket or a pipe in the app's folder
    kernel.mount(f"/proc/self/fd/{source}", target, flags=MS_BIND | MS_REC)
    if not stat.S_ISCHR(mode):
        kernel.read_only(target)


def _real(given: Iterable[str]) -> Iterable[str]:
    return (path for path in given if not os.path.islink(path) or path not in paths.SYSTEM)


def renew_slot(number: int, uid: int, gid: int) -> None:
    """Put an empty file system in the place of this slot's, from inside the root. Raises OSError."""
    if not 0 <= number < MOST_SLOTS:
        raise OSError(f"there is no slot {number}")
    slot = f"{SLOTS}/{number}"
    kernel.umount(slot, kernel.MNT_DETACH)  # what still lives there keeps it, and cannot reach the new one
    _mount_slot(slot, uid, gid)


def _slots(uid: int, gid: int) -> None:
    """Room for temporary files: a small file system for each child that may live at a time."""
    for number in range(MOST_SLOTS):
        slot = f"{_GROUND}{SLOTS}/{number}"
        _made_folder(slot)
        _mount_slot(slot, uid, gid)


def _mount_slot(slot: str, uid: int, gid: int) -> None:
    data = f"mode=700,uid={uid},gid={gid},size={SLOT_SIZE}m,nr_inodes=16k"
    kernel.mount("circuit", slot, "tmpfs", MS_NOSUID | MS_NODEV, data)


def _made_folder(path: str) -> None:
    before = os.umask(0o022)
    try:
        os.makedirs(path, 0o755, exist_ok=True)
    finally:
        os.umask(before)
