from __future__ import annotations

import pytest

from circuit_script.errors import ConfigError
from circuit_script.tenants import DEFAULT, TenantMap

MAP: dict[str, dict[str, tuple[str, ...]]] = {
    "acme": {"gohighlevel": ("loc_1", "loc_2"), "standard": ("shop",)},
    "bolt": {"gohighlevel": ("loc_3",)},
}


@pytest.mark.parametrize(
    ("source", "account", "tenant"),
    [
        ("gohighlevel", "loc_1", "acme"),
        ("gohighlevel", "loc_2", "acme"),
        ("gohighlevel", "loc_3", "bolt"),
        ("standard", "shop", "acme"),
        ("standard", "loc_1", None),
        ("gohighlevel", "shop", None),
        ("gohighlevel", "LOC_1", None),
        ("gohighlevel", "", None),
    ],
)
def test_an_account_belongs_to_the_tenant_that_names_it_for_that_source(
    source: str, account: str, tenant: str | None
) -> None:
    assert TenantMap(MAP).tenant_of(source, account) == tenant


def test_without_a_map_everything_belongs_to_default() -> None:
    assert TenantMap({}).tenant_of("gohighlevel", "whatever") == DEFAULT == "default"


def test_an_account_of_two_tenants_is_refused_with_both_names() -> None:
    with pytest.raises(ConfigError, match=r"loc_1.*acme.*bolt"):
        TenantMap({"acme": {"gohighlevel": ["loc_1"]}, "bolt": {"gohighlevel": ["loc_1"]}})


def test_an_account_named_twice_by_its_tenant_is_no_clash() -> None:
    assert TenantMap({"acme": {"standard": ["a", "a"]}}).tenant_of("standard", "a") == "acme"


def test_a_tenant_without_accounts_still_closes_the_map() -> None:
    assert TenantMap({"acme": {}}).tenant_of("standard", "a") is None


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_a_name_that_row_security_could_not_tell_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="tenant"):
        TenantMap({name: {"standard": ["a"]}})
