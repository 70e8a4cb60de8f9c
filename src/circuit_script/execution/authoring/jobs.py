"""Jobs as an author declares and enqueues them: ``@queueable``, ``@scheduled``, ``enqueue``."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from difflib import get_close_matches
from importlib import import_module
from typing import Any, TypeVar, cast

import msgspec

from circuit_script.clock import now
from circuit_script.errors import RequestRefused
from circuit_script.execution.authoring.handlers import must_be_function, registry, said_in_full
from circuit_script.execution.authoring.place import AtCeiling, Options, Place
from circuit_script.execution.outcome import JobSpec
from circuit_script.execution.retries import Retries
from circuit_script.execution.session import active, current_record
from circuit_script.execution.timing import (
    CATCH_UP,
    LONGEST_JITTER,
    LONGEST_PERIOD,
    SHORTEST_PERIOD,
    Schedule,
    WrongTime,
    checked_cron,
    checked_zone,
    due_at,
    seconds_of,
)
from circuit_script.governor import Limits

MOST_ARGUMENTS = 256 * 1024  # bytes of all arguments of a job, as JSON
LONGEST_KEY = 255  # characters
ALL = "all"  # tenants
RESERVED = frozenset({"delay", "unique"})  # what enqueue takes for itself
PAGE = "job-refused"
LARGEST, SMALLEST = 2**64 - 1, -(2**63)
GOVERNED = ("circuit_script.execution.zygote.zygote", "circuit_script.execution.zygote.spawned")

F = TypeVar("F", bound=Callable[..., Any])
Job = str | Callable[..., Any]


@said_in_full
def queueable(
    *,
    limits: Limits | Mapping[str, float] | None = None,
    finalizer: Callable[..., Any] | None = None,
    share_child: bool | None = None,
    concurrency: int | None = None,
    egress: Sequence[str] | None = None,
    budget: float | None = None,
    at_ceiling: AtCeiling | None = None,
    retries: Retries | Mapping[str, Any] | None = None,
    max_age: float | str | timedelta | None = None,
    allow_irreversible: Sequence[str] | None = None,
) -> Callable[[F], F]:
    """A job: a function that is called as ``f(context, **arguments)`` some time after `enqueue`, by itself.

    It takes the road of every event: governed, retried, logged, replayable. ``finalizer`` is a function of the same
    shape, which runs once the job has succeeded, has become a dead letter, or was cancelled: ``context.job.status``
    says which. Limits and the other options are those of ``@trigger``, ``retries`` and ``max_age`` among them.
    """
    options = Options(
        limits=limits, share_child=share_child, concurrency=concurrency, egress=egress, budget=budget,
        at_ceiling=at_ceiling, retries=retries, max_age=max_age, batch_size=1, allow_irreversible=allow_irreversible,
    )  # fmt: skip

    def declare(function: F) -> F:
        declared = must_be_function(function, "@queueable", up=2)
        registry.add_job(declared, _spec_of(declared, "queueable", options, finalizer), options)
        return function

    return declare


@said_in_full
def scheduled(
    cron: str | None = None,
    *,
    every: str | float | None = None,
    timezone: str = "UTC",
    jitter: str | float = 0,
    catch_up: str = "last",
    tenants: str | Sequence[str] = "default",
    limits: Limits | Mapping[str, float] | None = None,
    finalizer: Callable[..., Any] | None = None,
    share_child: bool | None = None,
    egress: Sequence[str] | None = None,
    budget: float | None = None,
    at_ceiling: AtCeiling | None = None,
    retries: Retries | Mapping[str, Any] | None = None,
    max_age: float | str | timedelta | None = None,
    allow_irreversible: Sequence[str] | None = None,
) -> Callable[[F], F]:
    """A job that runs by the clock: ``cron`` ("0 7 * * MON-FRI" in ``timezone``), or ``every`` "5m".

    Called as ``f(context)``, exactly once for each firing, by however many workers; ``context.job.scheduled_for`` is
    the firing's moment. ``jitter`` spreads firings over so many seconds. Firings that were missed while nothing ran:
    ``catch_up`` "last" runs the latest of them, "all" each of the latest 100 within 7 days, "none" nothing.

    ``tenants`` are a name, several, or "all" that circuit.toml has at the moment of the firing: then each firing is one
    execution for each tenant, with its data, limits and quotas, and a ``jitter`` of its own.
    """
    options = Options(
        limits=limits, share_child=share_child, egress=egress, budget=budget, at_ceiling=at_ceiling, retries=retries,
        max_age=max_age, batch_size=1, allow_irreversible=allow_irreversible,
    )  # fmt: skip

    def declare(function: F) -> F:
        declared = must_be_function(function, "@scheduled", up=2)
        place = Place.of(declared)
        schedule = replace(_schedule(place, cron, every, timezone, jitter, catch_up), tenants=_tenants(place, tenants))
        spec = _spec_of(declared, "scheduled", options, finalizer, schedule)
        if spec.needs:
            place.refuse(
                f"its argument {spec.needs[0]!r} has no default, and a clock gives none.",
                "Give it a default, or take it out.",
                page="handler-signature",
            )
        registry.add_job(declared, spec, options)
        return function

    return declare


async def enqueue(
    job: Job,
    /,
    *,
    delay: Any = None,
    unique: str | None = None,
    **arguments: Any,
) -> str:
    """Let a job run by itself, with these arguments (JSON values, 256 KB in all); returns its id.

    ``job`` is the function, or its name. ``delay`` is seconds, "5m", a timedelta, or a moment with a time zone, at most
    30 days ahead. With ``unique`` no second job of this name and key is made while one waits or runs: then the id is
    that one's. In a handler a job is an effect: it is made once the execution (or its record) has succeeded. Elsewhere
    it is made at once, for the app in this folder; for other folders and tenants there is `circuit-script enqueue`.

    Raises RequestRefused for what cannot be enqueued, and LimitExceeded in a handler that enqueues too many.
    """
    asked = asking(job, delay, unique, arguments)
    running = active()
    if running is None:
        return await _from_outside(asked)
    reply = await running.request("enqueue", {**asked, "record": current_record.get()}, dict[str, str])
    return reply["id"]


def asking(job: Job, delay: Any, unique: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """What is asked of the broker. Raises RequestRefused for what can be seen to be wrong here."""
    name = name_of(job)
    known = registry.jobs()
    spec = known.get(name)
    if spec is None and (known or active() is not None or not isinstance(job, str)):
        raise refused(f"there is no job {name!r}.", unknown_cure(name, list(known)))
    if spec is not None:
        check_takes(name, spec, arguments)
    check_values(name, arguments)
    if unique is not None and not (isinstance(unique, str) and 0 < len(unique) <= LONGEST_KEY and _storable(unique)):
        raise refused(f"unique is {unique!r}.", f"Write a text of 1 to {LONGEST_KEY} characters, without NUL.")
    try:
        due = due_at(delay, now())
    except WrongTime as error:
        raise refused(error.wrong, error.cure) from None
    return {"job": name, "arguments": arguments, "due": due and due.timestamp(), "unique": unique}


def name_of(job: Job) -> str:
    """The name by which a job is known. Raises RequestRefused."""
    if isinstance(job, str):
        return job
    name = getattr(job, "__qualname__", None)
    if not isinstance(name, str):
        raise refused(f"{job!r} is no job.", "Give the function that stands below @queueable, or its name.")
    return name.rpartition("<locals>.")[2]


def check_takes(name: str, spec: JobSpec, arguments: Mapping[str, Any]) -> None:
    """Whether the job can be called like this. Raises RequestRefused that names the argument."""
    unknown = next((each for each in arguments if each not in spec.takes), None)
    if unknown is not None and not spec.anything:
        takes = f"It takes {', '.join(spec.takes)}." if spec.takes else "It takes none."
        near = get_close_matches(unknown, spec.takes, n=1)
        raise refused(f"{name} takes no argument {unknown!r}.", f"Did you mean {near[0]!r}?" if near else takes)
    missing = next((each for each in spec.needs if each not in arguments), None)
    if missing is not None:
        raise refused(f"{name} needs the argument {missing!r}.", f"Give it: enqueue({name}, {missing}=…).")


def check_values(name: str, arguments: Mapping[str, Any]) -> None:
    """Whether these are JSON values that are not too large. Raises RequestRefused that names the argument."""
    sizes: dict[str, int] = {}
    for argument, value in arguments.items():
        if wrong := _no_json(value, argument):
            raise refused(f"{name}: {wrong}.", "Arguments are JSON values: of a moment give its isoformat().")
        try:
            sizes[argument] = len(msgspec.json.encode(value)) + len(argument)
        except (ValueError, RecursionError) as error:
            raise refused(f"{name}: {argument} is no JSON value: {error}.", "Give what can be sent.") from None
    if sum(sizes.values()) > MOST_ARGUMENTS:
        largest = max(sizes, key=lambda each: sizes[each])
        raise refused(
            f"{name}: its arguments are {sum(sizes.values()):,} bytes of {MOST_ARGUMENTS:,}; the largest is "
            f"{largest!r} with {sizes[largest]:,}.",
            "Store it as a record and give the job its id.",
        )


def refused(wrong: str, cure: str) -> RequestRefused:
    return RequestRefused(wrong, cure=cure, page=PAGE)


def unknown_cure(name: str, known: Sequence[str]) -> str:
    """How to find the job that was meant."""
    near = get_close_matches(name, known, n=1)
    if near:
        return f"Did you mean {near[0]!r}?"
    return f"There are {', '.join(sorted(known))}." if known else "Put @queueable() above its function."


def _storable(text: str) -> bool:
    """Whether the database takes it: text without NUL, and without half of a character."""
    return "\0" not in text and not any("\ud800" <= each <= "\udfff" for each in text)


def _no_json(value: Any, where: str, depth: int = 0) -> str:
    """What is no JSON value in this one, and where."""
    if depth > 100:
        return f"{where} is nested too deep"
    match value:
        case None | bool() | str():
            return ""
        case int():
            return "" if SMALLEST <= value <= LARGEST else f"{where} is a number of more than 64 bits"
        case float():
            return "" if math.isfinite(value) else f"{where} is {value}, which JSON does not have"
        case list() | tuple():
            parts = ((each, f"{where}[{place}]") for place, each in enumerate(value))
        case dict():
            if (odd := next((key for key in value if not isinstance(key, str)), None)) is not None:
                return f"{where} has the key {odd!r}, which is no text"
            parts = ((each, f"{where}[{key!r}]") for key, each in value.items())
        case _:
            return f"{where} is a {type(value).__name__}, which is no JSON value"
    return next(filter(None, (_no_json(each, path, depth + 1) for each, path in parts)), "")


async def _from_outside(asked: dict[str, Any]) -> str:
    """An author's script enqueues, at once; governed code that is not in a handler has no way to the database."""
    main = getattr(sys.modules["__main__"], "__spec__", None)
    if main is not None and main.name in GOVERNED:
        raise RuntimeError("enqueue works inside a handler only: there is no execution here.")
    outside = import_module("circuit_script.jobs.outside")
    return cast(str, await outside.enqueue_here(asked))


