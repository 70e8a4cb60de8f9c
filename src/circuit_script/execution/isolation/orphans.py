"""What children leave below their zygote when they end: killed, however fast it forks, and in whatever session."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress

from circuit_script.execution import hardening
from circuit_script.execution.procfs import children_of, descendants_of

PATIENCE = 3  # rounds


class Homes:
    """The slots in which orphans may live. None says which child it is of: it may be any that ended when it came, or
    any whose orphans there were just before, of which its parent was one."""

    def __init__(self) -> None:
        self._of: dict[int, set[int]] = {}
        self._new: set[int] = set()
        self._leaving: set[int] = set()  # slots of children that have ended; somebody may be in one yet

    def left(self, orphans: Collection[int], reaped: Collection[int], ended: Collection[int]) -> list[int]:
        """The slots in which nobody is any more. ``orphans`` are there now, ``reaped`` were collected since the last
        time, ``ended`` are the slots of the children among those."""
        inherited = {slot for slots in self._of.values() for slot in slots}
        stayed = {pid: slots for pid, slots in self._of.items() if pid in orphans and pid not in reaped}
        for pid in self._new & stayed.keys():
            stayed[pid].update(ended)  # its child had ended before it was seen, and was not collected yet
        self._new = {pid for pid in orphans if pid not in stayed}
        self._of = stayed | {pid: {*inherited, *ended} for pid in self._new}
        self._leaving.update(ended)
        free = self._leaving - {slot for slots in self._of.values() for slot in slots}
        self._leaving -= free
        return sorted(free)


class Orphans:
    """Of the process ``zygote``, this one: what is directly below it, and not ``known``, has lost its own parent.

    ``outside`` is a process that it must not be able to signal, None where Landlock does not keep its signals in;
    ``undertaker`` is what `outlive` made.
    """

    def __init__(self, zygote: int, outside: int | None, undertaker: int, known: Callable[[int], bool]) -> None:
        self._zygote = zygote
        self._outside = outside
        self._undertaker = undertaker
        self._known = known
        self._homes = Homes()
        self._rounds = 0  # in a row that there were some
        self._doomed: set[int] = set()  # they were stopped and killed already: more cannot be done

    def kill(self, reaped: Collection[int] = (), ended: Collection[int] = ()) -> list[int]:
        """Kill them; `Homes.left` by all. What is below one becomes ours when it has ended, of which we hear.

        So it takes a round for each generation; and those that fork faster are stopped first.
        """
        orphans = self._found()
        _kill(orphans)
        free = self._homes.left(orphans, reaped, ended)
        self._doomed.intersection_update(orphans)
        self._doomed.difference_update(reaped)
        self._rounds = self._rounds + 1 if set(orphans) - self._doomed else 0
        if self._rounds == PATIENCE:
            self._rounds = 0
            self._stop_and_kill()
        return free

    def _found(self) -> list[int]:
        return [pid for pid in children_of(self._zygote) if not self._known(pid)]

    def _stop_and_kill(self) -> None:
        """All below us stop at one stroke, which a fork cannot pass by; those that belong to a child then go on.

        Landlock lets the signal reach nobody else. Where it does not, nothing is done.
        """
        if not _bounded(self._outside):
            return
        with suppress(OSError):
            os.kill(-1, signal.SIGSTOP)
            os.kill(self._undertaker, signal.SIGCONT)  # at once: we may be killed before the others go on
        try:
            while found := {each for pid in self._found() for each in (pid, *descendants_of(pid))} - self._doomed:
                _kill(found)
                self._doomed |= found
        finally:
            with suppress(OSError):
                os.kill(-1, signal.SIGCONT)


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def end(outside: int | None, undertaker: int) -> None:
    """Kill everybody below the zygote, this process, which is about to end. ``undertaker`` is what `outlive` made."""
    if _bounded(outside):
        os.kill(-1, signal.SIGKILL)
        os.waitpid(undertaker, 0)


def outlive(zygote: int, outside: int | None) -> int:
    """Start the process that kills whatever is left when this one, the ``zygote``, has ended: however it ended.

    It lies behind the same bounds of Landlock, which end its one signal; and it is none of the children, so that none
    can signal it. As no filter is over it, nobody may write to its memory either. Without such bounds, told by
    ``outside`` as in `Orphans`, it ends at once. To be called before `Confined.seal`, whose filter would keep it from
    being woken. Returns its process id. Raises OSError.
    """
    if pid := os.fork():
        return pid
    try:
        hardening.die_with_parent(by=signal.SIGCONT)  # it may have been stopped, with all below the zygote
        hardening.hide_from_children()
        os.closerange(0, os.sysconf("SC_OPEN_MAX"))
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        os.setsid()
        if _bounded(outside):
            _wait_for(zygote)
            os.kill(-1, signal.SIGKILL)
    finally:
        os._exit(0)


def _wait_for(process: int) -> None:
    """Our parent."""
    with suppress(ProcessLookupError):  # it has ended already
        ended = select.poll()
        ended.register(os.pidfd_open(process), select.POLLIN)
        if os.getppid() == process:  # or the number is another's by now
            ended.poll()


def _bounded(outside: int | None) -> bool:
    """Whether a signal to all reaches those only that are below the zygote: Landlock is in force, and it shows.

    Neither is enough alone. One that may not signal ``outside`` may yet be allowed to signal all else of its user.
    """
    if outside is None:
        return False
    try:
        os.kill(outside, 0)
    except PermissionError:
        return True
    except OSError:
        pass
    return False
