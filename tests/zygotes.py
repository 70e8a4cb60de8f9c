"""Zygotes for tests that begin with everything imported: each is forked by a process that has waited for it.

A zygote imports the platform before the app, which costs a test a second of one core and is the same each time. So one
process for each kind of app (with endpoints, and without) imports what every such app would, once, and forks. What it
forks is a zygote in all else: below the test's own process, in a session of its own, with the environment, the folder
and the descriptors that it would have been started with. Who is fenced in strictly, spawns its children, has an
interpreter of its own or counts lines starts as it does in production; so does everything in tests/acceptance.

Coverage counts what children run in every second file of tests only: it is the same code each time, and counting it
makes a child's life almost twice as long.

Run as a program, this file is that process.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from circuit_script.execution.hardening import governed_environment

PR_SET_CHILD_SUBREAPER = 36
NAME = "circuit_script.execution.zygote.zygote"
LARGEST = 256 * 1024
COUNTING = "COVERAGE_PROCESS_CONFIG"  # in the environment of whose lines are counted
PATIENCE = 60.0


class Order(NamedTuple):
    """One zygote: what `subprocess.Popen` would have been told, and whose child it is to be."""

    assignment: dict[str, Any]
    folder: str
    environment: dict[str, str]
    parent: int


class Zygote:
    """What the platform needs of a `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class Nursery:
    """Stands where `circuit_script.execution.host.zygote_link` has `subprocess`."""

    DEVNULL = subprocess.DEVNULL

    def __init__(self) -> None:
        self._hosts: dict[tuple[bool, bool], tuple[socket.socket, subprocess.Popen[bytes]]] = {}

    def Popen(self, command: list[Any], **options: Any) -> Zygote | subprocess.Popen[bytes]:
        """As subprocess.Popen, for a zygote."""
        assignment = json.loads(command[-1])
        hosting = assignment["hosting"]
        usual = (hosting["isolation"], hosting["start"], hosting["probes"]) == ("standard", "fork", -1)
        if not usual or command[0] != sys.executable:
            return subprocess.Popen(command, **options)
        folder = options["cwd"] or os.getcwd()
        (control,) = options["pass_fds"]
        order = Order(assignment, str(folder), options["env"], os.getpid())
        host = self._host(_has_endpoints(Path(assignment["folder"])), _counted())
        _adopt_orphans(True)  # who forked it ends at once, and so it becomes a child of ours
        try:
            socket.send_fds(host, [json.dumps(order).encode()], [control, options["stdout"].fileno(), 2])
            pid, born = host.recv(LARGEST), host.recv(LARGEST)
        finally:
            _adopt_orphans(False)
        assert born, "the process that forks zygotes has ended"
        return Zygote(int(pid))

    def close(self) -> None:
        for wire, host in self._hosts.values():
            wire.close()  # it ends by itself then
            host.wait(PATIENCE)
        self._hosts.clear()

    def _host(self, endpoints: bool, counted: bool) -> socket.socket:
        kind = endpoints, counted
        if kind not in self._hosts or self._hosts[kind][1].poll() is not None:
            environment = {name: value for name, value in os.environ.items() if counted or name != COUNTING}
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours.settimeout(PATIENCE)
            with theirs:
                host = subprocess.Popen(
                    [sys.executable, "-P", __file__, NAME, str(theirs.fileno()), str(int(endpoints))],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env=governed_environment(environment),
                )
            self._hosts[kind] = ours, host
        return self._hosts[kind][0]


def _counted() -> bool:
    file = os.environ.get("PYTEST_CURRENT_TEST", "").partition("::")[0]
    return COUNTING in os.environ and zlib.crc32(file.encode()) % 2 == 0


def _has_endpoints(folder: Path) -> bool:
    return any("@endpoint" in file.read_text("utf-8", errors="replace") for file in folder.rglob("*.py"))


def _adopt_orphans(adopt: bool) -> None:
    assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0) == 0


def _next(wire: socket.socket) -> str:
    """Fork for each order; returns in a zygote, with its assignment. Raises SystemExit when nobody orders any more."""
    while True:
        packet, descriptors, _, _ = socket.recv_fds(wire, LARGEST, 3)
        if not packet:
            raise SystemExit
        middle = os.fork()
        if middle == 0:
            if zygote := os.fork():
                wire.send(str(zygote).encode())
                os.kill(os.getpid(), signal.SIGKILL)  # telling nobody anything
            wire.close()
            return _begin(Order(*json.loads(packet)), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        os.waitpid(middle, 0)
        wire.send(b"born")


def _begin(order: Order, descriptors: list[int]) -> str:
    """Take on what a process of its own would have been started with."""
    deadline = time.monotonic() + PATIENCE
    while os.getppid() != order.parent:
        assert time.monotonic() < deadline, "nobody adopted us"
        time.sleep(0.0005)
    control, out, error = descriptors
    os.dup2(out, 1)
    os.dup2(error, 2)
    os.close(out)
    os.close(error)
    os.environ.clear()
    os.environ.update(order.environment)
    os.chdir(order.folder)
    if (measured := sys.modules.get("sitecustomize")) is not None:  # tests/measured
        measured.zygote = os.getpid()
    return json.dumps({**order.assignment, "control": control})


if __name__ == "__main__":
    from circuit_script.execution.zygote import zygote

    if int(sys.argv[3]):
        import circuit_script.execution.web.endpoint_app  # noqa: F401 - what an app with endpoints imports, FastAPI above all
    with socket.socket(fileno=int(sys.argv[2])) as wire:
        argument = _next(wire)
    zygote.main(argument)
