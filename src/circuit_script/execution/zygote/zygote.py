"""The process that imports the author's app once and forks children.

``python -m circuit_script.execution.zygote.zygote``
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import msgspec

from circuit_script.errors import AppError
from circuit_script.execution import hardening, whereabouts
from circuit_script.execution.authoring import importing, starting
from circuit_script.execution.authoring.handlers import registry
from circuit_script.execution.child import child, hooks
from circuit_script.execution.isolation import confine
from circuit_script.execution.isolation.orphans import Orphans, end, outlive
from circuit_script.execution.isolation.slots import NoSlots
from circuit_script.execution.nursery import (
    MAX_PACKET,
    Assignment,
    Broken,
    Document,
    Ended,
    Forked,
    FromZygote,
    Handler,
    NotForked,
    Ready,
    encode,
    to_zygote,
)
from circuit_script.execution.procfs import children_of
from circuit_script.execution.zygote.loading import load
from circuit_script.execution.zygote.spawned import Birth, arguments

PART = MAX_PACKET // 2  # bytes of the document in one packet
SWEEP = 0.25  # seconds between looks for processes that nobody tells us of
NO_ROOM = "See what else runs as its uid, and how many processes and threads that may have (ulimit -u)."


def main(argument: str) -> None:
    """Import the app, report it, and fork until the worker hangs up."""
    assignment = msgspec.json.decode(argument, type=Assignment)
    os.setsid()
    hardening.die_with_parent(assignment.parent)
    hardening.adopt_orphans()
    Zygote(assignment).serve()


class Zygote:
    """Forks children, reaps them, and kills what they leave behind."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._control = socket.socket(fileno=assignment.control)
        self._control.set_inheritable(False)
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._children: dict[int, int] = {}  # with their slots
        self._own: set[int] = set()  # what else may be below us
        self._pid = os.getpid()

    def serve(self) -> None:
        """Raises SystemExit when the app does not import."""
        assignment = self._assignment
        folder = Path(assignment.folder)
        try:
            self._confined, self._slots = confine.zygote(
                assignment.hosting.isolation,
                folder,
                assignment.scratch,
                assignment.parent,
                Path(assignment.hosting.home or folder),
            )
        except confine.Impossible as error:
            self._say(Broken(error.what, error.cure, confine.PAGE))
            raise SystemExit(1) from None
        outside = assignment.parent if self._confined.scoped else None
        undertaker = self._outlived(outside)
        self._confined.seal()
        self._orphans = Orphans(self._pid, outside, undertaker, self._is_known)
        whereabouts.know(assignment.folder)
        before = set(children_of(self._pid))
        try:
            apps, document = load(assignment)
        except AppError as error:
            self._say(Broken(error.detail[:8000], error.cure[:2000], error.page))
            raise SystemExit(1) from None
        for spec in registry.specs():
            self._say(Handler(spec))
        for start in range(0, len(document), PART):
            self._say(Document(document[start : start + PART]))
        ours = self._slots.descriptors | {self._control.fileno(), self._woken.fileno(), self._waker.fileno()}
        self._spawns = assignment.hosting.start == "spawn"
        started = [pid for pid in children_of(self._pid) if pid not in before]
        warnings = () if self._spawns else importing.warnings_after_import(ours, started)
        self._own = set(children_of(self._pid))
        hooks.install()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        gc.collect()
        gc.freeze()  # what is imported stays shared with the children
        gc.set_threshold(10_000, 20, 20)  # a batch of 200 records makes thousands of dicts, and no cycles
        slow = self._spawns or starting.declared()
        self._say(Ready(warnings, importing.fingerprint(folder), slow, self._confined.hides))
        try:
            self._obey(apps)
        finally:
            with suppress(OSError):
                end(outside, undertaker)
            os._exit(0)  # the worker hung up; an interpreter that shuts down would run the app's exit handlers

    def _outlived(self, outside: int | None) -> int:
        try:
            return outlive(self._pid, outside)
        except OSError as error:
            self._say(Broken(f"the process that hosts the app can start no other ({error}).", NO_ROOM, "import-failed"))
            raise SystemExit(1) from None

    def _obey(self, apps: child.Apps) -> NoReturn:
        watched = select.poll()
        watched.register(self._control, select.POLLIN)
        watched.register(self._woken, select.POLLIN)
        swept = time.monotonic()
        while True:
            for descriptor, _ in watched.poll(SWEEP * 1000):
                if descriptor == self._control.fileno():
                    self._on_order(apps)
                else:
                    with suppress(BlockingIOError):
                        self._woken.recv(4096)
                    self._reap()
            if time.monotonic() - swept >= SWEEP:
                for slot in self._orphans.kill():
                    self._give_back(slot)
                swept = time.monotonic()

    def _on_order(self, apps: child.Apps) -> None:
        packet, descriptors, _, _ = socket.recv_fds(self._control, MAX_PACKET, 2, socket.MSG_CMSG_CLOEXEC)
        if not packet:
            raise EOFError
        order = to_zygote.decode(packet)
        sock, memory = descriptors
        try:
            self._make_child(order.number, sock, memory, apps)
        except OSError as error:
            self._say(NotForked(order.number, str(error)))
        os.close(sock)
        os.close(memory)

    def _make_child(self, number: int, sock: int, memory: int, apps: child.Apps) -> None:
        """Make one, and hand over its descriptor. Raises OSError when there is no room for another."""
        try:
            slot = self._slots.take()
        except NoSlots:
            os._exit(1)  # the worker starts another zygote
        try:
            pid = self._spawn(sock, memory, slot) if self._spawns else os.fork()
        except OSError:
            self._give_back(slot)
            raise
        if pid == 0:
            self._become_child(sock, memory, slot, apps)
        self._children[pid] = slot
        try:
            self._hand_over(number, pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            raise

    def _hand_over(self, number: int, pid: int) -> None:
        """Raises OSError also when processes of our uid have too many descriptors on their way already."""
        pidfd = os.pidfd_open(pid)
        try:
            socket.send_fds(self._control, [encode(Forked(number, pid))], [pidfd])
        finally:
            os.close(pidfd)

    def _spawn(self, sock: int, memory: int, slot: int) -> int:
        for descriptor in (sock, memory):
            os.set_inheritable(descriptor, True)
        birth = Birth(self._pid, sock, memory, slot, self._confined, self._assignment)
        nowhere = [(os.POSIX_SPAWN_OPEN, standard, os.devnull, os.O_RDWR, 0) for standard in (0, 1, 2)]
        return os.posix_spawn(sys.executable, arguments(birth), os.environ, file_actions=nowhere, setpgroup=0)

    def _become_child(self, sock: int, memory: int, slot: int, apps: child.Apps) -> NoReturn:
        try:
            hardening.die_with_parent(self._pid)
            hardening.adopt_orphans()
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for ours in (self._control, self._woken, self._waker):
                ours.close()
            for descriptor in self._slots.descriptors:
                os.close(descriptor)
            nowhere = os.open(os.devnull, os.O_RDWR)
            for standard in (0, 1, 2):
                os.dup2(nowhere, standard)
            os.close(nowhere)
            self._confined.child(slot)
            child.serve(socket.socket(fileno=sock), memory, registry, apps)
        finally:
            os._exit(70)

    def _reap(self) -> None:
        """Collect what has ended, then kill what it left: descendants that have become our own children."""
        ended: dict[int, int] = {}
        reaped: set[int] = set()
        with suppress(ChildProcessError):
            while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                pid = found.si_pid
                if pid in self._children:
                    with suppress(ProcessLookupError, PermissionError):
                        os.killpg(pid, signal.SIGKILL)  # at once, faster than they fork; its number is still taken
                _, status = os.waitpid(pid, 0)
                self._own.discard(pid)
                reaped.add(pid)
                if pid in self._children:
                    ended[pid] = os.waitstatus_to_exitcode(status)
        free = self._orphans.kill(reaped, [self._children.pop(pid) for pid in ended])
        for pid, code in ended.items():
            self._say(Ended(pid, code))
        for slot in free:
            self._give_back(slot)

    def _give_back(self, slot: int) -> None:
        if helper := self._slots.give_back(slot):
            self._own.add(helper)

    def _is_known(self, pid: int) -> bool:
        return pid in self._children or pid in self._own

    def _say(self, word: FromZygote) -> None:
        self._control.send(encode(word))


if __name__ == "__main__":
    main(sys.argv[1])
