"""How an author declares handlers: ``@trigger`` on functions and methods, kept in a registry of HandlerSpecs."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps
from types import FunctionType
from typing import Any, ParamSpec, TypeVar, cast

from circuit_script.errors import AppError
from circuit_script.execution.authoring.place import OBJECTS, AtCeiling, BatchPolicy, Options, Place, nearest
from circuit_script.execution.outcome import JOB, EndpointSpec, HandlerSpec, JobSpec
from circuit_script.execution.retries import Retries
from circuit_script.governor import Limits

MAX_DOC = 4000

F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")
R = TypeVar("R")


class CircuitTrigger:
    """A class whose methods are triggers. One instance is made in each child, without arguments."""


@dataclass(frozen=True, slots=True)
class Declared:
    """A handler as declared, with its function."""

    function: FunctionType
    spec: HandlerSpec
    options: Options


class Registry:
    """Every handler that this process has imported, by name. ``limits`` are those of a handler that names none."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._declared: dict[str, Declared] = {}

    def add_trigger(self, function: Any, object_: str, events: Sequence[str], options: Options) -> None:
        """Take one ``@trigger``'s word. Raises AppError that names file, line and cure."""
        function = must_be_function(function, "@trigger")
        place = Place.of(function)
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            place.refuse(
                "it has a `yield`, so that calling it runs nothing.",
                "Take the `yield` out: a trigger is called once and returns.",
                page="handler-signature",
            )
        routes = tuple((place.checked_object(object_), event) for event in place.checked_events(events))
        self._add(function, place, options, routes, None)

    def add_endpoint(self, function: Any, endpoint: EndpointSpec, options: Options, *, said: str = "@endpoint") -> None:
        """Take one ``@endpoint``'s word; ``said`` is the decorator's name. Raises AppError with file, line and cure."""
        function = must_be_function(function, said)
        self._add(function, Place.of(function), options, (), endpoint)

    def add_job(self, function: FunctionType, job: JobSpec, options: Options) -> None:
        """Take one job's word: its event is its name. Raises AppError with file, line and cure."""
        place = Place.of(function)
        if place.handler in self._declared:
            place.refuse(
                f"there is a handler {place.handler!r} already, or it has two decorators.",
                "Make it one handler or two.",
                page="duplicate-handler",
            )
        self._add(function, place, options, ((JOB, place.handler),), None, job)

    def jobs(self) -> Mapping[str, JobSpec]:
        """What can be enqueued, by name."""
        return {name: each.spec.job for name, each in self._declared.items() if each.spec.job is not None}

    def knows(self, function: Any) -> bool:
        """Whether this very function is a handler."""
        return any(each.function is function for each in self._declared.values())

    def _add(
        self,
        function: FunctionType,
        place: Place,
        options: Options,
        routes: tuple[tuple[str, str], ...],
        endpoint: EndpointSpec | None,
        job: JobSpec | None = None,
    ) -> None:
        known = self._declared.get(place.handler)
        if known is not None and known.function is not function:
            place.refuse(
                f"there is a handler {place.handler!r} already, at {known.spec.file}:{known.spec.line}.",
                "Give one of them another name.",
                page="duplicate-handler",
            )
        if known is not None:
            if endpoint is not None or known.spec.endpoint is not None or known.spec.job is not None:
                place.refuse(
                    "it has two decorators, one of them of an endpoint or a job.",
                    "Make it one handler or two.",
                    page="duplicate-handler",
                )
            options = place.merged(known.options, options)
            routes = tuple(dict.fromkeys((*routes, *known.spec.routes)))
        spec = HandlerSpec(
            name=place.handler,
            routes=routes,
            batch_size=place.checked_batch_size(options.batch_size),
            limits=place.checked_limits(options.limits, self.limits),
            share_child=place.checked_flag("share_child", options.share_child),
            echoes=place.checked_flag("echoes", options.echoes),
            concurrency=place.checked_concurrency(options.concurrency, function),
            egress=place.checked_egress(options.egress),
            budget=place.checked_budget(options.budget),
            at_ceiling=place.checked_at_ceiling(options.at_ceiling),
            retries=place.checked_retries(options.retries),
            max_age=place.checked_max_age(options.max_age),
            coalesce=place.checked_coalesce(options.coalesce, routes),
            batch=place.checked_batch(options.batch),
            allow_irreversible=place.checked_irreversible(options.allow_irreversible),
            file=place.file,
            line=place.line,
            doc=(inspect.getdoc(function) or "")[:MAX_DOC],
            endpoint=endpoint,
            job=job,
        )
        self._declared[place.handler] = Declared(function, spec, options)

    def specs(self) -> tuple[HandlerSpec, ...]:
        """Every handler, by name."""
        return tuple(self._declared[name].spec for name in sorted(self._declared))

    def check(self, objects: Collection[str] = ()) -> None:
        """What can be seen only when the whole app is imported: that each class can be found and made, each trigger
        takes its context, and each object is known (``objects`` are the app's own). Raises AppError with file and line.
        """
        known = (*OBJECTS, *objects)
        for declared in self._declared.values():
            if declared.spec.endpoint is not None and declared.spec.endpoint.kind == "web":
                continue  # its web framework calls it; its name is a route's
            place = Place.of(declared.function)
            owner = _owner(declared.function, declared.spec.name)
            if declared.spec.job is not None:
                continue  # its arguments were looked at when it was declared
            if declared.spec.endpoint is None:
                place.check_signature(declared.function, owner)
            for object_, _ in declared.spec.routes:
                place.check_known(object_, known)

    def callable(self, name: str) -> Callable[[Any], Any]:
        """The handler to call with a Context; a method is bound to a new instance of its class.

        Raises KeyError for an unknown name.
        """
        declared = self._declared[name]
        function, owner = declared.function, _owner(declared.function, name)
        bound = function if owner is None else cast(Callable[..., Any], getattr(owner(), function.__name__))
        return bound if declared.spec.job is None else lambda context: bound(context, **context.arguments)


