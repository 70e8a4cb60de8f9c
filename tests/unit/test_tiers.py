from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from circuit_script.config import FILE, load_settings
from circuit_script.errors import ConfigError
from circuit_script.tenants import Tiers
from circuit_script.tenants.leases import Period


def tiers_of(folder: Path, toml: str) -> Tiers:
    (folder / FILE).write_text(toml)
    return Tiers.of_settings(load_settings(folder))


def test_two_tiers_are_shipped(tmp_path: Path) -> None:
    tiers = tiers_of(tmp_path, '[tenants.ada]\ntier = "free"\n[tenants.ben]\ntier = "paid"\n[tenants.cleo]')

    free, paid = tiers.of("ada"), tiers.of("ben")
    assert free is not None
    assert paid is not None
    assert (free.ceilings("executions"), free.ceilings("api_calls")) == ((100, None), (1_000, None))
    assert (paid.ceilings("executions"), paid.ceilings("api_calls")) == ((10_000, None), (100_000, None))
    assert tiers.of("cleo") is None
    assert tiers.of("nobody") is None
    assert set(tiers.tenants) == {"ada", "ben"}


def test_a_table_of_a_shipped_tier_changes_what_it_says(tmp_path: Path) -> None:
    tiers = tiers_of(
        tmp_path,
        '[tenants]\nada = { tier = "free" }\n[tiers.free]\nupgrade = "https://x"\napi_calls = { month = 9 }',
    )

    free = tiers.of("ada")
    assert free is not None
    assert free.allows.upgrade == "https://x"
    assert (free.ceilings("executions"), free.ceilings("api_calls")) == ((100, None), (None, 9))
    assert tiers.known["paid"].allows.upgrade == ""


def test_an_app_has_tiers_of_its_own(tmp_path: Path) -> None:
    tiers = tiers_of(
        tmp_path,
        '[tenants.ada]\ntier = "agency"\nstandard = ["ada"]\n'
        '[tiers.agency]\nexecutions = { day = 5, month = 50 }\nat_ceiling = "defer"\nceilings = { wall_time = 30 }',
    )

    agency = tiers.of("ada")
    assert agency is not None
    assert agency.ceilings("executions") == (5, 50)
    assert agency.ceilings("api_calls") == (None, None)
    assert (agency.allows.at_ceiling, agency.allows.ceilings) == ("defer", {"wall_time": 30})


def test_a_tier_stands_beside_the_accounts_in_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / FILE).write_text(
        '[tenants.ada]\ngohighlevel = ["l1"]\n[tenants]\nben = { standard = ["b"], tier = "paid" }'
    )
    monkeypatch.setenv("CIRCUIT_TENANTS__ADA__TIER", "free")
    settings = load_settings(tmp_path)

    assert settings.accounts == {"ada": {"gohighlevel": ("l1",)}, "ben": {"standard": ("b",)}}
    assert {tenant: tier.name for tenant, tier in Tiers.of_settings(settings).tenants.items()} == {
        "ada": "free",
        "ben": "paid",
    }


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ('[tenants.ada]\ntier = "fre"', r"\[tenants\.ada\]: there is no tier 'fre'\. Did you mean 'free'\?"),
        ('[tenants.ada]\ntier = "gold"', r"There are free, paid\..*\[tiers\.gold\]"),
        ("[tenants.ada]\ntier = 1", r"tenants\.ada\.tier"),
        ("[tiers.own]\nexecutions = { day = 0 }", r"tiers\.own\.executions\.day must be more than 0"),
        ("[tiers.own]\nexecutions = { week = 1 }", r"tiers\.own\.executions\.week.*Did you mean|There are day, month"),
        ("[tiers.own]\nexecutions = 5", r"tiers\.own\.executions must be a table"),
        ("[tiers.own]\nexecution = { day = 1 }", r"Did you mean tiers\.own\.executions"),
        ('[tiers.own]\nat_ceiling = "stop"', r"tiers\.own\.at_ceiling must be 'refuse', 'defer' or 'cheaper'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, toml: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        tiers_of(tmp_path, toml)


@pytest.mark.parametrize(
    ("name", "starts", "resets"),
    [
        ("day", date(2028, 2, 29), "2028-03-01T00:00:00+00:00"),
        ("day", date(2027, 12, 31), "2028-01-01T00:00:00+00:00"),
        ("month", date(2028, 1, 1), "2028-02-01T00:00:00+00:00"),
        ("month", date(2027, 12, 1), "2028-01-01T00:00:00+00:00"),
    ],
)
def test_a_period_ends_where_the_next_begins(name: str, starts: date, resets: str) -> None:
    assert Period(name, starts, 0, 1).resets_at.isoformat() == resets
