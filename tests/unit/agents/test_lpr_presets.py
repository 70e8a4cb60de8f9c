"""The shipped profiles, and what is refused in a tenant's own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from circuit_script.agents import ProfileError, VirtualLPR, load_profile
from circuit_script.agents.virtual_lpr import PRESETS
from circuit_script.agents.virtual_lpr.agent import default_profile
from circuit_script.agents.virtual_lpr.profile import GROUPS

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def profile_from(folder, text):
    path = folder / "lpr.toml"
    path.write_text(f'extends = "local_service"\nname = "mine"\nversion = "7"\n{text}')
    return load_profile(path)


def parts(lead, profile):
    return VirtualLPR.calculate(lead, {}, [], NOW, profile).parts


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_loads_and_its_caps_add_up(name):
    profile = load_profile(name)
    assert profile.label == f"{name}@1"
    assert (sum(profile.caps[:6]), sum(profile.caps[6:10]), sum(profile.caps[10:])) == (40, 40, 20)


def test_the_preset_holds_the_published_signals():
    kinds = load_profile("local_service").kinds
    by_group = {group: [k.name for k in kinds.values() if k.group == index] for index, group in enumerate(GROUPS)}
    assert [len(by_group[group]) for group in GROUPS] == [8, 6, 5, 5]
    assert len([kind for kind in kinds.values() if kind.group < 0]) == 10
    assert (kinds["quote_or_tour_request"].points, kinds["quote_or_tour_request"].half_life) == (
        18,
        14 * 86_400_000_000,
    )
    assert kinds["unsubscribed"].half_life is None


def test_licensing_counts_a_free_mailbox_half_and_compares_budgets_with_what_a_licence_asks():
    lead = {"email": "ann@gmail.com", "budget": "$75k"}
    assert parts(lead, "licensing")["reachability"].points == 1
    assert parts(lead, "licensing")["financial_capacity"].points == 6
    assert parts(lead, "local_service")["reachability"].points == 2
    assert parts(lead | {"email": "ann@alder.example"}, "licensing")["reachability"].points == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[fit.location]\ncap = 7", "8 + 7 + 6 = 21, but must add up to 20"),
        ("[fit.authority]\ncap = 8.5", "8.5 + 7 + 5 = 20.5, but must add up to 20"),
        ("[intent.conversation]\ncap = 6", "20 + 8 + 6 + 5 = 39, but must add up to 40"),
        ("[timing.momentum]\ncap = 5", "7 + 6 + 5 + 3 = 21, but must add up to 20"),
        ("[fit.reachability]\nconsent = 2", "2 + 2 + 2 = 6, but must add up to 5"),
        ("[fit.company]\ntarget = 9", "fit.company.target: must be a number from 0 up to 8, not 9"),
        ("[fit.company]\ntargte = 8", "fit.company.targte: is not known here"),
        ("[fit.location]\nmiles = [[2, 6], [1, 5]]", "must be a staircase"),
        ("[fit.location]\nmiles = [[2, 7]]", "at most its cap of 6 points"),
        ("[fit.finance]\narea_evidence = 1", "must be true, false"),
        ("[intent.hand_raise.signals]\ncontact_form = [12, 0]", "half-life in days above 0"),
        ("[intent.engagement.signals]\ncontact_form = [12, 1]", "stands in two places"),
        ("[timing.momentum]\nrecent_days = 30", "more than recent_days"),
        ("[band]\nwarm = 80", "needs slack < warm < hot"),
        ("[gates.tags]\nvip = []", "is not among the gates' names"),
        ('[[timing.trigger.seasons]]\nfrom = "13-01"\nto = "02-01"', "a month and a day"),
        ("band = 3", "band: must be a table"),
        ("[band\n", "is not valid TOML"),
    ],
)
def test_a_wrong_profile_is_refused_with_its_key_and_the_sum(tmp_path, text, said):
    with pytest.raises(ProfileError) as refused:
        profile_from(tmp_path, text)
    assert said in str(refused.value)


def test_a_missing_file_and_an_unknown_preset_are_refused_with_the_presets(tmp_path):
    with pytest.raises(ProfileError, match="presets are local_service, licensing"):
        load_profile(tmp_path / "nothing.toml")
    (tmp_path / "lpr.toml").write_text('extends = "gym"')
    with pytest.raises(ProfileError, match="there is no preset 'gym'"):
        load_profile(tmp_path / "lpr.toml")


def test_a_short_profile_changes_only_what_it_says(tmp_path):
    mine = profile_from(
        tmp_path, "[fit.location]\nmiles = [[50, 6]]\n[intent.hand_raise.signals]\ncontact_form = [20, 14]"
    )
    assert mine.label == "mine@7"
    assert parts({"distance_miles": 40}, mine)["location_fit"].points == 6
    assert mine.kinds["contact_form"].points == 20
    assert mine.kinds["inbound_call"] == load_profile("local_service").kinds["inbound_call"]


def test_area_income_is_no_evidence_where_the_vertical_is_regulated(tmp_path):
    lead = {"area_income_ratio": 2}
    assert parts(lead, "local_service")["financial_capacity"].points == 4
    regulated = profile_from(tmp_path, '[fit.finance]\nvertical = "health insurance"')
    assert parts(lead, regulated)["financial_capacity"].points == 0
    allowed = profile_from(tmp_path, '[fit.finance]\nvertical = "insurance"\narea_evidence = true')
    assert parts(lead, allowed)["financial_capacity"].points == 4


RAW = """
[fit.company]
target_industries = ["Fitness studio"]
adjacent_industries = ["yoga"]
[fit.location]
locations = [[32.7767, -96.7970]]
zip_centers = {75201 = [32.787, -96.799]}
[fit.need]
services = ["personal training"]
related_services = ["pool"]
"""


def test_facts_are_read_from_a_raw_contact(tmp_path):
    profile = profile_from(tmp_path, RAW)
    contact = {
        "industry": "FITNESS  studio",
        "latitude": "32.7831",
        "longitude": -96.8067,
        "title": "Vice President & Co-Owner",
        "service": "Personal Training",
        "phone": "+1 (214) 555-0100",
        "email": "Ann.Alder@Alder.Example",
        "sms_consent": "yes",
        "area_median_income": "$90,000",
        "start_date": (NOW + timedelta(days=40)).isoformat(),
        "moved_at": (NOW - timedelta(days=40)).isoformat(),
    }
    found = {name: part.points for name, part in parts(contact, profile).items() if part.points}
    assert found == {
        "company_match": 8,
        "location_fit": 6,
        "financial_capacity": 3,
        "decision_authority": 8,
        "need_match": 7,
        "reachability": 5,
        "stated_timeline": 5,
        "trigger_event": 2,
    }


@pytest.mark.parametrize(
    ("contact", "part", "points"),
    [
        ({"industry": "yoga"}, "company_match", 4),
        ({"industry": "bakery"}, "company_match", 0),
        ({"postalCode": "75201-1234"}, "location_fit", 5),
        ({"service": "Pool"}, "need_match", 4),
        ({"message": "Do you do personal training, too?"}, "need_match", 3),
        ({"message": "impersonal trainings"}, "need_match", 0),
        ({"title": "Assistant to the CEO"}, "decision_authority", 2),
        ({"title": "Headhunter"}, "decision_authority", 0),
        ({"title": "Head of Sales"}, "decision_authority", 6),
        ({"buying_for": "family"}, "decision_authority", 6),
        ({"phone": "0000000000"}, "reachability", 0),
        ({"email": "not an address"}, "reachability", 0),
        ({"email": "x@alder.example", "validEmail": False}, "reachability", 0),
        ({"timeline": "Within 30 days", "dateAdded": (NOW - timedelta(days=1)).isoformat()}, "stated_timeline", 7),
        ({"timeline": "just looking", "dateAdded": NOW.isoformat()}, "stated_timeline", 0),
    ],
)
def test_a_raw_field_is_worth_what_it_says(tmp_path, contact, part, points):
    assert parts(contact, profile_from(tmp_path, RAW))[part].points == points


def test_a_date_ripens_while_a_number_of_days_stands():
    later = NOW + timedelta(days=70)

    def timeline(lead, now):
        return VirtualLPR.calculate(lead, {}, [], now, "local_service").parts["stated_timeline"].points

    dated = {"due_at": (NOW + timedelta(days=85)).isoformat()}
    assert [timeline(dated, at) for at in (NOW, later)] == [5, 7]
    assert [timeline({"due_in_days": 85}, at) for at in (NOW, later)] == [5, 5]


def test_bad_contact_data_counts_against_fit_once():
    known = {"industry_match": "target", "distance_miles": 1}

    def lost(lead, signals=()):
        return VirtualLPR.calculate(lead, {}, list(signals), NOW, "local_service").negative["fit"]

    assert lost(known | {"email": "x@mailinator.com", "phone": "12"}) == 9
    assert lost(known | {"phone": "12"}, [{"type": "invalid_phone", "at": NOW.timestamp()}]) == 3
    assert lost(known | {"email": "x@mailinator.com", "email_deliverable": True}) == 0


def test_gates_are_read_from_tags_distance_and_do_not_disturb(tmp_path):
    profile = profile_from(tmp_path, "[gates]\nserved_miles = 50")

    def gates(lead):
        return VirtualLPR.calculate(lead, {}, [], NOW, profile).gated_by

    assert gates({"dnd": True}) == {"do_not_contact": "the CRM's do-not-disturb"}
    assert gates({"tags": ["VIP", "Member"]}) == {"existing_customer": "tag member"}
    assert gates({"distance_miles": 51}) == {"outside_area": "51 miles away"}
    assert gates({"distance_miles": 49, "dnd": False, "under_age": "no", "competitor": 0}) == {}


def test_territories_by_postal_code_and_by_area(tmp_path):
    profile = profile_from(
        tmp_path,
        """
