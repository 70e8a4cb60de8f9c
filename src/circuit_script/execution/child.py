"""The governed process: waits for a run, calls the handler, says how it ended, and waits for the next."""

from __future__ import annotations

import asyncio
import faulthandler
import inspect
import mmap
import os
import resource
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any, NoReturn, cast

from circuit_script.execution import hooks
from circuit_script.execution.context import Context, reason_of
from circuit_script.execution.handlers import Registry
from circuit_script.execution.log import Printed
from circuit_script.execution.protocol import (
    CUT_OFF,
    NOBODY,
    SHARED,
    STARTED,
    SUSPECT,
    VERSION,
    Hello,
    Result,
    Run,
    pack,
)
from circuit_script.execution.session import Session, Wire, active, clean, enter
from circuit_script.governor import LimitExceeded

COURTESY = 0.005  # seconds after the limit: the parent's verdict comes first
TIDY = 0.1  # seconds that leftover tasks and threads have to end
FASTEST_FORK = 0.0002  # seconds in which nobody starts a process and waits for it
TIDY_TURNS = 3  # of what tasks leave behind when they are cancelled
STACK = 1024 * 1024  # of a thread, unless the app sets one: 32 of them must fit under the ceiling of memory
FOREVER = 1e8  # seconds; the alarm cannot take much more
MAX_DETAIL = 8000


def serve(sock: socket.socket, memory: int, registry: Registry) -> NoReturn:
    """Serve runs until the parent hangs up; then the process ends."""
    code = 0
    try:
        Child(Wire(sock), memory, registry).serve()
    except EOFError:
        pass  # the parent hung up
    except OSError:
        code = CUT_OFF
    finally:
        os._exit(code)


class Loop(asyncio.SelectorEventLoop):
    """A loop that can say what is left in it. ``made`` counts its tasks: to look for them costs more."""

    made = 0

    def create_task(self, *arguments: Any, **named: Any) -> asyncio.Task[Any]:
        self.made += 1
        return super().create_task(*arguments, **named)

    def busy(self) -> bool:
        """Whether callbacks wait for their turn."""
        return bool(cast(Any, self)._ready)

    def left(self) -> bool:
        """Whether anything would still happen in it: a callback, a timer, a signal, a file that is watched."""
        inner = cast(Any, self)
        return bool(
            self.is_closed()
            or inner._ready
            or inner._signal_handlers
            or len(inner._selector.get_map()) > 1  # its own pipe
            or (inner._scheduled and not all(timer.cancelled() for timer in inner._scheduled))
        )


