"""Settings of where deliveries come from: keys, secrets, and what else a signature is checked by."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

VENDOR_GOHIGHLEVEL_KEY = "MCowBQYDK2VwAyEAi2HR1srL4o18O8BRa7gVJY7G7bupbN3H9AwJrHCDiOg="
GOOGLE_KEYS = "https://www.googleapis.com/oauth2/v3/certs"
ADDRESS = r"^(https?://[^\s?#]+)?$"  # without a query: each request brings its own


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _several(value: Any) -> tuple[str, ...]:
    """One text or a list of them. Raises ValueError for anything else, and never tells the value."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(each, str) and each.strip() for each in texts):
        raise ValueError("must be a text, or a list of texts")
    return tuple(texts)


def _several_by_account(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(account): _several(each) for account, each in value.items()}
    try:
        return _several(value)
    except ValueError:
        raise ValueError("must be a text, a list of texts, or a table of them by account") from None


def _header(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-]*", value):
        raise ValueError("must be the name of a header")
    return value


Header = Annotated[str, AfterValidator(_header)]

Texts = Annotated[tuple[str, ...] | str, BeforeValidator(_several)]
"""Several texts; one may stand alone. (The type says so for the environment, where a text need not be JSON.)"""

Secrets = Annotated[
    tuple[str, ...] | dict[str, tuple[str, ...]], BeforeValidator(_several_by_account), Field(repr=False)
]
"""Each of several is good while they rotate. In a table by account, a secret speaks for its account only."""


class GoHighLevelSettings(_Section):
    """Key of ``X-GHL-Signature`` (base64 of the DER, or PEM); ``legacy`` also accepts ``x-wh-signature``.

    What is signed with ``test_public_key``'s other half is accepted too: `dev` sets it to a key of its own.
    """

    public_key: str = VENDOR_GOHIGHLEVEL_KEY
    test_public_key: str = ""
    legacy: bool = False
    legacy_key: str = ""


class StandardSettings(_Section):
    """Standard Webhooks: per account one secret or, while rotating, several (``whsec_…``)."""

    secrets: dict[str, tuple[str, ...]] = Field(default={}, repr=False)

    @field_validator("secrets", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {account: (each,) if isinstance(each, str) else each for account, each in value.items()}


class SecretSettings(_Section):
    """A source whose signature needs a secret and nothing else."""

    secrets: Secrets = ()


class SalesforceSettings(_Section):
    """``secrets`` are by OrganizationId; each is the last part of the address that its outbound messages go to."""

    secrets: Annotated[dict[str, Annotated[tuple[str, ...], BeforeValidator(_several)]], Field(repr=False)] = {}


class HubSpotSettings(_Section):
    """The app's client secret. ``url`` is the address as HubSpot has it, where a proxy changes it; ``legacy`` also
    accepts the signatures of versions 1 and 2, which say nothing of their age."""

    secrets: Secrets = ()
    url: str = Field(default="", pattern=ADDRESS)
    legacy: bool = False


class TwilioSettings(_Section):
    """AuthTokens, best by AccountSid. ``url`` is the address as Twilio has it."""

    secrets: Secrets = ()
    url: str = Field(default="", pattern=ADDRESS)


class MetaSettings(_Section):
    """The app's secret, and the word by which Meta asks whether it is us."""

    secrets: Secrets = ()
    verify_token: str = Field(default="", repr=False)


class GoogleSettings(_Section):
    """Who may push, and to whom: the ``audience`` and the service accounts (e-mail addresses) of the subscription."""

    audience: Texts = ()
    service_accounts: Texts = ()
    keys_url: str = Field(default=GOOGLE_KEYS, pattern=r"^https?://")


class _SignatureSettings(_Section):
    """An HMAC as a vendor makes it. ``template`` is what is signed, of {body}, {timestamp}, {method}, {url}, {path},
    {query} and {header:NAME}; ``tolerance`` in seconds, into the past and into the future."""

    secrets: Secrets = ()
    header: Header = Field(default="x-signature", min_length=1)
    algorithm: Literal["sha1", "sha256", "sha512"] = "sha256"
    encoding: Literal["hex", "base64", "base64url"] = "hex"
    prefix: str = ""
    template: str = "{body}"
    timestamp_header: Header = ""
    tolerance: float = Field(default=300.0, gt=0, le=86_400)
    url: str = Field(default="", pattern=ADDRESS)


class VapiSettings(_SignatureSettings):
    """``auth`` "bearer" compares ``Authorization`` or ``X-Vapi-Secret`` with the secret; "hmac" checks a signature,
    made as the credential at Vapi says."""

    auth: Literal["bearer", "hmac"] = "bearer"
    template: str = "{timestamp}.{body}"
    timestamp_header: Header = "x-timestamp"


class HmacSettings(_SignatureSettings):
    """A sender of its own making. ``id``, ``type``, ``record`` and ``account`` are places in the JSON ("data.id") or
    headers ("header:x-id"); ``objects`` maps a type to what it is here ("Contact.afterInsert")."""

    secret_encoding: Literal["text", "base64", "hex"] = "text"
    id: str = ""
    type: str = "type"
    record: str = "id"
    account: str = ""
    objects: dict[str, str] = {}


class SourceSettings(_Section):
    """By vendor. One without a secret refuses everything."""

    gohighlevel: GoHighLevelSettings = GoHighLevelSettings()
    standard: StandardSettings = StandardSettings()
    salesforce: SalesforceSettings = SalesforceSettings()
    hubspot: HubSpotSettings = HubSpotSettings()
    twilio: TwilioSettings = TwilioSettings()
    vapi: VapiSettings = VapiSettings()
    resend: SecretSettings = SecretSettings()
    slack: SecretSettings = SecretSettings()
    google: GoogleSettings = GoogleSettings()
    github: SecretSettings = SecretSettings()
    meta: MetaSettings = MetaSettings()
    stripe: SecretSettings = SecretSettings()
    linkedin: SecretSettings = SecretSettings()
    hmac: dict[str, HmacSettings] = {}

    @property
    def configured(self) -> frozenset[str]:
        """Those of which something is said, and those that need nothing: their paths are never an app's own."""
        return frozenset(self.model_fields_set) | {"gohighlevel", "standard"}
