"""What two executions did is compared as it would leave, record by record and field by field."""

from __future__ import annotations

import json

import pytest

from circuit_script.events.recordings import Answer, Ended, Said, Wrote
from circuit_script.releases import comparing
from circuit_script.releases.comparing import LARGEST, MOST, NOTHING, bounded, compare, flat, same

ONE = "11111111-1111-7111-8111-111111111111"
TWO = "22222222-2222-7222-8222-222222222222"
THREE = "33333333-3333-7333-8333-333333333333"
FOUR = "44444444-4444-7444-8444-444444444444"


def wrote(op="update", object_="Contact", id_="c1", owner=0, fresh=False, **fields):
    return Wrote(op, object_, id_, fields, owner, fresh)


def said(id_=ONE, target="sales", owner=0, connector="hooks", **payload):
    return Said(id_, connector, "post", target, payload, owner)


def ended(*effects, status="succeeded", **more):
    writes = tuple(each for each in effects if isinstance(each, Wrote))
    sends = tuple(each for each in effects if isinstance(each, Said))
    return Ended(status, writes=writes, sends=sends, **more)


def differ(live, candidate, ids=("c1", "c2"), **more):
    return [
        (each.record, each.what, each.field, each.live, each.candidate)
        for each in compare(ids, live, candidate, **more).differences
    ]


def test_a_field_of_one_record_is_named_with_both_values():
    live = ended(wrote(score=78, plan="gold"), wrote(id_="c2", owner=1, score=12))
    candidate = ended(wrote(score=79, plan="gold"), wrote(id_="c2", owner=1, score=12))
    assert differ(live, candidate) == [("c1", "Contact c1", "score", 78, 79)]
    found = compare(("c1", "c2"), live, candidate)
    assert (found.records, found.different) == (2, 1)


def test_writes_of_one_record_count_together_however_many_they_are():
    assert not differ(ended(wrote(score=1), wrote(plan="gold")), ended(wrote(plan="gold", score=1)))
    assert not differ(ended(wrote(score=1), wrote(score=2)), ended(wrote(score=2)))
    assert differ(ended(wrote(score=2)), ended(wrote(score=2), wrote(op="delete"))) == [
        ("c1", "Contact c1", "", {"update": {"score": 2}}, {"delete": {}})
    ]


def test_an_effect_that_only_one_side_has_is_a_difference():
    assert differ(ended(wrote(score=1)), ended()) == [("c1", "Contact c1", "", {"update": {"score": 1}}, NOTHING)]
    assert differ(ended(), ended(said(text="hi"))) == [
        ("c1", "hooks sales", "", NOTHING, {"operation": "post", "text": "hi"})
    ]


def test_ids_that_are_made_are_compared_by_whose_they_are_and_their_order():
    live = ended(wrote("insert", "Task", ONE, fresh=True, n=1), wrote("insert", "Task", TWO, fresh=True, n=2),
                 wrote(task=TWO), said(THREE, text=f"see {TWO}"))  # fmt: skip
    same_again = ended(wrote("insert", "Task", THREE, fresh=True, n=1), wrote("insert", "Task", FOUR, fresh=True, n=2),
                       wrote(task=FOUR), said(ONE, text=f"see {FOUR}"))  # fmt: skip
    assert not differ(live, same_again)
    other = ended(wrote("insert", "Task", THREE, fresh=True, n=1), wrote("insert", "Task", FOUR, fresh=True, n=2),
                  wrote(task=THREE), said(ONE, text=f"see {FOUR}"))  # fmt: skip
    assert differ(live, other) == [("c1", "Contact c1", "task", "new Task 2", "new Task 1")]


def test_records_that_make_theirs_in_another_order_are_the_same():
    live = ended(
        wrote("insert", "Task", ONE, 0, fresh=True, of="a"), wrote("insert", "Task", TWO, 1, fresh=True, of="b")
    )
    turned = ended(
        wrote("insert", "Task", THREE, 1, fresh=True, of="b"), wrote("insert", "Task", FOUR, 0, fresh=True, of="a")
    )
    assert not differ(live, turned)


def test_messages_are_the_same_in_any_order_and_else_held_against_each_other():
    live = ended(said(ONE, text="a"), said(TWO, text="b"))
    assert not differ(live, ended(said(THREE, text="b"), said(FOUR, text="a")))
    assert differ(live, ended(said(THREE, text="b"), said(FOUR, text="c"))) == [("c1", "hooks sales", "text", "a", "c")]


