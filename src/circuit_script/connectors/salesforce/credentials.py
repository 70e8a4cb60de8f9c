"""Tokens of Salesforce: by JWT (a private key), by a password, or by the app's own credentials.

Which of them is chosen by the secrets that a tenant has: ``salesforce.private_key`` with ``salesforce.username``; else
``salesforce.username`` with ``salesforce.password``; else ``salesforce.client_id`` and ``salesforce.client_secret``
alone. The client id and the username may stand in circuit.toml as well. There is no refresh token in these: when a
token ends, the next is asked for in the same way.
"""

from __future__ import annotations

import time

from circuit_script.connectors.api import Access
from circuit_script.connectors.held_access import Granted, HeldAccess, ask_for_token, not_connected, refusal, safe_base
from circuit_script.connectors.parts import Parts
from circuit_script.connectors.salesforce.settings import LOGIN, SalesforceSettings
from circuit_script.errors import NotConnected, SecretMissing, SecretsUnavailable

NAME = "salesforce"
NEEDED = "salesforce.client_id with salesforce.client_secret, or with salesforce.username and salesforce.private_key"
LIFE = 3600.0  # seconds; a session lasts two hours unless its org says less
ASSERTION = 180  # seconds for which a JWT is good; Salesforce takes five minutes at most
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
AUDIENCES = (LOGIN, "https://test.salesforce.com")


def credentials(parts: Parts, settings: SalesforceSettings) -> HeldAccess:
    """The `Credentials` of Salesforce."""
    return HeldAccess(_Grants(parts, settings).grant)


class _Grants:
    def __init__(self, parts: Parts, settings: SalesforceSettings) -> None:
        self._parts = parts
        self._settings = settings

    async def grant(self, tenant: str) -> Granted:
        login = (await self._maybe(tenant, "login_url") or self._settings.login_url).rstrip("/")
        if safe_base(login, self._settings.login_url) is None:
            raise SecretsUnavailable("salesforce.login_url is no address of a login: it begins with https://.")
        form = await self._form(tenant, login)
        status, said = await ask_for_token(self._parts.client, f"{login}/services/oauth2/token", form, name=NAME)
        token, base = said.get("access_token"), safe_base(said.get("instance_url"), login)
        if status == 200 and isinstance(token, str) and token.isascii() and token.isprintable() and base is not None:
            org, wanted = _org(said.get("id")), self._parts.account(tenant)
            if wanted and org[:15] != wanted[:15]:
                raise _refused(tenant, f"its secrets are those of the org {org or '?'}, not of {wanted[:18]}")
            return Granted(Access({"authorization": f"Bearer {token}"}, base, org), LIFE)
        if status == 200:
            raise SecretsUnavailable("salesforce answered a request for a token without one.")
        raise _refused(tenant, refusal(said, *form.values()))

    async def _form(self, tenant: str, login: str) -> dict[str, str]:
        """What is sent for a token. Raises NotConnected when there are not the secrets for one."""
        said = self._parts.settings
        client_id = await self._maybe(tenant, "client_id") or said.client_id or None
        if client_id is None:
            raise not_connected(tenant, NAME, NEEDED)
        username = await self._maybe(tenant, "username") or said.user or None
        key = await self._maybe(tenant, "private_key") if username is not None else None
        if username is not None and key is not None:
            return {"grant_type": JWT_BEARER, "assertion": _assertion(client_id, username, key, _audience(login))}
        secret = await self._maybe(tenant, "client_secret")
        if secret is None:
            raise not_connected(tenant, NAME, NEEDED)
        password = await self._maybe(tenant, "password") if username is not None else None
        form = {"client_id": client_id, "client_secret": secret}
        if username is not None and password is not None:
            return form | {"grant_type": "password", "username": username, "password": password}
        return form | {"grant_type": "client_credentials"}

    async def _maybe(self, tenant: str, name: str) -> str | None:
        if self._parts.secrets is None:
            return None
        try:
            return await self._parts.secrets.get(tenant, f"{NAME}.{name}") or None
        except SecretMissing:
            return None


def _assertion(client_id: str, username: str, key: str, audience: str) -> str:
    import jwt

    claims = {"iss": client_id, "sub": username, "aud": audience, "exp": int(time.time()) + ASSERTION}
    try:
        return jwt.encode(claims, key.replace("\\n", "\n"), algorithm="RS256")
    except (jwt.PyJWTError, ValueError, TypeError):
        raise SecretsUnavailable("salesforce.private_key is no RSA private key in PEM.") from None


def _audience(login: str) -> str:
    """Whom a JWT is for: the login host, and test.salesforce.com for sandboxes' own domains."""
    if login in AUDIENCES or not login.endswith(".salesforce.com"):
        return login
    return AUDIENCES[1] if ".sandbox." in login else AUDIENCES[0]


def _refused(tenant: str, reason: str) -> NotConnected:
    return not_connected(tenant, NAME, NEEDED, f"Salesforce gave no token: {reason}.")


def _org(identity: object) -> str:
    """The org's id, out of ``https://login.salesforce.com/id/<org>/<user>``."""
    parts = str(identity or "").split("/")
    found = parts[-2] if len(parts) > 2 else ""
    return found if found.isascii() and found.isalnum() and len(found) <= 18 else ""
