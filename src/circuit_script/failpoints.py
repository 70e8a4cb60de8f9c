"""Places between two steps of the road at which a test of accidents may end, stall or fail this process.

``CIRCUIT_FAILPOINTS`` arms them. Unset, a failpoint is one comparison. It is either a list,

    CIRCUIT_FAILPOINTS="settle.before=kill@3,intake.committed=stall:2.0"

in which ``kill@3`` is SIGKILL when the place is reached for the third time, ``stall:2.0`` waits so many seconds,
``fail`` raises OSError as a broken connection does and ``full`` as a full disk does; or a folder's absolute path. In
a folder each file is named like a failpoint and holds what happens there, so that what already runs can be armed.
Who fires it removes the file first: it fires once, in one process.

A file ``clock`` in the folder holds seconds by which this process believes it is later than it is: its wall clock
jumps when the file changes. The list has it as ``clock=+3600``.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from dataclasses import dataclass

VARIABLE = "CIRCUIT_FAILPOINTS"
CLOCK = "clock"
NAMES = (
    "intake.before",  # a group is about to be committed
    "intake.committed",  # it is in the ledger, and nobody has been told
    "intake.answered",  # the group's senders were told, or will be at once
    "lanes.beat",  # before a heartbeat
    "lanes.taken",  # lanes may have been won, and were not yet read
    "lanes.mark",  # before it is marked up to where nothing is left in lanes
    "lanes.release",  # before lanes are given back
    "dispatch.read",  # rows of the queue were read, and none of them has started
    "run.before",  # a batch was loaded and has not been handed to a child
    "run.handled",  # its child is done, and nobody knows what came of it
    "checkpoint.before",  # records of a running execution are about to be settled
    "checkpoint.committed",  # they are settled, and the execution does not know
    "settle.before",  # outcomes are about to be committed
    "settle.committed",  # they are, and their executions do not know
    "courier.before",  # effects are about to leave
    "courier.sent",  # their vendor may have done them, and nothing of it is told
    "courier.told",  # what their vendor said is committed
    "quotas.lease",  # before quotas are leased and reported
    "replay.before",  # items of a replay are about to be put back on the queue
    "replay.put",  # they are, and it is not committed
    "reconcile.before",  # changes that no webhook had told are about to be taken in
    "reconcile.fed",  # they are, and the cursor stands where it stood
    "reconcile.moved",  # the cursor stands behind them
    "release.prepare",  # a release that was deployed is about to be unpacked and imported
    "shadow.claimed",  # recordings were taken to be compared, and none of them was
    "shadow.compared",  # one was, and that is about to be noted
    "endpoint.before",  # an answer is about to be committed
    "endpoint.committed",  # it is, and has not left
)

_spec = os.environ.get(VARIABLE, "")
_folder = _spec if _spec.startswith("/") else ""
_on = bool(_spec)


def reach(name: str) -> None:
    """A place in code that does not wait; a stall stops the whole process, as SIGSTOP would."""
    if _on and (action := _take(name)) is not None and (seconds := _act(name, action)):
        time.sleep(seconds)


async def areach(name: str) -> None:
    """A place in a task; a stall stops only this task."""
    if _on and (action := _take(name)) is not None and (seconds := _act(name, action)):
        await asyncio.sleep(seconds)


def skew() -> float:
    """Seconds that this process's wall clock is ahead, negative when it is behind."""
    return _skew() if _on else 0.0


@dataclass(slots=True)
class _Armed:
    """An action and at which visit it happens; ``stamp`` tells one content of a file from another's."""

    action: str
    visits: int
    stamp: int = 0


_armed: dict[str, _Armed] = {}
_ahead: tuple[int, float] = (0, 0.0)  # the file's stamp, and what it said


def parse(text: str) -> tuple[str, int]:
    """(action, visit) of ``kill@3``. Raises ValueError."""
    action, _, visits = text.strip().partition("@")
    verb, colon, seconds = action.partition(":")
    if verb not in ("kill", "stall", "fail", "full") or bool(colon) != (verb == "stall"):
        raise ValueError(f"{VARIABLE}: {text!r} is none of kill, stall:SECONDS, fail and full")
    if colon:
        float(seconds)
    return action, int(visits or 1)


def _take(name: str) -> str | None:
    """What happens here now, if anything does."""
    armed = _from_folder(name) if _folder else _armed.get(name)
    if armed is None:
        return None
    armed.visits -= 1
    if armed.visits > 0:
        return None
    _armed.pop(name, None)
    if _folder:
        try:
            os.unlink(f"{_folder}/{name}")
        except FileNotFoundError:  # another process was first
            return None
    return armed.action


def _from_folder(name: str) -> _Armed | None:
    path = f"{_folder}/{name}"
    try:
        stamp = os.stat(path).st_mtime_ns
        armed = _armed.get(name)
        if armed is None or armed.stamp != stamp:
            with open(path, encoding="ascii") as file:
                armed = _armed[name] = _Armed(*parse(file.read()), stamp)
    except FileNotFoundError:
        _armed.pop(name, None)
        return None
    return armed


def _act(name: str, action: str) -> float:
    """Do it; the seconds that the caller is to wait."""
    verb, _, seconds = action.partition(":")
    match verb:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "fail":
            raise ConnectionResetError(errno.ECONNRESET, f"failpoint {name}")
        case "full":
            raise OSError(errno.ENOSPC, f"failpoint {name}")
    return float(seconds or 0)


def _skew() -> float:
    global _ahead
    if _folder:
        try:
            stamp = os.stat(f"{_folder}/{CLOCK}").st_mtime_ns
        except FileNotFoundError:
            return 0.0
        if stamp != _ahead[0]:
            with open(f"{_folder}/{CLOCK}", encoding="ascii") as file:
                _ahead = stamp, float(file.read() or 0)
    return _ahead[1]


def _arm_list(spec: str) -> None:
    global _ahead
    for each in filter(None, (part.strip() for part in spec.split(","))):
        name, _, text = each.partition("=")
        if name == CLOCK:
            _ahead = 1, float(text)
        elif name in NAMES:
            _armed[name] = _Armed(*parse(text))
        else:
            raise ValueError(f"{VARIABLE}: there is no failpoint {name!r}; there are {', '.join(NAMES)}")


if _on and not _folder:
    _arm_list(_spec)
