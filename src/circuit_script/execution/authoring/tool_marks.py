"""Marks what runs because a model asked for it: tools of pydantic-ai's agents, and functions for their outputs.

What such code asks of the broker then goes with the mark, in whatever task or thread it began. A refusal of what cannot
be taken back becomes the tool's result, so that the agent can go on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from circuit_script.errors import CircuitError, IrreversibleRefused
from circuit_script.execution import deciding
from circuit_script.execution.irreversible import TOLD

_DEEPEST = 20  # errors that libraries have put around one another


def install() -> None:
    """Mark the tools of all agents of this process, once. With a pydantic-ai that runs them in another way nothing is
    marked, and the broker takes all for a model's choice that is asked for while a call is open."""
    try:
        from pydantic_ai.tool_manager import ToolManager
    except ImportError:
        return
    manager: Any = ToolManager
    if installed() or not (hasattr(manager, "execute_tool_call") and hasattr(manager, "execute_output_tool_call")):
        return
    manager.execute_tool_call = _marking(manager.execute_tool_call, tells=True)
    manager.execute_output_tool_call = _marking(manager.execute_output_tool_call, tells=False)
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
