"""The generated bulk test: each trigger gets 200 records at once, as a vendor's bulk change brings them.

What it is given is like what its own tests gave it: their records multiplied, what they stored and mocked. A trigger
that no test has seen succeed gets records of the factory, and no callout of it is answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from circuit_script.errors import CircuitError
from circuit_script.testing.factories import Factory
from circuit_script.testing.recipes import Recipe
from circuit_script.testing.session import NOT_MOCKED, TestSession
from circuit_script.testing.uses import HandlerUse
from circuit_script.wiring.callouts import Callouts
from circuit_script.wiring.lines import HandlerSpec
from circuit_script.wiring.trial import Trial
from circuit_script.wiring.trial_result import TrialResult

RECORDS = 200
NAME = "the bulk test"
WELL = ("succeeded", "cancelled")  # the latter is what its author has decided


@dataclass(frozen=True, slots=True)
class BulkTest:
    """How one trigger took its 200 records; ``reason`` says why it did not succeed. ``known`` is whether a test had
    shown what it needs."""

    succeeded: bool
    reason: str = ""
    known: bool = False
    records: int = RECORDS


def bulk_tests(session: TestSession, *, unknown: bool = True) -> dict[str, BulkTest]:
    """Try each trigger of the session's app, on all of its routes; with ``unknown`` also those that no test of this
    session has seen succeed."""
    found = {}
    for spec in session.handlers:
        recipes = [each for each in session.recipes if each.handler == spec.name]
        wanted = (recipes or unknown) and spec.name not in session.settings.test.skip_bulk
        if spec.endpoint is None and spec.job is None and wanted:
            found[spec.name] = _tried(session, spec, recipes)
    return found


def _tried(session: TestSession, spec: HandlerSpec, recipes: Sequence[Recipe]) -> BulkTest:
    for object_, event in spec.routes:
        fitting = [each for each in recipes if (each.object, each.event) == (object_, event)]
        recipe = replace(
            fitting[0] if fitting else Recipe((), session.settings.tenant_names[0]),
            handler=spec.name,
            object=object_,
            event=event,
        )
        try:
            reason = _faults(session, recipe, recipes)
        except CircuitError as error:
            reason = str(error)
        if reason:
            on = f"on {object_}.{event}: " if len(spec.routes) > 1 else ""
            return BulkTest(False, on + reason, bool(recipes))
    return BulkTest(True, known=bool(recipes))


def _faults(session: TestSession, recipe: Recipe, all_: Sequence[Recipe]) -> str:
    """Why it did not succeed, empty if it did."""
    callouts = Callouts(NOT_MOCKED)
    for each in (*all_, recipe):  # the latest answers first
        callouts.prepare(each.prepared)
    with session.trial(callouts) as trial:
        result = session.loop.wait(_run(trial, recipe))
    session.uses.setdefault(recipe.handler, HandlerUse()).approach(result, NAME)
    if callouts.refused:
        return f"{callouts.refused[0]} is not mocked in any test of it that succeeds"
    if result.status in WELL:
        return ""
    failed = f"{len(result.errors)} of {len(result.records)} records failed, " if result.errors else ""
    return f"it {result.status}: {failed}{result.reason}" if result.reason else f"it {result.status}"


async def _run(trial: Trial, recipe: Recipe) -> TrialResult:
    many = recipe.many(RECORDS, Factory(seed="bulk"))
    for each in many.stored:
        await trial.seed(each.object, each.records, tenant=each.tenant)
    return await trial.run(
        recipe.handler,
        many.records,
        object=recipe.object,
        event=recipe.event,
        tenant=recipe.tenant,
        old=many.old,
    )
