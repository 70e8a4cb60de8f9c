"""Who may come in: private tokens, and OAuth with access tokens that end and refresh tokens that serve once."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from circuit_script.testing.stand_ins.gohighlevel.world import Doc, Said

SCOPES = (
    "contacts.readonly contacts.write opportunities.readonly opportunities.write conversations.readonly "
    "conversations.write conversations/message.readonly conversations/message.write calendars.readonly calendars.write "
    "calendars/events.readonly calendars/events.write locations.readonly locations/tags.readonly locations/tags.write "
    "locations/customFields.readonly locations/customFields.write locations/tasks.readonly oauth.readonly oauth.write"
)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token opens: one location, or a company (agency), whose locations have tokens of their own."""

    account: str
    company: bool = False
    scopes: str = SCOPES
    until: float | None = None


@dataclass(slots=True)
class Tokens:
    """All of them. ``lasting`` are the seconds that an access token lasts; ``refreshes`` counts what was refreshed."""

    clock: Callable[[], float]
    companies: Mapping[str, str]
    client_id: str = "stand-in-client"
    client_secret: str = "stand-in-secret"
    lasting: float = 86_399.0
    grants: dict[str, Grant] = field(default_factory=dict)
    refresh: dict[str, Grant] = field(default_factory=dict)
    codes: dict[str, tuple[Grant, str]] = field(default_factory=dict)
    refreshes: int = 0
    misused: int = 0  # refresh tokens that were shown a second time
    _used: set[str] = field(default_factory=set)

    def private(self, location: str, scopes: str = SCOPES) -> str:
        """A private integration token: it has no end."""
        token = f"pit-{secrets.token_hex(16)}"
        self.grants[token] = Grant(location, scopes=scopes)
        return token

    def code(self, account: str, redirect: str, *, company: bool = False, scopes: str = SCOPES) -> str:
        """What a person who agreed is sent back with; it serves once."""
        code = secrets.token_hex(20)
        self.codes[code] = (Grant(account, company, scopes), redirect)
        return code

    def issue(self, grant: Grant) -> Doc:
        """A new pair, as the vendor answers it."""
        access, refresh = f"at-{secrets.token_hex(24)}", f"rt-{secrets.token_hex(24)}"
        self.grants[access] = Grant(grant.account, grant.company, grant.scopes, self.clock() + self.lasting)
        self.refresh[refresh] = grant
        company = grant.account if grant.company else self.companies.get(grant.account, "")
        answer: Doc = {"access_token": access, "token_type": "Bearer", "expires_in": self.lasting, "userId": "user1",
                       "refresh_token": refresh, "scope": grant.scopes, "companyId": company,
                       "userType": "Company" if grant.company else "Location"}  # fmt: skip
        return answer if grant.company else answer | {"locationId": grant.account}

    def token(self, form: Mapping[str, str]) -> Doc:
        """``POST /oauth/token``. Raises Said."""
        if form.get("client_id") != self.client_id or form.get("client_secret") != self.client_secret:
            raise oauth_error("invalid_client", "Invalid client: client credentials are invalid", 401)
        match form.get("grant_type"):
            case "authorization_code":
                grant, redirect = self.codes.pop(form.get("code", ""), (None, ""))
                if grant is None or (redirect and redirect != form.get("redirect_uri", redirect)):
                    raise oauth_error("invalid_grant", "Invalid grant: authorization code is invalid")
            case "refresh_token":
                shown = form.get("refresh_token", "")
                grant = self.refresh.pop(shown, None)
                if grant is None:
                    self.misused += shown in self._used
                    raise oauth_error("invalid_grant", "Invalid grant: refresh token is invalid")
                self._used.add(shown)
                self.refreshes += 1
            case _:
                raise oauth_error("unsupported_grant_type", "Unsupported grant type")
        return self.issue(grant)

    def location_token(self, holder: Grant, form: Mapping[str, str]) -> Doc:
        """``POST /oauth/locationToken``: for a location of the company. Raises Said."""
        location, company = form.get("locationId", ""), form.get("companyId", "")
        if not holder.company or holder.account != company or self.companies.get(location) != company:
            raise Said(403, "Forbidden resource")
        answer = self.issue(Grant(location, scopes=holder.scopes))
        self.refresh.pop(answer.pop("refresh_token"))
        for name in ("companyId", "userType"):
            answer.pop(name)
        return answer

    def of(self, header: str | None) -> Grant:
        """Whose the request is. Raises Said."""
        kind, _, token = (header or "").partition(" ")
        grant = self.grants.get(token) if kind.lower() == "bearer" else None
        if grant is None:
            raise Said(401, "Invalid JWT" if header else "Authorization header was not found.")
        if grant.until is not None and grant.until <= self.clock():
            raise Said(401, "The token is expired.")
        return grant

    def expire(self) -> None:
        """Every access token that was issued ends now."""
        for token, grant in self.grants.items():
            if grant.until is not None:
                self.grants[token] = Grant(grant.account, grant.company, grant.scopes, 0.0)

    def revoke(self) -> None:
        """Nothing that was issued is good any more: the app was taken out of the account."""
        self.grants.clear()
        self.refresh.clear()


def oauth_error(code: str, words: str, status: int = 400) -> Said:
    said = Said(status, words)
    said.body |= {"error": code, "error_description": words}
    return said
