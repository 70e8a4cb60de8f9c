"""How an author declares handlers: ``@trigger`` on functions and methods, kept in a registry of HandlerSpecs."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from functools import wraps
from types import FunctionType
from typing import Any, Literal, NoReturn, ParamSpec, TypeVar, cast

from circuit_script.errors import AppError, ConfigError
from circuit_script.execution.outcome import EndpointSpec, HandlerSpec
from circuit_script.governor import Limits

EVENTS = ("afterInsert", "afterUpdate", "afterDelete", "afterUndelete")
# What the sources bring of themselves; an app names others in circuit.toml.
OBJECTS = (
    "Appointment", "Association", "Call", "Campaign", "Contact", "Conversation", "Invoice", "LinkedInActivity",
    "Location", "Message", "Note", "ObjectSchema", "Opportunity", "Order", "Price", "Product", "Quota", "Record",
    "Relation", "Review", "Task", "User",
)  # fmt: skip
MAX_BATCH = 200
MAX_CONCURRENCY = 100
AT_CEILING = ("refuse", "defer", "cheaper")
HOST = re.compile(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|[0-9A-Fa-f:.]+")
AtCeiling = Literal["refuse", "defer", "cheaper"]
MAX_DOC = 4000

F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")
R = TypeVar("R")


class CircuitTrigger:
    """A class whose methods are triggers. One instance is made in each child, without arguments."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the decorators of one handler may say besides its routes."""

    batch_size: int | None = None
    limits: Limits | Mapping[str, float] | None = None
    share_child: bool | None = None
    echoes: bool | None = None
    concurrency: int | None = None
    egress: Sequence[str] | None = None
    budget: float | None = None
    at_ceiling: str | None = None


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
        function = _must_be_function(function, "@trigger")
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
        function = _must_be_function(function, said)
        self._add(function, Place.of(function), options, (), endpoint)

    def _add(
        self,
        function: FunctionType,
        place: Place,
        options: Options,
        routes: tuple[tuple[str, str], ...],
        endpoint: EndpointSpec | None,
    ) -> None:
        known = self._declared.get(place.handler)
        if known is not None and known.function is not function:
            place.refuse(
                f"there is a handler {place.handler!r} already, at {known.spec.file}:{known.spec.line}.",
                "Give one of them another name.",
                page="duplicate-handler",
            )
        if known is not None:
            if endpoint is not None or known.spec.endpoint is not None:
                place.refuse(
                    "it has two decorators, one of them of an endpoint.",
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
            file=place.file,
            line=place.line,
            doc=(inspect.getdoc(function) or "")[:MAX_DOC],
            endpoint=endpoint,
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
            if declared.spec.endpoint is None:
                place.check_signature(declared.function, owner)
            for object_, _ in declared.spec.routes:
                place.check_known(object_, known)

    def callable(self, name: str) -> Callable[[Any], Any]:
        """The handler to call with a Context; a method is bound to a new instance of its class.

        Raises KeyError for an unknown name.
        """
        function = self._declared[name].function
        owner = _owner(function, name)
        return function if owner is None else cast(Callable[[Any], Any], getattr(owner(), function.__name__))


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
            near = "" if unknown is None else f"{_nearest(unknown, list(signature.parameters))} "
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
    """
    options = Options(batch_size, limits, share_child, echoes, concurrency, egress, budget, at_ceiling)

    def declare(function: F) -> F:
        registry.add_trigger(function, object, [events] if isinstance(events, str) else events, options)
        return function

    return declare


@dataclass(frozen=True, slots=True)
class Place:
    """Where a handler stands, to name it in what is wrong with it."""

    handler: str
    file: str
    line: int

    @classmethod
    def of(cls, function: FunctionType) -> Place:
        name = function.__qualname__.rpartition("<locals>.")[2]
        return cls(name, function.__code__.co_filename, function.__code__.co_firstlineno)

    def refuse(self, wrong: str, cure: str, page: str = "app-error") -> NoReturn:
        raise AppError(f"{self.file}:{self.line}: {self.handler}: {wrong}", cure=cure, page=page)

    def checked_object(self, object_: Any) -> str:
        if not isinstance(object_, str) or not object_:
            self.refuse(f"the object is {object_!r}.", 'Write its name, like "Contact".', page="unknown-object")
        return object_

    def check_known(self, object_: str, known: Sequence[str]) -> None:
        if object_ not in known:
            self.refuse(
                f"there is no object {object_!r}.",
                f'{_nearest(object_, known)} One that your vendor has stands in circuit.toml: objects = ["{object_}"].',
                page="unknown-object",
            )

    def check_signature(self, function: FunctionType, owner: Any) -> None:
        """A trigger is called with one argument, its context; its class is made without any."""
        name = function.__name__
        bound = owner is not None and not isinstance(inspect.getattr_static(owner, name, None), staticmethod)
        given = (None, None) if bound else (None,)
        shown = f"{name}(self, context)" if bound else f"{name}(context)"
        try:
            inspect.signature(function, follow_wrapped=False).bind(*given)
        except TypeError:
            wrong = f"it is called with one argument, the context, but is declared as {name}{_parameters(function)}."
            self.refuse(wrong, f"Declare it as `def {shown}` or `async def {shown}`.", page="handler-signature")
        try:
            if bound:
                inspect.signature(owner).bind()
        except TypeError:
            wrong = f"its class {owner.__name__} cannot be made without arguments."
            self.refuse(wrong, "Let its __init__ take nothing but self.", page="handler-signature")
        except ValueError:
            pass  # a class whose signature Python does not know

    def checked_events(self, events: Any) -> tuple[str, ...]:
        if not isinstance(events, (list, tuple, set, frozenset)) or not events:
            self.refuse("it names no event.", f"Write a list of {', '.join(EVENTS)}.", page="unknown-event")
        for event in events:
            if event not in EVENTS:
                self.refuse(f"there is no event {event!r}.", _nearest(str(event), EVENTS), page="unknown-event")
        return tuple(events)

    def checked_batch_size(self, size: Any) -> int:
        if size is None:
            return MAX_BATCH
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= MAX_BATCH:
            self.refuse(f"batch_size is {size!r}.", f"Write a whole number from 1 to {MAX_BATCH}.", page="batch-size")
        return size

    def checked_flag(self, name: str, value: Any) -> bool:
        if value is not None and not isinstance(value, bool):
            self.refuse(f"{name} is {value!r}.", "Write True or False.", page="handler-signature")
        return bool(value)

    def checked_concurrency(self, concurrency: Any, function: FunctionType) -> int:
        if concurrency is None:
            return 1
        whole = isinstance(concurrency, int) and not isinstance(concurrency, bool)
        if not whole or not 1 <= concurrency <= MAX_CONCURRENCY:
            self.refuse(f"concurrency is {concurrency!r}.", f"Write a whole number from 1 to {MAX_CONCURRENCY}.")
        if concurrency > 1 and not (inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)):
            self.refuse(
                f"it is a plain `def` with concurrency={concurrency}: plain functions cannot wait side by side.",
                "Make it an `async def` that awaits what it waits for, or leave concurrency out.",
                page="handler-signature",
            )
        return int(concurrency)

    def checked_egress(self, hosts: Any) -> tuple[str, ...] | None:
        if hosts is None:
            return None
        cure = 'Write a list of hosts, like ["api.example.com", "*.example.org"]; [] allows none.'
        if not isinstance(hosts, (list, tuple, set, frozenset)):
            self.refuse(f"egress is {hosts!r}.", cure)
        for host in hosts:
            if not isinstance(host, str) or not HOST.fullmatch(host):
                self.refuse(f"egress names {host!r}, which is no host.", cure)
        return tuple(dict.fromkeys(host.lower() for host in hosts))

    def checked_budget(self, dollars: Any) -> float | None:
        number = isinstance(dollars, (int, float)) and not isinstance(dollars, bool)
        if dollars is not None and not (number and 0 <= dollars < float("inf")):
            self.refuse(f"budget is {dollars!r}.", "Write US dollars a day, like 5.0.")
        return None if dollars is None else float(dollars)

    def checked_at_ceiling(self, policy: Any) -> str | None:
        if policy is not None and policy not in AT_CEILING:
            self.refuse(f"at_ceiling is {policy!r}.", f"Write one of {', '.join(AT_CEILING)}.")
        return None if policy is None else str(policy)

    def checked_limits(self, limits: Any, default: Limits) -> Limits:
        if limits is None:
            return default
        if isinstance(limits, Limits):
            return limits
        if not isinstance(limits, Mapping):
            self.refuse(f"limits is {limits!r}.", 'Write them like {"wall_time": 5}.', page="unknown-limit")
        names = [field.name for field in fields(Limits)]
        for name in limits:
            if name not in names:
                self.refuse(f"there is no limit {name!r}.", _nearest(str(name), names), page="unknown-limit")
        try:
            return replace(default, **limits)
        except ConfigError as error:
            self.refuse(error.detail, "Write a positive number.", page="unknown-limit")

    def merged(self, first: Options, second: Options) -> Options:
        """The options of two decorators of one handler; each may be said once."""
        chosen = {}
        for field in fields(Options):
            mine, other = getattr(first, field.name), getattr(second, field.name)
            if mine is not None and other is not None and mine != other:
                self.refuse(f"its decorators disagree about {field.name}.", "Say it in one of them.")
            chosen[field.name] = other if mine is None else mine
        return Options(**chosen)


def _must_be_function(function: Any, said: str) -> FunctionType:
    if isinstance(function, FunctionType) and function.__name__ != "<lambda>":
        return function
    caller = inspect.stack()[3]
    kind = "a lambda" if isinstance(function, FunctionType) else f"a {type(function).__name__}"
    raise AppError(
        f"{caller.filename}:{caller.lineno}: {said} stands on {kind}, not on a function.",
        cure="Put it directly above a `def` or `async def`, below @staticmethod and @classmethod.",
        page="handler-signature",
    )


def _parameters(function: FunctionType) -> str:
    return str(inspect.signature(function, follow_wrapped=False)).partition(" -> ")[0]


def _nearest(name: str, names: Sequence[str]) -> str:
    lower = {each.lower(): each for each in names}
    close = get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    return f"Did you mean {lower[close[0]]!r}?" if close else f"There are {', '.join(names)}."


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