[fit.location]
territory_zips = {75201 = "taken", 75205 = "open"}
territory_areas = [{state = "adjoining", corners = [[30, -100], [30, -90], [35, -90], [35, -100]]}]
""",
    )

    def location(lead):
        return parts(lead, profile)["location_fit"].points

    assert location({"postalCode": "75201", "distance_miles": 1}) == 0
    assert location({"postalCode": 75205}) == 6
    assert location({"latitude": 32.8, "longitude": -96.8}) == 3
    assert location({"latitude": 40, "longitude": -96.8}) == 0


def test_a_season_is_a_trigger_event_while_it_lasts(tmp_path):
    profile = profile_from(tmp_path, '[[timing.trigger.seasons]]\nfrom = "12-15"\nto = "02-20"')

    def points(month, day, year=2026):
        at = datetime(year, month, day, 6, tzinfo=UTC)
        return VirtualLPR.calculate({}, {}, [], at, profile).parts["trigger_event"].points

    assert [points(12, 14), points(12, 15), points(1, 20), points(2, 20), points(2, 21)] == [0, 3, 2, 1, 0]
    score = VirtualLPR.calculate({}, {}, [], NOW, profile)
    assert score.next_change_at == datetime(2026, 12, 15, tzinfo=UTC)


def test_the_apps_own_profile_is_found_in_its_folder(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    profile_from(tmp_path, "")
    assert default_profile(tmp_path).label == "mine@7"
    assert default_profile(other).label == "local_service@1"


def test_a_profile_that_was_set_is_used_where_none_is_named(monkeypatch):
    monkeypatch.setattr(VirtualLPR, "profile", load_profile("licensing"))
    assert VirtualLPR.calculate({}, {}, [], NOW).profile_version == "licensing@1"
