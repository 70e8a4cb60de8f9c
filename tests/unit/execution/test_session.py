from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, cast

from circuit_script.execution.protocol import Reply, Run, packed
from circuit_script.execution.session import Session, Wire

RUN = Run("e", "h", "t", "Contact", "afterInsert", [], packed([]), packed([]), {"log_bytes": 1e6, "wall_time": 1}, 0.0)


class FakeWire:
    """A wire on which something may happen between sending and the return of it."""

    reading = threading.Lock()
    on_send: Callable[[], None]

    def fileno(self) -> int:
        return 0

    def send(self, frame: bytearray) -> None:
        self.on_send()


async def test_a_reply_that_another_thread_reads_at_once_is_not_lost() -> None:
    loop = asyncio.get_running_loop()
    wire = FakeWire()
    session = Session(cast(Wire, wire), cast(Any, _Deaf(loop)), RUN)

    def answered() -> None:
        reader = threading.Thread(target=session._take, args=([Reply(1, {"ids": ["7"]})],))
        reader.start()
        reader.join()

    wire.on_send = answered
    answer = await asyncio.wait_for(session.request("dml", {}, dict[str, list[str]]), 2)
    assert answer == {"ids": ["7"]}


class _Deaf:
    """The running loop, but for the socket that does not exist."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.create_future = loop.create_future
        self.call_soon_threadsafe = loop.call_soon_threadsafe

    def add_reader(self, *_: object) -> None:
        pass
