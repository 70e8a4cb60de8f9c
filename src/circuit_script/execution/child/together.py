"""Several executions at once in one child: tasks of one loop, each with its own session, log, limits and end.

Whose code runs is kept in a context variable, which tasks, callbacks and threads inherit.
"""

from __future__ import annotations

import asyncio
import inspect
import resource
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, NoReturn

from msgspec import structs

from circuit_script.execution import session as sessions
from circuit_script.execution import whereabouts
from circuit_script.execution.authoring.context import Context
from circuit_script.execution.authoring.log import Divided
from circuit_script.execution.authoring.starting import NotStarted
from circuit_script.execution.child import answering, forgotten
from circuit_script.execution.child.answering import ASGIApp
from circuit_script.execution.child.company import Company, Turns, inherit, left_by
from circuit_script.execution.child.ending import failure, flush, packed_result, success
from circuit_script.execution.child.running import COURTESY
from circuit_script.execution.decisions import Decision, decision_of
from circuit_script.execution.protocol import BEGAN, NOBODY, SEATS, STARTED, THREADS, Reply, Result, Run, Stop, ToChild
from circuit_script.execution.session import Wire

TIDY = 0.1  # seconds that leftover tasks and threads have to end
HASTE = 0.01  # and those of one that the parent waits to see ended, before it ends the process
TIDY_TURNS = 3  # of what tasks leave behind when they are cancelled
LOOK = 0.002  # seconds between looks at threads that are to end


