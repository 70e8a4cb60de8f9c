"""Queries in SOQL: what they mean, and what is said of those that mean nothing."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from circuit_script.connectors.query import All, AnyOf, Condition, Not, Order, Query, Where, matches
from circuit_script.connectors.soql.names import field_of
from circuit_script.connectors.soql.parse import LONGEST, Parsed, parse
from circuit_script.errors import QueryRefused

A, B = Condition("a", "eq", 1), Condition("b", "eq", 2)
NOW = datetime(2026, 11, 22, 15, 30, tzinfo=UTC)


def read(text: str, **binds: Any) -> Parsed:
    return parse(text, binds, 1000, lambda: NOW)


def where(text: str, **binds: Any) -> Where:
    return read(f"SELECT Id FROM Contact WHERE {text}", **binds).query.where


def test_a_whole_query() -> None:
    found = read(
        "SELECT Id, Email FROM Contact WHERE Score > 80 AND (City = 'Waco' OR City LIKE 'San%')\n"
        "ORDER BY CreatedDate DESC NULLS LAST, Id LIMIT 10 OFFSET 5"
    )
    either = AnyOf((Condition("city", "eq", "Waco"), Condition("city", "starts_with", "San")))
    assert found == Parsed(
        Query(
            "Contact",
            All((Condition("score", "gt", 80), either)),
            (Order("dateAdded", True), Order("id")),
            15,
            ("id", "email"),
        ),
        skipped=5,
    )


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("a = 1", Condition("a", "eq", 1)),
        ("a != 1", Condition("a", "ne", 1)),
        ("a <> -1.5e2", Condition("a", "ne", -150.0)),
        ("a < 'x'", Condition("a", "lt", "x")),
        ("a <= 2026-11-22", Condition("a", "le", "2026-11-22")),
        ("a >= 2026-11-22T10:00:00.5+01:00", Condition("a", "ge", "2026-11-22T10:00:00.5+01:00")),
        ("a = null", Condition("a", "eq", None)),
        ("a = TRUE", Condition("a", "eq", True)),
        ("a = false", Condition("a", "eq", False)),
        ("a IN ('x', 2, null)", Condition("a", "in", ("x", 2, None))),
        ("a NOT IN ('x')", Condition("a", "not_in", ("x",))),
        ("NOT a IN ('x')", Not(Condition("a", "in", ("x",)))),
        ("a LIKE '%x%'", Condition("a", "contains", "x")),
        ("a LIKE '%x'", Condition("a", "ends_with", "x")),
        ("a LIKE '%'", Condition("a", "starts_with", "")),
        ("a LIKE '100\\%%'", Condition("a", "starts_with", "100%")),
        ("a LIKE '%a\\_b'", Condition("a", "ends_with", "a_b")),
        ("a = 'it\\'s \\\\ \\n \\u00e9'", Condition("a", "eq", "it's \\ \n é")),
        ("a = '; DROP TABLE x; --'", Condition("a", "eq", "; DROP TABLE x; --")),
        ("a = 1 and b = 2 OR c = 3", AnyOf((All((A, B)), Condition("c", "eq", 3)))),
        ("NOT (a = 1 OR b = 2)", Not(AnyOf((A, B)))),
        ("Selected = 1", Condition("selected", "eq", 1)),
        ("Limit = 1", Condition("limit", "eq", 1)),
        ("Tier__c = 1", Condition("Tier__c", "eq", 1)),
        ("orderly = 1", Condition("orderly", "eq", 1)),
    ],
)  # fmt: skip
def test_conditions(text: str, meant: Where) -> None:
    assert where(text) == meant
    assert where(text.replace(" ", "  \n ") if "'" not in text else text) == meant


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("a = TODAY", ["2026-11-22T00:00:00Z", "2026-11-22T23:59:59Z"], ["2026-11-21T23:59:59Z", "2026-11-23"]),
        ("a = yesterday", ["2026-11-21", "2026-11-21T23:59:59.9Z"], ["2026-11-20T23:59Z", "2026-11-22"]),
        ("a = LAST_N_DAYS:7", ["2026-11-15", "2026-11-22T15:30Z"], ["2026-11-14T23:59Z", "2026-11-23"]),
        ("a >= LAST_N_DAYS:7", ["2026-11-15", "2027-01-01"], ["2026-11-14T23:59Z"]),
        ("a > TODAY", ["2026-11-23"], ["2026-11-22T23:59Z"]),
        ("a < TODAY", ["2026-11-21T23:59Z"], ["2026-11-22"]),
        ("a <= TODAY", ["2026-11-22T23:59Z"], ["2026-11-23"]),
        ("a != TODAY", ["2026-11-23", None], ["2026-11-22T12:00Z"]),
    ],
)
def test_days_by_name_are_whole_days_of_utc(text: str, inside: list[Any], outside: list[Any]) -> None:
    asked = where(text)
    assert [matches({"a": each}, asked) for each in inside] == [True] * len(inside)
    assert [matches({"a": each}, asked) for each in outside] == [False] * len(outside)


def test_values_are_bound_and_never_text() -> None:
    nasty = "x' OR Id != '"
    assert where("a = :name", name=nasty) == Condition("a", "eq", nasty)
    assert where("a IN :names AND b = :x", names=[nasty, 5], x=None) == All(
        (Condition("a", "in", (nasty, 5)), Condition("b", "eq", None))
    )
    assert where("a IN (:one, 'b')", one=1) == Condition("a", "in", (1, "b"))
    assert where("a LIKE :p", p="50\\%%") == Condition("a", "starts_with", "50%")
    assert read("SELECT Id FROM Contact LIMIT :n OFFSET :m", n=3, m=2).query.limit == 5


def test_names_are_those_of_records_here() -> None:
    assert [field_of(each) for each in ("Id", "Email", "FirstName", "CreatedDate", "My_Field__c", "city")] == [
        "id", "email", "firstName", "dateAdded", "My_Field__c", "city",
    ]  # fmt: skip
    assert read("SELECT FIELDS(ALL) FROM Contact").query.fields == ()
    assert read("SELECT Id FROM LeadScore").query.limit == 1000


BAD = [
    ("", 0, "ends too early", "SELECT"),
    ("SELEC Id FROM Contact", 0, "there is no SELEC", "Did you mean SELECT?"),
    ("SELECT Id Contact", 10, "FROM is missing", "SELECT fields FROM object"),
    ("SELECT Id, Email", 16, "FROM is missing", ""),
    ("SELECT Id WHERE a = 1", 10, "FROM is missing", ""),
    ("SELECT * FROM Contact", 7, "cannot stand here", "FIELDS(ALL)"),
    ("SELECT COUNT() FROM Contact", 12, "cannot stand here", ".count()"),
    ("SELECT Id FROM Contact WHER a = 1", 23, "there is no WHER", "Did you mean WHERE?"),
    ("SELECT Id FROM Contact WHERE a = 'x", 33, "cannot stand here", "not closed"),
    ('SELECT Id FROM Contact WHERE a = "x"', 33, "cannot stand here", "single quotation marks"),
    ("SELECT Id FROM Contact WHERE a == 1", 32, "cannot stand here", "Equal is one ="),
    ("SELECT Id FROM Contact WHERE a = 1 AND", 38, "ends too early", "a name"),
    ("SELECT Id FROM Contact WHERE (a = 1", 35, "ends too early", ")"),
    ("SELECT Id FROM Contact WHERE a.b = 1", 30, "cannot stand here", "One query reads one object"),
    ("SELECT Id FROM Contact WHERE a = NEXT_WEEK", 33, "no date NEXT_WEEK", "LAST_N_DAYS"),
    ("SELECT Id FROM Contact WHERE a = 2026-13-01", 33, "no moment 2026-13-01", "2026-11-22"),
    ("SELECT Id FROM Contact WHERE a = 'x\\q'", 33, "\\q is no character", "backslash"),
    ("SELECT Id FROM Contact WHERE a = '\\ud800'", 33, "is no character", ""),
    ("SELECT Id FROM Contact WHERE a LIKE 'x'", 36, "no % in its pattern", "Write ="),
    ("SELECT Id FROM Contact WHERE a LIKE 'x%y'", 36, "at the beginning, the end", "two conditions"),
    ("SELECT Id FROM Contact WHERE a LIKE 'x_%'", 36, "does not understand _", "\\_"),
    ("SELECT Id FROM Contact WHERE a = :nope", 34, "no value for :nope", "binds="),
    ("SELECT Id FROM Contact WHERE a = %s", 33, "cannot stand here", "binds="),
    ("SELECT Id FROM Contact WHERE a = {x}", 33, "cannot stand here", "binds="),
    ("SELECT Id FROM Contact WHERE a > null", 29, "greater or less than null", "= null"),
    ("SELECT Id FROM Contact WHERE a IS NULL", 31, "IS cannot be asked", "= null"),
    ("SELECT Id FROM Contact WHERE a IN 1", 34, "cannot stand here", ":name"),
    ("SELECT Id FROM Contact WHERE a = 12abc", 33, "cannot stand here", ""),
    ("SELECT Id FROM Contact GROUP BY a", 23, "GROUP cannot be asked", "count()"),
    ("SELECT Id FROM Contact ORDER BY a NULLS FIRST", 40, "NULLS FIRST", "last"),
    ("SELECT Id FROM Contact LIMIT 0", 29, "whole number from 1", ""),
    ("SELECT Id FROM Contact LIMIT 1.5", 29, "whole number from 1", ""),
    ("SELECT Id FROM Contact LIMIT 40000 OFFSET 40000", 29, "together", ""),
    ("SELECT Id FROM Contact;", 22, "cannot stand here", "semicolon"),
    ("SELECT Id FROM Contact -- all", 23, "cannot stand here", "comments"),
    ("SELECT Id FROM Contact WHERE a = 1" + "1" * 40, 33, "30 digits", ""),
    ("SELECT Id FROM Contact WHERE a = 1e999", 33, "too large", ""),
    ("SELECT Id FROM Contact WHERE " + "(" * 30 + "a = 1" + ")" * 30, 48, "nested too deeply", ""),
    ("SELECT Id FROM Contact WHERE " + "NOT " * 200 + "a = 1", 429, "nested too deeply", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "place", "said", "hint"), BAD)
def test_what_cannot_be_understood_says_where_and_what_to_write(text: str, place: int, said: str, hint: str) -> None:
    with pytest.raises(QueryRefused) as refused:
        read(text)
    error = refused.value
    assert error.position == place
    assert said in error.detail
    assert hint in error.cure
    shown, caret = str(error).split("\n")[1:3]
    assert caret.strip() == "^"
    assert place == len(text) or shown[caret.index("^")] == text[place].replace("\n", " ")


def test_the_place_of_a_text_of_several_lines_is_shown_on_its_line() -> None:
    with pytest.raises(QueryRefused) as refused:
        read("SELECT Id\nFROM Contact\n  WHERE a ~ 1\nLIMIT 5")
    assert "(line 3, character 11):\n      WHERE a ~ 1\n              ^" in str(refused.value)


def test_what_is_not_about_a_place() -> None:
    with pytest.raises(QueryRefused, match="20,000 characters at most"):
        read(" " * (LONGEST + 1))
    with pytest.raises(QueryRefused, match="there is no :typo in the query"):
        read("SELECT Id FROM Contact", typo=1)
    with pytest.raises(QueryRefused, match="this value is a list"):
        where("a = :x", x=[1])
    with pytest.raises(QueryRefused, match="IN takes a list"):
        where("a IN :x", x=1)
    with pytest.raises(QueryRefused, match="cannot be looked for"):
        where("a = :x", x="\0")
    with pytest.raises(QueryRefused, match="500 conditions"):
        where(" AND ".join(f"a={n}" for n in range(600)))


PIECES = [
    "SELECT", "Id", ",", "FROM", "Contact", "WHERE", "a", "=", "!=", "'x'", "'", "\\", "(", ")", "AND", "OR", "NOT",
    "IN",
    "LIKE", "'%a'", ":b", ":", "null", "TRUE", "1", "1.5", "-", "2026-11-22", "TODAY", "LAST_N_DAYS:3", "LAST_N_DAYS:0",
    "ORDER", "BY", "DESC", "NULLS", "LAST", "FIRST", "LIMIT", "OFFSET", "FIELDS(ALL)", "é", "\0", "\n", "\ud800", "--",
    "GROUP",
]  # fmt: skip
BEGIN = "SELECT Id FROM Contact WHERE "


@given(
    st.one_of(
        st.text(max_size=80),
        st.lists(st.sampled_from(PIECES), max_size=25).map(" ".join),
        st.lists(st.sampled_from(PIECES), max_size=12).map(lambda pieces: BEGIN + " ".join(pieces)),
        st.text(max_size=40).map(lambda text: f"{BEGIN}a = '{text}'"),
    ),
    st.dictionaries(st.sampled_from(["b", "c"]), st.one_of(st.none(), st.text(max_size=3), st.lists(st.integers()))),
)
@example("SELECT Id FROM Contact WHERE a LIKE ''", {})
@example("SELECT Id FROM Contact WHERE a LIKE '\\", {})
@example("SELECT Id FROM Contact LIMIT :b", {"b": True})
def test_whatever_is_written_it_is_a_query_or_refused(text: str, binds: dict[str, Any]) -> None:
    try:
        found = parse(text, binds, 1000, lambda: NOW)
    except QueryRefused as error:
        place, said = error.position, str(error)
    else:
        assert re.match(r"\s*select\b", text, re.IGNORECASE)
        assert 0 < found.query.limit <= 50_000
        return
    assert -1 <= place <= len(text)
    assert len(said) < 1_500
