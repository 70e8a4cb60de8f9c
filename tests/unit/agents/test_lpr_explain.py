"""How a score explains itself: reasons, the table, what changed, and the rows that are written."""

from __future__ import annotations

import json
import re
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta
from math import floor

import pytest

from circuit_script.agents import VirtualLPR

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
LEAD = {
    "id": "c1",
    "industry_match": "target",
    "distance_miles": 1.2,
    "authority": "owner",
    "due_in_days": 20,
    "phone_valid": True,
}


def at(days):
    return (NOW - timedelta(days=days)).isoformat()


TOUR = {"id": "s1", "type": "quote_or_tour_request", "at": at(14 / 1440)}
NO_SHOW = {"id": "s2", "type": "no_show", "at": at(3)}


def calculate(lead=LEAD, signals=(TOUR, NO_SHOW), now=NOW):
    return VirtualLPR.calculate(lead, {}, list(signals), now, "local_service")


def test_reasons_say_what_moved_the_score_with_evidence():
    reasons = calculate().reasons
    assert [str(reason) for reason in reasons] == [
        "+18/20 asked for a quote, tour or demo 14 minutes ago",
        "+8/8 target industry or segment",
        "+8/8 is the owner",
        "-5.6 did not come to an appointment 3 days ago",
        "need unknown: up to +7",
    ]
    first = reasons[0]
    assert (first.component, first.cap, first.evidence.signal) == ("hand_raise", 20, "s1")
    assert first.evidence.age == pytest.approx(14 * 60)


def test_reasons_are_sorted_by_points_and_keep_room_for_a_negative_and_the_largest_unknown():
    reasons = calculate(signals=[TOUR, {"type": "unanswered_call", "at": at(0)}]).reasons
    assert len(reasons) == 5
    moved = [abs(reason.points) for reason in reasons[:-1]]
    assert moved == sorted(moved, reverse=True)
    assert reasons[-2].sentence == "-1 did not answer our call just now"
    assert reasons[-1].sentence == "need unknown: up to +7"


def test_a_lead_of_whom_nothing_is_known_has_only_an_unknown_as_its_reason():
    assert [str(reason) for reason in calculate({}, []).reasons] == ["industry or segment unknown: up to +8"]


def test_repeated_negatives_are_one_reason():
    calls = [{"type": "unanswered_call", "at": at(0)}] * 3
    assert "-3 did not answer our call just now (3 times)" in map(str, calculate(signals=calls).reasons)


def test_the_table_of_explain_adds_up_to_what_is_shown():
    score = calculate()
    table = VirtualLPR.explain(score)
    assert table == VirtualLPR.explain(LEAD, {}, [TOUR, NO_SHOW], NOW, "local_service")
    assert table.startswith(
        f"TOTAL {score.total}/100 = FIT {score.fit} + INTENT {score.intent} + TIMING {score.timing}"
    )
    for axis, cap in (("FIT", 40), ("INTENT", 40), ("TIMING", 20)):
        block = table.split(f"\n{axis} ")[1].split("\n\n")[0]
        parts = [float(value) for value in re.findall(r" (-?[\d.]+)(?: / \d+)?$", block, re.MULTILINE)]
        assert floor(min(max(sum(parts), 0), cap) + 0.5) == int(block.split("/")[0])
    assert "need unknown: up to +7" in table
    assert "next change by itself: 2026-03-" in table


def test_the_table_names_who_set_a_gate():
    table = VirtualLPR.explain(calculate(LEAD | {"competitor": {"by": "Ann"}}))
    assert "competitor: set by Ann" in table
    assert "band disqualified · route none" in table


def test_why_changed_lists_what_moved_the_most_points_first():
    before = calculate(signals=[TOUR])
    after = calculate(LEAD | {"need": "exact"}, [TOUR, {"type": "not_interested_reply", "at": at(0)}])
    changes = VirtualLPR.why_changed(before, after)
    assert [change.what for change in changes] == ["negative intent", "need_match", "grade"]
    assert [change.moved for change in changes] == [-15, 7, 0]
    assert str(changes[0]) == "-15 negative intent: 0 → 15"
    assert str(changes[2]) == f"grade: {before.grade} → {after.grade}"
    assert VirtualLPR.why_changed(before, before) == ()