class Together:
    """Serves runs that share this child, until the parent hangs up."""

    def __init__(
        self,
        wire: Wire,
        word: memoryview,
        loop: asyncio.AbstractEventLoop,
        apps: Mapping[str, ASGIApp],
        handler: Callable[[str], Callable[[Context], Any]],
    ) -> None:
        self._wire = wire
        self._word = word
        self._loop = loop
        self._apps = apps
        self._handler = handler
        self._broken: NotStarted | None = None
        self._clean = copy_context()
        self._runs: dict[int, Company] = {}
        self._serving: set[asyncio.Task[None]] = set()
        self._executor: ThreadPoolExecutor | None = None
        self._stained = False  # something runs of which nobody knows whose it is
        self._waited_for = _waited_for()
        self._end: BaseException | None = None

    def serve(self, messages: list[ToChild], broken: NotStarted | None) -> NoReturn:
        """Serve these first. Raises EOFError when the parent hangs up, OSError when the socket is gone."""
        self._broken = broken
        sessions.share(self._stain)
        forgotten.share()
        inherit()
        sys.stdout, sys.stderr = Divided.stream("info"), Divided.stream("warning")
        Turns.install(self._loop, self._word)
        self._loop.add_reader(self._wire.fileno(), self._on_readable)
        self._loop.call_soon(self._hear, messages)
        while self._end is None:
            try:
                self._loop.run_forever()
            except BaseException as error:  # a task's SystemExit or its kin: who awaits it has it, too
                if self._loop.is_closed():
                    raise error
        raise self._end

    def _stain(self) -> None:
        self._stained = True

    def _on_readable(self) -> None:
        if not self._wire.reading.acquire(blocking=False):
            return  # a thread reads, and hands over what is ours
        try:
            messages = self._wire.receive(wait=False)
        except BaseException as error:
            return self._stop(error)
        finally:
            self._wire.reading.release()
        self._hear(messages)

    def _stop(self, error: BaseException) -> None:
        self._end = error
        self._loop.stop()

    def _hear(self, messages: list[ToChild]) -> None:
        for message in messages:
            match message:
                case Run():
                    self._begin(message)
                case Reply():
                    self._hand_over(message)
                case Stop():
                    self._loop.call_later(COURTESY, self._on_stop, message)  # what it was told last comes first

    def _hand_over(self, reply: Reply) -> None:
        if (session := self._runs.get(reply.run)) is not None:
            session.hear(reply)

    def _stray(self, message: ToChild) -> None:
        """Who waits in another thread or loop has read what is not its own."""
        if isinstance(message, Reply):
            self._hand_over(message)
        else:
            strays: list[ToChild] = [message]
            self._loop.call_soon_threadsafe(self._hear, strays, context=self._clean)

    def _on_stop(self, stop: Stop) -> None:
        if (session := self._runs.get(stop.run)) is not None:
            session.end(stop)

    def _begin(self, run: Run) -> None:
        self._word[SEATS + run.seat] = NOBODY
        self._word[BEGAN + run.seat] = run.number
        self._word[STARTED] += 1
        session = Company(self._wire, self._loop, run, self._stray, self._word[THREADS + run.seat :])
        self._runs[run.number] = session
        serving = self._loop.create_task(self._serve(session), context=self._clean.copy())
        self._serving.add(serving)
        serving.add_done_callback(self._served)

    def _served(self, serving: asyncio.Task[None]) -> None:
        self._serving.discard(serving)
        if serving.cancelled():
            self._stop(RuntimeError("a handler has cancelled what is not its own"))
        elif (error := serving.exception()) is not None:
            self._stop(error)  # the platform failed here, or the socket is gone

    async def _serve(self, session: Company) -> None:
        """One run, from its start to its result."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(thread_name_prefix="circuit")
            self._loop.set_default_executor(self._executor)
        if self._broken is not None:
            result = Result("raised", {}, self._broken.reason, self._broken.detail)
        else:
            result = await self._called(session)
            session.unclean |= not await self._as_before(session)
        del self._runs[session.number]
        self._wire.send(
            packed_result(
                Result(
                    result.kind,
                    result.errors,
                    result.reason,
                    result.detail,
                    result.suspect,
                    session.unclean or self._stained,
                    result.decided,
                    session.number,
                    session.breach.where if session.breach is not None else result.where,
                    result.hints,
                )
            )
        )

    async def _called(self, session: Company) -> Result:
        """Call the handler in a task of its own, which ends at its wall time."""
        word = self._word[SEATS + session.run.seat :]
        task = session.task = self._loop.create_task(self._call(session, word), context=session.variables)
        session.tasks.discard(task)
        seconds = session.run.limits["wall_time"] + COURTESY - session.elapsed()
        timer = self._loop.call_later(seconds, session.expire)
        await asyncio.wait({task})
        timer.cancel()
        return Result("raised", reason="CancelledError") if task.cancelled() else task.result()  # before its first step

    async def _call(self, session: Company, word: memoryview) -> Result:
        """Call the handler, whatever it does."""
        errors: dict[int, str] = {}
        decided: dict[int, float | None] = {}
        hints: dict[int, tuple[list[str], float]] = {}
        try:
            context = Context(session, word)
            errors, decided, hints = context.errors, context.decided, context.hints
            refused = await self._decide(context, session)
        except BaseException as error:
            found = session.ended_by(error)
            result = failure(found, errors, word[0])
            where = whereabouts.line_of_error(found) if isinstance(found, MemoryError) else ""
            return structs.replace(result, decided=decided, where=where, hints={**hints, **result.hints})
        return structs.replace(success(refused, errors, session), decided=decided, hints=hints)

    async def _decide(self, context: Context, session: Company) -> str | None:
        """Call the handler; returns why nothing that an endpoint wrote must count, if so."""
        answer: Any
        try:
            if session.run.request is not None:
                answer = await answering.answer(self._apps[session.run.handler], session)
            elif context.nothing_left:
                answer = None
            else:
                answer = self._handler(session.run.handler)(context)
                answer = await answer if inspect.isawaitable(answer) else answer
        except Decision as raised:
            answer = raised
        if (decision := decision_of(answer)) is not None:
            context.decide(decision)
        return answer if isinstance(answer, str) and session.run.request is not None else None

    async def _as_before(self, session: Company) -> bool:
        """Tidy up after one; False when something of it goes on. The others are not disturbed."""
        tidy = await self._tidy(session)
        try:
            session.variables.run(flush, session)
            session.finish()
        except Exception:
            return False
        return tidy and _waited_for() == self._waited_for and not left_by(session, self._loop)

    async def _tidy(self, session: Company) -> bool:
        patience = HASTE if session.is_ended else TIDY
        for _ in range(TIDY_TURNS):
            tasks = set(session.tasks)
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            _, left = await asyncio.wait(tasks, timeout=patience)
            if left:
                return False
        while session.has_threads and patience > 0:
            await asyncio.sleep(LOOK)
            patience -= LOOK
        if len(self._runs) == 1 and self._executor is not None and threading.active_count() > 1:
            executor, self._executor = self._executor, None
            executor.shutdown(wait=not session.has_threads)  # its threads have nothing left to do
        return not session.has_threads


def _waited_for() -> int:
    """Grows with each process below this one that ended and was waited for."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt
