"""SOQL as a stand-in understands it: a lexer, a parser and what each comparison means.

By the vendor's public reference, and strict where the vendor is: OR beside AND needs parentheses, literals have the
type of their field, LIKE escapes are known. Nothing of it is shared with what makes such text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

Row = Mapping[str, Any]
Test = Callable[[Row], bool]
WORDS = {"select", "from", "where", "and", "or", "not", "in", "like", "order", "by", "limit", "asc", "desc", "nulls",
         "first", "last", "null", "true", "false", "includes", "excludes", "offset"}  # fmt: skip
TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<moment>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d))
    |(?P<date>\d{4}-\d\d-\d\d)
    |(?P<number>[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
    |(?P<name>[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z][A-Za-z0-9_]*)*)
    |(?P<text>'(?:[^'\\\n\r]|\\.)*')
    |(?P<sign><=|>=|!=|<>|=|<|>|\(|\)|,)""",
    re.X,
)
ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", '"': '"', "'": "'", "\\": "\\"}
TEXTS = {"string", "email", "phone", "picklist", "url", "textarea", "combobox", "id", "reference"}
NUMBERS = {"double", "currency", "percent", "int", "long"}


class BadQuery(Exception):
    """``code`` is the vendor's."""

    def __init__(self, message: str, code: str = "MALFORMED_QUERY") -> None:
        self.code = code
        super().__init__(message)


@dataclass(frozen=True)
class Token:
    kind: str
    text: str
    value: Any = None


@dataclass(frozen=True)
class Field:
    """One field of an object, as the vendor describes it."""

    type: str
    length: int = 255
    filterable: bool = True
    sortable: bool = True
    createable: bool = True
    updateable: bool = True
    required: bool = False
    external_id: bool = False
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Select:
    fields: list[str]
    object: str
    test: Test
    order: list[tuple[str, bool, bool]]  # field, descending, nulls last
    limit: int | None


def lex(text: str) -> list[Token]:
    found, place = [], 0
    while place < len(text):
        match = TOKEN.match(text, place)
        if match is None:
            raise BadQuery(f"unexpected token at {text[place : place + 20]!r}")
        place = match.end()
        kind, word = str(match.lastgroup), match.group()
        if kind == "name" and word.lower() in WORDS:
            found.append(Token("word", word.lower()))
        elif kind == "text":
            found.append(Token("text", word, word[1:-1]))
        elif kind != "space":
            found.append(Token(kind, word, word))
    return found


def unescaped(raw: str, *, like: bool = False) -> list[tuple[str, bool]]:
    """Characters of a literal, each with whether it is a wildcard. Raises BadQuery for an escape nobody knows."""
    found: list[tuple[str, bool]] = []
    place = 0
    while place < len(raw):
        each = raw[place]
        if each == "\\":
            after = raw[place + 1]
            if after == "u" and re.fullmatch(r"[0-9a-fA-F]{4}", raw[place + 2 : place + 6]):
                found.append((chr(int(raw[place + 2 : place + 6], 16)), False))
                place += 6
                continue
            if after in ESCAPES:
                found.append((ESCAPES[after], False))
            elif like and after in "%_":
                found.append((after, False))
            else:
                raise BadQuery(f"Invalid string literal: \\{after}")
            place += 2
            continue
        found.append((each, like and each in "%_"))
        place += 1
    return found


def literal(raw: str) -> str:
    return "".join(each for each, _ in unescaped(raw))


def pattern(raw: str) -> re.Pattern[str]:
    parts = [(".*" if each == "%" else ".") if wild else re.escape(each) for each, wild in unescaped(raw, like=True)]
    return re.compile("".join(parts), re.S | re.I)


