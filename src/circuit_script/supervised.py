"""Who tells that he lives: workers in the database; a host's supervisor, for its roles, in a file that its worker and
`doctor` read."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

FILE = "roles.json"


@dataclass(frozen=True, slots=True)
class Heart:
    """A worker that tells the database that it lives: ``silent`` seconds ago it should have done so again."""

    host: str
    pid: int
    silent: float


class Standing(msgspec.Struct, frozen=True):
    """How a role stands. ``pid`` is 0 and ``down`` says why while it does not run; ``said`` is what it said when it was
    ready; ``restarts`` are moments (seconds since 1970)."""

    pid: int = 0
    said: str = ""
    since: float = 0.0
    down: str = ""
    restarts: tuple[float, ...] = ()

    def restarts_since(self, moment: float) -> int:
        """How often it was started again since then."""
        return sum(1 for each in self.restarts if each >= moment)


class Roles(msgspec.Struct, frozen=True):
    """The supervisor, and its roles by name."""

    supervisor: int
    roles: dict[str, Standing]


def tell(folder: Path, roles: Roles) -> None:
    """Write it into ``folder``. A full disk is no reason to stop: then nobody is told."""
    with contextlib.suppress(OSError):
        fresh = folder / f"{FILE}.{os.getpid()}"
        fresh.write_bytes(msgspec.json.encode(roles))
        fresh.replace(folder / FILE)


def forget(folder: Path) -> None:
    """Nothing runs here any more."""
    with contextlib.suppress(OSError):
        (folder / FILE).unlink(missing_ok=True)


def told(folder: Path) -> Roles | None:
    """What the supervisor that lives has told; None without one."""
    try:
        found = msgspec.json.decode((folder / FILE).read_bytes(), type=Roles)
    except (OSError, msgspec.MsgspecError):
        return None
    return found if _lives(found.supervisor) else None


def _lives(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True
