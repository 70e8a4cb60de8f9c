"""Fixtures of the pool's own tests, and `code_in`: what an expression gives inside a handler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from circuit_script.errors import IsolationUnavailable
from circuit_script.execution.hardening import hide_from_children
from circuit_script.execution.nursery import Hosting
from circuit_script.execution.outcome import Succeeded
from tests.integration.execution.conftest import Bench, PoolOf, Recorder
from tests.integration.execution.conftest import pool_of as pool_of

EVALUATES = """
@trigger("Contact", ["afterInsert"])
def evaluates(context):
    space = {"os": os, "sys": sys, "time": time}
    *lines, last = context.new_records[0].id.split("; ")
    for line in lines:
        exec(line, space)
    log.info(repr(eval(last, space)))
"""
STRICT = Hosting("strict")

StrictOf = Callable[..., Awaitable[Bench]]


@pytest.fixture
def strict_of(pool_of: PoolOf) -> StrictOf:
    """A pool whose children are strictly isolated; skips where this machine cannot do it."""

    async def make(source: str = "", *, hosting: Hosting = STRICT) -> Bench:
        hide_from_children()
        try:
            return await pool_of(EVALUATES + source, hosting=hosting)
        except IsolationUnavailable as error:
            pytest.skip(str(error))

    return make


async def code_in(bench: Bench, code: str, **settings: object) -> str:
    """What an expression (after statements, each ended by "; ") is in a handler, as `repr` shows it."""
    broker = Recorder()
    outcome = await bench.run("evaluates", records=[{"id": code}], broker=broker, **settings)  # type: ignore[arg-type]
    assert isinstance(outcome, Succeeded), outcome
    return broker.messages[-1]
