"""What a query is, how values compare, and what a vendor may be asked of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_script.connectors.query import (
    EVERYTHING,
    MOST_CONDITIONS,
    MOST_VALUES,
    All,
    AnyOf,
    Condition,
    Not,
    Op,
    Order,
    Query,
    Where,
    conditions,
    equal,
    every,
    in_order,
    matches,
    orders,
    split,
    words,
)
from circuit_script.connectors.values import moment
from circuit_script.errors import QueryRefused, RequestRefused


@pytest.mark.parametrize(
    ("value", "op", "wanted", "yes"),
    [
        ("Waco", "eq", "Waco", True),
        ("Waco", "eq", "waco", False),
        ("91", "eq", 91, False),
        (91, "gt", 80, True),
        ("91", "gt", 80, False),
        (True, "gt", 0, False),
        (True, "eq", 1, False),
        ([1, {"a": 1.0}], "eq", [1.0, {"a": 1}], True),
        ([True], "eq", [1], False),
        (None, "ne", "x", True),
        (None, "gt", "", False),
        (None, "not_in", ["x"], True),
        (None, "in", [None], True),
        (None, "eq", None, True),
        (0, "is_null", False, True),
        ("b", "gt", "a", True),
        ("B", "gt", "a", False),
        ("San José", "starts_with", "SAN J", True),
        ("STRASSE", "contains", "straße", False),
        ("ÉTÉ", "ends_with", "é", True),
        (["Hot", "new"], "contains", "hot", True),
        (["hotter"], "contains", "hot", False),
        (["hot"], "starts_with", "hot", False),
        (5, "contains", "5", False),
        ("2026-11-22T10:00:00Z", "eq", "2026-11-22T11:00:00.000+0100", True),
        ("2026-11-22", "eq", "2026-11-22T00:00", True),
        ("2026-11-22T10:00:00Z", "gt", "2026-11-22", True),
        ("yesterday", "gt", "2026-11-22", False),
        ("2026-11-22", "gt", "2", True),
        (10**23, "eq", 1e23, True),
        (2**53 + 1, "gt", float(2**53), True),
    ],
)
def test_values_compare_by_what_they_are(value: Any, op: Op, wanted: Any, yes: bool) -> None:
    assert matches({"a": value}, Condition("a", op, wanted)) is yes
    assert matches({"a": value}, Not(Condition("a", op, wanted))) is not yes


def test_ids_are_text() -> None:
    assert matches({"id": "5"}, Condition("id", "eq", 5))
    assert matches({"contactId": 7}, Condition("contactId", "in", ["6", "7"]))
    assert matches({"id": "b"}, Condition("id", "gt", "a"))
    assert not matches({"contactId": 7.5}, Condition("contactId", "eq", 7.5))
    assert matches({"contactId": {"x": 1}}, Condition("contactId", "is_null", False))


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("2026-11-22", True),
        ("2024-02-29T23:59:59.999999999-14:00", True),
        ("2026-02-29", False),
        ("0000-01-01", False),
        ("2026-11-22T24:00", False),
        ("2026-11-22T10:00:60Z", False),
        ("2026-11-22T10", False),
        ("2026-11-22 ", False),
        ("2026-11-22\n", False),
        ("٢٠٢٦-11-22", False),
        ("x" * 10_000, False),
    ],
)
def test_a_moment_is_what_a_calendar_has(text: str, is_one: bool) -> None:
    assert (moment(text) is not None) is is_one


def test_moments_are_microseconds_of_one_clock() -> None:
    first = moment("2026-11-22T10:00:00Z")
    assert first is not None
    assert moment("2026-11-22T11:30:00.0000015+01:30") == first + 1
    assert moment("2026-11-23") == first + 14 * 3600 * 1_000_000


@pytest.mark.parametrize(
    ("field", "op", "value", "said"),
    [
        ("a", "near", 1, "no comparison 'near'"),
        ("a", "gt", None, "nothing is gt null"),
        ("a", "gt", True, "takes a number"),
        ("a", "le", ["x"], "takes a number"),
        ("a", "in", "x", "takes a list"),
        ("a", "in", list(range(10_001)), "10,000 values at most"),
        ("a", "contains", 5, "takes text"),
        ("a", "is_null", 1, "true or false"),
        ("a", "eq", float("nan"), "cannot be looked for"),
        ("a", "eq", "\0", "cannot be looked for"),
        ("a", "eq", ["\ud800"], "cannot be looked for"),
        ("a", "eq", "x" * 100_001, "cannot be looked for"),
        ("a", "eq", object(), "cannot be looked for"),
        ("a\0", "eq", 1, "no name of a field"),
        ("a" * 1001, "eq", 1, "no name of a field"),
        ("id", "eq", {"a": 1}, "is text"),
    ],
)
def test_what_nobody_can_compare_is_refused(field: str, op: Any, value: Any, said: str) -> None:
    with pytest.raises(QueryRefused, match=said) as refused:
        Condition(field, op, value)
    assert isinstance(refused.value, RequestRefused)


def test_a_query_has_its_bounds() -> None:
    for limit in (0, -1, 50_001):
        with pytest.raises(QueryRefused, match="limit must be 1 to 50,000"):
            Query("Contact", limit=limit)
    with pytest.raises(QueryRefused, match="500 conditions"):
        Query("Contact", All(tuple(Condition("a", "eq", n) for n in range(501))))
    deep: Where = Condition("a", "eq", 1)
    for _ in range(5_000):
        deep = Not(deep)
    with pytest.raises(QueryRefused, match="nested"):
        Query("Contact", deep)


def test_a_query_reads_what_it_is_held_against() -> None:
    query = Query("Contact", equal({"city": "x"}), orders("-score"), fields=("email",))
    assert query.read == {"id", "email", "city", "score"}
    assert Query("Contact").read == frozenset()


def test_an_order_puts_each_kind_after_the_other_and_nulls_last_both_ways() -> None:
    values = ["b", 2, None, True, "2026-11-22T10:00Z", "2026-11-22T09:00-05:00", [1], "B", 1.5, False]
    rows = [{"id": str(place), "a": value} for place, value in enumerate(values)] + [{"id": "z"}]

    upwards = [row.get("a") for row in in_order(rows, [Order("a")])]
    downwards = [row.get("a") for row in in_order(rows, [Order("a", descending=True)])]

    there = ["2026-11-22T10:00Z", "2026-11-22T09:00-05:00", "B", "b", 1.5, 2, False, True, [1]]
    assert upwards == [*there, None, None]
    assert downwards == [*reversed(there), None, None]
    same = [{"id": "b", "n": 1}, {"id": "a", "n": 1}, {"id": "c", "n": 2}]
    assert [row["id"] for row in in_order(same, [Order("n", descending=True)])] == ["c", "a", "b"]


A, B, C = (Condition(name, "eq", 1) for name in "abc")


@pytest.mark.parametrize(
    ("where", "asked", "here"),
    [
        (A, A, EVERYTHING),
        (C, EVERYTHING, C),
        (All((A, C, B)), All((A, B)), C),
        (AnyOf((A, B)), AnyOf((A, B)), EVERYTHING),
        (AnyOf((A, C)), EVERYTHING, AnyOf((A, C))),
        (AnyOf((All((A, C)), B)), AnyOf((A, B)), AnyOf((All((A, C)), B))),
        (Not(A), EVERYTHING, Condition("a", "ne", 1)),
        (Not(Condition("a", "ne", 1)), A, EVERYTHING),
        (Not(AnyOf((Condition("a", "ne", 1), C))), A, Condition("c", "ne", 1)),
        (Not(Condition("a", "gt", 1)), EVERYTHING, Not(Condition("a", "gt", 1))),
        (AnyOf(()), AnyOf(()), EVERYTHING),
    ],
)
def test_a_vendor_is_asked_what_it_can(where: Where, asked: Where, here: Where) -> None:
    assert split(where, lambda each: each.field in "ab" and each.op == "eq") == (asked, here)


values = st.sampled_from([None, 0, 1, "x", "2026-11-22"])
leaves = st.builds(Condition, st.sampled_from("abc"), st.sampled_from(["eq", "ne"]), values) | st.builds(
    Condition, st.sampled_from("abc"), st.just("gt"), st.sampled_from([0, "a", "2026-01-01"])
)
trees: st.SearchStrategy[Where] = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda parts: All(tuple(parts)))
        | st.lists(inner, max_size=3).map(lambda parts: AnyOf(tuple(parts)))
        | inner.map(Not)
    ),
    max_leaves=8,
)


@given(trees, st.dictionaries(st.sampled_from("abc"), values), st.sets(st.sampled_from("abc")), st.booleans())
def test_what_is_asked_and_what_is_filtered_here_are_the_question_together(
    where: Where, row: dict[str, Any], able: set[str], negations: bool
) -> None:
    def can(each: Condition) -> bool:
        return each.field in able and (negations or each.op != "ne")

    asked, here = split(where, can)

    assert (matches(row, asked) and matches(row, here)) is matches(row, where)
    assert all(map(can, conditions(asked))), "the vendor hears nothing that it cannot do"
    assert matches(row, every(where)) is matches(row, where)
    assert words(where)


def test_conditions_read_well() -> None:
    where = every(equal({"city": ["Waco", None], "n": 1.5}), AnyOf((Condition("a", "is_null", True), Not(A))))
    assert words(where) == "city in ('Waco', null) and n = 1.5 and (a is null or not (a = 1))"
    assert words(Condition("t", "starts_with", "x" * 200)) == f"t starts with '{'x' * 100}…'"
    assert words(EVERYTHING) == "everything"
    assert words(AnyOf(())) == "nothing"


class Counted(str):
    """Text that counts how often it is compared."""

    asked = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Counted.asked += 1
        return str.__eq__(self, other)


def test_a_row_is_not_compared_with_each_value_of_a_long_list():
    for field in ("email", "id"):
        wanted = Condition(field, "in", tuple(f"u{n}@example.com" for n in range(MOST_VALUES)))
        Counted.asked = 0
        assert matches({field: Counted("u9999@example.com")}, wanted)
        assert not matches({field: Counted("nobody@example.com")}, wanted)
        assert Counted.asked < 10


def test_a_list_finds_what_equals_one_of_its_values():
    rows = [
        None,
        True,
        False,
        0,
        1,
        1.0,
        0.5,
        10**23,
        1e23,
        "1",
        "",
        "x",
        "2026-11-22",
        "2026-11-22T00:00:00Z",
        [1],
        {},
    ]
    for value in rows:
        for wanted in rows:
            row = {"a": value}
            assert matches(row, Condition("a", "in", (wanted,))) == matches(row, Condition("a", "eq", wanted))
            assert matches(row, Condition("a", "not_in", (wanted, "y"))) == matches(row, Condition("a", "ne", wanted))
    assert not matches({"id": "2026-11-22"}, Condition("id", "in", ("2026-11-22T00:00:00Z",)))


def test_what_is_joined_of_nothing_counts_too():
    with pytest.raises(QueryRefused, match="conditions at most"):
        Query("Contact", AnyOf(tuple(AnyOf(()) for _ in range(MOST_CONDITIONS + 1))))
