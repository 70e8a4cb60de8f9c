"""In which order the governed side is confined: once for the zygote, before the app is imported, and once per child.

What each mode keeps from whom: docs/reference/isolation.md.
"""

from __future__ import annotations

import asyncio.selector_events
import os
import pwd
import resource
import tempfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from circuit_script.execution import hardening
from circuit_script.execution.child import surroundings
from circuit_script.execution.isolation import landlock, mask, paths, root, seccomp
from circuit_script.execution.isolation.slots import FileSystems, Folders, Janitor, NoFolders, Slots

Mode = Literal["standard", "strict"]
PAGE = "isolation"  # that says more when strict isolation is not possible

# systemd keeps these for services without an account: nobody's files belong to them.
FIRST_UID, UIDS = 61184, 4336
MOST_TASKS = 512  # processes and threads of the strict uid, all children together
MOST_FILES = 512  # of one process: each may hold some memory of the kernel's
LONGEST_FILE = 64 * 1024 * 1024  # bytes, of a strict zygote that root did not start
_NEEDED = {"CAP_SYS_ADMIN": 21, "CAP_SYS_PTRACE": 19, "CAP_SETUID": 7, "CAP_SETGID": 6, "CAP_KILL": 5}
_AS_ROOT = (
    f"Give the container {' '.join(_NEEDED)}; or run as an ordinary user (Landlock and a filter then confine it); "
    'or set isolation = "standard".'
)
_UNREAD = ("__pycache__", "node_modules", ".git", paths.STATE)


class Impossible(Exception):
    """Strict isolation is not possible here. Has what is missing and a cure."""

    def __init__(self, what: str, cure: str) -> None:
        self.what = what
        self.cure = cure
        super().__init__(f"{what} {cure}")


class Confined(msgspec.Struct, frozen=True):
    """What a zygote has to know of its confinement to confine its children.

    ``hides`` says whether settings and state are out of sight, ``scoped`` whether Landlock keeps its signals from all
    but itself and what is below it. Of ``strict`` alone: the paths that can be read and listed, and in ``slots`` the
    folder of the children's folders.
    """

    mode: Mode
    hides: bool = True
    read: tuple[str, ...] = ()
    listed: tuple[str, ...] = ()
    slots: str = ""
    scoped: bool = False

    def seal(self) -> None:
        """Filter the system calls of this process, the zygote, and of all that it starts from now on. Raises OSError in
        strict mode; in standard mode some machines let nobody filter."""
        if self.mode == "strict":
            return seccomp.install()
        with suppress(OSError):
            seccomp.install_usual()

    def child(self, slot: int) -> None:
        """Confine this process, a new child, beside its siblings and its zygote. ``slot`` numbers its folder.

        It lives in one below with a name that nobody can guess: Landlock does not keep a sibling from asking whether a
        path exists, and how large the file is.
        """
        if self.mode == "standard":
            landlock.scope()
            return
        own = f"{self.slots}/{slot}/{os.urandom(16).hex()}"
        os.mkdir(own, 0o700)
        use_folder(own)
        if self.slots == root.SLOTS:
            surroundings.live_in(own)
        landlock.fence(self.read, (own, *paths.DEVICES), self.listed)
        seccomp.install_for_child()
        # From Python 3.12 on asyncio writes with sendmsg what a socket did not take at once, unless there is none.
        setattr(asyncio.selector_events, "_HAS_SENDMSG", False)  # noqa: B010  # its stub does not know it


def use_folder(own: str) -> None:
    """Let temporary files and caches of libraries go here."""
    os.environ["TMPDIR"] = os.environ["HOME"] = own
    tempfile.tempdir = None


