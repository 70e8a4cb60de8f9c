"""``circuit-script limits``: each handler's limits, how near to them it came, and who uses most."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated

import typer

from circuit_script.cli import limits_shown
from circuit_script.cli.app_database import looking
from circuit_script.cli.app_import import import_in_child
from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import print_json
from circuit_script.config import Settings, load_settings
from circuit_script.db.pool import Connection
from circuit_script.errors import StartError
from circuit_script.execution.outcome import HandlerSpec
from circuit_script.governor import PER_RECORD, limits_of
from circuit_script.governor.governor import CircuitGovernor, Cut
from circuit_script.telemetry.usage import (
    NEAR,
    Breach,
    Ceiling,
    NearMiss,
    Used,
    User,
    breaches_of,
    near_misses,
    usage_of,
    users_of,
)

NAME = "limits"
EXAMPLES = "Examples:  circuit-script limits  ·  circuit-script limits --all  ·  circuit-script limits --json"

Usage = Mapping[tuple[str, str], Used]


@dataclass(frozen=True, slots=True)
class LimitLine:
    """One limit of one handler. ``most`` and ``p95`` are None when no execution is known."""

    handler: str
    limit: str
    ceiling: float
    executions: int
    most: float | None
    p95: float | None

    @property
    def share(self) -> float | None:
        """The most that was used, as a share of the ceiling."""
        return None if self.most is None else self.most / self.ceiling

    @property
    def near(self) -> bool:
        return self.share is not None and self.share >= NEAR


@dataclass(frozen=True, slots=True)
class Look:
    """What is known. ``unknown`` says why nothing is known of use, if so."""

    lines: Sequence[LimitLine]
    cuts: Sequence[Cut]
    users: Sequence[User] = ()
    near: Sequence[NearMiss] = ()
    breaches: Sequence[Breach] = ()
    unknown: str = ""
    defaults: Mapping[str, float] = field(default_factory=dict)


def run(
    folder: Folder = None,
    days: Annotated[float, typer.Option(min=0.01, help="Use is that of the last so many days.")] = 7,
    top: Annotated[int, typer.Option(min=1, max=1000, help="How many of who uses most, and of near misses.")] = 10,
    everything: Annotated[bool, typer.Option("--all", help="Also defaults that were not used.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Show each handler's limits, how near to them it came, and who uses most."""
    settings = load_settings(app_folder(folder))
    look = asyncio.run(_look(settings, days, top))
    if as_json:
        print_json(_as_json(look))
    else:
        limits_shown.show(look, days, everything)


async def _look(settings: Settings, days: float, top: int) -> Look:
    governor = CircuitGovernor.of_settings(settings)
    handlers = (await import_in_child(settings)).handlers
    cuts = list(governor.cuts((each.name, each.limits) for each in handlers))
    defaults = limits_of(settings.limits).as_dict()
    try:
        async with looking(settings, NAME) as connection:
            return await _used(connection, settings, governor, handlers, days, top)
    except StartError as error:
        return Look(list(_lines(handlers, governor, {})), cuts, unknown=error.detail, defaults=defaults)


async def _used(
    connection: Connection,
    settings: Settings,
    governor: CircuitGovernor,
    handlers: Sequence[HandlerSpec],
    days: float,
    top: int,
) -> Look:
    ceilings = _ceilings(handlers, governor, settings.tenants)
    return Look(
        lines=list(_lines(handlers, governor, await usage_of(connection, days))),
        cuts=list(governor.cuts((each.name, each.limits) for each in handlers)),
        users=await users_of(connection, days, top),
        near=await near_misses(connection, days, ceilings, PER_RECORD, top),
        breaches=await breaches_of(connection, days, top),
        defaults=limits_of(settings.limits).as_dict(),
    )


def _ceilings(
    handlers: Sequence[HandlerSpec], governor: CircuitGovernor, tenants: Mapping[str, object]
) -> Iterator[Ceiling]:
    """What everybody may have, and each tenant whose tier says otherwise."""
    for handler in handlers:
        everybodys = governor.limits(handler.limits, "").as_dict()
        yield from (Ceiling(handler.name, limit, None, value) for limit, value in everybodys.items())
        for tenant in tenants:
            own = governor.limits(handler.limits, tenant).as_dict()
            yield from (
                Ceiling(handler.name, limit, tenant, value)
                for limit, value in own.items()
                if value != everybodys[limit]
            )


def _lines(handlers: Sequence[HandlerSpec], governor: CircuitGovernor, used: Usage) -> Iterator[LimitLine]:
    for handler in handlers:
        for limit, ceiling in governor.limits(handler.limits, "").as_dict().items():
            found = used.get((handler.name, limit))
            yield LimitLine(
                handler=handler.name,
                limit=limit,
                ceiling=ceiling,
                executions=found.executions if found else 0,
                most=found.most if found else None,
                p95=found.p95 if found else None,
            )


def _as_json(look: Look) -> dict[str, object]:
    return {
        "limits": [{**asdict(line), "near": line.near} for line in look.lines],
        "near_misses": [asdict(each) for each in look.near],
        "breaches": [asdict(each) for each in look.breaches],
        "users": [asdict(each) for each in look.users],
        "cuts": [asdict(each) for each in look.cuts],
    }