class Child:
    """One governed process. The loop is made here, after the fork."""

    def __init__(self, wire: Wire, memory: int, registry: Registry) -> None:
        self._wire = wire
        self._word = memoryview(mmap.mmap(memory, SHARED)).cast("q")
        self._registry = registry
        self._pid = os.getpid()
        self._handlers: dict[str, Callable[[Context], Any]] = {}
        self._loop = Loop()
        asyncio.set_event_loop(self._loop)
        self._inside = False  # in the author's code
        self._executor: ThreadPoolExecutor | None = None
        sys.stdout, sys.stderr = Printed.stream("info"), Printed.stream("warning")
        os.lseek(memory, SHARED, os.SEEK_SET)
        faulthandler.enable(memory)  # the parent reads there why a child crashed
        hooks.silence_forks(wire)
        signal.signal(signal.SIGALRM, _on_alarm)
        threading.stack_size(threading.stack_size() or STACK)

    def serve(self) -> None:
        """Run after run, each answered with a Result. Raises EOFError when the parent hangs up."""
        self._wire.send(pack(Hello(VERSION)))
        while True:
            for run in self._wire.receive():
                if isinstance(run, Run):  # else a reply that nobody waits for any more
                    self._serve_one(run)

    def _serve_one(self, run: Run) -> None:
        self._word[SUSPECT] = NOBODY
        self._word[STARTED] += 1
        session = Session(self._wire, self._loop, run)
        self._inside = False
        self._loop.made = 0
        self._make_current()
        try:
            enter(session)
            result = self._call(session)
        finally:
            enter(None)
            if os.getpid() != self._pid:
                os._exit(0)  # a fork of the handler came back here: it has nothing to say
        self._wire.send(_packed(result))

    def _make_current(self) -> None:
        """A handler may have set another loop, or, with asyncio.run, none."""
        try:
            current = asyncio.get_event_loop()
        except RuntimeError:
            pass
        else:
            if current is self._loop:
                return
        asyncio.set_event_loop(self._loop)

    def _call(self, session: Session) -> Result:
        """Call the handler, whatever it does."""
        errors: dict[int, str] = {}
        try:
            context = Context(session, self._word)
            errors = context.errors
            self._handle(context, session)
        except BaseException as error:
            result = _failure(error, errors, self._word[SUSPECT])
            session.unclean |= not self._inside  # the platform failed here, and might again
        else:
            result = Result("returned", errors)
        session.unclean |= not self._as_before(session)
        return Result(result.kind, result.errors, result.reason, result.detail, result.suspect, session.unclean)

    def _handle(self, context: Context, session: Session) -> None:
        wall_time = session.run.limits["wall_time"]
        handler = self._handler(session.run.handler)
        signal.setitimer(signal.ITIMER_REAL, min(wall_time + COURTESY, FOREVER))
        try:
            self._inside = True
            answer = handler(context)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        self._inside = False
        if inspect.isawaitable(answer):
            if self._executor is None:
                self._executor = ThreadPoolExecutor(thread_name_prefix="circuit")
                self._loop.set_default_executor(self._executor)
            self._loop.made -= 1  # our own
            self._loop.run_until_complete(self._awaited(answer, session, wall_time + COURTESY))

    async def _awaited(self, answer: Awaitable[Any], session: Session, seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        expired = False

        def expire() -> None:
            nonlocal expired
            expired = True
            task.cancel()

        timer = self._loop.call_later(seconds, expire)
        self._inside = True
        try:
            await answer
        except asyncio.CancelledError:
            if expired:
                raise _wall_time(session) from None
            raise
        finally:
            timer.cancel()

    def _handler(self, name: str) -> Callable[[Context], Any]:
        if name not in self._handlers:
            self._handlers[name] = self._registry.callable(name)
        return self._handlers[name]

    def _as_before(self, session: Session) -> bool:
        """Tidy up; False when the process is not as it was before the run."""
        try:
            tidy = self._tidy()
        except BaseException:
            tidy = False
        try:
            _flush(session)
            session.finish()
        except BaseException:
            return False
        if session.elapsed() > FASTEST_FORK and resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt:
            return False  # a process was started, by whatever way, and ended: it may have left another
        return tidy and not self._loop.left() and asyncio._get_running_loop() is None

    def _tidy(self) -> bool:
        """End what the handler left running; False when something goes on."""
        left: set[asyncio.Task[Any]] = set()
        for _ in range(TIDY_TURNS):
            tasks = asyncio.all_tasks(self._loop) if self._loop.made else set()
            if not tasks and not self._loop.busy():
                break
            for task in tasks:
                task.cancel()
            _, left = self._loop.run_until_complete(_ends(tasks))
            if left:
                break
        if self._executor is not None and threading.active_count() > 1:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None
            for thread in threading.enumerate():
                if thread.name.startswith("circuit"):
                    thread.join(TIDY)
        return not left


async def _ends(tasks: set[asyncio.Task[Any]]) -> tuple[set[asyncio.Task[Any]], set[asyncio.Task[Any]]]:
    """Wait a moment for tasks to end, or one turn of the loop when there are none."""
    if tasks:
        return await asyncio.wait(tasks, timeout=TIDY)
    await asyncio.sleep(0)
    return tasks, tasks


def _failure(error: BaseException, errors: dict[int, str], word: int) -> Result:
    match error:
        case LimitExceeded():
            kind = "limit"
        case MemoryError():
            kind = "memory"
        case Exception() | asyncio.CancelledError():
            kind = "raised"
        case _:
            kind = "left"
    try:
        detail = clean("".join(traceback.format_exception(error, limit=-10)))[-MAX_DETAIL:]
    except Exception:
        detail = ""
    return Result(kind, errors, reason_of(error), detail, None if word == NOBODY else word)


def _packed(result: Result) -> bytearray:
    try:
        return pack(result)
    except Exception as error:  # an author reached into context.errors
        return pack(Result("raised", {}, f"the errors of the batch cannot be sent: {reason_of(error)}", unclean=True))


def _flush(session: Session) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    if session.dropped:
        lost = f"{session.dropped:,} bytes of output went over log_bytes and were dropped"
        session.reopen_log(len(lost) + 100)
        session.log({"level": "warning", "message": lost})


def _on_alarm(_signal: int, _frame: FrameType | None) -> None:
    if (session := active()) is not None:
        raise _wall_time(session)


def _wall_time(session: Session) -> LimitExceeded:
    ceiling = session.run.limits["wall_time"]
    return session.exceed(LimitExceeded("wall_time", session.elapsed(), ceiling))
