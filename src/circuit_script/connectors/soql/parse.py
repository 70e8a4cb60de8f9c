"""A SOQL query as a Query: read by a grammar, bounded, with values from bind variables that never become text.

Only the trusted side reads it: the grammar's library is loaded when the first one comes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from circuit_script.clock import now
from circuit_script.connectors.query import (
    DEEPEST,
    EVERYTHING,
    MOST_ROWS,
    ORDERED,
    AnyOf,
    Condition,
    Not,
    Op,
    Order,
    Query,
    Where,
    every,
)
from circuit_script.connectors.soql.faults import at, unexpected
from circuit_script.connectors.soql.names import field_of
from circuit_script.connectors.values import moment
from circuit_script.errors import QueryRefused

if TYPE_CHECKING:
    from lark import Lark, Token

LONGEST = 20_000  # characters
MOST_DIGITS = 30
SIGNS: dict[str, Op] = {"=": "eq", "!=": "ne", "<>": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "'": "'", '"': '"', "\\": "\\"}
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|.)", re.DOTALL)
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Parsed:
    """A query, of whose rows the first ``skipped`` are left out; its limit counts them."""

    query: Query
    skipped: int = 0


def parse(text: str, binds: Mapping[str, Any], limit: int, clock: Callable[[], datetime] = now) -> Parsed:
    """What a text asks. ``binds`` are the values of ``:name``; ``limit`` is the one where it says none; the days of
    TODAY and its kin are UTC's, by ``clock``. Raises QueryRefused, which shows the place."""
    if len(text) > LONGEST:
        raise QueryRefused(f"a query has {LONGEST:,} characters at most, not {len(text):,}.")
    from lark.exceptions import UnexpectedInput

    _must_be_shallow(text)
    try:
        tree = _grammar().parse(text)
    except UnexpectedInput as error:
        raise unexpected(text, error) from None
    reader = _Reader(text, binds, clock().astimezone(UTC))
    parsed = reader.read(tree, limit)
    if unused := sorted(set(binds) - reader.used):
        raise QueryRefused(f"there is no :{unused[0]} in the query, which binds says.")
    return parsed


@cache
def _grammar() -> Lark:
    from importlib.resources import files

    from lark import Lark

    text = (files("circuit_script.connectors.soql") / "grammar.lark").read_text("utf-8")
    return Lark(text, parser="lalr", lexer="contextual", maybe_placeholders=True)


def _must_be_shallow(text: str) -> None:
    """The tree of a text is read by functions that call themselves."""
    depth = negations = 0
    for found in re.finditer(r"'(?:[^'\\]|\\.)*'|[()]|\bnot\b", text, re.DOTALL | re.IGNORECASE):
        match found[0].lower():
            case "(":
                depth += 1
            case ")":
                depth = max(0, depth - 1)
            case "not":
                negations += 1
        if depth >= DEEPEST or negations > 100:
            raise at(text, found.start(), "conditions are nested too deeply.", f"{DEEPEST} levels are the most.")


