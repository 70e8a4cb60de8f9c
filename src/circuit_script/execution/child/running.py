"""How plain code waits for the platform, and the alarm that ends it at its wall time."""

from __future__ import annotations

import asyncio
import inspect
import signal
import threading
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from circuit_script.execution import whereabouts
from circuit_script.execution.session import Session, active
from circuit_script.governor import LimitExceeded

COURTESY = 0.005  # seconds after the limit: the parent's verdict comes first
SHORTEST = 1e-6  # seconds; an alarm of none is no alarm
AGAIN = 0.001  # seconds until an alarm that came while a frame was sent
FOREVER = 1e8  # seconds; the alarm cannot take much more

T = TypeVar("T")


def run(awaitable: Awaitable[T]) -> T:
    """Wait for ``awaitable`` in code that is not async: ``rows = run(CircuitDB.query("Lead"))``.

    Works wherever an execution runs: in a plain ``def`` handler, in a view of a Flask app, in a thread, and in plain
    code that async code has called (which stands still meanwhile). Raises RuntimeError outside of an execution.
    """
    session = active()
    if session is None:
        if inspect.iscoroutine(awaitable):
            awaitable.close()
        raise RuntimeError(
            "run() works inside a handler only: there is no execution here. "
            "In a test, call the handler through circuit_script.testing; in a script, use asyncio.run()."
        )
    outer = asyncio._get_running_loop()
    if threading.current_thread() is not threading.main_thread():
        return _beside(outer, awaitable)
    with alarmed(session):
        if outer is None and not session.loop.is_running():
            return session.loop.run_until_complete(_awaited(awaitable))
        return _beside(outer, awaitable)


def _beside(outer: asyncio.AbstractEventLoop | None, awaitable: Awaitable[T]) -> T:
    """Wait in a loop of its own. The one that runs in this thread, if any, stands still: its task steps aside, as
    `asyncio._leave_task` is documented for those who extend asyncio."""
    task = asyncio.current_task(outer) if outer is not None else None
    if outer is not None and task is not None:
        asyncio._leave_task(outer, task)
    asyncio._set_running_loop(None)
    try:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            return runner.run(_awaited(awaitable))
    finally:
        asyncio._set_running_loop(outer)
        if outer is not None and task is not None:
            asyncio._enter_task(outer, task)


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable


@contextmanager
def alarmed(session: Session) -> Iterator[None]:
    """Let an alarm end plain code of the main thread at the wall time; one that is set already stays as it is."""
    if threading.current_thread() is not threading.main_thread() or signal.getitimer(signal.ITIMER_REAL)[0]:
        yield
        return
    left = session.run.limits["wall_time"] + COURTESY - session.elapsed()
    signal.setitimer(signal.ITIMER_REAL, min(max(left, SHORTEST), FOREVER))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def on_alarm(_signal: int, frame: FrameType | None) -> None:
    """The child's handler of SIGALRM."""
    if (session := active()) is None:
        return
    if session.is_sending:
        signal.setitimer(signal.ITIMER_REAL, AGAIN)
    else:
        raise out_of_time(session, whereabouts.line_of_frame(frame))


def out_of_time(session: Session, where: str) -> LimitExceeded:
    """The breach of wall_time, as of now; ``where`` is the author's line that it ended."""
    ceiling = session.run.limits["wall_time"]
    return session.exceed(LimitExceeded("wall_time", session.elapsed(), ceiling, where=where))