def _spec_of(
    function: Any,
    kind: str,
    options: Options,
    finalizer: Callable[..., Any] | None,
    schedule: Schedule | None = None,
) -> JobSpec:
    place = Place.of(function)
    takes, needs, anything, texts = _arguments(place, function)
    return JobSpec(kind, takes, needs, anything, _finalizer(place, finalizer), schedule, texts)


Names = tuple[str, ...]


def _arguments(place: Place, function: Any) -> tuple[Names, Names, bool, Names]:
    """The names of its arguments after the context, those without a default, whether it takes any, and the texts."""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        place.refuse(
            "it has a `yield`, so that calling it runs nothing.",
            "Take the `yield` out: a job is called once and returns.",
            page="handler-signature",
        )
    given = list(inspect.signature(function, follow_wrapped=False).parameters.values())
    if given and given[0].name == "self":
        del given[0]
    if not given or given[0].kind not in (given[0].POSITIONAL_ONLY, given[0].POSITIONAL_OR_KEYWORD):
        place.refuse(
            "its first argument must be the context.",
            f"Declare it as `def {function.__name__}(context, …)`.",
            page="handler-signature",
        )
    takes, needs, texts, anything = [], [], [], False
    for each in given[1:]:
        if each.kind is each.VAR_KEYWORD:
            anything = True
        elif each.kind in (each.VAR_POSITIONAL, each.POSITIONAL_ONLY):
            place.refuse(
                f"its argument {each.name!r} has no name to call it by.",
                "Arguments of jobs are given by name: take out `*` and `/`.",
                page="handler-signature",
            )
        elif each.name in RESERVED:
            place.refuse(
                f"it has an argument {each.name!r}, which enqueue takes for itself.",
                "Give the argument another name.",
                page="handler-signature",
            )
        else:
            takes.append(each.name)
            needs += [each.name] if each.default is each.empty else []
            texts += [each.name] if each.annotation in (str, "str") else []
    return tuple(takes), tuple(needs), anything, tuple(texts)


