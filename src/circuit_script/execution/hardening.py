"""What the kernel is told about the two sides: the governed one loses its rights, the trusted one cannot be read."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
CAPABILITY_VERSION_3 = 0x20080522
CAPABILITIES = 64

# Secrets live in the environment of the trusted side; a child gets these names only, and those that start so.
KEPT_NAMES = frozenset({"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "USER", "VIRTUAL_ENV"})
KEPT_PREFIXES = ("LC_", "PYTHON", "COVERAGE_")
SINGLE_THREADED = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

_libc = ctypes.CDLL(None, use_errno=True)


def hide_from_children() -> None:
    """Make this process non-dumpable: no child with its uid can read its memory or environment. For the worker."""
    _prctl(PR_SET_DUMPABLE, 0)


def drop_privileges(uid: int | None = None) -> None:
    """Give up every capability for good, and the chance to gain one by executing a file; with ``uid`` also root.

    A change of the uid makes a process non-dumpable, so that it could not read its own /proc, which is mended here; and
    it forgets `die_with_parent`.
    """
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, must=False)
    for capability in range(CAPABILITIES):
        if not _prctl(PR_CAPBSET_DROP, capability, must=False):
            break  # the last one that this kernel knows, or we have none to drop
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        _prctl(PR_SET_DUMPABLE, 1)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    if _libc.capset(header, (ctypes.c_uint32 * 6)()) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends: so it stays below, and is counted."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int | None = None, by: signal.Signals = signal.SIGKILL) -> None:
    """Get the signal ``by`` when the parent ends; end at once, when it is no longer ``parent``."""
    _prctl(PR_SET_PDEATHSIG, by)
    if parent is not None and os.getppid() != parent:
        os._exit(0)


def governed_environment(environ: dict[str, str]) -> dict[str, str]:
    """The environment of the governed side: where things are, and nothing that is secret."""
    kept = {name: value for name, value in environ.items() if name in KEPT_NAMES or name.startswith(KEPT_PREFIXES)}
    paths = [os.path.abspath(path) for path in kept.get("PYTHONPATH", "").split(os.pathsep) if path]
    package_root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if "site-packages" not in package_root and package_root in sys.path and package_root not in paths:
        paths.append(package_root)
    if paths:
        kept["PYTHONPATH"] = os.pathsep.join(paths)
    return SINGLE_THREADED | kept


def _prctl(option: int, value: int, *, must: bool = True) -> bool:
    if _libc.prctl(option, value, 0, 0, 0) == 0:
        return True
    if must:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")
    return False
