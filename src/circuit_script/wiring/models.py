"""Settings → models: providers with their keys, prices, budgets."""

from __future__ import annotations

import os
from collections.abc import Mapping

import httpx

from circuit_script.config import Settings
from circuit_script.db.pool import Pool
from circuit_script.execution.broker.callouts.transport import authorities, no_cookies
from circuit_script.governor.budget import Budget, Money, Unkept
from circuit_script.governor.money import nanos
from circuit_script.llm import Models, Price, Prices, Provider
from circuit_script.llm.budgets import tenant_money
from circuit_script.llm.models import ModelOptions

CONNECTIONS = 200  # to providers at once, of all executions together
OPENAIS = ("api.openai.com", "openai.azure.com")  # hosts, and those below them
MOCKED = "a key that no provider sees"


def open_providers_client() -> httpx.AsyncClient:
    """A client of providers' addresses, which the operator has configured: they may be private ones."""
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=20)
    return httpx.AsyncClient(verify=authorities(), follow_redirects=False, cookies=no_cookies(), limits=limits)


def make_models(settings: Settings, pool: Pool, client: httpx.AsyncClient) -> Models:
    """Models of a worker. Keys are read from the environment now."""
    return _models(settings, Budget(pool), client, os.environ)


def make_closed_models(settings: Settings, pool: Pool, client: httpx.AsyncClient, *, commit: bool) -> Models:
    """Models of a trial that reaches nobody: ``client`` answers in the place of providers, and no key is needed.
    Without ``commit`` nothing is written down."""
    return _models(settings, Budget(pool) if commit else Unkept(), client, None)


def _models(settings: Settings, money: Money, client: httpx.AsyncClient, keys: Mapping[str, str] | None) -> Models:
    budget, llm = settings.budget, settings.llm
    options = ModelOptions(
        model=llm.model,
        cheaper=llm.cheaper,
        max_tokens=llm.max_tokens,
        day=None if budget.day is None else nanos(budget.day),
        at_ceiling=budget.at_ceiling,
        tenant=tenant_money(settings),
    )
    providers = [_provider(settings, name, client, keys) for name in llm.providers]
    prices = Prices({name: Price.plain(each.input, each.output, each.request) for name, each in llm.prices.items()})
    return Models(options, providers=providers, prices=prices, money=money)


def _provider(settings: Settings, name: str, client: httpx.AsyncClient, keys: Mapping[str, str] | None) -> Provider:
    said = settings.llm.providers[name]
    key = missing = ""
    if said.key_env:
        key = MOCKED if keys is None else keys.get(said.key_env, "").strip()
        missing = "" if key else said.key_env
    return Provider(
        name=name,
        url=said.url,
        models=said.models,
        client=client,
        key=key or None,
        missing=missing,
        fault="" if key.isascii() and key.isprintable() else f"{said.key_env} has a character that no header may have",
        openai=(said.wire or _wire(name, said.url)) == "openai",
    )


def _wire(name: str, url: str) -> str:
    """OpenAI, Azure's OpenAI, and who stands in the place of OpenAI take what only OpenAI knows."""
    host = httpx.URL(url).host
    known = name == "openai" or any(host == each or host.endswith(f".{each}") for each in OPENAIS)
    return "openai" if known else "compatible"
