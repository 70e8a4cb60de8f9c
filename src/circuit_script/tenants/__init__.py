"""Tenants: whose delivery is it, whose API key, and how much may each of them use."""

from circuit_script.tenants.accounts import DEFAULT, TenantMap
from circuit_script.tenants.quotas import TenantGovernor
from circuit_script.tenants.tiers import Tier, Tiers

__all__ = ["DEFAULT", "TenantGovernor", "TenantMap", "Tier", "Tiers"]
