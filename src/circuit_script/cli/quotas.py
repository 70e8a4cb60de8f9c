"""``circuit-script quotas``: how much of its quotas each tenant has used."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Annotated

import psycopg
import typer
from rich.markup import escape

from circuit_script.cli.app_database import looking
from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import console, print_json, table
from circuit_script.config import Settings, load_settings
from circuit_script.db.pool import unavailable
from circuit_script.tenants import Tier, Tiers
from circuit_script.tenants.leases import Period, Used, read_use
from circuit_script.tenants.tiers import QUOTAS

NAME = "quotas"
EXAMPLES = "Examples:  circuit-script quotas  ·  circuit-script quotas --tenant acme  ·  circuit-script quotas --json"
NEAR = 80  # percent from which on it is worth a look

Line = tuple[str, Tier, str, Period]


def run(
    folder: Folder = None,
    tenant: Annotated[str | None, typer.Option(help="Of this tenant only.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Show how much of its quotas each tenant has used, up to some seconds ago."""
    settings = load_settings(app_folder(folder))
    tiers = Tiers.of_settings(settings)
    wanted = {name: tier for name, tier in tiers.tenants.items() if tenant in (None, name)}
    today, used = asyncio.run(_look(settings, list(wanted)))
    lines = list(_lines(wanted, used, today))
    if as_json:
        print_json([_as_json(*line) for line in lines])
    elif lines:
        _show(lines)
    elif tenant is None:
        console().print('No tenant has a tier with quotas. Give it one in circuit.toml: [tenants.acme] tier = "free"')
    else:
        console().print(f"{escape(tenant)} has no tier with quotas, so that nothing bounds what it uses.")


async def _look(settings: Settings, tenants: list[str]) -> tuple[date, Used]:
    try:
        async with looking(settings, NAME) as connection:
            return await read_use(connection, tenants)
    except psycopg.Error as error:
        raise unavailable(error) from error


def _lines(tenants: dict[str, Tier], used: Used, today: date) -> Iterator[Line]:
    for tenant, tier in tenants.items():
        for quota in QUOTAS:
            for name, ceiling in zip(("day", "month"), tier.ceilings(quota), strict=True):
                if ceiling is not None:
                    starts = today if name == "day" else today.replace(day=1)
                    yield tenant, tier, quota, Period(name, starts, used.get((tenant, quota, name), 0), ceiling)


def _as_json(tenant: str, tier: Tier, quota: str, period: Period) -> dict[str, object]:
    return {
        "tenant": tenant,
        "tier": tier.name,
        "quota": quota,
        "period": period.name,
        "used": period.used,
        "ceiling": period.ceiling,
        "percent": period.percent,
        "resets_at": period.resets_at,
    }


def _show(lines: list[Line]) -> None:
    rows = table("tenant", "tier", "quota", "used", "ceiling", "", "begins anew", right=("used", "ceiling", ""))
    before = ""
    for tenant, tier, quota, period in lines:
        colour = "red" if period.percent >= 100 else "yellow" if period.percent >= NEAR else "dim"
        rows.add_row(
            escape(tenant) if tenant != before else "",
            escape(tier.name) if tenant != before else "",
            f"{quota} a {period.name}",
            f"{period.used:,}",
            f"{period.ceiling:,}",
            f"[{colour}]{period.percent} %[/]",
            _left(period.resets_at),
        )
        before = tenant
    console().print(rows)


def _left(moment: datetime) -> str:
    """In how long, as people say it."""
    minutes = max(0, int((moment - datetime.now(UTC)).total_seconds()) // 60)
    hours, days = minutes // 60, minutes // 1440
    return f"in {days} days" if days > 1 else f"in {hours} h {minutes % 60} min"