class Parser:
    """Reads one SELECT over the objects of ``schema``."""

    def __init__(self, text: str, schema: Mapping[str, Mapping[str, Field]]) -> None:
        self._tokens = lex(text)
        self._place = 0
        self._schema = schema
        self._fields: Mapping[str, Field] = {}

    def read(self) -> Select:
        self._word("select")
        names = [self._name()]
        while self._sign(","):
            names.append(self._name())
        self._word("from")
        wanted = self._name()
        found = next((each for each in self._schema if each.lower() == wanted.lower()), None)
        if found is None:
            raise BadQuery(f"sObject type '{wanted}' is not supported.", "INVALID_TYPE")
        self._fields = self._schema[found]
        fields = [self._known(each) for each in names]
        if len(set(fields)) != len(fields):
            raise BadQuery("duplicate field selected")
        test: Test = lambda row: True  # noqa: E731
        if self._maybe("where"):
            test = self._any()
        order: list[tuple[str, bool, bool]] = []
        if self._maybe("order"):
            self._word("by")
            order.append(self._order())
            while self._sign(","):
                order.append(self._order())
        limit = None
        if self._maybe("limit"):
            limit = int(self._take("number").text)
        if self._place < len(self._tokens):
            raise BadQuery(f"unexpected token: {self._tokens[self._place].text}")
        return Select(fields, found, test, order, limit)

    def _known(self, name: str) -> str:
        for each in self._fields:
            if each.lower() == name.lower():
                return each
        raise BadQuery(f"No such column '{name}' on entity", "INVALID_FIELD")

    def _order(self) -> tuple[str, bool, bool]:
        name = self._known(self._name())
        if not self._fields[name].sortable:
            raise BadQuery(f"field '{name}' can not be sorted in a query call")
        descending = False
        if self._maybe("desc"):
            descending = True
        elif self._maybe("asc"):
            pass
        last = False
        if self._maybe("nulls"):
            last = self._maybe("last")
            if not last:
                self._word("first")
        return name, descending, last

    def _any(self) -> Test:
        first = self._one()
        joint = None
        tests = [first]
        while (token := self._peek()) is not None and token.kind == "word" and token.text in ("and", "or"):
            if joint not in (None, token.text):
                raise BadQuery(f"unexpected token: {token.text}")
            joint = token.text
            self._place += 1
            tests.append(self._one())
        if joint == "or":
            return lambda row: any(each(row) for each in tests)
        return lambda row: all(each(row) for each in tests)

    def _one(self) -> Test:
        if self._maybe("not"):
            inner = self._one()
            return lambda row: not inner(row)
        if self._sign("("):
            inner = self._any()
            if not self._sign(")"):
                raise BadQuery("expecting ')'")
            return inner
        return self._comparison()

    def _comparison(self) -> Test:
        name = self._known(self._name())
        field = self._fields[name]
        if not field.filterable:
            raise BadQuery(f"field '{name}' can not be filtered in a query call", "INVALID_FIELD")
        if self._maybe("like"):
            if field.type not in TEXTS - {"id", "reference"}:
                raise BadQuery(f"invalid operator on {field.type} field", "INVALID_QUERY_FILTER_OPERATOR")
            wanted = pattern(self._take("text").value)
            return lambda row: row.get(name) is not None and wanted.fullmatch(str(row[name])) is not None
        negative = self._maybe("not")
        if negative or ((token := self._peek()) is not None and token.kind == "word" and token.text == "in"):
            self._word("in")
            values = self._list(name, field)
            return lambda row: any(_same(row.get(name), each, field) for each in values) is not negative
        if self._maybe("includes"):
            values = self._list(name, field)
            return lambda row: bool(set(str(row.get(name) or "").split(";")) & set(values))
        sign = self._take("sign").text
        if sign not in ("=", "!=", "<>", "<", "<=", ">", ">="):
            raise BadQuery(f"unexpected token: {sign}")
        value = self._value(name, field)
        if sign == "=":
            return lambda row: _same(row.get(name), value, field)
        if sign in ("!=", "<>"):
            return lambda row: not _same(row.get(name), value, field)
        if value is None or field.type in ("boolean", "id", "reference"):
            raise BadQuery(f"invalid operator on {field.type} field", "INVALID_QUERY_FILTER_OPERATOR")
        return lambda row: row.get(name) is not None and _compared(sign, _key(row[name], field), _key(value, field))

    def _list(self, name: str, field: Field) -> list[Any]:
        if not self._sign("("):
            raise BadQuery("expecting '('")
        values = [self._value(name, field)]
        while self._sign(","):
            values.append(self._value(name, field))
        if not self._sign(")"):
            raise BadQuery("expecting ')'")
        return values

    def _value(self, name: str, field: Field) -> Any:
        token = self._next()
        if token.kind == "word" and token.text == "null":
            return None
        if token.kind == "word" and token.text in ("true", "false") and field.type == "boolean":
            return token.text == "true"
        if token.kind == "text" and field.type in TEXTS | {"multipicklist"}:
            found = literal(token.value)
            if field.type in ("id", "reference") and not re.fullmatch(r"[A-Za-z0-9]{15}(?:[A-Za-z0-9]{3})?", found):
                raise BadQuery(f"invalid ID field: {found}", "INVALID_QUERY_FILTER_OPERATOR")
            return found
        if token.kind == "number" and field.type in NUMBERS:
            return float(token.text)
        if token.kind == "date" and field.type == "date":
            return date.fromisoformat(token.text).isoformat()
        if token.kind == "moment" and field.type == "datetime":
            return datetime.fromisoformat(token.text.replace("Z", "+00:00"))
        raise BadQuery(f"value of filter criterion for field '{name}' must be of type {field.type}", "INVALID_FIELD")

    def _peek(self) -> Token | None:
        return self._tokens[self._place] if self._place < len(self._tokens) else None

    def _next(self) -> Token:
        if (token := self._peek()) is None:
            raise BadQuery("unexpected token: <EOF>")
        self._place += 1
        return token

    def _take(self, kind: str) -> Token:
        token = self._next()
        if token.kind != kind:
            raise BadQuery(f"unexpected token: {token.text}")
        return token

    def _name(self) -> str:
        return self._take("name").text

    def _word(self, word: str) -> None:
        token = self._next()
        if token.kind != "word" or token.text != word:
            raise BadQuery(f"unexpected token: {token.text}")

    def _maybe(self, word: str) -> bool:
        token = self._peek()
        if token is None or token.kind != "word" or token.text != word:
            return False
        self._place += 1
        return True

    def _sign(self, sign: str) -> bool:
        token = self._peek()
        if token is None or token.kind != "sign" or token.text != sign:
            return False
        self._place += 1
        return True


