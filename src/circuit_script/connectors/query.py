"""A question for records, whoever holds them: what is asked, how values compare, and what a vendor may be asked of it.

`matches` is the one truth of comparison: whatever a vendor answers, every row is held against it again, and the
built-in CRM's SQL gives exactly what it gives. Its rules (``docs/how-to/querying.md`` says them for authors):

- Values compare as `values` says.
- A field that a row does not have is null. Null equals null alone and is neither greater nor less than anything;
  ``ne``, ``not_in`` and `Not` are plain complements, so they are true of null.
- ``id`` and ``contactId`` are text, and wanted numbers count as theirs.
- An order puts nulls last in both directions; rows that it does not tell apart stand by their ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as member
from typing import Any, Literal, get_args

from circuit_script.connectors.values import (
    Known,
    compared,
    has,
    identity,
    is_equal,
    is_text,
    sort_key,
    stands,
    storable,
)
from circuit_script.errors import QueryRefused

Fields = dict[str, Any]
Op = Literal["eq", "ne", "gt", "ge", "lt", "le", "in", "not_in", "contains", "starts_with", "ends_with", "is_null"]

OPS: frozenset[str] = frozenset(get_args(Op))
ORDERED = frozenset({"gt", "ge", "lt", "le"})
TEXTUAL = frozenset({"contains", "starts_with", "ends_with"})
SEVERAL = frozenset({"in", "not_in"})
IDENTITIES = frozenset({"id", "contactId"})  # always text

MOST_ROWS = 50_000  # of one query
MOST_VALUES = 10_000  # of one `in`
MOST_CONDITIONS = 500  # of one query
DEEPEST = 20  # levels of a where
LONGEST_NAME = 1_000  # characters


@dataclass(frozen=True, slots=True)
class Condition:
    """What one field must be. ``value`` is a tuple for ``in`` and ``not_in``, True or False for ``is_null``, text for
    the operators of text; otherwise any value of JSON. Raises QueryRefused for what nobody can compare."""

    field: str
    op: Op
    value: Any
    known: Known = member(init=False, repr=False, compare=False)  # of a list, what each row is looked up in

    def __post_init__(self) -> None:
        if self.op not in OPS:
            raise QueryRefused(f"there is no comparison {self.op!r}.", cure=f"There are: {', '.join(get_args(Op))}.")
        _must_be_name(self.field)
        object.__setattr__(self, "value", self._checked())
        several = self.value if self.op in SEVERAL else ()
        object.__setattr__(self, "known", Known.of(several, is_identity=self.field in IDENTITIES))

    def _checked(self) -> Any:
        name, op, value = self.field[:80], self.op, self.value
        if op == "is_null":
            if not isinstance(value, bool):
                raise QueryRefused(f"{name} is_null takes true or false.")
            return value
        if op in SEVERAL:
            if not isinstance(value, (list, tuple)):
                raise QueryRefused(f"{name} {op} takes a list of values.", cure=f"Write [value] for {op} of one value.")
            if len(value) > MOST_VALUES:
                raise QueryRefused(
                    f"{name} {op} takes {MOST_VALUES:,} values at most, not {len(value):,}.", cure="Ask in parts."
                )
            return tuple(self._storable(each) for each in value)
        if op in TEXTUAL and not isinstance(value, str):
            raise QueryRefused(f"{name} {op} takes text, not a {type(value).__name__}.")
        if op in ORDERED:
            if value is None:
                raise QueryRefused(f"nothing is {op} null.", cure=f"Ask whether {name} is_null.")
            if isinstance(value, bool) or not isinstance(value, (str, int, float)):
                raise QueryRefused(f"{name} {op} takes a number, text or a moment, not a {type(value).__name__}.")
        return self._storable(value)

    def _storable(self, value: Any) -> Any:
        value = storable(value)
        if self.field not in IDENTITIES or value is None:
            return value
        if isinstance(value, (list, dict)):
            raise QueryRefused(f"{self.field} is text, not a {type(value).__name__}.")
        return str(value)


@dataclass(frozen=True, slots=True)
class All:
    """Every part holds; without parts it always does."""

    parts: tuple[Where, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part holds; without parts it never does."""

    parts: tuple[Where, ...]


@dataclass(frozen=True, slots=True)
class Not:
    part: Where


Where = Condition | All | AnyOf | Not
EVERYTHING = All(())


@dataclass(frozen=True, slots=True)
class Order:
    """Nulls stand last, in both directions."""

    field: str
    descending: bool = False

    def __post_init__(self) -> None:
        _must_be_name(self.field)


