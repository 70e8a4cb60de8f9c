"""The eleven vectors that fix the lead score, and the boundaries of its stairs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from circuit_script.agents import VirtualLPR
from circuit_script.agents.virtual_lpr.bands import band_of, settled_band
from circuit_script.agents.virtual_lpr.profile_file import preset

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
FULL = {
    "industry_match": "target",
    "distance_miles": 1.2,
    "budget_ratio": 1.6,
    "authority": "owner",
    "need": "exact",
    "phone_valid": True,
    "email_deliverable": True,
    "consent": True,
}
MID = {name: value for name, value in FULL.items() if name != "budget_ratio"} | {"area_income_ratio": 1.1}
TOUR = "quote_or_tour_request"


def seen(*signals):
    """Signals of (type, age in days)."""
    return [{"type": name, "at": (NOW - timedelta(days=age)).isoformat()} for name, age in signals]


def calculate(lead, signals=(), now=NOW):
    return VirtualLPR.calculate(lead, {}, list(signals), now, "local_service")


EVERYTHING = (
    *("appointment_booked", "pricing_view", "pricing_view", "checkout_abandoned", "positive_reply"),
    *("price_question", "event_attended", "download", "link_click"),
)
NEARBY = {"industry_match": "target", "distance_miles": 1, "email_deliverable": True, "phone_valid": True}
VECTORS = [
    (1, FULL | {"due_in_days": 10, "trigger_age_days": 5}, [(n, 0) for n in EVERYTHING], (40, 40, 20), "A1 hot hot"),
    (2, MID | {"due_in_days": 20}, [(TOUR, 0.01)], (37, 18, 17), "A1 hot hot"),
    (3, MID | {"due_in_days": 6}, [(TOUR, 14.01)], (37, 9, 8), "A3 warm warm"),
    (4, MID | {"due_in_days": -40}, [(TOUR, 60.01)], (37, 1, 0), "A3 cold cold"),
    (5, FULL, [], (40, 0, 0), "A3 cold cold"),
    (
        6,
        {"distance_miles": 80, "authority": "staff", "email_deliverable": True},
        [
            *[("download", 1), ("download", 2), ("download", 3), ("link_click", 1), ("link_click", 2)],
            *[("event_attended", 3), ("pricing_view", 1), ("case_study_view", 2), ("return_visit", 1)],
        ],
        (4, 12, 9),
        "C2 cold cold",
    ),
    (
        7,
        NEARBY,
        [("contact_form", 0.5), ("careers_view", 0.5), ("student_or_job_seeker", 0.5)],
        (10, 6, 9),
        "C3 cold cold",
    ),
    (
        8,
        FULL | {"due_in_days": 15},
        [(TOUR, 3), ("pricing_view", 3), ("not_interested_reply", 1)],
        (40, 4, 15),
        "A2 warm warm",
    ),
    (
        9,
        FULL | {"due_in_days": 15, "do_not_contact": True},
        [("appointment_booked", 0.5)],
        (40, 20, 16),
        "A1 disqualified none",
    ),
    (10, {}, [], (0, 0, 0), "C3 cold cold"),
    (
        11,
        {
            "industry_match": "adjacent",
            "distance_miles": 4,
            "budget_ratio": 1.0,
            "authority": "manager",
            "need": "related",
            "phone_valid": True,
            "email_deliverable": True,
            "consent": True,
            "due_in_days": 60,
        },
        [("positive_reply", 2), ("positive_reply", 9), ("pricing_view", 2), ("contact_form", 9)],
        (27, 17, 11),
        "B2 warm warm",
    ),
]


@pytest.mark.parametrize(
    ("number", "lead", "signals", "axes", "words"), VECTORS, ids=[f"vector {v[0]}" for v in VECTORS]
)
def test_a_vector_scores_as_the_reference_does(number, lead, signals, axes, words):
    score = calculate(lead, seen(*signals))
    assert (score.fit, score.intent, score.timing) == axes
    assert score.total == sum(axes)
    assert f"{score.grade} {score.band} {score.route}" == words


@pytest.mark.parametrize(
    ("fact", "value", "part", "points"),
    [
        ("distance_miles", 2, "location_fit", 6),
        ("distance_miles", 2.001, "location_fit", 5),
        ("distance_miles", 25, "location_fit", 1),
        ("distance_miles", 25.1, "location_fit", 0),
        ("budget_ratio", 1.5, "financial_capacity", 6),
        ("budget_ratio", 0.74, "financial_capacity", 1),
        ("budget_ratio", 0.49, "financial_capacity", 0),
        ("area_income_ratio", 1.3, "financial_capacity", 4),
        ("area_income_ratio", 0.1, "financial_capacity", 1),
        ("authority", "family", "decision_authority", 6),
        ("territory", "adjoining", "location_fit", 3),
        ("need", "mentioned", "need_match", 3),
        ("due_in_days", 30, "stated_timeline", 7),
        ("due_in_days", 30.01, "stated_timeline", 5),
        ("due_in_days", 180.5, "stated_timeline", 0),
        ("due_in_days", -29.9, "stated_timeline", 7),
        ("due_in_days", -30, "stated_timeline", 0),
        ("trigger_age_days", 30, "trigger_event", 3),
        ("trigger_age_days", 60.5, "trigger_event", 1),
        ("trigger_age_days", 91, "trigger_event", 0),
    ],
)
def test_each_stair_includes_its_own_bound(fact, value, part, points):
    assert calculate({fact: value}).parts[part].points == points


def test_only_the_postal_code_is_worth_less_than_the_address():
    assert calculate({"distance_miles": 1, "distance_precision": "zip"}).parts["location_fit"].points == 5


def test_of_one_type_the_second_counts_half_the_third_a_quarter_and_the_fourth_nothing():
    def one(count):
        return calculate({}, seen(*[("case_study_view", 0)] * count)).parts["commercial_interest"].points

    assert [one(count) for count in (1, 2, 3, 4, 9)] == [2, 3, 3.5, 3.5, 3.5]


def test_recency_looks_past_engagement_and_at_bounds_exactly():
    def recency(*signals):
        return calculate({}, seen(*signals)).parts["recency"].points

    assert recency(("download", 0)) == 0
    assert [recency(("pricing_view", age)) for age in (1 / 24, 1, 3, 7, 14, 30, 30.0001)] == [6, 5, 4, 3, 2, 1, 0]
    assert recency(("no_show", 0), ("pricing_view", 2)) == 4


def test_a_signal_after_now_does_not_count_yet():
    later = calculate(FULL, seen(("appointment_booked", -1)))
    assert later.intent == later.timing == 0
    assert later.route == "cold"


def test_confidence_scales_a_signal_and_none_of_it_leaves_no_trace():
    def score(confidence):
        return calculate({}, [{"type": "positive_reply", "at": NOW.timestamp(), "confidence": confidence}])

    assert score(0.5).parts["conversation"].points == 2.5
    assert score(7).parts["conversation"].points == 5
    for nothing in (0, -1, "much", float("nan")):
        assert (score(nothing).intent, score(nothing).timing) == (0, 0)


def test_a_click_that_a_scanner_made_is_not_counted():
    at = NOW.timestamp()
    clicks = [
        {"type": "link_click", "at": at, "delivered_at": at - 4},
        {"type": "link_click", "at": at, "bot": True},
    ]
    assert calculate({}, clicks).intent == 0
    assert calculate({}, [{"type": "link_click", "at": at, "delivered_at": at - 60}]).intent == 2


@pytest.mark.parametrize(
    ("previous", "total", "band"),
    [
        *[("hot", 65, "hot"), ("hot", 64, "warm"), ("hot", 41, "warm"), ("hot", 39, "cold"), ("cold", 65, "warm")],
        *[
            ("warm", 40, "warm"),
            ("warm", 39, "cold"),
            ("cold", 44, "cold"),
            (None, 44, "cold"),
            ("nonsense", 44, "cold"),
        ],
    ],
)
def test_a_band_is_left_downwards_only_some_points_under_its_bound(previous, total, band):
    bands = preset("local_service").bands
    axes = (40, min(total - 40, 40), max(total - 80, 0)) if total >= 40 else (total, 0, 0)
    assert settled_band(band_of(axes, bands), total, previous, bands) == band


def test_settling_changes_band_and_route_and_nothing_else():
    score = calculate(FULL | {"due_in_days": 60}, seen((TOUR, 5)))
    assert (score.total, score.band) == (66, "warm")
    settled = VirtualLPR.settle(score, "hot")
    assert (settled.band, settled.route, settled.points) == ("hot", "hot", score.points)
    assert VirtualLPR.settle(score, "cold") is score


def test_a_gate_is_never_settled_away():
    score = calculate(FULL | {"competitor": "said so on the phone"}, seen((TOUR, 0)))
    assert (score.band, score.route, score.gates) == ("disqualified", "none", ("competitor",))
    assert VirtualLPR.settle(score, "hot").band == "disqualified"
    assert score.gated_by == {"competitor": "said so on the phone"}


def test_a_gate_that_a_signal_closed_opens_by_what_reverses_it_and_by_nothing_else():
    stop, start, person = ("do_not_contact", 3), ("opted_in", 1), ("lift_do_not_contact", 1)
    assert calculate(FULL, seen(stop)).gates == ("do_not_contact",)
    assert calculate(FULL, seen(stop, start)).gates == ()
    assert calculate(FULL, seen(stop, person)).gates == ()
    assert calculate(FULL, seen(start, ("do_not_contact", 0.5))).gates == ("do_not_contact",)
    assert calculate(FULL, seen(("legal_threat", 3), start)).gates == ("legal_threat",)
