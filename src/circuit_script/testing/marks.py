"""``@test``: a function or method is a test, whatever its name. As Apex's ``@isTest``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

MARK = "__circuit_test__"

F = TypeVar("F", bound=Callable[..., Any])


def test(function: F) -> F:
    """Mark a test. It stands in a file of tests (``tests/test_leads.py``), alone or in a class of any name:

    class LeadTests:
        @test
        def a_new_lead_is_scored(self, circuit): ...
    """
    setattr(function, MARK, True)
    return function


def is_marked(thing: object) -> bool:
    """Whether ``@test`` stands above it."""
    return getattr(thing, MARK, False) is True


def has_marked(thing: object) -> bool:
    """Whether it is a class with tests that are marked."""
    return isinstance(thing, type) and any(is_marked(getattr(thing, name, None)) for name in dir(thing))
