"""Secrets in HashiCorp Vault, or OpenBao, by the HTTP API of its key-value engine, version 2.

    GET    /v1/<mount>/data/<path>        → {"data": {"data": {"value": …}, "metadata": {"version": 3, …}}}
    POST   /v1/<mount>/data/<path>        {"data": {"value": …}}
    DELETE /v1/<mount>/metadata/<path>    with all its versions
    LIST   /v1/<mount>/metadata/<path>/   → {"data": {"keys": ["crm.token", "acme/"]}}
    POST   /v1/auth/<approle>/login       {"role_id", "secret_id"} → {"auth": {"client_token", "lease_duration"}}

Tokens are renewed by logging in again: an AppRole's token ends when Vault says, and one that Vault refuses is replaced
once.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx
import msgspec

from circuit_script.errors import SecretsUnavailable
from circuit_script.secrets.places import Kept
from circuit_script.settings_secrets import VaultSettings

TIMEOUT = 10.0  # seconds of one request
MAX_ANSWER = 4 * 1024 * 1024  # bytes
EARLY = 30.0  # seconds before its end at which a token is replaced
MOST_SAID = 200  # characters of what Vault says of an error
_CURES = {
    400: "Check [secrets.vault], and whether the engine at its mount is version 2.",
    403: "Let the token, or the role, read and list under the prefix (and write, for the command line).",
    404: "Check [secrets.vault] mount: there is no such engine.",
    503: "Unseal it.",
}


class Vault:
    """The secrets under one prefix of a mount."""

    name = "Vault"

    def __init__(self, settings: VaultSettings, environment: Mapping[str, str] | None = None) -> None:
        """Raises SecretsUnavailable where its address, or what opens it, is not known."""
        said = os.environ if environment is None else environment
        url = settings.url or said.get("VAULT_ADDR", "")
        self._token, self._ends = said.get("VAULT_TOKEN", ""), float("inf")
        self._role, self._secret = said.get("VAULT_ROLE_ID", ""), said.get("VAULT_SECRET_ID", "")
        if not url:
            raise SecretsUnavailable("Vault has no address.", cure="Set [secrets.vault] url, or VAULT_ADDR.")
        if not self._token and not (self._role and self._secret):
            raise SecretsUnavailable(
                "Nothing opens Vault.", cure="Set VAULT_TOKEN, or both VAULT_ROLE_ID and VAULT_SECRET_ID."
            )
        self._settings = settings
        namespace = settings.namespace or said.get("VAULT_NAMESPACE", "")
        self._headers = {"x-vault-request": "true"} | ({"x-vault-namespace": namespace} if namespace else {})
        authority = said.get("VAULT_CACERT", "")
        self._client = httpx.AsyncClient(
            base_url=f"{url.rstrip('/')}/v1/",
            timeout=TIMEOUT,
            trust_env=False,
            verify=_trusting(authority) if authority else True,
        )
        self._entering = asyncio.Lock()

    async def read(self, tenant: str, name: str) -> str | None:
        answer = await self._ask("GET", self._path("data", tenant, name))
        value = _inner(answer, "data", "data").get("value")
        return value if isinstance(value, str) else None

    async def write(self, tenant: str, name: str, value: str, by: str) -> None:
        await self._ask("POST", self._path("data", tenant, name), {"data": {"value": value, "by": by}}, there=True)

    async def delete(self, tenant: str, name: str) -> bool:
        if await self.read(tenant, name) is None:
            return False
        await self._ask("DELETE", self._path("metadata", tenant, name))
        return True

    async def all(self) -> list[Kept]:
        names = await self._keys("")
        found = [("", each) for each in names if not each.endswith("/")]
        for tenant in (each for each in names if each.endswith("/")):
            found += [(tenant.rstrip("/"), each) for each in await self._keys(tenant) if not each.endswith("/")]
        return [await self._kept(tenant, name) for tenant, name in sorted(found)]

    async def aclose(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def _keys(self, folder: str) -> list[str]:
        path = f"{self._settings.mount}/metadata/{self._settings.prefix}{quote(folder, safe='/')}"
        keys = _inner(await self._ask("LIST", path), "data").get("keys")
        return [each for each in keys if isinstance(each, str)] if isinstance(keys, list) else []

    async def _kept(self, tenant: str, name: str) -> Kept:
        about = _inner(await self._ask("GET", self._path("metadata", tenant, name)), "data")
        version, moment = about.get("current_version"), about.get("updated_time")
        try:
            when = datetime.fromisoformat(str(moment))
        except ValueError:
            when = None
        return Kept(tenant, name, None if version is None else str(version), when, None)

    def _path(self, kind: str, tenant: str, name: str) -> str:
        whose = f"{quote(tenant, safe='')}/" if tenant else ""
        return f"{self._settings.mount}/{kind}/{self._settings.prefix}{whose}{quote(name, safe='')}"

    async def _ask(self, method: str, path: str, body: Any = None, *, there: bool = False) -> Any:
        """The answer's JSON; None for what is not there, unless it must be ``there``. Raises SecretsUnavailable."""
        token = await self._opened()
        status, answer = await self._sent(method, path, body, token)
        if status == 403 and self._role:
            status, answer = await self._sent(method, path, body, await self._opened(instead_of=token))
        if status == 404 and not there and not _errors(answer):
            return None
        if status >= 300:
            raise SecretsUnavailable(
                f"Vault answered {status} to {method} {path}{_said(answer)}.",
                cure=_CURES.get(status, "Look at Vault's own log."),
            )
        return answer

    async def _opened(self, instead_of: str = "") -> str:
        """A token that is good; a new one where the one that is held was ``instead_of``, or ends."""
        async with self._entering:
            fresh = self._token and self._token != instead_of and time.monotonic() < self._ends
            if not fresh and self._role:
                login = {"role_id": self._role, "secret_id": self._secret}
                status, answer = await self._sent("POST", f"auth/{self._settings.approle}/login", login, "")
                said = _inner(answer, "auth")
                token, lasts = said.get("client_token"), said.get("lease_duration")
                if status >= 300 or not isinstance(token, str):
                    raise SecretsUnavailable(
                        f"Vault answered {status} to the login of the role{_said(answer)}.",
                        cure="Check VAULT_ROLE_ID and VAULT_SECRET_ID, and [secrets.vault] approle.",
                    )
                self._token = token
                self._ends = float("inf") if not isinstance(lasts, int) or not lasts else _end(lasts)
            return self._token

    async def _sent(self, method: str, path: str, body: Any, token: str) -> tuple[int, Any]:
        headers = self._headers | ({"x-vault-token": token} if token else {})
        try:
            async with asyncio.timeout(TIMEOUT):
                async with self._client.stream(method, path, json=body, headers=headers) as response:
                    text = bytearray()
                    async for chunk in response.aiter_bytes():
                        text += chunk
                        if len(text) > MAX_ANSWER:
                            raise SecretsUnavailable(
                                f"Vault answered more than {MAX_ANSWER:,} bytes to {method} {path}."
                            )
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise SecretsUnavailable(
                f"Vault does not answer: {type(error).__name__}: {error}",
                cure="Check that it can be reached from here.",
            ) from None
        try:
            return response.status_code, msgspec.json.decode(bytes(text)) if text else None
        except msgspec.DecodeError:
            return response.status_code, None


def _end(lasts: int) -> float:
    return time.monotonic() + max(lasts - EARLY, lasts / 2)


def _trusting(authority: str) -> Any:
    import ssl

    try:
        return ssl.create_default_context(cafile=authority)
    except (OSError, ssl.SSLError) as error:
        raise SecretsUnavailable(f"VAULT_CACERT: {authority}: {error}.") from None


def _inner(answer: Any, *names: str) -> dict[str, Any]:
    for name in names:
        answer = answer.get(name) if isinstance(answer, dict) else None
    return answer if isinstance(answer, dict) else {}


def _errors(answer: Any) -> list[Any]:
    said = answer.get("errors") if isinstance(answer, dict) else None
    return said if isinstance(said, list) else []


def _said(answer: Any) -> str:
    """Vault's own words, which hold no value: of a request that was refused it tells why."""
    words = "; ".join(str(each) for each in _errors(answer))
    words = "".join(each if each.isprintable() else " " for each in words[:MOST_SAID])
    return f": {words}" if words else ""
