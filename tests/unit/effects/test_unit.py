from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from circuit_script.connectors.query import Query, equal, matches, orders
from circuit_script.effects.unit import UnitOfWork
from circuit_script.errors import RequestRefused


def contacts(*ids: str) -> UnitOfWork:
    return UnitOfWork("Contact", ids or ("a", "b", "c"))


@pytest.mark.parametrize(
    ("object_", "row", "owner", "expected"),
    [
        ("Contact", {"id": "b"}, None, 1),
        ("Contact", {"id": "b"}, 2, 2),
        ("Contact", {"id": "stranger"}, None, None),
        ("Opportunity", {"id": "b"}, None, None),
        ("LeadScore", {"id": "x", "contactId": "c"}, None, 2),
        ("LeadScore", {"contactId": "stranger"}, None, None),
    ],
)
def test_a_write_belongs_to_the_record_in_hand_or_to_the_one_whose_id_it_writes(
    object_: str, row: dict[str, Any], owner: int | None, expected: int | None
) -> None:
    unit = contacts()

    unit.write("upsert", object_, [row], owner)

    assert unit.writes[0].owner == expected
    assert unit.unattributed is (expected is None)


def test_a_write_to_the_contact_of_a_record_belongs_to_that_record() -> None:
    unit = UnitOfWork("Message", ["m1", "m2"], ["c1", None])

    unit.write("update", "Contact", [{"id": "c1", "seen": True}], None)
    unit.write("update", "Contact", [{"id": "c2", "seen": True}], None)

    assert [each.owner for each in unit.writes] == [0, None]


def test_in_a_batch_of_one_everything_belongs_to_it() -> None:
    unit = contacts("a")

    unit.write("insert", "Note", [{"text": "x"}], None)
    unit.send("webhook", "post", "alerts", {}, None)

    assert not unit.unattributed
    assert (unit.writes[0].owner, unit.sends[0].owner) == (0, 0)


def test_an_insert_gets_an_id_that_later_writes_may_use() -> None:
    unit = contacts()

    (made,) = unit.write("insert", "Note", [{"text": "x"}], 0)
    unit.write("update", "Note", [{"id": made, "text": "y"}], 0)

    assert UUID(made).version == 7
    assert unit.overlay_rows("Note", [made], [None]) == [{"id": made, "text": "y"}]


@pytest.mark.parametrize(
    ("op", "object_", "row", "words"),
    [
        ("merge", "Contact", {"id": "a"}, "merge"),
        ("update", "Contact", {}, "row 0 has no id"),
        ("delete", "Contact", {"id": ""}, "row 0 has no id"),
        ("update", "Contact", {"id": None}, "row 0 has no id"),
        ("insert", "Contact", ["id"], "row 0 is a list"),
        ("insert", "Contact", {"id": "a\0"}, "cannot be stored"),
        ("insert", "Contact", {"id": "x" * 256}, "cannot be stored"),
        ("insert", "", {}, "name of an object"),
        ("insert", "O\0", {}, "name of an object"),
        ("insert", "O" * 300, {}, "name of an object"),
    ],
)
def test_a_write_that_cannot_be_done_is_refused_and_nothing_of_it_is_held(
    op: str, object_: str, row: Any, words: str
) -> None:
    unit = contacts()

    with pytest.raises(RequestRefused, match=words):
        unit.write(op, object_, [row], None)

    assert unit.writes == []


def test_ids_that_are_numbers_become_text() -> None:
    assert contacts().write("update", "Contact", [{"id": 0}, {"id": 17}], None) == ["0", "17"]


def test_what_a_failed_record_asked_for_does_not_leave_and_unattributed_effects_stay_with_it() -> None:
    unit = contacts()
    unit.write("update", "Contact", [{"id": "a"}, {"id": "b"}], None)
    unit.write("insert", "Note", [{"text": "whose?"}], None)
    unit.send("webhook", "post", "alerts", {"n": 1}, 0)
    unit.send("webhook", "post", "alerts", {"n": 2}, 1)
    unit.send("webhook", "post", "alerts", {"n": 3}, None)

    writes, sends = unit.surviving({1}, whole=False)

    assert [(each.object, each.id) for each in writes] == [("Contact", "a")]
    assert [each.payload for each in sends] == [{"n": 1}]
    assert unit.surviving((), whole=True) == (unit.writes, unit.sends)
    writes, sends = unit.surviving((), whole=False)
    assert [each.object for each in writes] == ["Contact", "Contact"], "a record failed that is no longer among them"
    assert [each.payload for each in sends] == [{"n": 1}, {"n": 2}]
    assert (unit.unattributed, unit.orphans) == (True, 2)


def test_reads_by_id_show_pending_writes_laid_over_what_is_stored() -> None:
    unit = contacts()
    unit.write("update", "Contact", [{"id": "a", "score": 5}], None)
    unit.write("delete", "Contact", [{"id": "b"}], None)
    unit.write("update", "Contact", [{"id": "gone", "score": 5}], None)
    stored: list[dict[str, Any] | None] = [{"id": "a", "name": "Ann"}, {"id": "b"}, {"id": "c"}, None]

    seen = unit.overlay_rows("Contact", ["a", "b", "c", "gone"], stored)

    assert seen == [{"id": "a", "name": "Ann", "score": 5}, None, {"id": "c"}, None]
    assert unit.overlay_rows("Note", ["a"], [{"id": "a"}]) == [{"id": "a"}]