def test_what_is_unknown_shows_in_completeness_and_potential():
    score = calculate(signals=[])
    assert score.completeness == (40 - 6 - 7 - 3) / 40
    assert score.potential == score.total + 6 + 7 + 3
    area = calculate(LEAD | {"area_income_ratio": 1.1}, [])
    assert (area.completeness, area.potential) == (score.completeness, score.potential)


def test_the_signals_used_are_short_rows_oldest_first_without_what_is_yet_to_come():
    later = {"id": "s3", "type": "contact_form", "at": at(-1)}
    view = {"type": "pricing_view", "at": at(1), "confidence": 0.5}
    assert calculate(signals=[later, TOUR, view, NO_SHOW]).signals_used == [
        ((NOW - timedelta(days=3)).timestamp(), "no_show", 6, "s2"),
        ((NOW - timedelta(days=1)).timestamp(), "pricing_view", 2, ""),
        ((NOW - timedelta(minutes=14)).timestamp(), "quote_or_tour_request", 18, "s1"),
    ]


def test_a_score_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        calculate().total = 100


def test_a_row_holds_what_the_crm_shows():
    (row,) = VirtualLPR.score(
        [LEAD | {"tags": ["vip", "lpr:cold"], "lpr_signals": [TOUR]}], now=NOW, profile="local_service"
    )
    assert row == {
        "id": "c1",
        "lpr_score": 24 + 18 + 17,
        "lpr_fit": 24,
        "lpr_intent": 18,
        "lpr_timing": 17,
        "lpr_grade": "B1",
        "lpr_band": "warm",
        "lpr_route": "hot",
        "lpr_reasons": row["lpr_reasons"],
        "lpr_p_win": None,
        "lpr_scored_at": "2026-03-02T12:00:00+00:00",
        "lpr_profile": "local_service@1",
        "tags": ["vip", "lpr:warm"],
    }
    assert row["lpr_reasons"][0].startswith("+18/20 asked for")


def test_a_contact_is_written_again_only_when_a_number_the_band_or_the_top_reason_changed():
    contact = LEAD | {"lpr_signals": [TOUR, NO_SHOW]}
    (row,) = VirtualLPR.score([contact], now=NOW, profile="local_service")
    scored = contact | row
    soon = NOW + timedelta(minutes=5)
    assert VirtualLPR.score([scored], now=soon, profile="local_service") == []
    assert VirtualLPR.score([scored], now=NOW + timedelta(hours=5), profile="local_service") != []
    as_text = {"lpr_reasons": json.dumps(row["lpr_reasons"]), "lpr_signals": json.dumps(contact["lpr_signals"])}
    assert VirtualLPR.score([scored | as_text], now=soon, profile="local_service") == []
    assert VirtualLPR.score([scored | as_text | {"lpr_reasons": '["+9/9 else"]'}], now=soon, profile="local_service")
    assert VirtualLPR.score([scored | {"lpr_score": 3}], now=soon, profile="local_service") != []
    assert VirtualLPR.score([scored | {"lpr_reasons": ["+18/20 called 1 hour ago"]}], now=soon, profile="local_service")


def test_no_tag_stands_on_a_disqualified_contact():
    contact = {"id": "c1", "tags": ["lpr:hot"], "dnd": True}
    (row,) = VirtualLPR.score([contact], now=NOW, profile="local_service")
    assert row["tags"] == []
    assert row["lpr_band"] == "disqualified"


def test_enrichment_and_signals_come_by_id_or_in_parallel():
    records = [{"id": "a"}, {"id": "b"}]
    facts = {"industry_match": "target", "distance_miles": 1}
    by_id = VirtualLPR.scoreLeads(records, {"b": facts}, signals={"b": [TOUR]}, now=NOW, profile="local_service")
    parallel = VirtualLPR.score(records, [None, facts], signals=[None, [TOUR]], now=NOW, profile="local_service")
    assert by_id == parallel
    assert [(row["lpr_fit"], row["lpr_intent"]) for row in by_id] == [(0, 0), (14, 18)]


def test_what_a_contact_says_itself_goes_before_enrichment():
    score = VirtualLPR.calculate({"authority": "staff", "need": None}, {"authority": "owner", "need": "exact"}, [], NOW)
    assert (score.parts["decision_authority"].points, score.parts["need_match"].points) == (2, 7)


def test_outside_of_an_execution_the_time_must_be_given():
    with pytest.raises(RuntimeError, match="pass now="):
        VirtualLPR.score([{"id": "c1"}])
