"""Tenants: whose delivery is it, and whose API key."""

from circuit_script.tenants.accounts import DEFAULT, TenantMap

__all__ = ["DEFAULT", "TenantMap"]
