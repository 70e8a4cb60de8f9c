"""Roles, and what each of them may do. A membership gives a person one role for one tenant, or for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from uuid import UUID

ALL = "*"  # the tenant of a membership for all tenants, those to come, too


class Role(StrEnum):
    """From the least to the most."""

    viewer = "viewer"
    operator = "operator"
    developer = "developer"
    owner = "owner"

    @property
    def rank(self) -> int:
        return _RANKS[self]


class Act(StrEnum):
    """What people do. ``see`` is everything but payloads: those are somebody's data."""

    see = "see"
    see_payload = "see_payload"
    replay = "replay"
    retry = "retry"
    discard = "discard"
    settle = "settle"
    pause = "pause"
    acknowledge = "acknowledge"
    silence = "silence"
    edit = "edit"
    deploy = "deploy"
    manage_people = "manage_people"


_RANKS = {role: rank for rank, role in enumerate(Role)}
_LEAST = {
    Act.see: Role.viewer,
    Act.see_payload: Role.operator,
    Act.replay: Role.operator,
    Act.retry: Role.operator,
    Act.discard: Role.operator,
    Act.settle: Role.operator,
    Act.pause: Role.operator,
    Act.acknowledge: Role.operator,
    Act.silence: Role.operator,
    Act.edit: Role.developer,
    Act.deploy: Role.developer,
    Act.manage_people: Role.owner,
}


def may(role: Role | None, act: Act) -> bool:
    """Whether this role may do it. Nobody without a role may do anything."""
    return role is not None and role.rank >= _LEAST[act].rank


def lesser(one: Role, other: Role | None) -> Role:
    """The lesser of two; ``None`` is no bound."""
    return one if other is None or one.rank <= other.rank else other


@dataclass(frozen=True, slots=True)
class Person:
    """An account. ``memberships`` are its roles by tenant; `ALL` stands for every tenant."""

    id: UUID
    name: str
    memberships: Mapping[str, Role] = field(default_factory=lambda: MappingProxyType({}))

    def role_in(self, tenant: str | None) -> Role | None:
        """The greater of its role there and its role everywhere. ``None`` asks for all tenants at once."""
        roles = [self.memberships[each] for each in {tenant or ALL, ALL} if each in self.memberships]
        return max(roles, key=lambda role: role.rank, default=None)

    def may(self, act: Act, tenant: str | None) -> bool:
        """Whether it may do that for this tenant; ``None`` asks for all tenants at once."""
        return may(self.role_in(tenant), act)

    @property
    def tenants(self) -> tuple[str, ...]:
        """The tenants of its memberships, sorted, without `ALL`."""
        return tuple(sorted(self.memberships.keys() - {ALL}))

    @property
    def everywhere(self) -> bool:
        """Whether it has a role for all tenants, and so chooses among whatever tenants there are."""
        return ALL in self.memberships

    def at_most(self, most: Role | None) -> Person:
        """The same person with no role above this one."""
        return replace(self, memberships={tenant: lesser(role, most) for tenant, role in self.memberships.items()})
