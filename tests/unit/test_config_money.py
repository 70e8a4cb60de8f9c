"""[budget] and [llm] of circuit.toml."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from circuit_script.config import OPENAI, Settings, load_settings
from circuit_script.errors import ConfigError, RequestRefused
from circuit_script.governor.money import NANO
from circuit_script.llm import Models
from circuit_script.llm.request import read
from circuit_script.wiring.models import make_models

HI = read({"messages": [{"role": "user", "content": "hi"}]})


def settings(folder: Path, toml: str = "") -> Settings:
    (folder / "circuit.toml").write_text(toml)
    return load_settings(folder)


def models(settings: Settings) -> Models:
    return make_models(settings, None, httpx.AsyncClient())  # type: ignore[arg-type]  # nothing is asked of the database


def test_without_a_word_there_are_budgets_and_openai(tmp_path: Path) -> None:
    found = settings(tmp_path)
    assert (found.budget.day, found.budget.tenant_day, found.budget.at_ceiling) == (20.0, 5.0, "refuse")
    assert (found.llm.model, found.llm.cheaper, found.llm.max_tokens) == ("gpt-4o-mini", "gpt-4.1-nano", 4096)
    assert found.llm.providers == {"openai": OPENAI}


def test_a_provider_stands_beside_openai_and_what_is_said_of_openai_changes_it(tmp_path: Path) -> None:
    found = settings(
        tmp_path,
        """
        [llm.providers.local]
        url = "http://127.0.0.1:8001/v1"
        models = ["llama-*"]
        [llm.providers.openai]
        url = "https://proxy.example.com/v1"
        [llm.prices."llama-3"]
        input = 0.1
        output = 0.2
        """,
    )
    assert found.llm.providers["openai"] == OPENAI.model_copy(update={"url": "https://proxy.example.com/v1"})
    assert found.llm.prices["llama-3"].output == Decimal("0.2")
    plan = models(found).plan(HI, "llama-3")
    assert (plan.provider.name, plan.provider.key, plan.provider.openai) == ("local", None, False)
    assert b'"max_tokens":4096' in plan.body
    assert b"service_tier" not in plan.body


@pytest.mark.parametrize(
    "wrong",
    [
        "[budget]\nday = 0",
        "[budget]\nday = -1",
        '[budget]\nat_ceiling = "stop"',
        '[llm.providers.local]\nurl = "ftp://a"',
        "[llm.providers.local]\nmodels = []",
        '[llm.prices."m"]\ninput = -1\noutput = 1',
        '[llm.prices."m"]\ninput = 1',
        "[llm]\nmax_tokens = 0",
        '[llm.providers.local]\nurl = "http://a"\nwire = "grpc"',
        '[llm.prices."groq:m"]\ninput = 1\noutput = 1',
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(ConfigError):
        settings(tmp_path, wrong)


def test_keys_come_from_the_environment_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    found = settings(tmp_path)
    with pytest.raises(Exception, match="OPENAI_API_KEY is not set"):
        models(found).plan(HI, "gpt-4o-mini")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    plan = models(found).plan(HI, "openai:gpt-4o-mini")
    assert (plan.provider.key, plan.model) == ("sk-1", "gpt-4o-mini")
    assert "sk-1" not in repr(plan)


def test_budgets_are_those_of_the_tenants_tier(tmp_path: Path) -> None:
    found = models(
        settings(
            tmp_path,
            """
            [budget]
            day = "none"
            tenant_day = 2
            at_ceiling = "defer"
            [tiers.big]
            llm_cost = { day = 50, month = 500 }
            at_ceiling = "cheaper"
            [tiers.small]
            executions = { day = 5 }
            [tenants.acme]
            tier = "big"
            [tenants.globex]
            tier = "small"
            """,
        )
    )
    acme, globex = found.ceilings("acme", 1.5), found.ceilings("globex", None)
    assert (acme.handler_day, acme.tenant_day, acme.tenant_month, acme.day) == (1.5 * NANO, 50 * NANO, 500 * NANO, None)
    assert (globex.handler_day, globex.tenant_day, globex.tenant_month) == (None, 2 * NANO, None)
    assert [found.at_ceiling(tenant, None) for tenant in ("acme", "globex", "other")] == ["cheaper", "defer", "defer"]
    assert found.at_ceiling("acme", "refuse") == "refuse"


@pytest.mark.parametrize(
    ("name", "more", "openai"),
    [
        ("openai", 'url = "http://127.0.0.1:1/v1"', True),
        ("openai", 'url = "http://127.0.0.1:1/v1"\nwire = "compatible"', False),
        ("europe", 'url = "https://eu.api.openai.com/v1"', True),
        ("azure", 'url = "https://acme.openai.azure.com/openai/v1"', True),
        ("azure", 'url = "https://acme.example.com/v1"\nwire = "openai"', True),
        ("other", 'url = "https://notapi.openai.com.example.com/v1"', False),
    ],
)
def test_who_is_asked_as_openai_is_told_by_the_address_or_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, more: str, openai: bool
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    own = '[llm.prices."o3"]\ninput = 1\noutput = 1'
    found = models(settings(tmp_path, f'[llm.providers.{name}]\n{more}\nmodels = ["o3"]\n{own}'))
    body = found.plan(HI, f"{name}:o3").body
    assert (b'"max_completion_tokens":4096' in body, b'"max_tokens"' in body) == (openai, not openai)
    assert (b'"service_tier":"default"' in body) == openai


def test_a_price_may_be_of_one_provider_and_of_each_request(tmp_path: Path) -> None:
    found = models(
        settings(
            tmp_path,
            """
            [llm.providers.local]
            url = "http://127.0.0.1:8001/v1"
            models = ["llama3:*"]
            [llm.providers.far]
            url = "http://127.0.0.1:8002/v1"
            [llm.prices."llama3:8b"]
            input = 0
            output = 0
            [llm.prices."far:llama3:8b"]
            input = 1
            output = 1
            request = 0.5
            """,
        )
    )
    assert found.plan(HI, "llama3:8b").worst == 0
    assert found.plan(HI, "far:llama3:8b").worst > 0.5 * NANO
    assert found.plan(HI, "far:llama3:8b").price.cost(0, 0) == 0.5 * NANO


@pytest.mark.parametrize("key", ["sk-abc…def", "sk-\u200babc", "sk-a\nb"])
def test_a_key_that_no_header_can_hold_is_told_before_it_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(RequestRefused, match="OPENAI_API_KEY has a character that no header may have") as refused:
        models(settings(tmp_path)).plan(HI, "gpt-4o-mini")
    assert refused.value.cure.startswith("Copy the key once more")
    assert "abc" not in str(refused.value)


@pytest.mark.parametrize(
    "model", ["gpt-4o-mini-search-preview", "gpt-4o-audio-preview", "gpt-realtime", "gpt-image-1", "openai:sonar-pro"]
)
def test_models_that_cost_more_than_tokens_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    with pytest.raises(Exception, match="charged for more than tokens"):
        models(settings(tmp_path)).plan(HI, model)