registry = Registry()


def said_in_full(decorator: Callable[P, R]) -> Callable[P, R]:
    """Let a decorator that is called with other arguments than it has say so, with the author's file and line."""
    signature, name = inspect.signature(decorator), f"@{decorator.__name__}"

    @wraps(decorator)
    def checked(*given: P.args, **named: P.kwargs) -> R:
        try:
            signature.bind(*given, **named)
        except TypeError as error:
            caller = sys._getframe(1)
            unknown = next((each for each in named if each not in signature.parameters), None)
            near = "" if unknown is None else f"{nearest(unknown, list(signature.parameters))} "
            wrong = "it stands without its arguments" if given and isinstance(given[0], FunctionType) else str(error)
            raise AppError(
                f"{caller.f_code.co_filename}:{caller.f_lineno}: {name}: {wrong}.",
                cure=f'{near}Write it like @trigger("Contact", ["afterInsert"]).',
                page="handler-signature",
            ) from None
        return decorator(*given, **named)

    return checked


@said_in_full
def trigger(
    object: str,
    events: str | Sequence[str],
    *,
    batch_size: int | None = None,
    limits: Limits | Mapping[str, float] | None = None,
    share_child: bool | None = None,
    echoes: bool | None = None,
    concurrency: int | None = None,
    egress: Sequence[str] | None = None,
    budget: float | None = None,
    at_ceiling: AtCeiling | None = None,
    retries: Retries | Mapping[str, Any] | None = None,
    max_age: float | str | timedelta | None = None,
    coalesce: bool | None = None,
    batch: BatchPolicy | None = None,
    allow_irreversible: Sequence[str] | None = None,
) -> Callable[[F], F]:
    """Call the function or method with a Context for ``events`` ("afterInsert", …) of ``object`` ("Contact", …).

    The handler may be a plain ``def`` or an ``async def``; what it returns is ignored, unless it is a ``Retry`` or a
    ``Cancel``. Decorators stack: each adds its routes to the same handler. ``batch_size`` is at most 200; ``limits``
    replaces single limits ({"wall_time": 5}) or all of them (Limits(...)); ``share_child`` is the promise that the
    handler keeps no state in globals, so that tenants may share a child; ``echoes`` starts it also for our own writes
    coming back. ``concurrency`` lets so many executions of one tenant share a child, for handlers that wait; ``egress``
    are the only hosts that it may call (["api.example.com", "*.example.org"]); ``budget`` is what it may spend on
    models in a day, in US dollars; ``at_ceiling`` says what happens when money or a quota is used up: "refuse", "defer"
    or "cheaper".

    ``retries`` is how it is tried again (Retries(attempts=5), or a mapping); an event older than ``max_age`` (seconds,
    "6h") is not run any more. With ``coalesce`` only the newest of the waiting updates of a record runs; with
    ``batch="all-or-none"`` nothing of a batch leaves unless every record of it succeeds.

    ``allow_irreversible`` names what a model may choose although untrusted text was read, and nobody can take back:
    ("send_email", "hubspot.delete", "http.post"). What the handler's own code decides needs no leave.
    """
    options = Options(
        batch_size,
        limits,
        share_child,
        echoes,
        concurrency,
        egress,
        budget,
        at_ceiling,
        retries,
        max_age,
        coalesce,
        batch,
        allow_irreversible,
    )

    def declare(function: F) -> F:
        registry.add_trigger(function, object, [events] if isinstance(events, str) else events, options)
        return function

    return declare


def must_be_function(function: Any, said: str, up: int = 3) -> FunctionType:
    """The function below a decorator. ``up`` is how many calls above this one the author's line stands."""
    if isinstance(function, FunctionType) and function.__name__ != "<lambda>":
        return function
    caller = inspect.stack()[up]
    kind = "a lambda" if isinstance(function, FunctionType) else f"a {type(function).__name__}"
    raise AppError(
        f"{caller.filename}:{caller.lineno}: {said} stands on {kind}, not on a function.",
        cure="Put it directly above a `def` or `async def`, below @staticmethod and @classmethod.",
        page="handler-signature",
    )


def _owner(function: FunctionType, name: str) -> Any:
    """The class of a method, None for a function."""
    found: Any = sys.modules[function.__module__]
    path = name.split(".")[:-1]
    for part in path:
        found = getattr(found, part, None)
    if found is None:
        Place.of(function).refuse(
            "its class is hidden in a function.", "Put it at the top of its module.", page="handler-signature"
        )
    return found if path else None