def test_outcomes_of_records_are_compared_with_their_reason():
    live = ended(errors={0: "no plan"}, status="partial")
    assert not differ(live, ended(errors={0: "no plan"}, status="partial"))
    assert differ(live, ended()) == [("c1", "outcome", "", "failed: no plan", "succeeded")]
    late = ended(errors={1: "later"}, decided={1: 60.0}, status="partial")
    assert differ(ended(), late) == [("c2", "outcome", "", "succeeded", "put off for 60 s")]


def test_an_execution_that_ended_otherwise_as_a_whole_is_a_difference():
    assert differ(ended(), Ended("breached", "limit callouts"), ids=()) == [
        (None, "outcome", "", "succeeded", "breached: limit callouts")
    ]


def test_a_call_that_fails_for_another_reason_is_a_difference():
    live = Ended("failed", "KeyError: 'plan'")
    assert not differ(live, Ended("failed", "KeyError: 'plan'"), ids=())
    assert differ(live, Ended("failed", "KeyError: 'city'"), ids=()) == [
        (None, "outcome", "", "failed: KeyError: 'plan'", "failed: KeyError: 'city'")
    ]


@pytest.mark.parametrize(
    ("live", "candidate"),
    [
        ("limit wall_time exceeded: 1.02 s of 1 s", "limit wall_time exceeded: 1.07 s of 1 s: it waits, at app/a.py:9"),
        ("loop found: a, b, at app/a.py:12", "loop found: a, b, at app/a.py:14"),
        ("TypeError: <app.Lead object at 0x7f31c2>", "TypeError: <app.Lead object at 0x7f44d0>"),
    ],
)
def test_a_reason_is_the_same_whatever_that_one_run_says_beside_it(live, candidate):
    assert not differ(ended(errors={0: live}, status="failed"), ended(errors={0: candidate}, status="failed"))
    assert not differ(Ended("breached", live), Ended("breached", candidate), ids=())
    other = ended(errors={0: "limit memory exceeded: 1.02 s of 1 s"}, status="failed")
    assert differ(ended(errors={0: live}, status="failed"), other)


def test_who_is_put_off_waits_as_long_or_until_the_same_moment():
    def late(after):
        return ended(errors={0: "later"}, decided={0: after}, status="partial")

    assert not differ(late(600.0), late(600.4), began=(1000.0, 2000.0))
    assert not differ(late(4000.0), late(3000.0), began=(1000.0, 2000.0))  # at five o'clock, whenever it is asked
    assert differ(late(600.0), late(700.0), began=(1000.0, 2000.0))


def test_thousands_of_messages_are_not_held_each_against_each(monkeypatch):
    looks = []
    monkeypatch.setattr(comparing, "same", lambda one, other: looks.append(1) or same(one, other))
    live = ended(*(said(ONE, owner=None, n=n) for n in range(2000)))
    assert compare(["c1"], live, ended(*(said(ONE, owner=None, n=n) for n in reversed(range(2000))))).different == 0
    assert (
        len(compare(["c1"], live, ended(*(said(ONE, owner=None, n=-1 - n) for n in range(2000)))).differences) == 2000
    )
    assert len(looks) < 50_000


def test_a_job_for_one_moment_is_the_same_however_late_the_candidate_runs():
    live = ended(said(connector="jobs", target="remind", due=9000.0))
    assert not differ(live, ended(said(connector="jobs", target="remind", due=9000.0)), began=(1000.0, 5000.0))
    assert differ(live, ended(said(connector="jobs", target="remind", due=9300.0)), began=(1000.0, 5000.0))


def test_what_belongs_to_no_record_concerns_all_of_them():
    """Else a batch of 200 whose messages all differ would count as one record in 200."""
    ids = [f"c{n}" for n in range(200)]
    live = ended(*(said(ONE, target=f"t{n}", owner=None, text="hi") for n in range(200)))
    candidate = ended(*(said(ONE, target=f"t{n}", owner=None, text="ho") for n in range(200)))
    assert compare(ids, live, candidate).different == 200


def test_what_was_deleted_and_made_anew_has_lost_what_it_had():
    live = ended(wrote("upsert", plan="gold"))
    assert differ(live, ended(wrote("delete"), wrote("upsert", plan="gold")))
    assert not differ(ended(wrote("delete"), wrote("upsert", plan="gold")),
                      ended(wrote("delete"), wrote("upsert", plan="gold")))  # fmt: skip


