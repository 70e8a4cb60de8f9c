"""Standard isolation hides the settings and the state of the app from its own code, where the kernel lets it.

An empty file system lies over ``.circuit``, and over ``circuit.toml`` a file that cannot be opened. It needs root or
user namespaces. A file that is replaced from outside (as editors do) is seen again, until the app is next imported.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from circuit_script.execution.isolation import kernel
from circuit_script.execution.isolation.kernel import MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_REC, MS_SLAVE

_FLAGS = MS_NOSUID | MS_NODEV | MS_NOEXEC


def cover(hidden: Sequence[str]) -> bool:
    """Hide these paths from this process and what it starts, once it has no capabilities. False where it cannot be:
    then this process is as it was before."""
    present = [os.path.realpath(path) for path in hidden if os.path.exists(path)]
    if not present:
        return True
    if not _works(present):
        return False
    try:
        _cover_all(present)
    except OSError:
        return False
    return True


def _works(present: Sequence[str]) -> bool:
    """Try it in a process that ends: some machines allow the namespace and then no user in it, and nobody gets out."""
    attempt = os.fork()
    if attempt == 0:
        code = 1
        try:
            _cover_all(present)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(attempt, 0)
    return status == 0


def _cover_all(present: Sequence[str]) -> None:
    _own_namespace()
    kernel.mount("none", "/", flags=MS_REC | MS_SLAVE)
    for path in present:
        _cover(path)


def _own_namespace() -> None:
    try:
        kernel.unshare(kernel.CLONE_NEWNS)
    except PermissionError:
        uid, gid = os.geteuid(), os.getegid()
        kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS)
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)


def _cover(path: str) -> None:
    if stat.S_ISDIR(os.stat(path).st_mode):
        kernel.mount("hidden", path, "tmpfs", _FLAGS | kernel.MS_RDONLY, "mode=755,size=4k")
        return
    kernel.mount(os.devnull, path, flags=MS_BIND)
    kernel.mount("none", path, flags=kernel.MS_REMOUNT | MS_BIND | _FLAGS)  # a device that may not be opened
