"""What the old service answered beside what ours would write."""

from __future__ import annotations

import json
from typing import Any

import pytest

from circuit_script.events.parity import LARGEST, Ours, Written, compared, rules_of

SCORE = rules_of({"score": "Contact.score"}, {})


def old(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def ours(record: str = "c1", **fields: Any) -> Ours:
    writes = (Written("Contact", record, fields),) if fields else ()
    return Ours("Contact", "afterInsert", record, writes=writes)


def refused(why: str, closed: str = "") -> Ours:
    return Ours("Contact", "afterInsert", "c1", refused=why, closed=closed)


def said(answer: bytes, *ours_: Ours, rules: Any = SCORE) -> tuple[str, str]:
    found = compared(answer, ours_, rules)
    return found.state, found.differences[0].said if found.differences else found.why


def test_equal_values_are_the_same_and_are_shown() -> None:
    assert said(old({"score": 78}), ours(score=78)) == ("same", "score: old 78, ours 78")
    assert said(old({"score": 78}), ours(score=78.0))[0] == "same"


@pytest.mark.parametrize(
    ("theirs", "mine", "shown"),
    [
        (78, 77, "score: old 78, ours 77"),
        (78, "78", 'score: old 78, ours "78"'),
        (1, True, "score: old 1, ours true"),
        ("größer", "grösser", 'score: old "größer", ours "grösser"'),
        ([1], [1, 2], "score: old [1], ours [1, 2]"),
        ([1], [True], "score: old [1], ours [true]"),
        ({"a": {"b": 0}}, {"a": {"b": False}}, 'score: old {"a": {"b": 0}}, ours {"a": {"b": false}}'),
    ],
)
def test_another_value_or_another_type_is_a_difference_that_names_both(theirs: Any, mine: Any, shown: str) -> None:
    found = compared(old({"score": theirs}), [ours(score=mine)], SCORE)
    assert (found.state, found.differences[0].said) == ("different", shown)
    assert (found.differences[0].record, found.differences[0].field) == ("c1", "Contact.score")


def test_a_difference_within_what_is_allowed_is_none_and_beyond_it_is_one() -> None:
    rules = rules_of({"score": "Contact.score"}, {"score": 0.5})
    assert said(old({"score": 10.0}), ours(score=10.5), rules=rules)[0] == "same"
    assert said(old({"score": 10.0}), ours(score=10.51), rules=rules)[0] == "different"


def test_what_only_one_side_says_is_a_difference_and_null_says_nothing() -> None:
    assert said(old({"score": 5}), ours()) == ("different", "score: old 5, ours nothing (it writes no such field)")
    assert said(old({}), ours(score=5)) == ("different", "score: old nothing, ours 5")
    assert said(old({"score": None}), ours())[0] == "silent"
    assert said(old({"score": None}), ours(score=None))[0] == "silent"


def test_what_ours_would_refuse_and_the_old_service_took_is_a_difference() -> None:
    assert said(old({"score": 5}), refused("a bug")) == ("different", "score: old 5, ours nothing (a bug)")
    assert said(old({"ok": True}), refused("a bug")) == (
        "different",
        "the old service took it, ours would not: a bug",
    )


def test_an_answer_that_is_no_json_says_nothing_and_one_that_was_cut_cannot_be_compared() -> None:
    assert said(old(b"ok"), ours(score=6)) == ("silent", "the old service's answer is no JSON")
    assert said(old(b"[" * 60_000), ours(score=6))[0] == "silent"
    assert said(b'{"score": 6, "text": "' + b"x" * LARGEST, ours(score=6))[0] == "incomparable"


def test_what_was_refused_only_for_the_time_being_is_not_held_against_ours_unless_it_agrees() -> None:
    closed = "it calls api.example.com"
    assert said(old({"score": 5}), refused("no answer", closed)) == ("incomparable", closed)
    agreeing = Ours("Contact", "afterInsert", "c1", writes=(Written("Contact", "c1", {"score": 5}),), closed=closed)
    assert said(old({"score": 5}), agreeing)[0] == "same"


def test_an_event_that_no_handler_takes_is_a_difference() -> None:
    nobody = Ours("Contact", "afterInsert", "c1", handlers=0)
    assert said(old({"score": 5}), nobody) == (
        "different",
        "score: old 5, ours nothing (no handler takes Contact.afterInsert)",
    )


def test_paths_go_into_objects_and_lists() -> None:
    rules = rules_of({"data.0.score": "Contact.score"}, {})
    assert said(old({"data": [{"score": 5}]}), ours(score=5), rules=rules)[0] == "same"
    assert said(old({"data": {"score": 5}}), ours(score=5), rules=rules)[0] == "different"


def test_several_records_are_compared_in_their_order_and_a_single_value_is_not_for_all() -> None:
    rules = rules_of({"leads.*.score": "Contact.score"}, {})
    both = [ours("c1", score=5), ours("c2", score=6)]
    assert said(old({"leads": [{"score": 5}, {"score": 6}]}), *both, rules=rules)[0] == "same"
    swapped = compared(old({"leads": [{"score": 6}, {"score": 5}]}), both, rules)
    assert [each.record for each in swapped.differences] == ["c1", "c2"]
    assert said(old({"leads": [{"score": 5}]}), *both, rules=rules) == (
        "different",
        "leads.*.score: 1 values for 2 records",
    )
    assert said(old({"score": 5}), *both) == ("incomparable", "score is one value, and the delivery has 2 records")


def test_the_last_write_to_the_events_own_record_counts() -> None:
    writes = (
        Written("Contact", "other", {"score": 1}),
        Written("Contact", "c1", {"score": 2}),
        Written("Contact", "c1", {"score": 3}),
        Written("Contact", "c1", {"name": "Ann"}),
    )
    each = Ours("Contact", "afterInsert", "c1", writes=writes)
    assert said(old({"score": 3}), each)[0] == "same"


def test_long_values_are_shown_in_part() -> None:
    found = compared(old({"score": "a"}), [ours(score="b" * 5000)], SCORE)
    assert found.state == "different"
    assert len(found.differences[0].said) < 500


def test_a_number_that_no_float_can_hold_is_a_difference_and_no_error() -> None:
    assert said(old({"score": 10**400}), ours(score=1.5))[0] == "different"


def test_what_ours_deletes_again_is_not_there() -> None:
    written = Written("Contact", "c1", {"score": 78})
    gone = Ours("Contact", "afterInsert", "c1", writes=(written, Written("Contact", "c1", {}, deleted=True)))
    assert said(old({"score": 78}), gone) == ("different", "score: old 78, ours nothing (it writes no such field)")
    back = Ours("Contact", "afterInsert", "c1", writes=(*gone.writes, written))
    assert said(old({"score": 78}), back)[0] == "same"


def test_a_delivery_whose_events_are_gone_cannot_be_compared() -> None:
    assert said(old({"score": 78}))[0] == "incomparable"
