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
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, NoReturn, TypeVar, cast

from msgspec import structs

from circuit_script.execution import deciding, whereabouts
from circuit_script.execution.authoring.context import Context
from circuit_script.execution.authoring.handlers import Registry
from circuit_script.execution.authoring.log import Printed
from circuit_script.execution.authoring.starting import NotStarted, start
from circuit_script.execution.child import answering, forgotten, hooks, surroundings
from circuit_script.execution.child.ending import failure, flush, packed_result, success
from circuit_script.execution.child.running import COURTESY, alarmed, on_alarm, out_of_time
from circuit_script.execution.child.together import Together
from circuit_script.execution.decisions import Decision, decision_of
from circuit_script.execution.protocol import (
    CUT_OFF,
    MEMORY,
    NOBODY,
    SHARED,
    STACK,
    STARTED,
    SUSPECT,
    TELL,
    UNSENT,
    VERSION,
    Hello,
    Result,
    Run,
    pack,
)
from circuit_script.execution.session import Session, Wire, enter
from circuit_script.execution.stash import Stash

TIDY = 0.1  # seconds that leftover tasks and threads have to end
SHORT = 0.0002  # seconds in which a thread that has nothing left to do is gone
FASTEST_FORK = 0.0002  # seconds in which nobody starts a process and waits for it
TIDY_TURNS = 3  # of what tasks leave behind when they are cancelled
THREAD_STACK = 1024 * 1024  # of a thread, unless the app sets one: 32 of them must fit under the ceiling of memory
THREADS = ("circuit", "AnyIO worker thread")  # of pools that end when the run does

T = TypeVar("T")
Apps = Mapping[str, answering.ASGIApp]  # by the name of the handler


def serve(
    sock: socket.socket, memory: int, registry: Registry, apps: Apps, broken: NotStarted | None = None
) -> NoReturn:
    """Serve runs until the parent hangs up; then the process ends. ``apps`` answer for endpoints.

    One that is ``broken`` answers every run with why.
    """
    code = 0
    try:
        Child(Wire(sock), memory, registry, apps).serve(broken)
    except EOFError:
        pass  # the parent hung up
    except OSError:
        code = CUT_OFF
    finally:
        os._exit(code)


class Loop(asyncio.SelectorEventLoop):
    """A loop that can say what is left in it. ``made`` counts its tasks: to look for them costs more.

    ``before_turn`` is called before each turn, told whether callbacks wait for it, and before `run_until_complete`
    returns.
    """

    made = 0

    def __init__(self, before_turn: Callable[[bool], None]) -> None:
        self._before_turn = before_turn
        super().__init__()

    def create_task(self, *arguments: Any, **named: Any) -> asyncio.Task[Any]:
        self.made += 1
        return super().create_task(*arguments, **named)

    def run_until_complete(self, future: Any) -> Any:
        """Plain code goes on then: it may take its time until it says something again."""
        try:
            return super().run_until_complete(future)
        finally:
            self._before_turn(False)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """As `run_until_complete`, for what stops the loop itself with its last step: that saves a turn."""
        task = super().create_task(main)
        try:
            self.run_forever()
        except BaseException:
            if task.done() and not task.cancelled():
                task.exception()  # it is this one
            raise
        if not task.done():
            raise RuntimeError("Event loop stopped before Future completed.")
        return task.result()

    def _run_once(self) -> None:
        self._before_turn(bool(cast(Any, self)._ready))
        super()._run_once()  # type: ignore[misc]

    def stop_soon(self) -> None:
        """End this turn, or the next one where something was waiting for it."""
        if self.busy():
            self.call_soon(self.stop)
        else:
            self.stop()

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
            or len(inner._selector._fd_to_key) > 1  # its own pipe
            or (inner._scheduled and not all(timer.cancelled() for timer in inner._scheduled))
        )


