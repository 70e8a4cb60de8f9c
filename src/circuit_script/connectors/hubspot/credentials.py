"""Tokens of HubSpot: a private app's, which lasts, or an OAuth app's, of half an hour.

Where a tenant has ``hubspot.refresh_token``, tokens are asked for with it, ``hubspot.client_id`` and
``hubspot.client_secret``; else ``hubspot.token`` is used as it is. The refresh token stays the same.
"""

from __future__ import annotations

from circuit_script.connectors.api import Access
from circuit_script.connectors.held_access import Granted, HeldAccess, ask_for_token, not_connected, refusal
from circuit_script.connectors.hubspot.settings import HubSpotSettings
from circuit_script.connectors.parts import Parts
from circuit_script.errors import SecretMissing, SecretsUnavailable

NAME = "hubspot"
NEEDED = "hubspot.token, or hubspot.refresh_token with hubspot.client_id and hubspot.client_secret"
READ_AGAIN = 300.0  # seconds for which a private app's token is used as it was read
LONGEST_LIFE = 86_400.0


def credentials(parts: Parts, settings: HubSpotSettings) -> HeldAccess:
    """The `Credentials` of HubSpot."""
    return HeldAccess(_Grants(parts, settings).grant)


class _Grants:
    def __init__(self, parts: Parts, settings: HubSpotSettings) -> None:
        self._parts = parts
        self._token_url = parts.settings.token_url or f"{settings.base_url.rstrip('/')}/oauth/v1/token"
        self._base = settings.base_url.rstrip("/")

    async def grant(self, tenant: str) -> Granted:
        refresh = await self._maybe(tenant, "refresh_token")
        if refresh is None:
            token = await self._maybe(tenant, "token")
            if token is None:
                raise not_connected(tenant, NAME, NEEDED)
            return Granted(self._access(token), READ_AGAIN)
        client_id = await self._maybe(tenant, "client_id") or self._parts.settings.client_id or None
        secret = await self._maybe(tenant, "client_secret")
        if client_id is None or secret is None:
            raise not_connected(tenant, NAME, NEEDED)
        form = {
            "grant_type": "refresh_token",
            "client_id": client_id,
            "client_secret": secret,
            "refresh_token": refresh,
        }
        status, said = await ask_for_token(self._parts.client, self._token_url, form, name=NAME)
        found = said.get("access_token")
        if status == 200 and isinstance(found, str):
            return Granted(self._access(found), _seconds(said.get("expires_in")))
        if status == 200:
            raise SecretsUnavailable("hubspot answered a request for a token without one.")
        reason = f"HubSpot gave no token: {refusal(said, *form.values())}."
        raise not_connected(tenant, NAME, NEEDED, reason)

    def _access(self, token: str) -> Access:
        token = token.strip()
        if not token.isascii() or not token.isprintable() or not token:
            raise SecretsUnavailable("hubspot.token is no token.")
        return Access({"authorization": f"Bearer {token}"}, self._base)

    async def _maybe(self, tenant: str, name: str) -> str | None:
        if self._parts.secrets is None:
            return None
        try:
            return await self._parts.secrets.get(tenant, f"{NAME}.{name}") or None
        except SecretMissing:
            return None


def _seconds(value: object) -> float:
    known = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= LONGEST_LIFE
    return float(value) if known else 1800.0  # type: ignore[arg-type]  # a number, as was just asked
