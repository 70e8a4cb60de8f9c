"""Exceptions swallowed wherever they can be: an async or sync handler that will not end."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

from app.behaved import KEPT
from app.tricks import trick
from circuit_script import CircuitDB


def for_ever(*_: Any) -> None:
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(60)


class Clinging:
    def __del__(self) -> None:
        for_ever()


@trick
def swallows_in_a_loop(context: Any) -> None:
    for_ever()


@trick
def goes_on_in_finally(context: Any) -> None:
    try:
        time.sleep(60)
    finally:
        for_ever()


@trick
def goes_on_in_del(context: Any) -> None:
    Clinging()


@trick
def goes_on_in_a_weakref_callback(context: Any) -> None:
    watched = threading.Event()
    KEPT["weak"] = weakref.ref(watched, for_ever)
    del watched


@trick
def goes_on_at_exit(context: Any) -> None:
    atexit.register(for_ever)
    sys.exit(0)


@trick
def goes_on_in_the_excepthook(context: Any) -> None:
    sys.excepthook = for_ever
    threading.excepthook = for_ever
    raise ValueError("look at me")


@trick
def suppresses(context: Any) -> None:
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(60)


@trick
def goes_on_in_a_closed_generator(context: Any) -> None:
    def clings() -> Iterator[int]:
        try:
            yield 1
        finally:
            for_ever()

    generator = clings()
    next(generator)
    generator.close()


@trick
def goes_on_in_exit(context: Any) -> None:
    with contextlib.ExitStack() as stack:
        stack.callback(for_ever)
        time.sleep(60)


@trick
async def swallows_cancellation(context: Any) -> None:
    while True:
        try:
            await asyncio.sleep(60)
        except BaseException:
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()


@trick
async def shields_itself(context: Any) -> None:
    async def clings() -> None:
        await asyncio.sleep(60)

    inner = asyncio.ensure_future(clings())
    while not inner.done():
        with contextlib.suppress(BaseException):
            await asyncio.shield(inner)


@trick
async def leaves_a_task_that_ignores_cancel(context: Any) -> None:
    async def clings() -> None:
        while True:
            try:
                await asyncio.sleep(0.01)
                await CircuitDB.update("Contact", {"id": "of a task that clings"})
            except BaseException:
                pass

    KEPT["task"] = asyncio.ensure_future(clings())
    await asyncio.sleep(0)


@trick
async def swaps_the_loop(context: Any) -> None:
    loop = asyncio.get_running_loop()
    loop.stop = lambda: None  # type: ignore[method-assign]
    loop.call_later = lambda *_, **__: None  # type: ignore[assignment,method-assign]
    asyncio.set_event_loop(asyncio.new_event_loop())
    for_ever()


@trick
async def nests_a_loop(context: Any) -> None:
    asyncio._set_running_loop(None)
    inner = asyncio.new_event_loop()
    while True:
        try:
            inner.run_until_complete(asyncio.sleep(60))
        except BaseException:
            inner = asyncio.new_event_loop()


@trick
def traces_and_swallows(context: Any) -> None:
    def tracer(*_: Any) -> Any:
        with contextlib.suppress(BaseException):
            time.sleep(60)
        return tracer

    sys.settrace(tracer)
    sys.setprofile(lambda *_: None)
    for_ever()


@trick
def ignores_the_alarm(context: Any) -> None:
    for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_IGN)
    for_ever()


@trick
def blocks_every_signal(context: Any) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    for_ever()


@trick
def switches_the_timer_off(context: Any) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
    for_ever()


@trick
def stops_the_clock(context: Any) -> None:
    time.monotonic = time.time = lambda: 0.0
    context.remaining = 1e9
    for_ever()


@trick
def returns_with_the_alarm_off(context: Any) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})


@trick
async def swallows_the_limit(context: Any) -> None:
    while True:
        with contextlib.suppress(BaseException):
            await CircuitDB.get("Contact", "1")
