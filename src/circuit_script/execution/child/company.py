"""One of several executions in a child: what is its own, and who runs now."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import thread as pools
from contextvars import copy_context
from typing import Any, cast

from circuit_script.errors import RequestRefused
from circuit_script.execution import whereabouts
from circuit_script.execution.child.running import out_of_time
from circuit_script.execution.protocol import NOBODY, STEPPED, TURN, Chunk, Head, Run, Stop, ToChild
from circuit_script.execution.session import Session, Wire, current_session, whose
from circuit_script.governor import breach_of

POOLS = "AnyIO worker thread"  # each of its calls is awaited, and it ends by itself


class Company(Session):
    """The session of an execution in company. Nothing of it is sent once it is over.

    The parent reads in ``word`` how many threads work for it.
    """

    def __init__(
        self,
        wire: Wire,
        loop: asyncio.AbstractEventLoop,
        run: Run,
        stray: Callable[[ToChild], None],
        word: memoryview,
    ) -> None:
        super().__init__(wire, loop, run)
        self._word = word
        self._working: set[object] = set()
        word[0] = 0
        self.tasks: set[asyncio.Task[Any]] = set()  # besides its own
        self.works: set[Future[Any]] = set()  # in threads of pools
        self.threads: list[threading.Thread] = []
        self.task: asyncio.Task[Any] | None = None
        self.variables = copy_context()
        self.variables.run(current_session.set, self)
        self._elsewhere = stray
        self._expired = False
        self._ending: Stop | None = None
        self._listening.add(loop)  # there, somebody listens for all

    @property
    def has_threads(self) -> bool:
        """Whether a thread still works for it."""
        return bool(self.works) or any(thread.is_alive() for thread in self.threads)

    def begin_work(self, of: object) -> None:
        """A thread works for it."""
        self._working.add(of)
        self._word[0] = len(self._working)

    def end_work(self, of: object) -> None:
        """It does no longer."""
        self._working.discard(of)
        self._word[0] = len(self._working)

    @property
    def is_ended(self) -> bool:
        """Whether it was ended, by its clock or by the parent."""
        return self._expired or self._ending is not None or self.breach is not None

    def expire(self) -> None:
        """Its wall time is over."""
        if self._ending is None and self.task is not None:
            self._expired = True
            self.task.cancel()

    def end(self, stop: Stop) -> None:
        """The parent ends it."""
        if not self._expired and self._ending is None and self.task is not None:
            self._ending = stop
            self.task.cancel()

    def ended_by(self, error: BaseException) -> BaseException:
        """What ended it: a cancellation of ours stands for its reason."""
        if not isinstance(error, asyncio.CancelledError) or not (self._expired or self._ending):
            return error
        where = whereabouts.line_of_error(error)
        if self._expired:
            return out_of_time(self, where)
        if self._ending is not None and self._ending.limit is not None:
            return self.exceed(breach_of(*self._ending.limit, self._ending.said, where))
        return error

    def log(self, line: dict[str, Any]) -> None:
        if not self._over:
            super().log(line)

    def say(self, part: Head | Chunk) -> None:
        if self._over:
            raise OSError("the execution is over")
        super().say(part)

    def _must_be_allowed(self) -> None:
        if self._over:
            raise RequestRefused("the execution is over.")
        super()._must_be_allowed()

    def _stray(self, message: ToChild) -> None:
        self._elsewhere(message)


class Turns(deque[asyncio.Handle]):
    """The callbacks of a loop that wait for their turn. Who takes one tells the parent that the loop goes on, and whose
    step is made: it sees from there who stands still."""

    def __init__(self, waiting: Any, word: memoryview) -> None:
        super().__init__(waiting)
        self._word = word
        self._forked = False

    @classmethod
    def install(cls, loop: asyncio.AbstractEventLoop, word: memoryview) -> None:
        """Watch this loop: its callbacks, and when it waits."""
        inner = cast(Any, loop)
        turns = inner._ready = cls(inner._ready, word)
        os.register_at_fork(after_in_child=turns._leave)
        select, create_task = inner._selector.select, inner.create_task

        def selected(timeout: float | None = None) -> Any:
            word[STEPPED] = NOBODY
            try:
                return select(timeout)
            finally:
                word[STEPPED] = 0
                word[TURN] += 1

        def created(coroutine: Any, **named: Any) -> asyncio.Task[Any]:
            task: asyncio.Task[Any] = create_task(coroutine, **named)
            variables = named.get("context")
            owner = current_session.get() if variables is None else variables.get(current_session)
            if isinstance(owner, Company):
                owner.tasks.add(task)
                task.add_done_callback(owner.tasks.discard)
            return task

        inner._selector.select = selected
        inner.create_task = created

    def popleft(self) -> asyncio.Handle:
        if self._forked:
            os._exit(0)  # a fork of a handler came back to the loop: the others' steps are not its own
        handle = super().popleft()
        owner = cast(Any, handle)._context.get(current_session)
        self._word[STEPPED] = 0 if owner is None else owner.number
        self._word[TURN] += 1
        return handle

    def _leave(self) -> None:
        self._forked = True


def left_by(session: Session, loop: asyncio.AbstractEventLoop) -> bool:
    """Whether timers or watched files of this execution are still in the loop, or signals of anybody."""
    inner = cast(Any, loop)
    handles = [timer for timer in inner._scheduled if not timer.cancelled()]
    for key in inner._selector.get_map().values():
        handles += [handle for handle in key.data if handle is not None]
    return bool(inner._signal_handlers) or any(each._context.get(current_session) is session for each in handles)


def inherit() -> None:
    """From now on threads, and what pools of threads are given, belong to who started them."""
    start, submit = threading.Thread.start, ThreadPoolExecutor.submit

    def started(thread: threading.Thread) -> None:
        owner, inner = whose(), cast(Any, thread)
        of_a_pool = inner._target is pools._worker or thread.name.startswith(POOLS)
        if isinstance(owner, Company) and not of_a_pool:
            variables, run, work = copy_context(), thread.run, object()
            owner.begin_work(work)
            inner.run = lambda: _work(owner, work, lambda: variables.run(run))
            owner.threads.append(thread)
        start(thread)

    def submitted(pool: ThreadPoolExecutor, work: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
        owner = whose()
        if not isinstance(owner, Company):
            return submit(pool, work, *given, **named)
        future: Future[Any] = submit(pool, copy_context().run, work, *given, **named)
        owner.works.add(future)
        owner.begin_work(future)
        future.add_done_callback(owner.works.discard)
        future.add_done_callback(owner.end_work)
        return future

    cast(Any, threading.Thread).start = started
    cast(Any, ThreadPoolExecutor).submit = submitted


def _work(owner: Company, work: object, run: Callable[[], None]) -> None:
    try:
        run()
    finally:
        owner.end_work(work)
