"""The auditor finds what is wrong: a seeded loss, double, disorder and mix-up, each in a story that is else right."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from tests.faults.again import REAL, Again
from tests.faults.auditor import audit
from tests.faults.schedule import STAGES, STEPS, draw
from tests.faults.story import HANDLERS, JOBS, Acked, Findings, Kept, Seen

Story = tuple[list[Acked], list[Seen], dict[str, Kept]]


@pytest.fixture
def story() -> Story:
    """Of a drawn schedule, as it would be told if nothing went wrong."""
    letters = [each for stream in draw(5, 0).streams for each in stream]
    acked = [
        Acked(each.mark, each.tenant, each.record, each.rank, f"id of {each.mark}", bool(each.follows))
        for each in letters
    ]
    seen = [
        Seen(each.mark, handler, f"key {handler} {each.mark}", each.tenant, each.record)
        for each in acked
        for handler in each.callers
    ]
    once = dict.fromkeys(HANDLERS, 1)
    kept = {each.mark: Kept(1, dict(once), {}, dict.fromkeys(each.callers, 1), each.id) for each in acked}
    return acked, seen, kept


def told(story: Story) -> Findings:
    return audit(*story)


def test_a_story_in_which_nothing_went_wrong_has_no_findings(story: Story) -> None:
    assert told(story).none


def test_an_effect_that_comes_again_under_its_key_is_no_double(story: Story) -> None:
    _, seen, _ = story
    seen += [seen[3], seen[0]]
    assert told(story).none


def test_what_was_acknowledged_and_never_came_is_lost(story: Story) -> None:
    _, seen, _ = story
    gone = seen.pop(17)
    found = told(story)
    assert [gone.mark in line and gone.handler in line for line in found.lost] == [True]
    assert not found.doubled
    assert not found.disordered


def test_what_was_acknowledged_and_is_not_in_the_ledger_is_lost(story: Story) -> None:
    acked, _, kept = story
    del kept[acked[4].mark]
    assert any("not in the ledger" in line for line in told(story).lost)


@pytest.mark.parametrize("caller", JOBS)
def test_a_job_or_a_finalizer_that_never_came_came_twice_or_unasked_is_found(story: Story, caller: str) -> None:
    acked, seen, kept = story
    asked = next(place for place, each in enumerate(seen) if each.handler == caller)
    other = next(each for each in acked if not each.follows)
    seen.append(replace(seen[0], mark=other.mark, handler=caller, tenant=other.tenant, record=other.record))
    seen.append(replace(seen[asked], key="another"))
    lost = next(each for each in seen if each.handler == caller and each.mark not in (seen[asked].mark, other.mark))
    seen.remove(lost)
    kept[lost.mark].rows[caller] = 2
    found = told(story)
    assert [lost.mark in line for line in found.lost] == [True]
    assert len(found.doubled) == 2
    assert [other.mark in line for line in found.strange] == [True]


def test_an_outcome_or_a_row_that_is_missing_is_a_loss(story: Story) -> None:
    acked, _, kept = story
    kept[acked[0].mark].succeeded.pop("at_once")
    kept[acked[1].mark].rows.pop("one_by_one")
    assert len(told(story).lost) == 2


def test_one_effect_under_two_keys_is_a_double(story: Story) -> None:
    _, seen, _ = story
    seen.append(replace(seen[8], key="another"))
    found = told(story)
    assert len(found.doubled) == 1
    assert not found.lost


def test_two_events_rows_or_successes_of_one_delivery_are_doubles(story: Story) -> None:
    acked, _, kept = story
    one, two, three = (each.mark for each in acked[:3])
    kept[one] = replace(kept[one], events=2)
    kept[two].rows["at_once"] = 2
    kept[three].succeeded["one_by_one"] = 2
    assert len(told(story).doubled) == 3


def test_a_later_event_of_a_record_that_comes_first_is_a_disorder(story: Story) -> None:
    acked, seen, _ = story
    ranks = {each.mark: each.rank for each in acked}
    place, other = next(
        (n, m)
        for n, one in enumerate(seen)
        for m, two in enumerate(seen)
        if (one.record, one.handler) == (two.record, two.handler) and ranks[one.mark] < ranks[two.mark]
    )
    seen[place], seen[other] = seen[other], seen[place]
    found = told(story)
    assert found.disordered
    assert not found.lost
    assert not found.doubled


def test_a_repeat_that_comes_late_is_no_disorder(story: Story) -> None:
    _, seen, _ = story
    seen.append(seen[0])
    assert told(story).none


def test_one_tenants_event_as_anothers_and_what_nobody_was_told_of_are_strange(story: Story) -> None:
    _, seen, _ = story
    seen.append(replace(seen[0], tenant="somebody else"))
    seen.append(replace(seen[0], mark="never sent"))
    assert len(told(story).strange) == 2


def test_a_replay_is_as_much_again_and_nothing_else(story: Story) -> None:
    acked, seen, kept = story
    again = Again(acked, "5-0-", REAL)
    first = {(each.mark, each.handler): each.key for each in seen}
    assert again.audit(seen, kept, first, 0).none
    assert again.audit(seen, kept, first, 1).lost

    twice = [*seen, *(replace(each, key=f"{each.key}, replayed") for each in seen)]
    for each in kept.values():
        for counts in (each.succeeded, each.rows):
            counts.update(dict.fromkeys(counts, 2))
    assert again.audit(twice, kept, first, 1).none
    assert again.audit(twice, kept, first, 0).doubled
    assert again.audit([*twice, replace(seen[3], key="a third")], kept, first, 1).doubled
    assert again.audit(twice[:-1], kept, first, 1).lost


def test_an_event_that_ended_otherwise_is_told(story: Story) -> None:
    acked, _, kept = story
    mark = kept[acked[9].mark]
    mark.succeeded.clear()
    mark.ended["at_once"] = ["dead"]
    assert any("dead" in line for line in told(story).lost)


@pytest.mark.parametrize("number", [0, 12, 24])
def test_a_schedule_follows_from_its_seed(number: int) -> None:
    chosen = draw(99, number)
    assert chosen == draw(99, number)
    assert chosen != draw(100, number)


def test_a_schedule_has_at_least_fifty_deliveries_and_one_to_five_faults() -> None:
    seed = random.randrange(10**6)
    for number in range(len(STAGES)):
        chosen = draw(seed, number)
        assert chosen.size >= 50
        assert chosen.size == len(chosen.streams) * STEPS
        assert 1 <= len(chosen.faults) - (chosen.replay == REAL) <= 5
