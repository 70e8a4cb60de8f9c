"""Settings → which tenants there are: for whom schedules fire."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import psycopg
import structlog

from circuit_script.config import FILE, Settings, load_settings
from circuit_script.db.pool import Pool
from circuit_script.errors import AppError, CircuitError, ConfigError
from circuit_script.execution.outcome import HandlerSpec
from circuit_script.jobs.schedules import follow_tenants
from circuit_script.tenants import DEFAULT
from circuit_script.tenants.accounts import unknown_tenant_cure

log = structlog.get_logger()


class TenantsThere:
    """The tenants of ``circuit.toml``, as they were when it was read last."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.names: tuple[str, ...] = settings.tenant_names
        self._told: tuple[str, ...] | None = self.names  # what schedules go by; None: nobody knows

    def check(self, handlers: Iterable[HandlerSpec]) -> None:
        """Raises AppError for a schedule of a tenant that there is not."""
        check_tenants(handlers, self.names)

    async def look_again(self, database: Pool) -> None:
        """Let schedules fire for the tenants that the file says now; when it cannot be read, for those before."""
        folder = self._settings.folder
        if not (folder / FILE).exists():
            return
        try:
            names = load_settings(folder).tenant_names
        except ConfigError as error:
            log.error("tenants.refused", error=str(error), next="the tenants before go on")
            return
        self.names = names
        if names != self._told:
            await self.tell(database)

    async def catch_up(self, database: Pool) -> None:
        """Tell again what could not be told."""
        if self._told is None:
            await self.tell(database)

    async def tell(self, database: Pool) -> None:
        """Let the schedules of what is live fire for these tenants. What fails is for `catch_up`."""
        names = self.names
        first, self._told = self._told is not None, None
        try:
            async with database.connection() as connection:
                await follow_tenants(connection, names)
            self._told = names
        except (psycopg.Error, OSError, CircuitError) as error:
            if first:
                log.error("tenants.database", error=str(error), next="trying again")


def check_tenants(handlers: Iterable[HandlerSpec], known: Collection[str]) -> None:
    """Raises AppError for a schedule of a tenant that there is not: most likely its name is misspelt."""
    for each in handlers:
        schedule = each.job and each.job.schedule
        missing = [name for name in (schedule and schedule.tenants) or () if name != DEFAULT and name not in known]
        if missing:
            raise AppError(
                f"{each.file}:{each.line}: {each.name}: there is no tenant {missing[0]!r}.",
                cure=unknown_tenant_cure(missing[0], known),
                page="schedule",
            )
