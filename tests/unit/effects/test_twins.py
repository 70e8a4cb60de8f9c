from __future__ import annotations

from typing import Any

import pytest

from circuit_script.effects.twins import NO_TWINS, by_both, by_key, known_by_key, named

TWINS = {"id5": "score", "id6": "plan"}


@pytest.mark.parametrize(
    ("fields", "expected", "odd"),
    [
        ({"id": "c", "id5": 1, "name": "Ann"}, {"id": "c", "score": 1, "name": "Ann"}, []),
        ({"id5": 1, "score": "1"}, {"score": "1"}, []),
        ({"id5": None, "score": 1}, {"score": 1}, []),
        ({"id5": 1, "score": None}, {"score": 1}, []),
        ({"id5": None}, {"score": None}, []),
        ({"id5": 1, "score": 2}, {"id5": 1, "score": 2}, ["id5"]),
        ({}, {}, []),
    ],
)
def test_fields_stand_under_their_keys(fields: dict[str, Any], expected: dict[str, Any], odd: list[str]) -> None:
    assert by_key(fields, TWINS) == (expected, odd)


def test_handlers_see_both_names_and_of_two_values_the_one_under_the_key() -> None:
    assert by_both({"id5": 1, "name": "Ann"}, TWINS) == {"id5": 1, "score": 1, "name": "Ann"}
    assert by_both({"id5": 1, "score": 2, "id6": None}, TWINS) == {
        "id5": 2, "score": 2, "id6": None, "plan": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("stored", "written", "expected"),
    [
        ({"id5": 1}, {}, ({"score": 1}, {}, True)),
        ({"score": 80}, {"score": 80}, ({"score": 80}, {"score": 80}, True)),
        # It was written by its id since its key was told.
        ({"id5": 5, "score": 3}, {"id5": 5}, ({"score": 5}, {"score": 5}, True)),
        ({"id5": 5, "score": 3}, {"id5": 5, "score": 2}, ({"score": 5}, {"score": 5}, True)),
        # It was told by its id, before or after we wrote it by its key: nobody knows.
        ({"id5": 10, "score": 80}, {"score": 80}, ({"score": 80}, {"score": 80}, False)),
        ({"id5": 10, "score": 80}, {}, ({"score": 80}, {}, False)),
        ({"id5": 5, "score": 80}, {"id5": 5, "score": 80}, ({"score": 80}, {"score": 80}, False)),
        # It was cleared by its key, before or after it was told by its id.
        ({"id5": 5, "score": None}, {"score": None}, ({"score": None}, {"score": None}, False)),
        ({"id5": 5, "score": None}, {"id5": 5, "score": None}, ({"score": None}, {"score": None}, False)),
        ({"id5": 5, "score": None}, {"id5": 5}, ({"score": 5}, {"score": 5}, True)),
        ({"id5": 5, "score": None}, {"id5": 4, "score": 4}, ({"score": 5}, {"score": 4}, True)),
        ({"id5": None, "score": 5}, {"score": 5}, ({"score": 5}, {"score": 5}, True)),
    ],
)
def test_of_two_values_in_the_mirror_the_newer_one_counts_or_none(
    stored: dict[str, Any], written: dict[str, Any], expected: tuple[dict[str, Any], dict[str, Any], bool]
) -> None:
    assert known_by_key(stored, written, TWINS) == expected


def test_the_mirror_forgets_an_id_when_the_key_says_it() -> None:
    told = named({"id": "c", "id5": 2}, {"id5": 1, "name": "Ann"}, {}, TWINS)
    assert told.incoming == {"id": "c", "score": 2}
    assert told.stored == {"score": 1, "name": "Ann"}
    assert told.keep == {"id": "c", "score": 2, "id5": None}


def test_an_id_stays_in_the_mirror_until_something_is_said_of_its_field() -> None:
    told = named({"id": "c", "tags": ["hot"]}, {"id5": 1, "id6": "gold"}, {}, TWINS)
    assert told.stored == {"score": 1, "plan": "gold"}
    assert told.keep == {"id": "c", "tags": ["hot"]}


def test_a_field_that_is_cleared_by_its_id_is_cleared() -> None:
    told = named({"id": "c", "id5": None, "plan": "gold"}, {"score": 80, "plan": "gold"}, {"score": 80}, TWINS)
    assert told.incoming == told.keep == {"id": "c", "score": None, "plan": "gold"}
    assert named({"id": "c", "id5": None}, {"id5": 80}, {}, TWINS).keep == {"id": "c", "score": None, "id5": None}
    assert named({"id": "c", "id5": None}, None, {}, TWINS).incoming == {"id": "c", "score": None}


def test_a_field_that_was_cleared_by_its_key_does_not_come_back_from_under_its_id() -> None:
    assert by_both({"score": None, "id5": 5}, TWINS) == {"score": None, "id5": None}


def test_a_field_of_the_vendors_own_that_is_called_as_a_custom_one_stays_as_it_is() -> None:
    told = named({"id": "c", "plan": "theirs", "id6": "ours", "id5": 1}, {"plan": "theirs", "id6": "ours"}, {}, TWINS)
    assert told.incoming == {"id": "c", "plan": "theirs", "id6": "ours", "score": 1}
    assert told.stored == {"plan": "theirs", "id6": "ours"}
    assert told.sure
    assert by_both(told.incoming, told.twins) == {**told.incoming, "id5": 1}


def test_without_twins_everything_stays_as_it_is() -> None:
    incoming, stored, written = {"id": "c", "id5": 1}, {"id5": 2, "score": 3}, {"score": 3}
    told = named(incoming, stored, written, NO_TWINS)
    assert (told.incoming, told.stored, told.written) == (incoming, stored, written)
    assert told.keep is incoming
    assert told.sure
