"""What an author lets happen once in each child, before its first run: ``@on_child_start``."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from circuit_script.execution import whereabouts
from circuit_script.execution.authoring.context import reason_of
from circuit_script.execution.authoring.place import Place
from circuit_script.execution.session import clean

MAX_DETAIL = 8000

F = TypeVar("F", bound=Callable[[], Any])

_declared: list[Callable[[], Any]] = []


@dataclass(frozen=True, slots=True)
class NotStarted:
    """Why a child can run nothing: each of its executions fails with this."""

    reason: str
    detail: str = ""


def on_child_start(function: F) -> F:
    """Run this function, plain or async and without parameters, once in each child process before its first execution.

    For what is expensive and belongs to one process: a model in memory, a client with its pool of connections. Its time
    counts for no execution, and what it keeps in memory is under no ceiling. Where it raises, executions fail with its
    error. There is no execution while it runs, so that the broker cannot be asked, and what it prints goes nowhere.
    Raises AppError when it takes parameters.
    """
    if not inspect.isfunction(function):
        raise TypeError(f"@on_child_start goes above a function, not above {function!r}.")
    place = Place.of(function)
    try:
        inspect.signature(function).bind()
    except TypeError:
        place.refuse("it is called without arguments.", f"Declare it as `def {function.__name__}()`.")
    _declared.append(function)
    return function


def declared() -> bool:
    """Whether the app has such a function."""
    return bool(_declared)


def start(loop: asyncio.AbstractEventLoop) -> NotStarted | None:
    """Run them, in the order of their declaration, to the first that fails."""
    for function in _declared:
        try:
            made = function()
            if inspect.isawaitable(made):
                loop.run_until_complete(_awaited(made))
        except BaseException as error:  # whatever it is, the next child would fare no better
            line = whereabouts.line_of_error(error)
            name = f"@on_child_start {function.__name__}"
            return NotStarted(
                f"{line}: {name}: {reason_of(error)}" if line else f"{name}: {reason_of(error)}", _told(error)
            )
    return None


async def _awaited(made: Any) -> None:
    await made


def _told(error: BaseException) -> str:
    return clean("".join(traceback.format_exception(error, limit=-10)))[-MAX_DETAIL:]