def moment(text: Any) -> datetime:
    """A stored moment."""
    found = text if isinstance(text, datetime) else datetime.fromisoformat(str(text).replace("+0000", "+00:00"))
    return found.astimezone(UTC)


def _key(value: Any, field: Field) -> Any:
    if value is None:
        return None
    if field.type == "datetime":
        return moment(value)
    if field.type in NUMBERS:
        return float(value)
    if field.type == "id" or field.type == "reference":
        return str(value)[:15]
    return str(value).lower() if field.type in TEXTS else value


def _same(value: Any, wanted: Any, field: Field) -> bool:
    return bool(_key(value, field) == _key(wanted, field))


def _compared(sign: str, one: Any, other: Any) -> bool:
    return bool({"<": one < other, "<=": one <= other, ">": one > other, ">=": one >= other}[sign])


def ordered(rows: list[dict[str, Any]], select: Select, fields: Mapping[str, Field]) -> list[dict[str, Any]]:
    """Rows as the statement orders them; without an order, in the order of ids."""
    rows = sorted(rows, key=lambda row: str(row["Id"]))
    for name, descending, last in reversed(select.order):
        there = [row for row in rows if row.get(name) is not None]
        missing = [row for row in rows if row.get(name) is None]
        there.sort(key=lambda row: _key(row[name], fields[name]), reverse=descending)
        rows = there + missing if last else missing + there
    return rows
