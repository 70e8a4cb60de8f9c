"""Lines that wait in shared memory: what the child keeps there, and what the worker makes of it."""

from __future__ import annotations

import mmap
import os
import random
import socket
from collections.abc import Iterator

import msgspec
import pytest

from circuit_script.execution.host.shared_memory import SharedMemory
from circuit_script.execution.protocol import (
    MAX_UNSENT,
    MEMORY,
    SENT,
    SHARED,
    UNSENT,
    WAITING,
    Frames,
    LogLine,
    pack,
    packed,
    to_parent,
)
from circuit_script.execution.session import Wire
from circuit_script.execution.stash import Stash


class Ends:
    """A child's wire and the worker's socket and memory."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.memory = SharedMemory()
        self.shared = memoryview(mmap.mmap(self.memory.descriptor, 0))
        self.words = self.shared[:SHARED].cast("q")
        self.wire = Wire(self.theirs)
        self.wire.stash = Stash(self.words, self.shared[UNSENT:MEMORY])
        self.wire.send(line(0))
        self.wire.send_soon(line(1))  # it is the first for a while
        self.received = self.heard()

    def heard(self) -> bytes:
        try:
            return self.ours.recv(1 << 20)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        self.memory.close()
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    monkeypatch.setattr("circuit_script.execution.session.LONELY", 60)
    made = Ends()
    yield made
    made.close()


def line(number: int, text: str = "") -> bytearray:
    return pack(LogLine(packed({"message": f"{number}{text}"})))


def numbers(stream: bytes) -> list[int]:
    return [int(_message(body)) for body in Frames().feed(stream)]


def _message(body: memoryview) -> str:
    said = to_parent.decode(body)
    assert isinstance(said, LogLine)
    message: str = msgspec.msgpack.decode(said.line)["message"]
    return message


def test_lines_wait_for_the_next_frame_and_come_before_it(ends: Ends) -> None:
    for number in (2, 3):
        ends.wire.send_soon(line(number))
    assert ends.heard() == b""
    ends.wire.send(line(4))
    assert numbers(ends.heard()) == [2, 3, 4]
    ends.wire.flush()
    assert ends.heard() == b""


def test_lines_that_do_not_fit_are_sent_in_order(ends: Ends) -> None:
    for number in range(2, 50):
        ends.wire.send_soon(line(number, " " * 500))
    ends.wire.send_soon(line(50, " " * MAX_UNSENT))
    assert numbers(ends.heard()) == list(range(2, 51))


@pytest.mark.parametrize("step", range(4))
def test_wherever_a_child_ends_its_lines_are_found_once(ends: Ends, step: int) -> None:
    """As if it were ended in the midst of a write: before it, within it, after it, and before it has noted that."""
    for number in (2, 3, 4):
        ends.wire.send_soon(line(number))
    before = int(ends.words[SENT]), int(ends.words[WAITING])
    ends.wire.send(line(5))
    written = ends.heard()
    received = ends.received + (b"", written[:30], written, written)[step]
    if step < 3:
        ends.words[SENT], ends.words[WAITING] = before
    whole = received + ends.memory.unsent(len(received))
    assert numbers(whole) == ([0, 1, 2, 3, 4] if step < 2 else [0, 1, 2, 3, 4, 5])


def test_the_worker_takes_nothing_behind_a_gap(ends: Ends) -> None:
    ends.wire.send_soon(line(2))
    assert ends.memory.unsent(len(ends.received)) == bytes(line(2))
    assert ends.memory.unsent(len(ends.received) - 1) == b""
    assert ends.memory.unsent(0) == b""


def test_whatever_a_child_writes_there_is_within_bounds(ends: Ends) -> None:
    chance = random.Random(7)
    edges = [0, 1, -1, MAX_UNSENT, MAX_UNSENT + 1, 2**62, -(2**63), 2**63 - 1, len(ends.received)]
    for _ in range(2000):
        ends.words[SENT] = chance.choice(edges)
        ends.words[WAITING] = chance.choice(edges)
        assert len(ends.memory.unsent(chance.choice([0, 100, len(ends.received), 2**40]))) <= MAX_UNSENT


def test_a_process_that_the_handler_forked_sends_nothing(ends: Ends) -> None:
    ends.wire.send_soon(line(2))
    if (forked := os.fork()) == 0:
        ends.wire.flush()
        os._exit(0)
    os.waitpid(forked, 0)
    assert ends.heard() == b""
    ends.wire.flush()
    assert numbers(ends.heard()) == [2]


def test_without_a_socket_lines_go_on_waiting(ends: Ends) -> None:
    ends.wire.send_soon(line(2))
    ends.wire.close()
    ends.wire.flush()
    assert ends.memory.unsent(len(ends.received)) == bytes(line(2))


def test_without_shared_memory_a_line_is_sent_at_once(ends: Ends) -> None:
    ends.wire.stash = None
    ends.wire.send_soon(line(2))
    ends.wire.flush()
    assert numbers(ends.heard()) == [2]