def test_queries_drop_rows_that_no_longer_match_and_find_pending_inserts() -> None:
    unit = contacts()
    unit.write("update", "Contact", [{"id": "a", "city": "Rome"}], None)
    unit.write("insert", "Contact", [{"id": "n", "city": "Oslo"}, {"id": "m", "city": "Bonn"}], None)
    unit.write("delete", "Contact", [{"id": "b"}], None)

    query = Query("Contact", equal({"city": "Oslo"}))
    rows = unit.overlay_query(
        query, [{"id": "a", "city": "Oslo"}, {"id": "b", "city": "Oslo"}, {"id": "c", "city": "Oslo"}]
    )

    assert rows == [{"id": "c", "city": "Oslo"}, {"id": "n", "city": "Oslo"}]
    assert unit.overlay_query(Query("Contact", equal({"city": "Oslo"}), limit=1), [{"id": "c", "city": "Oslo"}]) == [
        {"id": "c", "city": "Oslo"}
    ]


def test_in_a_query_with_an_order_what_is_pending_stands_in_its_place() -> None:
    unit = contacts()
    unit.write("update", "Contact", [{"id": "a", "score": 1}], None)
    unit.write("insert", "Contact", [{"id": "n", "score": 5}], None)
    query = Query("Contact", order_by=orders("-score"), limit=3)

    rows = unit.overlay_query(query, [{"id": "a", "score": 9}, {"id": "b", "score": 6}, {"id": "c", "score": 3}])

    assert [row["id"] for row in rows] == ["b", "n", "c"], "and what is now the last one falls behind the limit"
    assert unit.pending("Contact") == ["a", "n"]
    assert unit.pending("Note") == []


def test_an_overlay_says_whose_stored_state_it_needs_to_be_whole() -> None:
    unit = contacts()
    unit.write("upsert", "Contact", [{"id": "a", "city": "Oslo"}], None)
    unit.write("update", "Contact", [{"id": "b", "city": "Oslo"}], None)
    unit.write("insert", "Contact", [{"id": "n", "city": "Oslo"}], None)

    assert unit.unread("Contact", [{"id": "b"}]) == ["a"]
    assert unit.unread("Note", []) == []


@pytest.mark.parametrize(
    ("row", "where", "yes"),
    [
        ({"a": 1}, {}, True),
        ({"a": 1}, {"a": 1}, True),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": True}, {"a": 1}, False),
        ({"a": 1}, {"a": "1"}, False),
        ({"a": 1}, {"a": [2, 1]}, True),
        ({"a": 1}, {"a": []}, False),
        ({}, {"a": None}, True),
        ({"a": None}, {"a": None}, True),
        ({"a": 0}, {"a": None}, False),
        ({"id": "5"}, {"id": 5}, True),
        ({"id": "5"}, {"id": [4, 5]}, True),
        ({"contactId": 7}, {"contactId": "7"}, True),
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, False),
    ],
)
def test_matching_agrees_with_the_built_in_crm(row: dict[str, Any], where: dict[str, Any], yes: bool) -> None:
    assert matches(row, equal(where)) is yes


def test_a_checkpoint_takes_what_belongs_to_the_records_before_it_and_leaves_the_rest() -> None:
    unit = contacts()
    for owner in (0, 1, 2, None):
        unit.write("insert", "Note", [{"n": owner}], owner)
        unit.send("webhook", "post", "x", {"n": owner}, owner)

    writes, sends = unit.departing(1, {0})
    assert [write.fields["n"] for write in writes] == [send.payload["n"] for send in sends] == [1]
    unit.settled = 2
    unit.forget(1)
    assert [write.fields["n"] for write in unit.writes] == [send.payload["n"] for send in unit.sends] == [2, None]


def test_nothing_more_is_held_for_a_record_behind_a_checkpoint() -> None:
    unit = contacts()
    unit.settled = 1

    with pytest.raises(RequestRefused, match="this record is settled"):
        unit.write("insert", "Note", [{}], 0)
    with pytest.raises(RequestRefused, match="this record is settled"):
        unit.send("webhook", "post", "x", {}, 0)
    unit.write("update", "Contact", [{"id": "a"}, {"id": "b"}], None)
    assert [write.owner for write in unit.writes] == [None, 1], "by its id alone it is nobody's now"


def test_after_the_checkpoint_of_an_only_record_nothing_more_is_held_for_it_as_with_several() -> None:
    unit = contacts("a")
    unit.settled = 1
    with pytest.raises(RequestRefused, match="this record is settled"):
        unit.write("update", "Contact", [{"id": "a"}], 0)
    with pytest.raises(RequestRefused, match="this record is settled"):
        unit.send("webhook", "post", "x", {}, 0)
    unit.write("insert", "Note", [{}], None)
    unit.send("webhook", "post", "x", {}, None)
    assert [unit.writes[0].owner, unit.sends[0].owner] == [None, None], "it leaves if the record has succeeded"
