"""Whose decision it is that something is asked of the broker: the author's, a model's, or nobody knows.

A child says it with each request, as far as it knows. The broker believes that a model chose it; it believes that the
author did only where that fits what it has seen (`broker.choices`).
"""

from __future__ import annotations

from contextvars import ContextVar

AUTHOR = "author"
MODEL = "model"

# In a child. Tasks, and threads that asyncio and anyio start, inherit it; a bare thread inherits only MODEL, and else
# says nothing.
here: ContextVar[str] = ContextVar("deciding", default="")
# In the parent: of the task that serves a request.
asking: ContextVar[str] = ContextVar("asking", default="")

_marked = False


def by() -> str:
    """Who decides here. Where tools of models are not marked, nobody can say that it is the author."""
    said = here.get()
    return said if _marked or said == MODEL else ""


def marked() -> bool:
    """Whether tools of models are marked here."""
    return _marked


def tools_are_marked() -> None:
    """From now on code that a model has chosen runs with ``here`` set to MODEL."""
    global _marked
    _marked = True
