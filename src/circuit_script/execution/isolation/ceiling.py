"""The worker's hand on a child's memory: the kernel's hard stop, also where the child has another uid."""

from __future__ import annotations

import os
import resource

from circuit_script.execution.isolation.kernel import call

_SETRESUID, _SETRESGID = {"x86_64": (117, 119), "aarch64": (147, 149)}.get(os.uname().machine, (-1, -1))
_KEEP = -1


def set_ceiling(pid: int, data: int) -> None:
    """Bound the data segment of this process, for good. Raises OSError, ValueError or OverflowError.

    The kernel allows it to those with the same real uid, or with CAP_SYS_RESOURCE, which containers seldom have. So
    this thread, and no other, takes the child's real ids for a moment; its effective ones, and its rights, stay.
    """
    try:
        resource.prlimit(pid, resource.RLIMIT_DATA, (data, data))
    except PermissionError:
        if os.geteuid() != 0:
            raise
        owner = os.stat(f"/proc/{pid}")
        mine = os.getuid(), os.getgid()
        _become(owner.st_uid, owner.st_gid)
        try:
            resource.prlimit(pid, resource.RLIMIT_DATA, (data, data))
        finally:
            _become(*mine)


def _become(uid: int, gid: int) -> None:
    call("setresgid", _SETRESGID, gid, _KEEP, _KEEP)
    call("setresuid", _SETRESUID, uid, _KEEP, _KEEP)
