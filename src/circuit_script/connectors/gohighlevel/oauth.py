"""GoHighLevel's OAuth: access tokens last a day, refresh tokens serve once, an agency asks for its locations' tokens.

Addresses and fields are those of the vendor's published OAuth app (``/oauth/token``, ``/oauth/locationToken``); it has
no PKCE. The app's own id and secret are the secrets ``gohighlevel.client_id`` and ``gohighlevel.client_secret``.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

import httpx

from circuit_script.connectors.api import Access
from circuit_script.connectors.gohighlevel.faults import BASE_URL
from circuit_script.connectors.gohighlevel.objects import JULY
from circuit_script.connectors.gohighlevel.reading import NAME
from circuit_script.connectors.held_access import ask_for_token, refusal
from circuit_script.connectors.tokens import GrantGone, Kept, Kind, Tokens
from circuit_script.errors import SecretsUnavailable

CHOOSE = "https://marketplace.gohighlevel.com"
SCOPES = (
    "contacts.readonly", "contacts.write", "opportunities.readonly", "opportunities.write", "conversations.readonly",
    "conversations/message.readonly", "conversations/message.write", "calendars.readonly", "calendars/events.readonly",
    "calendars/events.write", "locations.readonly", "locations/customFields.readonly", "locations/tags.readonly",
    "locations/tags.write", "locations/tasks.readonly",
)  # fmt: skip
CLIENT_ID, CLIENT_SECRET = f"{NAME}.client_id", f"{NAME}.client_secret"
PATIENCE = 15.0


class GoHighLevelGrants:
    """The vendor's way of giving tokens."""

    name = NAME

    def __init__(
        self, client: httpx.AsyncClient, secrets: Kept, *, base_url: str = BASE_URL, client_id: str = ""
    ) -> None:
        self._client_id = client_id
        self.base_url = base_url
        self._client = client
        self._secrets = secrets

    async def client_id(self, tenant: str) -> str:
        """The app's id, as circuit.toml or a secret says it. Raises SecretMissing."""
        return self._client_id or await self._secrets.get(tenant, CLIENT_ID)

    def headers(self, access: str) -> Mapping[str, str]:
        return {"authorization": f"Bearer {access}"}

    async def refresh(self, tenant: str, refresh: str, kind: Kind) -> Tokens:
        user = "Company" if kind == "agency" else "Location"
        return await self._token(tenant, {"grant_type": "refresh_token", "refresh_token": refresh, "user_type": user})

    async def exchange(self, tenant: str, code: str, redirect: str, *, agency: bool) -> Tokens:
        """The tokens for the code that a person came back with. Raises as `refresh` does."""
        user = "Company" if agency else "Location"
        return await self._token(
            tenant, {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect, "user_type": user}
        )

    async def of_location(self, agency: Access, location: str) -> Tokens:
        """The location's token, by the agency's. Raises GrantGone, SecretsUnavailable."""
        form = {"companyId": agency.account, "locationId": location}
        headers = {"version": JULY, "accept": "application/json", **agency.headers}
        try:
            answer = await self._client.post(
                f"{agency.base_url}/oauth/locationToken", data=form, headers=headers, timeout=PATIENCE
            )
            said = answer.json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError) as error:
            raise SecretsUnavailable(
                f"{NAME} gave no answer to a request for a token: {type(error).__name__}."
            ) from None
        if answer.status_code == 429 or answer.status_code >= 500 or not isinstance(said, dict):
            raise SecretsUnavailable(f"{NAME} answered a request for a token with HTTP {answer.status_code}.")
        if not answer.is_success:
            raise GrantGone(refusal(said, *(each.rpartition(" ")[2] for each in agency.headers.values())))
        return tokens_of(said, self.base_url)

    async def _token(self, tenant: str, form: dict[str, str]) -> Tokens:
        secret = await self._secrets.get(tenant, CLIENT_SECRET)
        whole = {"client_id": await self.client_id(tenant), "client_secret": secret, **form}
        status, said = await ask_for_token(self._client, f"{self.base_url}/oauth/token", whole, name=NAME)
        if not 200 <= status < 300:
            shown = [form[each] for each in ("refresh_token", "code") if each in form]
            words = refusal(said, secret, *shown)
            if status == 401 or said.get("error") in ("invalid_client", "unauthorized_client"):
                raise SecretsUnavailable(
                    f"{NAME} does not know the app: {words}.",
                    cure=f"Look at the secrets {CLIENT_ID} and {CLIENT_SECRET}.",
                )
            raise GrantGone(words)
        return tokens_of(said, self.base_url)


def tokens_of(said: Mapping[str, object], base_url: str) -> Tokens:
    """What an answer with tokens says. Raises SecretsUnavailable for one that has none."""
    access, refresh, lives = said.get("access_token"), said.get("refresh_token"), said.get("expires_in")
    if not isinstance(access, str) or not access:
        raise SecretsUnavailable(f"{NAME} answered a request for a token without one.")
    account = said.get("locationId") if said.get("userType") != "Company" else said.get("companyId")
    seconds = float(lives) if isinstance(lives, int | float) and not isinstance(lives, bool) and lives > 0 else 86_399.0
    return Tokens(
        access,
        refresh if isinstance(refresh, str) and refresh else None,
        seconds,
        account if isinstance(account, str) else "",
        base_url,
        tuple(str(said.get("scope") or "").split()),
    )


def address(client_id: str, redirect: str, state: str, *, choose: str = CHOOSE) -> str:
    """Where a person chooses the location and agrees."""
    asked = {"response_type": "code", "redirect_uri": redirect, "client_id": client_id, "scope": " ".join(SCOPES),
             "state": state}  # fmt: skip
    return f"{choose}/v2/oauth/chooselocation?{urlencode(asked)}"
