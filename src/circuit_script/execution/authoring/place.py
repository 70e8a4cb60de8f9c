"""Where a handler stands, and what is wrong with what its decorators say."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from difflib import get_close_matches
from types import FunctionType
from typing import Any, Literal, NoReturn

from circuit_script.errors import AppError, ConfigError
from circuit_script.execution.irreversible import NAMES
from circuit_script.execution.outcome import ALL_OR_NONE, EACH
from circuit_script.execution.retries import Retries
from circuit_script.execution.timing import WrongTime, seconds_of
from circuit_script.governor import Limits

EVENTS = ("afterInsert", "afterUpdate", "afterDelete", "afterUndelete")
# What the sources bring of themselves; an app names others in circuit.toml.
OBJECTS = (
    "App", "Appointment", "Association", "Call", "Campaign", "Company", "Contact", "Conversation", "Customer",
    "Email", "EmailStats", "Invoice", "Lead", "LinkedInActivity", "Location", "Message", "Note", "ObjectSchema",
    "Opportunity", "OptOut", "Order", "Price", "Product", "Quota", "Record", "Relation", "Review", "Task", "Ticket",
    "Transcript", "User",
)  # fmt: skip
MAX_BATCH = 200
MAX_CONCURRENCY = 100
AT_CEILING = ("refuse", "defer", "cheaper")
HOST = re.compile(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|[0-9A-Fa-f:.]+")
AtCeiling = Literal["refuse", "defer", "cheaper"]
BatchPolicy = Literal["each", "all-or-none"]


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
    retries: Retries | Mapping[str, Any] | None = None
    max_age: float | str | timedelta | None = None
    coalesce: bool | None = None
    batch: str | None = None
    allow_irreversible: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a handler stands, to name it in what is wrong with it."""

    handler: str
    file: str
    line: int

    @classmethod
    def of(cls, function: FunctionType) -> Place:
        """Of what the author wrote, below decorators that wrap it."""
        name = function.__qualname__.rpartition("<locals>.")[2]
        code = getattr(inspect.unwrap(function), "__code__", function.__code__)
        return cls(name, code.co_filename, code.co_firstlineno)

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
                f'{nearest(object_, known)} One that your vendor has stands in circuit.toml: objects = ["{object_}"].',
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
                self.refuse(f"there is no event {event!r}.", nearest(str(event), EVENTS), page="unknown-event")
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

    def checked_retries(self, retries: Any) -> Retries | None:
        """With its classes by name, so that other processes can be told."""
        if retries is None or isinstance(retries, Retries):
            return None if retries is None else retries.named()
        if not isinstance(retries, Mapping):
            self.refuse(f"retries is {retries!r}.", "Write Retries(attempts=3, backoff=2.0).", page="retries")
        names = [field.name for field in fields(Retries)]
        for name in retries:
            if name not in names:
                self.refuse(f"retries has no {name!r}.", nearest(str(name), names), page="retries")
        try:
            return Retries(**retries).named()
        except ConfigError as error:
            self.refuse(error.detail, error.cure, page="retries")

    def checked_max_age(self, age: Any) -> float | None:
        """In seconds."""
        if age is None:
            return None
        try:
            seconds = seconds_of(age, "max_age")
        except WrongTime as error:
            self.refuse(error.wrong, error.cure, page="retries")
        if not 0 < seconds < float("inf"):
            self.refuse(f"max_age is {age!r}.", 'Write seconds, or "90s", "15m", "6h", "2d".', page="retries")
        return seconds

    def checked_coalesce(self, coalesce: Any, routes: Sequence[tuple[str, str]]) -> bool:
        said = self.checked_flag("coalesce", coalesce)
        if said and not any(event == "afterUpdate" for _, event in routes):
            self.refuse(
                "it says coalesce=True, but has no updates to coalesce.",
                'Add "afterUpdate" to its events, or leave coalesce out.',
                page="retries",
            )
        return said

    def checked_batch(self, batch: Any) -> str:
        if batch not in (None, EACH, ALL_OR_NONE):
            self.refuse(f"batch is {batch!r}.", f"Write {EACH!r} or {ALL_OR_NONE!r}.", page="retries")
        return EACH if batch is None else str(batch)

    def checked_irreversible(self, names: Any) -> tuple[str, ...]:
        if names is None:
            return ()
        if not isinstance(names, (list, tuple, set, frozenset)):
            self.refuse(f"allow_irreversible is {names!r}.", 'Write names, like ("send_email",).', page="irreversible")
        for name in names:
            if not isinstance(name, str) or name not in NAMES:
                self.refuse(
                    f"allow_irreversible names {name!r}, which is nothing that a model is kept from.",
                    nearest(str(name), sorted(NAMES)),
                    page="irreversible",
                )
        return tuple(dict.fromkeys(names))

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
                self.refuse(f"there is no limit {name!r}.", nearest(str(name), names), page="unknown-limit")
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


def nearest(name: str, names: Sequence[str]) -> str:
    """The cure of a name that is not known."""
    lower = {each.lower(): each for each in names}
    close = get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    return f"Did you mean {lower[close[0]]!r}?" if close else f"There are {', '.join(names)}."


def _parameters(function: FunctionType) -> str:
    return str(inspect.signature(function, follow_wrapped=False)).partition(" -> ")[0]
