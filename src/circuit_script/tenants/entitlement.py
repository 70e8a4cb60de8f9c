"""What the road asks of tenants' quotas, and what it is told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from circuit_script.errors import QuotaExceeded
from circuit_script.tenants.leases import Lease, Period
from circuit_script.tenants.tiers import EXECUTIONS, Tier

NOTICE = "Quota"  # the object of notices; what is done about them does not count


@dataclass(frozen=True, slots=True)
class Refused:
    """A quota is used up. ``retry_after`` are the seconds until there may be some again, for whoever called;
    ``asks_again`` those until it is worth a look of ours."""

    tenant: str
    quota: str
    period: str
    used: int
    ceiling: int
    resets_at: datetime
    retry_after: float
    asks_again: float
    tier: str
    upgrade: str
    defer: bool = False  # what fails by it

    def __str__(self) -> str:
        what = self.quota.replace("_", " ")
        return (
            f"The quota of {what} a {self.period} is used up: {self.used:,} of {self.ceiling:,} (tier {self.tier}). "
            f"It begins anew at {self.resets_at:%Y-%m-%d %H:%M} UTC."
        )

    @property
    def error(self) -> QuotaExceeded:
        """What a handler is told."""
        error = QuotaExceeded(str(self), cure=self.cure, retry_after=self.retry_after)
        error.defer = self.defer
        return error

    @property
    def cure(self) -> str:
        """How to get more, where the tier says it."""
        return f"For more: {self.upgrade}" if self.upgrade else ""


@dataclass(frozen=True, slots=True)
class Notice:
    """A tenant has used ``percent`` (80 or 100) of a quota."""

    tenant: str
    quota: str
    period: Period
    percent: int
    tier: Tier


@dataclass(frozen=True, slots=True)
class Ticket:
    """Some that were taken, and of which lease they are: given back only to that. None: nothing is counted."""

    lease: Lease | None = None
    amount: int = 1


FREE = Ticket()


class Quotas(Protocol):
    """What the road asks before it does something for a tenant."""

    def admit(self, tenant: str, quota: str = EXECUTIONS, amount: int = 1) -> Ticket | None:
        """Take some of what is at hand. None says to ask ``enter``."""

    def give_back(self, ticket: Ticket) -> None:
        """What was taken was not used. To be said once."""

    async def enter(self, tenant: str, quota: str = EXECUTIONS, amount: int = 1) -> Ticket | Refused:
        """Take some, or say why not. Raises DatabaseUnavailable when nobody can say."""

    async def take(self, tenant: str, quota: str = EXECUTIONS, amount: int = 1) -> Refused | None:
        """Take some, or say why not. Raises DatabaseUnavailable when nobody can say."""

    async def spend(self, tenant: str, what: str, amount: int = 1) -> None:
        """Take some. Raises QuotaExceeded, DatabaseUnavailable."""


class Unlimited:
    """Nobody has a quota."""

    def admit(self, tenant: str, quota: str = EXECUTIONS, amount: int = 1) -> Ticket:
        return FREE

    def give_back(self, ticket: Ticket) -> None:
        """Nothing is counted."""

    async def enter(self, tenant: str, quota: str = EXECUTIONS, amount: int = 1) -> Ticket:
        return FREE

    async def take(self, tenant: str, quota: str = EXECUTIONS, amount: int = 1) -> Refused | None:
        return None

    async def spend(self, tenant: str, what: str, amount: int = 1) -> None:
        """Nothing is counted."""


UNLIMITED: Quotas = Unlimited()