class _Reader:
    """Makes a Query of a tree."""

    def __init__(self, text: str, binds: Mapping[str, Any], moment_now: datetime) -> None:
        self.used: set[str] = set()
        self._text = text
        self._binds = binds
        self._today = moment_now.replace(hour=0, minute=0, second=0, microsecond=0)

    def read(self, tree: Any, limit: int) -> Parsed:
        fields, object_, *rest = tree.children
        where = next((each for each in rest if each is not None and _kind(each) in _WHERES), None)
        orders = [self._order(each) for each in rest if each is not None and _kind(each) == "order"]
        most, skipped = rest[-2], rest[-1]
        asked = limit if most is None else self._count(most, 1)
        left_out = 0 if skipped is None else self._count(skipped, 0)
        if asked + left_out > MOST_ROWS:
            raise self._at(most or skipped, f"LIMIT and OFFSET are {MOST_ROWS:,} together at most.")
        names = () if _kind(fields) == "all_fields" else tuple(self._field(each) for each in fields.children)
        query = Query(
            str(object_.children[0]),
            EVERYTHING if where is None else self._where(where),
            tuple(orders),
            asked + left_out,
            names,
        )
        return Parsed(query, left_out)

    def _where(self, tree: Any) -> Where:
        match _kind(tree), tree.children:
            case "all", parts:
                return every(*map(self._where, parts))
            case "any", parts:
                return AnyOf(tuple(map(self._where, parts)))
            case "negated", [part]:
                return Not(self._where(part))
            case "bracketed", [part]:
                return self._where(part)
            case "compared", [name, sign, value]:
                return self._condition(tree, name, SIGNS[str(sign)], self._value(value))
            case "compared_to_range", [name, sign, range_]:
                return self._range(self._field(name), SIGNS[str(sign)], range_.children[0])
            case "like", [name, pattern]:
                return self._like(name, pattern)
            case "is_in", [name, several]:
                return self._condition(tree, name, "in", self._list(several))
            case _, [name, several]:
                return self._condition(tree, name, "not_in", self._list(several))
        raise AssertionError(tree.data)

    def _condition(self, tree: Any, name: Any, op: Op, value: Any) -> Condition:
        try:
            if op in ("eq", "ne") and isinstance(value, (list, tuple)):
                raise QueryRefused("this value is a list.", cure="Write IN or NOT IN for a list.")
            if op in ORDERED and value is None:
                raise QueryRefused("nothing is greater or less than null.", cure="Write = null, or != null.")
            return Condition(self._field(name), op, value)
        except QueryRefused as refused:
            if refused.position >= 0:
                raise
            raise self._at(name, refused.detail, refused.cure) from None

    def _range(self, field: str, op: Op, said: Token) -> Where:
        """A day, or several, begins at a midnight of UTC and ends before another."""
        day = timedelta(days=1)
        match said.type:
            case "TODAY":
                first, beyond = self._today, self._today + day
            case "YESTERDAY":
                first, beyond = self._today - day, self._today
            case _:
                days = int(said.partition(":")[2])
                if not 0 < days <= 36_500:
                    raise self._at(said, "LAST_N_DAYS takes 1 to 36,500 days.")
                first, beyond = self._today - days * day, self._today + day
        begin, end = (f"{each:%Y-%m-%dT%H:%M:%SZ}".rjust(20, "0") for each in (first, beyond))
        inside = every(Condition(field, "ge", begin), Condition(field, "lt", end))
        match op:
            case "eq":
                return inside
            case "ne":
                return Not(inside)
            case "gt":
                return Condition(field, "ge", end)
            case "le":
                return Condition(field, "lt", end)
            case _:
                return Condition(field, op, begin)

    def _like(self, name: Any, pattern: Any) -> Where:
        """``%`` at the beginning, the end, or both."""
        raw = str(pattern.children[0])[1:-1] if _kind(pattern) == "pattern_text" else self._bound(pattern)
        place = pattern.children[0] if _kind(pattern) == "pattern_text" else pattern
        if not isinstance(raw, str):
            raise self._at(place, "LIKE takes text.")
        parts = self._parts(raw, place)
        opens, closes = bool(parts) and parts[0] is None, len(parts) > 1 and parts[-1] is None
        inner = parts[opens : len(parts) - closes]
        if None in inner:
            raise self._at(
                place,
                "LIKE understands % at the beginning, the end, or both.",
                "Write two conditions: Name LIKE 'a%' AND Name LIKE '%b'. A % that is meant as it stands is \\%.",
            )
        text = "".join(each for each in inner if each is not None)
        match opens, closes:
            case True, True:
                return Condition(self._field(name), "contains", text)
            case True, False if not inner:
                return Condition(self._field(name), "starts_with", "")
            case True, False:
                return Condition(self._field(name), "ends_with", text)
            case False, True:
                return Condition(self._field(name), "starts_with", text)
        raise self._at(
            place,
            "LIKE has no % in its pattern.",
            "Write = for a whole text, or put % where anything may stand.",
        )

    def _parts(self, raw: str, place: Any) -> list[str | None]:
        """A pattern's pieces of text, with None for each ``%``."""
        found: list[str | None] = []
        done = 0
        for each in re.finditer(r"\\(u[0-9A-Fa-f]{4}|.)|%|_", raw, re.DOTALL):
            if raw[done : each.start()]:
                found.append(raw[done : each.start()])
            done = each.end()
            match each[0]:
                case "%":
                    found.append(None)
                case "_":
                    raise self._at(place, "LIKE does not understand _.", "An underscore as it stands is \\_.")
                case escape:
                    found.append(self._unescaped(escape[1:], place, also="%_"))
        if raw[done:]:
            found.append(raw[done:])
        return found

    def _list(self, tree: Any) -> list[Any]:
        if _kind(tree) == "listed":
            values = [self._value(each) for each in tree.children]
            for each, value in zip(tree.children, values, strict=True):
                if isinstance(value, (list, tuple)):
                    raise self._at(each, "a list stands in a list.", f"Write IN :{each.children[0].children[0]}.")
            return values
        value = self._bound(tree)
        if not isinstance(value, (list, tuple)):
            raise self._at(tree, "IN takes a list.", "Bind a list, or write the value in brackets: IN (:name).")
        return list(value)

    def _value(self, tree: Any) -> Any:
        match _kind(tree):
            case "text":
                return self._string(tree.children[0])
            case "datetime":
                return self._datetime(tree.children[0])
            case "number":
                return self._number(tree.children[0])
            case "null":
                return None
            case "true":
                return True
            case "false":
                return False
            case _:
                return self._bound(tree)

    def _bound(self, tree: Any) -> Any:
        name = str(tree.children[0].children[0])
        value = self._binds.get(name, _MISSING)
        if value is _MISSING:
            raise self._at(tree, f"there is no value for :{name}.", f'Give binds={{"{name}": …}}.')
        self.used.add(name)
        return value

    def _count(self, tree: Any, least: int) -> int:
        value = self._value(tree)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MOST_ROWS:
            raise self._at(tree, f"this takes a whole number from {least} to {MOST_ROWS:,}.")
        return value

    def _string(self, token: Token) -> str:
        return _ESCAPE.sub(lambda found: self._unescaped(found[1], token), token[1:-1])

    def _unescaped(self, said: str, place: Any, also: str = "") -> str:
        if len(said) == 5:
            if 0xD800 <= int(said[1:], 16) <= 0xDFFF or said[1:] == "0000":
                raise self._at(place, f"\\{said} is no character.")
            return chr(int(said[1:], 16))
        if said in also:
            return said
        if said not in _ESCAPES:
            raise self._at(place, f"\\{said} is no character.", "A backslash as it stands is \\\\.")
        return _ESCAPES[said]

    def _datetime(self, token: Token) -> str:
        if moment(str(token)) is None:
            raise self._at(token, f"there is no moment {token}.", "Write 2026-11-22 or 2026-11-22T10:00:00Z.")
        return str(token)

    def _number(self, token: Token) -> float:
        if len(token) > MOST_DIGITS:
            raise self._at(token, f"a number has {MOST_DIGITS} digits at most.")
        number = int(token) if re.fullmatch(r"[+-]?[0-9]+", token) else float(token)
        if number in (float("inf"), float("-inf")):
            raise self._at(token, "this number is too large.")
        return number

    def _order(self, tree: Any) -> Order:
        name, way, nulls = (*tree.children, None, None)[:3]
        words = {each.type for each in (way, nulls) if each is not None}
        if "FIRST" in words:
            raise self._at(nulls or way, "NULLS FIRST is not there.", "Nulls stand last, in both directions.")
        return Order(self._field(name), "DESC" in words)

    def _field(self, name: Any) -> str:
        return field_of(str(name.children[0]))

    def _at(self, node: Any, detail: str, cure: str = "") -> QueryRefused:
        while not hasattr(node, "start_pos"):
            node = node.children[0]
        return at(self._text, node.start_pos, detail, cure)


_WHERES = frozenset(
    {"all", "any", "negated", "bracketed", "compared", "compared_to_range", "like", "is_in", "is_not_in"}
)


def _kind(tree: Any) -> str:
    return str(getattr(tree, "data", getattr(tree, "type", "")))
