"""Whatever a handler asks for becomes a literal of SOQL and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from circuit_script.connectors.query import AnyOf as Or
from circuit_script.connectors.query import Condition, Not, Query, Where, every, matches
from circuit_script.connectors.salesforce.described import FieldType
from circuit_script.connectors.salesforce.names import inward
from circuit_script.connectors.salesforce.soql import comparison, literal, statement
from circuit_script.errors import QueryRefused, RequestRefused
from tests.crm.salesforce import SCHEMA
from tests.crm.soql import Parser, lex
from tests.crm.soql import literal as read_literal

NASTY = ["'", "\\", "\\'", "' OR Id != null OR Name = '", '"', "%", "_", "\\%", "--", "/*", "\n", "\r\n", "\t",
         "\u2028", "é", "ß", "İ", "😀", "\\u0027", ")", "''", "\x08", "\x7f", "a' LIMIT 1", "{0}"]  # fmt: skip
TEXT = st.one_of(
    st.sampled_from(NASTY),
    st.lists(st.sampled_from([*NASTY, "a", "B", " "]), max_size=6).map("".join),
    st.text(max_size=12),
)
NAMES = {"FirstName": "text", "Email": "text", "Score__c": "number", "Hot__c": "flag", "Birthdate": "day",
         "Reviewed_At__c": "moment", "AccountId": "id", "Tags__c": "tags"}  # fmt: skip
DAYS = st.dates().filter(lambda day: 1800 < day.year < 3000).map(str)
MOMENTS = st.one_of(
    DAYS,
    st.datetimes().filter(lambda at: 1800 < at.year < 3000).map(lambda at: at.isoformat(timespec="milliseconds") + "Z"),
)
NUMBERS = st.one_of(st.integers(-(10**16), 10**16), st.floats(allow_nan=False, allow_infinity=False))
VALUES = st.one_of(TEXT, NUMBERS, st.booleans(), st.none(), MOMENTS)
OPS = ["eq", "ne", "gt", "ge", "lt", "le", "in", "not_in", "contains", "starts_with", "ends_with", "is_null"]


def types(name: str) -> FieldType | None:
    about = SCHEMA["Contact"][name]
    return FieldType(name, about.type, about.filterable, about.sortable)


@st.composite
def conditions(draw: st.DrawFn) -> Condition:
    name, op = draw(st.sampled_from(sorted(NAMES))), draw(st.sampled_from(OPS))
    value: Any
    if op == "is_null":
        value = draw(st.booleans())
    elif op in ("in", "not_in"):
        value = tuple(draw(st.lists(VALUES, max_size=4)))
    else:
        value = draw(VALUES)
    try:
        return Condition(name, op, value)  # type: ignore[arg-type]
    except QueryRefused:
        assume(False)
        raise


WHERES: st.SearchStrategy[Where] = st.recursive(
    conditions(),
    lambda part: st.one_of(
        st.lists(part, max_size=3).map(lambda parts: every(*parts)),
        st.lists(part, max_size=3).map(lambda parts: Or(tuple(parts))),
        part.map(Not),
    ),
    max_leaves=5,
)


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "Id": "0035g000000001AAAQ",
        "FirstName": draw(st.none() | TEXT.filter(bool)),
        "Email": draw(st.none() | TEXT.filter(bool)),
        "Score__c": draw(st.none() | st.integers(-(10**14), 10**14) | st.sampled_from([0.5, 91.25, -3.0])),
        "Hot__c": draw(st.booleans()),
        "Birthdate": draw(st.none() | DAYS),
        "Reviewed_At__c": draw(
            st.none() | MOMENTS.filter(lambda text: "T" in text).map(lambda t: t[:-5] + ".000+0000")
        ),
        "AccountId": draw(st.none() | st.just("0015g000000001AAAQ")),
        "Tags__c": draw(st.none() | st.just("a;b")),
    }


@given(TEXT)
@example("\x00")
@example("\\")
def test_a_literal_is_read_as_what_was_written(text: str) -> None:
    written = literal(text)
    [token] = lex(written)
    assert token.kind == "text"
    assert read_literal(token.value) == text


@given(conditions())
def test_a_condition_is_one_comparison(condition: Condition) -> None:
    said = comparison(condition, types(condition.field))
    if said is None:
        return
    Parser(f"SELECT Id FROM Contact WHERE {said}", SCHEMA).read()
    names = {each.text for each in lex(said) if each.kind == "name"}
    assert names <= {condition.field, "Id"}


@given(WHERES, records())
def test_salesforce_leaves_out_nothing_that_matches(where: Where, record: dict[str, Any]) -> None:
    try:
        made = statement(Query("Contact", where), "Contact", ["Id"], types)
    except RequestRefused:
        assume(False)
    select = Parser(made.text, SCHEMA).read()
    row = {name: inward(SCHEMA["Contact"][name].type, value) for name, value in record.items()}
    if matches(row, where):
        assert select.test(record), made.text
    if not made.here:
        assert select.test(record) == matches(row, where), made.text


@pytest.mark.parametrize("op", ["contains", "starts_with", "ends_with"])
@given(text=TEXT, value=TEXT)
def test_like_finds_what_is_there(op: str, text: str, value: str) -> None:
    assume("\0" not in value and not any(0xD800 <= ord(each) <= 0xDFFF for each in value + text))
    condition = Condition("FirstName", op, value)  # type: ignore[arg-type]
    said = comparison(condition, types("FirstName"))
    if said is not None and matches({"FirstName": text}, condition):
        assert Parser(f"SELECT Id FROM Contact WHERE {said}", SCHEMA).read().test({"FirstName": text})
