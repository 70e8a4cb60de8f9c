"""Handler over app over defaults, and the ceilings above them all."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuit_script.config import Settings, TenantSettings, TierSettings
from circuit_script.errors import ConfigError
from circuit_script.execution.outcome import HandlerSpec
from circuit_script.governor import Limits
from circuit_script.governor.governor import CircuitGovernor, Cut


def governor_of(**settings: object) -> CircuitGovernor:
    return CircuitGovernor.of_settings(Settings(folder=Path(), **settings))  # type: ignore[arg-type]  # by name


TIERS = {
    "free": TierSettings(ceilings={"wall_time": 10, "callouts": 80}),
    "big": TierSettings(ceilings={"memory": 2**30}),
}
TENANTS = {"small": TenantSettings(tier="free"), "large": TenantSettings(tier="big")}


def test_without_ceilings_a_handler_has_what_it_declares() -> None:
    declared = Limits(wall_time=3000)

    assert governor_of().limits(declared, "acme") is declared


def test_what_is_over_a_ceiling_is_cut_and_the_rest_stays() -> None:
    governor = governor_of(ceilings={"wall_time": 60, "depth": 4})

    assert governor.limits(Limits(wall_time=300, callouts=7), "acme") == Limits(wall_time=60, callouts=7, depth=4)
    assert governor.limits(Limits(wall_time=5), "acme") == Limits(wall_time=5, depth=4)


def test_a_tenant_has_the_lower_of_its_tiers_ceiling_and_everybodys() -> None:
    governor = governor_of(ceilings={"wall_time": 60, "callouts": 30}, tiers=TIERS, tenants=TENANTS)
    declared = Limits(wall_time=300, callouts=300)

    assert governor.limits(declared, "small") == Limits(wall_time=10, callouts=30)
    assert governor.limits(declared, "large") == Limits(wall_time=60, callouts=30)
    assert governor.limits(declared, "unknown") == Limits(wall_time=60, callouts=30)


def test_a_ceiling_never_raises_a_limit() -> None:
    governor = governor_of(ceilings={"wall_time": 600}, tiers=TIERS, tenants=TENANTS)

    for tenant in ("small", "large", "other"):
        for declared in (Limits(), Limits(wall_time=0.5, memory=1), Limits(callouts=1000)):
            found = governor.limits(declared, tenant).as_dict()
            assert all(found[name] <= value for name, value in declared.as_dict().items())


def test_a_spec_is_bound_by_its_tenant_and_otherwise_the_same() -> None:
    governor = governor_of(tiers=TIERS, tenants=TENANTS)
    spec = HandlerSpec("scores", (("Contact", "afterInsert"),), limits=Limits(wall_time=25), budget=2.0)

    bound = governor.bound(spec, "small")

    assert (bound.limits.wall_time, bound.budget, bound.name) == (10, 2.0, "scores")
    assert governor.bound(spec, "large") is spec


def test_each_release_and_tier_has_a_bound_spec_of_its_own() -> None:
    governor = governor_of(ceilings={"wall_time": 20}, tiers=TIERS, tenants=TENANTS)

    for seconds in range(1, 40):  # specs that are freed leave their ids to others
        spec = HandlerSpec("scores", (), limits=Limits(wall_time=seconds))
        assert governor.bound(spec, "small").limits.wall_time == min(seconds, 10)
        assert governor.bound(spec, "large").limits.wall_time == min(seconds, 20)
        assert governor.bound(spec, "small") is governor.bound(spec, "small")


def test_it_says_what_is_declared_and_not_had() -> None:
    governor = governor_of(ceilings={"wall_time": 60, "cpu_time": 5}, tiers=TIERS, tenants=TENANTS)

    cuts = list(governor.cuts([("slow", Limits(wall_time=300)), ("plain", Limits()), ("fine", Limits(wall_time=8))]))

    assert cuts == [
        Cut("slow", "wall_time", 300, 60, "[ceilings]"),
        Cut("slow", "wall_time", 300, 10, "[tiers.free.ceilings]", "free"),
    ]
    assert str(cuts[0]) == "slow declares wall_time 300.00 s, it gets 60.00 s ([ceilings])."
    assert str(cuts[1]).startswith("slow declares wall_time 300.00 s, tenants of tier free get 10.00 s")


def test_of_two_ceilings_the_lower_one_cuts_and_a_default_that_is_said_is_declared() -> None:
    tiers = {"free": TierSettings(ceilings={"wall_time": 80}), "tiny": TierSettings(ceilings={"wall_time": 10})}
    governor = governor_of(ceilings={"wall_time": 20}, tiers=tiers, limits={"wall_time": 30})

    assert list(governor.cuts([("slow", Limits(wall_time=30))])) == [
        Cut("slow", "wall_time", 30, 20, "[ceilings]"),
        Cut("slow", "wall_time", 30, 10, "[tiers.tiny.ceilings]", "tiny"),
    ]


def test_it_follows_another_for_whoever_has_it() -> None:
    governor = governor_of(tiers=TIERS, tenants=TENANTS)
    spec = HandlerSpec("scores", (), limits=Limits(wall_time=25))
    assert governor.bound(spec, "small").limits.wall_time == 10

    governor.follow(
        governor_of(ceilings={"wall_time": 20}, tiers=TIERS, tenants={"large": TenantSettings(tier="free")})
    )

    assert governor.bound(spec, "small").limits.wall_time == 20
    assert governor.bound(spec, "large").limits.wall_time == 10


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ceilings": {"wal_time": 3}}, r"\[ceilings\]: there is no limit 'wal_time'. Did you mean 'wall_time'\?"),
        ({"ceilings": {"wall_time": -3}}, r"\[ceilings\]: limit wall_time must be a positive number"),
        ({"ceilings": {"callouts": 2.5}}, r"\[ceilings\]: limit callouts must be a positive whole number"),
        ({"tiers": {"free": TierSettings(ceilings={"nope": 1})}}, r"\[tiers.free.ceilings\]: there is no limit 'nope'"),
    ],
)
def test_a_ceiling_that_cannot_be_one_is_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        governor_of(**settings)


def test_the_limits_of_a_handler_are_computed_once() -> None:
    governor = governor_of(ceilings={"wall_time": 60}, tiers=TIERS, tenants=TENANTS)
    declared = Limits(wall_time=300)

    assert governor.limits(declared, "small") is governor.limits(Limits(wall_time=300), "small")
