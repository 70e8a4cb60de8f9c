from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable
from typing import cast

import pytest

from circuit_script.errors import RequestRefused
from circuit_script.execution.authoring.database import CircuitDB
from circuit_script.execution.authoring.records import Records
from circuit_script.execution.child.running import on_alarm
from circuit_script.execution.protocol import Reply, Run, packed
from circuit_script.execution.session import Session, Wire, enter
from circuit_script.governor import LimitExceeded

RUN = Run("e", "h", "t", "Contact", "afterInsert", [], packed([]), packed([]), {"log_bytes": 1e6, "wall_time": 1}, 0.0)


class FakeWire:
    """A wire on which something may happen between sending and the return of it."""

    reading = threading.Lock()
    on_send: Callable[[], None]
    sending = False

    def __init__(self) -> None:
        self._ends = socket.socketpair()

    def fileno(self) -> int:
        return self._ends[0].fileno()

    def close(self) -> None:
        for end in self._ends:
            end.close()

    def send(self, frame: bytearray) -> None:
        self.on_send()


async def test_a_reply_that_another_thread_reads_at_once_is_not_lost() -> None:
    wire = FakeWire()
    session = Session(cast(Wire, wire), asyncio.get_running_loop(), RUN)

    def answered() -> None:
        reader = threading.Thread(target=session._take, args=([Reply(1, {"ids": ["7"]})],))
        reader.start()
        reader.join()

    wire.on_send = answered
    answer = await asyncio.wait_for(session.request("dml", {}, dict[str, list[str]]), 2)
    assert answer == {"ids": ["7"]}
    session.finish()
    wire.close()


async def test_what_goes_on_after_its_execution_is_told_that_it_is_over() -> None:
    wire = FakeWire()
    session = Session(cast(Wire, wire), asyncio.get_running_loop(), RUN)
    record = Records([{"id": "1"}], memoryview(bytearray(8)).cast("q"))[0]
    session.finish()
    enter(session)
    try:
        with pytest.raises(RequestRefused, match="over"):
            await CircuitDB.update("Contact", record, if_version=record)
    finally:
        enter(None)
        wire.close()


async def test_an_alarm_does_not_cut_a_frame_in_two(monkeypatch: pytest.MonkeyPatch) -> None:
    wire, alarms = FakeWire(), list[float]()
    monkeypatch.setattr(signal, "setitimer", lambda _, seconds: alarms.append(seconds))
    enter(Session(cast(Wire, wire), asyncio.get_running_loop(), RUN))
    try:
        wire.sending = True
        on_alarm(signal.SIGALRM, None)
        assert alarms == [0.001]
        wire.sending = False
        with pytest.raises(LimitExceeded, match="wall_time"):
            on_alarm(signal.SIGALRM, None)
    finally:
        enter(None)
        wire.close()
