from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_script.effects.echoes import is_echo, same

STORED = {"name": "Ann", "score": 80, "grade": "A", "tags": ["hot"]}
WRITTEN = {"score": 80, "grade": "A"}


@pytest.mark.parametrize(
    ("incoming", "echo"),
    [
        ({"id": "c1", "score": 80}, False),  # name and tags were cleared
        ({"id": "c1", "name": "Ann", "score": 80, "grade": "A", "tags": ["hot"]}, True),
        ({"id": "c1", "name": "Ann", "score": "80", "tags": ["hot"]}, True),
        ({"id": "c1", "name": "Ann", "score": 80, "tags": []}, False),
        ({"id": "c1", "score": 80, "name": "Anna"}, False),
        ({"id": "c1", "score": 81}, False),
        ({"id": "c1", "score": 80, "phone": "1"}, False),
        ({"id": "c1", "score": 80, "phone": None}, False),
        ({"id": "c1", "name": "Ann"}, False),
        ({"id": "c1"}, False),
        ({}, False),
    ],
)
def test_an_echo_says_nothing_new_and_something_of_it_is_ours(incoming: dict[str, Any], echo: bool) -> None:
    assert is_echo(incoming, STORED, WRITTEN) is echo


def test_a_field_that_a_person_changed_back_to_what_we_wrote_is_a_change() -> None:
    stored = {"score": 10}

    assert not is_echo({"score": 80}, stored, {"score": 80})


def test_a_field_that_was_ours_and_is_somebody_elses_now_is_no_echo() -> None:
    assert not is_echo({"score": 10}, {"score": 10}, {"score": 80})


def test_a_field_that_is_somebody_elses_by_now_and_is_left_out_was_cleared() -> None:
    assert not is_echo({"name": "Ann", "grade": "A"}, {"name": "Ann", "score": 10, "grade": "A"}, WRITTEN)


def test_a_custom_field_of_ours_that_its_list_leaves_out_was_cleared() -> None:
    stored, keys = {"score": 80, "grade": "A"}, {"id5": "score", "id6": "grade"}
    entries = [{"id": "id6", "value": "A"}]
    assert is_echo({"grade": "A"}, stored, WRITTEN, keys), "nothing is said of it"
    assert not is_echo({"grade": "A", "customFields": entries}, stored, WRITTEN, keys)
    assert is_echo({"grade": "A", "customFields": entries}, {**stored, "score": None}, WRITTEN, keys)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (5, "5", True),
        ("5", 5, True),
        (5, 5.0, True),
        ("a", "a", True),
        (True, "true", True),
        ("false", False, True),
        (True, "false", False),
        (True, "1", False),
        ([1], [1], True),
        ([1], "[1]", True),
        ('["a", "ü"]', ["a", "ü"], True),
        ({"b": 1, "a": [None]}, '{"a":[null],"b":1}', True),
        ([1], "[true]", False),
        ([1], "[1, 2]", False),
        ([1], "[1", False),
        ([], "{}", False),
        (["a"], "a", False),
        (None, "None", False),
        (None, None, True),
        ({"a": 1}, {"a": 1}, True),
        (5, "05", False),
    ],
)
def test_scalars_are_the_same_as_text_lists_and_mappings_as_json(one: Any, other: Any, equal: bool) -> None:
    assert same(one, other) is equal


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=5))
def test_without_a_write_of_ours_nothing_is_an_echo(fields: dict[str, Any]) -> None:
    assert not is_echo(fields, fields, {})


CUSTOM = {"name": "Ann", "customFields": [{"id": "budget", "value": 9}], "budget": 9, "score": 80}


@pytest.mark.parametrize(
    ("entries", "echo"),
    [
        ([{"id": "budget", "value": 9}, {"id": "score", "value": 80}], True),
        ([{"id": "score", "value": "80"}, {"id": "budget", "value": 9}], True),
        ([{"id": "score", "value": 80}], False),
        ([{"id": "budget", "value": 9}, {"id": "score", "value": 81}], False),
        ([], False),
        ("none", False),
    ],
)
def test_custom_fields_of_an_echo_stand_and_none_is_missing(entries: Any, echo: bool) -> None:
    incoming = {"id": "c1", "name": "Ann", "customFields": entries, "budget": 9, "score": 80}
    assert is_echo(incoming, CUSTOM, {"score": 80}) is echo


@pytest.mark.parametrize(("value", "echo"), [(80, True), ("80", True), (81, False)])
def test_an_entry_of_the_list_stands_under_the_key_of_its_id(value: Any, echo: bool) -> None:
    stored = {"name": "Ann", "customFields": [{"id": "id5", "value": 70}], "score": 80}
    incoming = {"id": "c1", "name": "Ann", "customFields": [{"id": "id5", "value": value}], "score": value}
    assert is_echo(incoming, stored, {"score": 80}, {"id5": "score"}) is echo
    assert not is_echo(incoming, stored, {"score": 80})