def zygote(mode: Mode, folder: Path, scratch: str, parent: int, home: Path | None = None) -> tuple[Confined, Slots]:
    """Confine this process, which shall import the app. ``scratch`` is a folder of its own, for temporary files where
    there can be no private root; ``home`` has what is hidden, where it is not ``folder``. It is for the caller to
    `seal` it. Raises Impossible in strict mode."""
    slots: Slots = NoFolders()
    home = home or folder
    if mode == "standard":
        hides = mask.cover(paths.hidden(home))
        hardening.drop_privileges()
        hardening.die_with_parent(parent)
        return Confined("standard", hides, scoped=landlock.scope_signals()), slots
    if missing := lacks():
        raise missing
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    if os.geteuid() == 0:
        uid = uid_for(folder)
        confined, slots = _private_root(folder, uid, home)
        hardening.drop_privileges(uid)
    else:
        confined, slots = _in_place(folder, scratch, home), Folders(scratch)
        hardening.drop_privileges()
    hardening.die_with_parent(parent)  # a change of the uid forgot it
    use_folder(confined.slots)
    landlock.fence(confined.read, (confined.slots, *paths.DEVICES), confined.listed)
    _must_read(folder)
    return confined, slots


def uid_for(folder: Path) -> int:
    """The uid of this app's strict children: of the range that no file and no account has, and the same each time."""
    first = zlib.crc32(os.fsencode(folder)) % UIDS
    for step in range(UIDS):
        uid = FIRST_UID + (first + step) % UIDS
        try:
            pwd.getpwuid(uid)
        except KeyError:
            return uid
    raise Impossible("Every uid from 61184 to 65519 has an account.", "Take one of them away.")


def lacks() -> Impossible | None:
    """What this machine lacks for strict isolation, as far as it can be seen without trying."""
    if not seccomp.known():
        return Impossible(
            f"There is no filter of system calls for {os.uname().machine}.", 'Set isolation = "standard".'
        )
    if landlock.abi() < landlock.OLDEST:
        return Impossible(
            f"This kernel ({os.uname().release}) has Landlock ABI {landlock.abi()}, and {landlock.OLDEST} is needed.",
            'Use Linux 6.12 or newer with Landlock among its security modules, or set isolation = "standard".',
        )
    if os.geteuid() == 0:
        held = _capabilities()
        if missing := [name for name, bit in _NEEDED.items() if not held >> bit & 1]:
            return Impossible(f"Root lacks {', '.join(missing)} here.", _AS_ROOT)
    return None


def _capabilities() -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))


def _private_root(folder: Path, uid: int, home: Path) -> tuple[Confined, Slots]:
    if home != folder:  # else an empty folder lies over it
        _refuse_above(home, paths.interpreter(folder, home))
    try:
        read = root.enter(folder, uid, uid, home)
        janitor = Janitor(uid, uid)
        resource.setrlimit(resource.RLIMIT_NPROC, (MOST_TASKS, MOST_TASKS))  # while it still may
    except OSError as error:
        raise Impossible(f"Root may not make a private root here ({error}).", _AS_ROOT) from error
    return Confined("strict", True, tuple(read), (), root.SLOTS, scoped=True), FileSystems(janitor)


def _in_place(folder: Path, scratch: str, home: Path) -> Confined:
    code = paths.interpreter(folder, home)
    for each in (folder, home):
        _refuse_above(each, code)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LONGEST_FILE, LONGEST_FILE))
    read = (*code, *paths.system(), *paths.entries(folder), "/proc")
    return Confined("strict", True, read, (str(folder),), scratch, scoped=True)


def _refuse_above(folder: Path, code: Sequence[str]) -> None:
    if above := [path for path in code if folder.is_relative_to(path)]:
        raise Impossible(
            f"Code is imported from {above[0]}, which has the app's settings below it.",
            "Take it out of PYTHONPATH and sys.path, or put the app elsewhere.",
        )


def _must_read(folder: Path) -> None:
    """Say which file of the app the new uid cannot read, instead of an import that fails."""
    for place, folders, files in os.walk(folder):
        if not os.access(place, os.R_OK | os.X_OK):
            _refuse(place, folder)
        folders[:] = [name for name in folders if name not in _UNREAD and not _is_environment(f"{place}/{name}")]
        for name in files:
            if name.endswith(".py") and not os.access(f"{place}/{name}", os.R_OK):
                _refuse(f"{place}/{name}", folder)


def _refuse(path: str, folder: Path) -> None:
    raise Impossible(f"The uid {os.getuid()} cannot read {path}.", f"chmod -R o+rX {folder}")


def _is_environment(folder: str) -> bool:
    return os.path.exists(f"{folder}/pyvenv.cfg")