def test_of_what_several_records_write_the_last_counts():
    def last(*order):
        return ended(*(wrote(object_="Account", id_="a1", owner=each, last=each) for each in order))

    assert not differ(last(0, 1), last(0, 1))
    assert differ(last(0, 1), last(1, 0)) == [(None, "Account a1", "last", 1, 0)]


@pytest.mark.parametrize(
    ("live", "candidate"),
    [({"a": {"b": 1}}, {"a.b": 1}), ({"a": ["x"]}, {"a": {"0": "x"}}), ({"a": []}, {"a": {}})],
)
def test_a_list_is_no_object_and_a_path_no_name(live, candidate):
    assert differ(ended(said(**live)), ended(said(**candidate)))
    answers = [ended(answer=Answer(200, (), json.dumps(each).encode())) for each in (live, candidate)]
    assert differ(*answers, ids=())


def test_answers_are_compared_by_status_type_and_each_value_of_their_json():
    def answer(body, status=200, **headers):
        kept = (("content-type", "application/json"), *headers.items())
        return ended(answer=Answer(status, kept, body))

    live = answer(b'{"score": 78, "tags": ["a", "b"]}', date="now")
    assert not differ(live, answer(b'{"tags":["a","b"],"score":78.0}', date="then"), ids=())
    assert differ(live, answer(b'{"score": 79, "tags": ["a", "c"]}', 201), ids=()) == [
        (None, "answer", "status", 200, 201),
        (None, "answer", "body.score", 78, 79),
        (None, "answer", "body.tags.1", "b", "c"),
    ]
    found = compare((), live, answer(b"oops"))
    assert (found.records, found.different) == (1, 1)


@pytest.mark.parametrize(
    "said_so", ["Contact.scored", "Contact.scored.at", "hooks.at", "hooks.sales.at.utc", "answer.body.at"]
)
def test_what_may_differ_is_named_by_the_author(said_so):
    effects = {
        "Contact": (ended(wrote(**{"scored": 1, "scored.at": 1})), ended(wrote(**{"scored": 2, "scored.at": 2}))),
        "hooks": (ended(said(at={"utc": 1})), ended(said(at={"utc": 2}))),
        "answer": (ended(answer=Answer(200, (), b'{"at": 1}')), ended(answer=Answer(200, (), b'{"at": 2}'))),
    }
    live, candidate = effects[said_so.split(".")[0]]
    left = {each[2] for each in differ(live, candidate, ignore=[said_so])}
    assert left == ({"scored"} if said_so == "Contact.scored.at" else set())


def test_what_may_differ_says_nothing_of_an_effect_that_is_missing():
    assert differ(ended(wrote(scored_at=1)), ended(), ignore=["Contact.scored_at"])


def test_jobs_are_due_so_long_after_their_execution_began():
    live = ended(said(connector="jobs", target="remind", due=1000.0 + 3600))
    later = ended(said(connector="jobs", target="remind", due=5000.0 + 3601))
    assert not differ(live, later, began=(1000.0, 5000.0))
    other = ended(said(connector="jobs", target="remind", due=5000.0 + 7200))
    assert differ(live, other, began=(1000.0, 5000.0)) == [("c1", "jobs remind", "due", 3600.0, 7200.0)]


def test_one_is_one_point_nought_and_not_true():
    assert same(1, 1.0)
    assert same([{"a": float("nan")}], [{"a": float("nan")}])
    assert not same(1, True)
    assert not same({"a": 0}, {"a": False})
    assert not same(None, "")


def test_flat_keeps_what_is_empty():
    assert flat({"a": [{"b": 1}, []], "c": {}, "d": None}) == {"a.0.b": 1, "a.1": [], "c": {}, "d": None}


def test_what_is_kept_is_bounded():
    live = ended(*(wrote(id_=f"c{n}", owner=None, text="ä" * 9000, n=n) for n in range(50)))
    candidate = ended(*(wrote(id_=f"c{n}", owner=None, text="ö" * 9000, n=n) for n in range(50)))
    kept = bounded(compare(("c1",), live, candidate).differences)
    assert len(kept) == MOST
    assert all(len(str(each).encode()) < LARGEST for each in kept)
