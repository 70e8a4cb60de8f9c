"""How a trick is declared, and how it says that it got through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from circuit_script import log, trigger


def trick(function: Callable[..., Any]) -> Callable[..., Any]:
    return trigger("Contact", ["afterInsert"])(function)


def evaded(how: object) -> None:
    log.error(f"EVADED {how}")


def denied(attempt: Callable[[], Any], how: str) -> None:
    """Say so unless the attempt raises OSError."""
    try:
        found = attempt()
    except OSError:
        return
    evaded(f"{how}: {found!r:.200}")
