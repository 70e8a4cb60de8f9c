"""Rules, quiet hours and words of alerts, by themselves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from circuit_script.settings_see import AlertSettings, QuietSettings, SloSettings
from circuit_script.telemetry.alerts.look import BudgetUse, Down, HotLead, Letters, Look, Mute, Rate
from circuit_script.telemetry.alerts.quiet import quiet_until
from circuit_script.telemetry.alerts.rules import judge
from circuit_script.telemetry.alerts.slo import burning, objectives
from circuit_script.telemetry.alerts.words import key_of

AT = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
SETTINGS = AlertSettings()


def keys(look: Look) -> dict[str, str]:
    return {each.key: each.severity for each in judge(look, SETTINGS).signals}


def test_a_share_of_few_executions_says_nothing() -> None:
    assert keys(Look(AT, rates=[Rate("a", None, 2, 2, 2)])) == {}
    assert keys(Look(AT, rates=[Rate("a", None, 100, 5, 5)])) == {}
    assert keys(Look(AT, rates=[Rate("a", None, 100, 6, 5)])) == {"errors:a": "warning"}
    assert keys(Look(AT, rates=[Rate("a", None, 20, 10, 3)])) == {"errors:a": "critical", "latency:a": "warning"}


def test_a_tenant_that_fails_alone_is_told_to_everybody_and_one_of_many_only_to_itself() -> None:
    rates = [Rate("a", None, 1000, 10, 0), Rate("a", "acme", 10, 10, 0), Rate("a", "globex", 990, 0, 0)]
    (alone,) = judge(Look(AT, rates=rates), SETTINGS).signals
    assert (alone.key, alone.tenant, alone.part_of) == ("errors:a@acme", "acme", None)
    rates[0] = Rate("a", None, 100, 10, 0)
    parts = {each.key: each.part_of for each in judge(Look(AT, rates=rates), SETTINGS).signals}
    assert parts == {"errors:a": None, "errors:a@acme": "errors:a"}


def test_what_could_not_be_read_is_not_over() -> None:
    assert judge(Look(AT), SETTINGS).unknown >= {"errors", "latency", "slo", "dead", "queue", "lead", "guardian"}
    assert "dead" not in judge(Look(AT, letters=[]), SETTINGS).unknown


def test_a_budget_that_leaves_less_than_a_call_costs_is_used_up() -> None:
    def used(share: float) -> str | None:
        use = BudgetUse("day", "", "", round(share * 1000), 1000, AT)
        return keys(Look(AT, budgets=[use])).get("budget:day")

    assert [used(share) for share in (0.79, 0.8, 0.994, 0.995, 3.0)] == [
        None, "warning", "warning", "critical", "critical",
    ]  # fmt: skip


def test_thousands_of_tenants_make_a_bounded_number_of_alerts() -> None:
    letters = [Letters(f"h{nth % 300}", f"t{nth}", 1, "x" * 10_000) for nth in range(3000)]
    found = judge(Look(AT, letters=letters), SETTINGS).signals
    assert len(found) <= 400
    assert max(len(each.what) for each in found) < 500
    assert max(len(each.hits) for each in found) <= 21


def test_what_is_beyond_the_bound_hides_no_whole_and_is_not_over() -> None:
    letters = [Letters(f"h{nth // 150}", f"t{nth}", 1, "x") for nth in range(900)]
    judged = judge(Look(AT, letters=letters), SETTINGS)
    assert [each.key for each in judged.signals if each.part_of is None] == [f"dead:h{nth}" for nth in range(6)]
    assert "dead" in judged.unknown
    assert "dead" not in judge(Look(AT, letters=letters[:90]), SETTINGS).unknown


def test_no_name_makes_one_alert_of_two_tenants() -> None:
    subjects = ("a", "a@b", "a%40b", "a b")
    keys = [key_of("dead", subject, tenant) for subject in subjects for tenant in (None, "b", "c", "b@c")]
    assert len(set(keys)) == len(keys)


def test_letters_of_a_tenant_are_one_figure_whatever_they_died_of() -> None:
    letters = [Letters("webhook/post", "acme", n, f"{n}", effects=True) for n in (2, 3)]
    whole, part = judge(Look(AT, letters=letters), SETTINGS).signals
    assert [(hit.tenant, hit.said) for hit in whole.hits] == [("acme", "5")]
    assert part.hits == whole.hits


@given(st.text(max_size=300), st.text(max_size=300))
def test_no_text_of_a_stranger_is_obeyed_or_too_long_to_be_a_key(text: str, other: str) -> None:
    look = Look(
        AT,
        leads=[HotLead(other, text, "A", AT)],
        down=[Down("webhook", text, other, 1, text)],
        mute=[Mute("ops", 3, text)],
    )
    for signal in judge(look, SETTINGS).signals:
        assert len(signal.key.encode()) <= 500
        assert signal.key.isprintable()
        assert " " not in signal.key
        assert (signal.what + signal.next).isprintable()
    assert key_of("a", text) == key_of("a", text)


@pytest.mark.parametrize(
    ("moment", "ends"),
    [
        ("2026-05-04T19:59+00:00", None),
        ("2026-05-04T20:00+00:00", "2026-05-05T05:00+00:00"),
        ("2026-05-05T04:59+00:00", "2026-05-05T05:00+00:00"),
        ("2026-05-05T05:00+00:00", None),
        ("2026-10-24T22:00+00:00", "2026-10-25T06:00+00:00"),  # an hour more, as the clock is put back
        ("2027-03-27T22:00+00:00", "2027-03-28T05:00+00:00"),
    ],
)
def test_quiet_hours_go_by_the_clock_on_the_wall(moment: str, ends: str | None) -> None:
    quiet = QuietSettings(start="22:00", end="07:00", timezone="Europe/Berlin")
    found = quiet_until(quiet, datetime.fromisoformat(moment))
    assert found == (datetime.fromisoformat(ends) if ends else None)
    assert quiet_until(QuietSettings(), AT) is None
    with pytest.raises(ValidationError, match="give both"):
        QuietSettings(start="22:00")
    assert quiet_until(QuietSettings(start="09:00", end="17:00"), AT) == AT + timedelta(hours=5)


def test_a_budget_burns_only_where_both_windows_do() -> None:
    spans = {300: (100, 0), 1800: (100, 0), 3600: (1000, 100), 21_600: (1000, 100), 259_200: (1000, 100)}
    assert burning(0.001, spans) is not None  # over six hours and three days
    assert burning(0.001, {**spans, 21_600: (1000, 0)}) is None
    found = burning(0.001, {**spans, 300: (100, 10)})
    assert found is not None
    assert (found.window.severity, round(found.rate)) == ("critical", 100)
    assert burning(0.001, dict.fromkeys(spans, (2, 2))) is None


def test_an_objective_that_says_several_things_is_several() -> None:
    found = objectives({"a": SloSettings(p95=1, errors=0.1), "b": SloSettings(availability=0.99)})
    assert [(each.name, each.said) for each in found] == [
        ("a.p95", "95 % of executions take at most 1 s"),
        ("a.errors", "at most 10 % of executions fail"),
        ("b", "99 % of deliveries are taken"),
    ]
