"""Marks what runs because a model asked for it: tools of pydantic-ai's agents, and functions for their outputs.

What such code asks of the broker then goes with the mark, in whatever task or thread it began. A refusal of what cannot
be taken back becomes the tool's result, so that the agent can go on.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import thread as pools
from functools import partial, wraps
from typing import Any, cast

from circuit_script.errors import CircuitError, IrreversibleRefused
from circuit_script.execution import deciding
from circuit_script.execution.irreversible import TOLD

_DEEPEST = 20  # errors that libraries have put around one another


def install() -> None:
    """Mark the tools of all agents of this process, once. With a pydantic-ai that runs them in another way nothing is
    marked, and the broker takes all for a model's choice that is asked for while a call is open."""
    try:
        from pydantic_ai import _output
        from pydantic_ai.tool_manager import ToolManager
    except ImportError:
        return
    manager: Any = ToolManager
    outputs: Any = _output
    runs = (manager, "execute_tool_call"), (manager, "execute_output_tool_call"), (outputs, "execute_output_function")
    if installed() or not all(hasattr(owner, name) for owner, name in runs):
        return
    for owner, name in runs:
        setattr(owner, name, _marking(getattr(owner, name), tells=name == "execute_tool_call"))
    _mark_threads()
    deciding.tools_are_marked()


def installed() -> bool:
    """Whether tools are marked."""
    return deciding.marked()


def in_agent() -> bool:
    """Whether a model is asked by an agent's run, and not by the author's own loop."""
    try:
        from pydantic_ai._run_context import get_current_run_context
    except ImportError:
        return False
    return get_current_run_context() is not None


def _marking(execute: Callable[..., Awaitable[Any]], *, tells: bool) -> Callable[..., Awaitable[Any]]:
    """``execute`` with the mark; one that ``tells`` gives a model what was refused as the tool's result."""

    @wraps(execute)
    async def marked(*given: Any, **named: Any) -> Any:
        token = deciding.here.set(deciding.MODEL)
        try:
            return await execute(*given, **named)
        except Exception as error:
            if tells and refusal_in(error) is not None:
                return TOLD
            raise
        finally:
            deciding.here.reset(token)

    return marked


def _mark_threads() -> None:
    """Threads that such code starts, and what it gives to pools of them, have the mark as well."""
    start, submit = threading.Thread.start, ThreadPoolExecutor.submit

    def started(thread: threading.Thread) -> None:
        inner = cast(Any, thread)
        if deciding.here.get() == deciding.MODEL and inner._target is not pools._worker:  # it serves others, too
            inner.run = partial(_chosen, thread.run)
        start(thread)

    def submitted(pool: ThreadPoolExecutor, work: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
        if deciding.here.get() == deciding.MODEL:
            work = partial(_chosen, work)
        return submit(pool, work, *given, **named)

    cast(Any, threading.Thread).start = started
    cast(Any, ThreadPoolExecutor).submit = submitted


def _chosen(run: Callable[..., Any], *given: Any, **named: Any) -> Any:
    token = deciding.here.set(deciding.MODEL)
    try:
        return run(*given, **named)
    finally:
        deciding.here.reset(token)


def refusal_in(error: BaseException) -> CircuitError | None:
    """The refusal within the errors that libraries have put around it."""
    found: BaseException | None = error
    for _ in range(_DEEPEST):
        if isinstance(found, CircuitError) and found.page == IrreversibleRefused.page:
            return found
        if found is None:
            return None
        found = found.__cause__ or found.__context__
    return None