@dataclass(frozen=True, slots=True)
class Query:
    """``limit`` is 1 to 50,000 rows; ``fields`` are those that are wanted (and ``id``), all when there are none named.

    Without an order rows come as it is easiest for who holds them, and the same in every page. Raises QueryRefused for
    what is too much.
    """

    object: str
    where: Where = EVERYTHING
    order_by: tuple[Order, ...] = ()
    limit: int = 1000
    fields: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.limit <= MOST_ROWS:
            raise QueryRefused(f"limit must be 1 to {MOST_ROWS:,}, not {self.limit}.")
        if _size(self.where) > MOST_CONDITIONS:
            raise QueryRefused(f"a query has {MOST_CONDITIONS} conditions at most.", cure="Use in for many values.")

    @property
    def read(self) -> frozenset[str]:
        """The fields that must be read to answer it; empty means all."""
        if not self.fields:
            return frozenset()
        asked = {each.field for each in conditions(self.where)} | {each.field for each in self.order_by}
        return frozenset({"id", *self.fields, *asked})


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows, in the query's order. ``after`` is where the next page begins, as only who made it understands; None
    at the end."""

    rows: list[Fields]
    after: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """How a query would be answered: ``requests`` are what the vendor is asked, as text, ``here`` what is done on our
    side, and why. ``ordered``: pages come in the query's order; where they do not, everything that matches is read
    and put in order here."""

    connector: str
    requests: tuple[str, ...]
    here: tuple[str, ...] = ()
    ordered: bool = True


def conditions(where: Where, depth: int = DEEPEST) -> Iterable[Condition]:
    """Every condition of it. Raises QueryRefused when it is nested too deeply."""
    if depth == 0:
        raise QueryRefused(f"conditions may be nested {DEEPEST} deep.")
    match where:
        case Condition():
            yield where
        case All(parts) | AnyOf(parts):
            for each in parts:
                yield from conditions(each, depth - 1)
        case Not(part):
            yield from conditions(part, depth - 1)


def _size(where: Where, depth: int = DEEPEST) -> int:
    """How many conditions it has; what is joined of nothing is looked at for each row, too. Raises QueryRefused."""
    if depth == 0:
        raise QueryRefused(f"conditions may be nested {DEEPEST} deep.")
    match where:
        case All(parts) | AnyOf(parts) if parts:
            return sum(_size(each, depth - 1) for each in parts)
        case Not(part):
            return _size(part, depth - 1)
        case _:
            return 1


def every(*parts: Where) -> Where:
    """All of these, as flat as can be."""
    flat: list[Where] = []
    for each in parts:
        flat += each.parts if isinstance(each, All) else (each,)
    return flat[0] if len(flat) == 1 else All(tuple(flat))


def equal(where: Mapping[str, Any]) -> Where:
    """Field → value, or field → list of values that it may be one of."""
    return every(
        *(Condition(name, "in" if isinstance(value, (list, tuple)) else "eq", value) for name, value in where.items())
    )


def orders(*said: str) -> tuple[Order, ...]:
    """``"-score", "id"``: a field each, with ``-`` before it for falling."""
    return tuple(Order(each.removeprefix("-"), each.startswith("-")) for each in said)


# How values compare ----------------------------------------------------------------------------


def matches(row: Mapping[str, Any], where: Where) -> bool:
    """Whether a row is one that is asked for."""
    match where:
        case Condition():
            return _holds(row.get(where.field), where)
        case All(parts):
            return all(matches(row, each) for each in parts)
        case AnyOf(parts):
            return any(matches(row, each) for each in parts)
        case Not(part):
            return not matches(row, part)


def _holds(value: Any, condition: Condition) -> bool:
    wanted = condition.value
    if condition.field in IDENTITIES:
        return _holds_identity(value, condition)
    match condition.op:
        case "eq":
            return is_equal(value, wanted)
        case "ne":
            return not is_equal(value, wanted)
        case "in":
            return condition.known.has(value)
        case "not_in":
            return not condition.known.has(value)
        case "is_null":
            return (value is None) is wanted
        case "contains" | "starts_with" | "ends_with":
            return has(value, condition.op, wanted)
        case _:
            return stands(value, condition.op, wanted)


def _holds_identity(value: Any, condition: Condition) -> bool:
    wanted, text = condition.value, identity(value)
    match condition.op:
        case "eq":
            return value is None if wanted is None else text == wanted
        case "ne":
            return not (value is None if wanted is None else text == wanted)
        case "in" | "not_in":
            found = condition.known.has_identity(text) and (value is None or text is not None)
            return found is (condition.op == "in")
        case "is_null":
            return (value is None) is wanted
        case "contains" | "starts_with" | "ends_with":
            return has(text, condition.op, wanted)
        case _:
            return text is not None and compared(text, condition.op, wanted)


# Order -----------------------------------------------------------------------------------------


def in_order(rows: Iterable[Fields], order_by: Sequence[Order]) -> list[Fields]:
    """Rows in this order, then by id."""
    found = sorted(rows, key=lambda row: str(row.get("id") or ""))
    for each in reversed(order_by):
        found.sort(key=_key(each), reverse=each.descending)
    return found


def _key(order: Order) -> Callable[[Fields], tuple[int, Any]]:
    last = -1 if order.descending else 9
    name, is_identity = order.field, order.field in IDENTITIES

    def key(row: Fields) -> tuple[int, Any]:
        value = row.get(name)
        if value is None:
            return last, 0
        if is_identity:
            text = identity(value)
            return (4, 0) if text is None else (1, text)
        return sort_key(value)

    return key


# What a vendor may be asked --------------------------------------------------------------------


def split(where: Where, can: Callable[[Condition], bool]) -> tuple[Where, Where]:
    """What the vendor may be asked, and what of it is filtered here.

    ``can`` says of a condition whether the vendor, asked for it, leaves out no row that matches; more rows do no harm.
    A vendor that compares text without case may be asked for ``eq``, but not for ``ne``. What is asked of it is made
    of such conditions, `All` and `AnyOf` alone: negations are carried into the conditions, or stay here.
    """
    return _split(positive(where), can)


def _split(where: Where, can: Callable[[Condition], bool]) -> tuple[Where, Where]:
    match where:
        case Condition():
            return (where, EVERYTHING) if can(where) else (EVERYTHING, where)
        case All(parts):
            several = [_split(each, can) for each in parts]
            return every(*(asked for asked, _ in several)), every(*(here for _, here in several))
        case AnyOf(parts):
            several = [_split(each, can) for each in parts]
            asked = AnyOf(tuple(asked for asked, _ in several))
            if EVERYTHING in asked.parts:  # a part that asks nothing lets everything through
                return EVERYTHING, where
            return asked, EVERYTHING if all(here == EVERYTHING for _, here in several) else where
        case Not():
            return EVERYTHING, where


_OPPOSITES: Mapping[str, Op] = {"eq": "ne", "ne": "eq", "in": "not_in", "not_in": "in"}


def positive(where: Where, *, denied: bool = False) -> Where:
    """The same with `Not` where nothing else says it: before a comparison that has no opposite."""
    match where:
        case Not(part):
            return positive(part, denied=not denied)
        case All(parts) if denied:
            return AnyOf(tuple(positive(each, denied=True) for each in parts))
        case AnyOf(parts) if denied:
            return every(*(positive(each, denied=True) for each in parts))
        case All(parts):
            return every(*map(positive, parts))
        case AnyOf(parts):
            return AnyOf(tuple(map(positive, parts)))
        case Condition(field, "is_null", value) if denied:
            return Condition(field, "is_null", not value)
        case Condition(field, op, value) if denied:
            return Condition(field, _OPPOSITES[op], value) if op in _OPPOSITES else Not(where)
        case _:
            return where


# In words --------------------------------------------------------------------------------------

_SIGNS = {"eq": "=", "ne": "!=", "gt": ">", "ge": ">=", "lt": "<", "le": "<=", "not_in": "not in"}
_SHOWN = 5  # values of a list


def words(where: Where) -> str:
    """A condition as a person reads it."""
    match where:
        case Condition(field, "is_null", value):
            return f"{field} is {'' if value else 'not '}null"
        case Condition(field, op, value):
            return f"{field} {_SIGNS.get(op, op.replace('_', ' '))} {_said(value)}"
        case All(()):
            return "everything"
        case AnyOf(()):
            return "nothing"
        case All(parts):
            return " and ".join(f"({words(each)})" if isinstance(each, AnyOf) else words(each) for each in parts)
        case AnyOf(parts):
            return " or ".join(f"({words(each)})" if isinstance(each, All) else words(each) for each in parts)
        case Not(part):
            return f"not ({words(part)})"


def _said(value: Any) -> str:
    if isinstance(value, tuple):
        shown = ", ".join(map(_said, value[:_SHOWN]))
        return f"({shown}{f', and {len(value) - _SHOWN:,} more' if len(value) > _SHOWN else ''})"
    if isinstance(value, str):
        return f"'{value[:100]}{'…' if len(value) > 100 else ''}'"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)[:100]


def _must_be_name(field: str) -> None:
    if len(field) > LONGEST_NAME or "\0" in field or not is_text(field):
        raise QueryRefused(f"{field[:80]!a} is no name of a field.")
