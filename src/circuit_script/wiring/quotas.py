"""Settings → the quotas of tenants, as a worker holds them to."""

from __future__ import annotations

from functools import partial

import structlog

from circuit_script.clock import uuid7
from circuit_script.config import FILE, Settings, load_settings
from circuit_script.db.pool import Pool, open_connection
from circuit_script.errors import ConfigError
from circuit_script.events.notices import Notices
from circuit_script.governor.governor import CircuitGovernor
from circuit_script.llm import Models
from circuit_script.llm.budgets import tenant_money
from circuit_script.tenants import Tiers
from circuit_script.tenants.quotas import TenantGovernor

log = structlog.get_logger()


def make_quotas(settings: Settings, url: str, database: Pool) -> TenantGovernor:
    """Raises ConfigError for a tenant of a tier that there is not."""
    connect = partial(open_connection, url, pooler=settings.pooler, name="circuit notices")
    return TenantGovernor(
        database=database,
        tiers=Tiers.of_settings(settings),
        worker=uuid7(),
        notify=Notices(connect, pooler=settings.pooler).add,
    )


def follow_tiers(settings: Settings, quotas: TenantGovernor, governor: CircuitGovernor, models: Models) -> None:
    """Hold tenants to the tiers that the file says now, in their quotas, ceilings and budgets; when it cannot be read,
    to those before."""
    if not (settings.folder / FILE).exists():
        return
    try:
        said = load_settings(settings.folder)
        tiers, ceilings, money = Tiers.of_settings(said), CircuitGovernor.of_settings(said), tenant_money(said)
    except ConfigError as error:
        log.error("quotas.refused", error=str(error), next="the tiers before go on")
        return
    quotas.change(tiers)
    governor.follow(ceilings)
    models.follow(money)