class Child:
    """One governed process. The loop is made here, after the fork."""

    def __init__(self, wire: Wire, memory: int, registry: Registry, apps: Apps) -> None:
        self._wire = wire
        shared = memoryview(mmap.mmap(memory, 0))
        self._word = shared[:SHARED].cast("q")
        whereabouts.tell_in(shared[SHARED:STACK])
        if len(shared) >= MEMORY:
            wire.stash = Stash(self._word, shared[UNSENT:MEMORY])
        self._registry = registry
        self._apps = apps
        self._pid = os.getpid()
        self._handlers: dict[str, Callable[[Context], Any]] = {}
        self._coroutines: dict[str, bool] = {}  # of handlers: whether a call of one only makes a coroutine
        deciding.here.set(deciding.AUTHOR)  # of all that runs here, until a model chooses
        self._loop = Loop(wire.flush)
        asyncio.set_event_loop(self._loop)
        self._inside = False  # in the author's code
        self._executor: ThreadPoolExecutor | None = None
        self._waited_for = 0
        self._threads = 1
        self._surroundings: tuple[Any, ...] | None = None  # before the first run
        sys.stdout, sys.stderr = Printed.stream("info"), Printed.stream("warning")
        forgotten.heed()
        os.lseek(memory, STACK, os.SEEK_SET)
        faulthandler.enable(memory)  # the parent reads there why a child crashed
        faulthandler.register(TELL, memory)  # and what it does when it is over its limits, also in C code
        hooks.silence_forks(wire)
        signal.signal(signal.SIGALRM, on_alarm)
        threading.stack_size(threading.stack_size() or THREAD_STACK)

    def serve(self, broken: NotStarted | None = None) -> None:
        """Run after run, each answered with a Result. Raises EOFError when the parent hangs up."""
        broken = broken or start(self._loop)
        self._waited_for = _waited_for()
        self._threads = _threads()
        self._wire.send(pack(Hello(VERSION)))
        while True:
            messages = self._wire.receive()
            for place, run in enumerate(messages):
                if not isinstance(run, Run):  # a reply that nobody waits for any more
                    continue
                if run.number:
                    Together(self._wire, self._word, self._loop, self._apps, self._handler).serve(
                        messages[place:], broken
                    )
                if broken is None:
                    self._serve_one(run)
                    self._stay_only_at_home()
                else:
                    self._word[SUSPECT] = NOBODY
                    self._word[STARTED] += 1
                    self._wire.send(pack(Result("raised", {}, broken.reason, broken.detail)))

    def _serve_one(self, run: Run) -> None:
        if self._surroundings is None:
            self._surroundings = surroundings.look()
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
        self._wire.send(packed_result(result))

    def _stay_only_at_home(self) -> None:
        """End this process where a handler has left other surroundings to the next. Nobody waits for that: the result
        is on its way, and a run that comes meanwhile has not begun, so it begins elsewhere."""
        try:
            same = surroundings.look() == self._surroundings
        except OSError:  # the folder that it went to is gone
            same = False
        if not same:
            os.kill(self._pid, signal.SIGKILL)

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
        decided: dict[int, float | None] = {}
        hints: dict[int, tuple[list[str], float]] = {}
        try:
            context = Context(session, self._word)
            errors, decided, hints = context.errors, context.decided, context.hints
            refused = self._decide(context, session)
        except BaseException as error:
            result = failure(error, errors, self._word[SUSPECT])
            session.unclean |= not self._inside  # the platform failed here, and might again
        else:
            result = success(refused, errors, session)
        session.unclean |= not self._as_before(session)
        return structs.replace(result, unclean=session.unclean, decided=decided, hints={**hints, **result.hints})

    def _decide(self, context: Context, session: Session) -> str | None:
        """Call the handler, which may return or raise what shall become of its whole batch.

        Returns why nothing that an endpoint wrote must count, if so.
        """
        try:
            answer = self._handle(context, session)
        except Decision as raised:
            answer = raised
        self._inside = True  # what is wrong with its answer is the author's
        if (decision := decision_of(answer)) is not None:
            context.decide(decision)
        return answer if isinstance(answer, str) and session.run.request is not None else None

    def _handle(self, context: Context, session: Session) -> Any:
        """What the handler answers."""
        if session.run.request is not None:
            return self._wait_for(answering.answer(self._apps[session.run.handler], session), session)
        handler = self._handler(session.run.handler)
        if context.nothing_left:
            return None
        # To call a coroutine function runs nothing yet, and an alarm costs three system calls.
        with nullcontext() if self._coroutines[session.run.handler] else alarmed(session):
            self._inside = True
            answer = handler(context)
        self._inside = False
        return self._wait_for(answer, session) if inspect.isawaitable(answer) else answer

    def _wait_for(self, answer: Awaitable[Any], session: Session) -> Any:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(thread_name_prefix="circuit")
            self._loop.set_default_executor(self._executor)
        seconds = session.run.limits["wall_time"] + COURTESY - session.elapsed()
        return self._loop.run(self._awaited(answer, session, seconds))

    async def _awaited(self, answer: Awaitable[Any], session: Session, seconds: float) -> Any:
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
            return await answer
        except asyncio.CancelledError as cancelled:
            if expired:
                raise out_of_time(session, whereabouts.line_of_error(cancelled)) from cancelled
            raise
        finally:
            timer.cancel()
            self._loop.stop_soon()

    def _handler(self, name: str) -> Callable[[Context], Any]:
        if name not in self._handlers:
            self._handlers[name] = handler = self._registry.callable(name)
            self._coroutines[name] = inspect.iscoroutinefunction(handler)
        return self._handlers[name]

    def _as_before(self, session: Session) -> bool:
        """Tidy up; False when the process is not as it was before the run."""
        try:
            tidy = self._tidy()
        except BaseException:
            tidy = False
        try:
            flush(session)
            session.finish()
        except BaseException:
            return False
        if session.elapsed() > FASTEST_FORK and _waited_for() > self._waited_for:
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
                if thread.name.startswith(THREADS):
                    thread.join(TIDY)
            self._wait_for_threads()
        return not left

    def _wait_for_threads(self) -> None:
        """A thread that was joined is still one of the kernel's for a moment, and the parent counts the kernel's."""
        until = time.monotonic() + TIDY
        while _threads() > self._threads and time.monotonic() < until:
            time.sleep(SHORT)


def _waited_for() -> int:
    """Grows with each process below this one that ended and was waited for."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt


def _threads() -> int:
    """How many threads the kernel counts in this process: a folder for each."""
    return os.stat("/proc/self/task").st_nlink - 2


async def _ends(tasks: set[asyncio.Task[Any]]) -> tuple[set[asyncio.Task[Any]], set[asyncio.Task[Any]]]:
    """Wait a moment for tasks to end, or one turn of the loop when there are none."""
    if tasks:
        return await asyncio.wait(tasks, timeout=TIDY)
    await asyncio.sleep(0)
    return tasks, tasks