def _finalizer(place: Place, finalizer: Any) -> str | None:
    """Its name; a plain function becomes a handler by this."""
    if finalizer is None:
        return None
    if not inspect.isfunction(finalizer) or finalizer.__name__ == "<lambda>":
        place.refuse(
            f"its finalizer is {finalizer!r}, which is no function.",
            "Give a `def` or `async def` that takes (context, **arguments), declared above the job.",
            page="handler-signature",
        )
    name = name_of(finalizer)
    if name == place.handler:
        place.refuse("it is its own finalizer.", "Give another function.", page="handler-signature")
    if not registry.knows(finalizer):
        there = Place.of(finalizer)
        takes, needs, anything, texts = _arguments(there, finalizer)
        registry.add_job(finalizer, JobSpec("finalizer", takes, needs, anything, texts=texts), Options(batch_size=1))
    elif name not in registry.jobs():
        place.refuse(
            f"its finalizer {name} is a trigger or an endpoint.",
            "Give a plain function or a @queueable one.",
            page="handler-signature",
        )
    return name


def _tenants(place: Place, tenants: Any) -> tuple[str, ...] | None:
    """Their names, each once; None for all."""
    if tenants == ALL:
        return None
    names = (tenants,) if isinstance(tenants, str) else tenants
    if not isinstance(names, (list, tuple, set, frozenset)) or not names or not all(map(_is_name, names)):
        place.refuse(
            f"tenants is {tenants!r}.",
            'Write "all", or names of circuit.toml: tenants=["acme", "globex"].',
            page="schedule",
        )
    return tuple(sorted(set(names)))


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and bool(name) and _storable(name)


def _schedule(place: Place, cron: Any, every: Any, timezone: Any, jitter: Any, catch_up: Any) -> Schedule:
    if (cron is None) == (every is None):
        place.refuse(
            "it needs a cron expression or every=, and not both.",
            'Write @scheduled("0 7 * * MON-FRI", timezone="Europe/Berlin") or @scheduled(every="5m").',
            page="schedule",
        )
    if catch_up not in CATCH_UP:
        place.refuse(f"catch_up is {catch_up!r}.", f"Write one of {', '.join(CATCH_UP)}.", page="schedule")
    try:
        spread = seconds_of(jitter, "jitter")
        zone = checked_zone(timezone)
        period = None if every is None else seconds_of(every, "every")
        if period is not None and not SHORTEST_PERIOD <= period <= LONGEST_PERIOD:
            raise WrongTime(f"every is {every!r}.", "Write 1 second to 366 days.")
        if spread > LONGEST_JITTER:
            raise WrongTime(f"jitter is {jitter!r}.", "Write at most a day.")
        return Schedule(None if cron is None else checked_cron(cron), period, zone, spread, catch_up)
    except WrongTime as error:
        place.refuse(error.wrong, error.cure, page="schedule")
