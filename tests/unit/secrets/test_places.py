from __future__ import annotations

from pathlib import Path

import pytest

from circuit_script.config import load_settings
from circuit_script.errors import ConfigError, SecretMissing, SecretsUnavailable
from circuit_script.execution.hardening import governed_environment
from circuit_script.secrets.places import Environment, check_name, check_tenant, variable_of
from circuit_script.settings_origin import origins


@pytest.mark.parametrize(
    ("tenant", "name", "variable"),
    [
        ("", "gohighlevel.token", "CIRCUIT_SECRET_GOHIGHLEVEL_TOKEN"),
        ("acme", "gohighlevel.token", "CIRCUIT_SECRET_ACME__GOHIGHLEVEL_TOKEN"),
        ("acme-inc", "crm-key", "CIRCUIT_SECRET_ACME_INC__CRM_KEY"),
    ],
)
def test_a_secret_has_its_variable(tenant: str, name: str, variable: str) -> None:
    assert variable_of(tenant, name) == variable
    assert Environment([tenant], {variable: "v"}).find(tenant, name) == "v"
    assert Environment([tenant], {variable: ""}).find(tenant, name) is None


def test_two_tenants_never_read_the_same_variable() -> None:
    environment = Environment(["a-b", "a_b", "c"], {"CIRCUIT_SECRET_A_B__X": "v", "CIRCUIT_SECRET_C__X": "w"})
    assert environment.find("c", "x") == "w"
    for tenant in ("a-b", "a_b"):
        with pytest.raises(SecretsUnavailable, match="several tenants"):
            environment.find(tenant, "x")


def test_it_lists_what_is_there_of_tenants_that_there_are() -> None:
    variables = {"CIRCUIT_SECRET_A__B": "1", "CIRCUIT_SECRET_C": "2", "CIRCUIT_SECRET_GONE__B": "3", "CIRCUIT_APP": "x"}
    assert [(each.tenant, each.name) for each in Environment(["a"], variables).there(["a"])] == [("", "c"), ("a", "b")]


@pytest.mark.parametrize("wrong", ["", ".", "a..b", "a__b", "a/b", "-a", "a-", "a b", "é", "a" * 101, "a\n"])
def test_what_is_no_name_is_refused(wrong: str) -> None:
    with pytest.raises(SecretMissing, match="no name of a secret"):
        check_name(wrong)


@pytest.mark.parametrize("wrong", ["../other", "a/b", "..", "a\n", "a..b"])
def test_a_tenant_never_leads_to_another_address(wrong: str) -> None:
    with pytest.raises(SecretMissing, match="cannot be used"):
        check_tenant(wrong)


def test_settings_let_secrets_pass_and_still_refuse_slips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIRCUIT_SECRET_ACME__CRM_TOKEN", "sesame-open-now")
    monkeypatch.setenv("CIRCUIT_SECRETS_KEY", "k")
    settings = load_settings(tmp_path)
    assert settings.secrets.store == "table"
    shown = {each.name: each.value for each in origins(settings)}
    assert shown["secrets.store"] == "table"
    assert "sesame" not in repr(origins(settings))
    monkeypatch.setenv("CIRCUIT_SECRET__STORE", "aws")
    with pytest.raises(ConfigError, match="CIRCUIT_SECRETS__STORE"):
        load_settings(tmp_path)


def test_a_child_gets_none_of_it() -> None:
    kept = governed_environment({"CIRCUIT_SECRET_X": "v", "CIRCUIT_SECRETS_KEY": "k", "VAULT_TOKEN": "t", "PATH": "/"})
    assert kept.keys() >= {"PATH"}
    assert not {each for each in kept if "SECRET" in each or "VAULT" in each}
