"""Settings of one app: arguments over environment (``CIRCUIT_GATEWAY__PORT=8080``) over ``circuit.toml``."""

from __future__ import annotations

import re
import tomllib
from decimal import Decimal
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from circuit_script.errors import ConfigError
from circuit_script.settings_deploy import DeploySettings, EnvironmentSettings
from circuit_script.settings_enrichment import EnrichmentSettings
from circuit_script.settings_faults import refuse_unknown_variables, refused, unreadable
from circuit_script.settings_judgment import JudgmentSettings
from circuit_script.settings_mirror import MirrorSettings
from circuit_script.settings_origin import FILE as FILE
from circuit_script.settings_reconcile import ReconcileSettings
from circuit_script.settings_secrets import SecretsSettings
from circuit_script.settings_see import (
    AlertSettings,
    DashboardSettings,
    GuardianSettings,
    LogSettings,
    SentrySettings,
    TraceSettings,
)
from circuit_script.settings_shadow import ShadowSettings
from circuit_script.settings_sources import VENDOR_GOHIGHLEVEL_KEY as VENDOR_GOHIGHLEVEL_KEY
from circuit_script.settings_sources import GoHighLevelSettings as GoHighLevelSettings
from circuit_script.settings_sources import SourceSettings as SourceSettings
from circuit_script.settings_sources import StandardSettings as StandardSettings
from circuit_script.settings_spans import seconds_of
from circuit_script.settings_test import TestSettings


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GatewaySettings(_Section):
    """The HTTP door. ``max_body`` in bytes; ``max_waiting`` is the number of deliveries at which it says 'later',
    ``max_held`` the bytes: of bodies of deliveries, of bodies of calls, and of answers, each for itself. Connections
    beyond ``max_connections`` are told to come later.

    ``cors_origins`` are the web pages (``https://…``, or ``*``) whose scripts may call endpoints.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    max_body: int = Field(default=5 * 1024 * 1024, gt=0)
    max_waiting: int = Field(default=5000, gt=0)
    max_held: int = Field(default=64 * 1024 * 1024, gt=0)
    max_connections: int = Field(default=900, ge=1, le=100_000)
    cors_origins: tuple[str, ...] = ()


class WorkerSettings(_Section):
    """Dispatcher, children and courier of one host. Times in seconds.

    ``endpoint_children`` is how many calls of endpoints run at once, beside the ``children`` that run batches.
    ``isolation`` says what children are fenced in against, ``start`` how they come to be.
    """

    children: int = Field(default=2, ge=1, le=64)
    endpoint_children: int = Field(default=8, ge=1, le=64)
    batch_size: int = Field(default=200, ge=1, le=200)
    attempts: int = Field(default=5, ge=1, le=100)
    backoff: float = Field(default=5.0, gt=0)
    hold: float = Field(default=300.0, ge=0)
    lease: float = Field(default=10.0, ge=1)
    drain: float = Field(default=30.0, ge=0)
    isolation: Literal["standard", "strict"] = "standard"
    start: Literal["fork", "spawn"] = "fork"


class WebSettings(_Section):
    """A WSGI or ASGI app of the author, as ``module:attr`` or, for a factory, ``module:attr()``.

    ``auth`` is "key" or "none", ``deadline`` is in seconds; a governed view may say otherwise.
    """

    app: str = Field(default="", pattern=r"^([A-Za-z_][\w.]*:[A-Za-z_][\w.]*(\(\))?)?$")
    auth: Literal["key", "none"] = "none"
    deadline: float = Field(default=30.0, gt=0, le=300)


class CalloutSettings(_Section):
    """Where handlers may call. ``egress`` are the only hosts, None for every public one; ``private`` are the addresses
    (networks, hosts, each with a port or without) that are allowed though they are not public. ``attempts`` is how
    often a callout that may be repeated leaves at most."""

    egress: tuple[str, ...] | None = None
    private: tuple[str, ...] = ()
    attempts: int = Field(default=3, ge=1, le=10)

    @field_validator("egress", "private")
    @classmethod
    def _places(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for each in value or ():
            if not each or any(sign in each for sign in "@?# \t\n") or "//" in each:
                raise ValueError(f"{each!r} must be a host like api.example.com, or a network like 10.0.0.0/8")
        return value


class GovernorSettings(_Section):
    """``repeats`` is how often an execution may make the same call, and get the same answer, before it is taken for a
    loop."""

    repeats: int = Field(default=5, ge=1, le=1000)


class BudgetSettings(_Section):
    """What model calls may cost in a day of UTC, in US dollars: all tenants together, and each tenant unless its tier
    says. ``at_ceiling`` is what happens then, unless a handler or its tenant's tier says; None is without a bound."""

    day: float | None = Field(default=20.0, gt=0, le=1e8)
    tenant_day: float | None = Field(default=5.0, gt=0, le=1e8)
    at_ceiling: Literal["refuse", "defer", "cheaper"] = "refuse"

    @field_validator("day", "tenant_day", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        return None if value == "none" else value


class ProviderSettings(_Section):
    """Who answers model calls: an address that speaks OpenAI's chat completions. ``key_env`` names the environment
    variable that holds its key, empty where it asks for none; ``models`` are patterns of what it serves. ``wire`` says
    how it wants to be asked, where its address does not: as OpenAI, or as those who are compatible with it."""

    url: str = Field(pattern=r"^https?://")
    key_env: str = Field(default="", pattern=r"^[A-Za-z_]\w*$|^$")
    models: tuple[str, ...] = ()
    wire: Literal["openai", "compatible"] | None = None


OPENAI = ProviderSettings(
    url="https://api.openai.com/v1", key_env="OPENAI_API_KEY", models=("gpt-*", "chatgpt-*", "o1*", "o3*", "o4*")
)


class PriceSettings(_Section):
    """US dollars per million tokens, and ``request`` for each call."""

    input: Decimal = Field(ge=0, le=100_000)
    output: Decimal = Field(ge=0, le=100_000)
    request: Decimal = Field(default=Decimal(0), ge=0, le=100_000)


class LLMSettings(_Section):
    """Model calls. ``model`` answers where a call names none, ``cheaper`` where a budget is used up and the policy says
    so; ``max_tokens`` bounds an answer whose author does not. ``prices`` are by the model's name, or by
    "provider:model"."""

    model: str = "gpt-4o-mini"
    cheaper: str = "gpt-4.1-nano"
    max_tokens: int = Field(default=4096, ge=1, le=1_000_000)
    providers: dict[str, ProviderSettings] = {"openai": OPENAI}
    prices: dict[str, PriceSettings] = {}

    @field_validator("providers", mode="before")
    @classmethod
    def _openai_stays(cls, value: Any) -> Any:
        """What is said of OpenAI changes what is known of it; another provider does not replace it."""
        if not isinstance(value, dict):
            return value
        said = value.get("openai", {})
        if isinstance(said, dict):
            said = {**OPENAI.model_dump(), **said}
        return {**value, "openai": said}

    @model_validator(mode="after")
    def _prices_have_a_model(self) -> LLMSettings:
        """A price that no call would find is a mistake: the call would have another, or none."""
        patterns = [pattern for each in self.providers.values() for pattern in each.models]
        for name in self.prices:
            prefix, colon, _ = name.partition(":")
            if colon and prefix not in self.providers and not any(fnmatchcase(name, each) for each in patterns):
                there = ", ".join(self.providers)
                raise ValueError(f"prices: {name!r} is of no provider; there are {there}, and none serves such a model")
        return self


class LedgerSettings(_Section):
    """Deliveries, events and executions older than ``retention_days`` are dropped, unless something still waits; log
    lines older than ``log_days``, None for never. What calls were answered is kept for ``reply_days``, and as long as
    their event waits or is dead."""

    retention_days: int = Field(default=30, ge=1)
    reply_days: int = Field(default=1, ge=0)
    log_days: int | None = Field(default=None, ge=1)


class BackupSettings(_Section):
    """Copies of the database. ``to`` is a folder or ``s3://bucket/prefix``, empty for none; ``every`` is like "1d" or
    "6h"; the latest ``keep`` stay. ``endpoint_url`` is of a server that speaks S3 and is not Amazon's."""

    to: str = ""
    every: str = Field(default="1d", pattern=r"^[1-9]\d{0,4}[mhd]$")
    keep: int = Field(default=14, ge=1, le=10_000)
    endpoint_url: str = Field(default="", pattern=r"^(https?://.+)?$")

    @property
    def seconds(self) -> float:
        """``every`` as seconds."""
        return seconds_of(self.every)


class RateSettings(_Section):
    """At most ``calls`` requests in ``seconds`` for each tenant, ``burst`` of them at once (all, unless said). ``of``
    is what is counted together: the operation's, the operation's to one target, or the connector's."""

    calls: float = Field(gt=0, le=1e6)
    seconds: float = Field(default=1.0, gt=0, le=86_400)
    burst: float | None = Field(default=None, ge=1, le=1e6)
    of: Literal["operation", "target", "connector"] = "operation"


class ConnectorSettings(_Section):
    """One connector to a vendor. ``rates`` are by operation, and replace what the connector declares.

    ``url`` is where its API is, and ``token_url`` where tokens come from, in the place of the vendor's own; ``auth`` is
    how it is opened ("oauth", "token", "jwt", "client"; empty for the connector's usual way), as the app ``client_id``
    and, where its way asks for one, the ``user``; ``scopes`` are what tokens are asked for. ``account`` is the vendor's
    account of tenants of which ``[tenants]`` says none. ``version`` is the API's. ``objects`` maps our names of objects
    to the vendor's, ``fields``, by our object, those of fields. Messages are from the ``sender``, or from the tenant's
    own of ``senders``; ``callback`` is where the vendor tells what becomes of them. Secrets stand elsewhere
    (``[secrets]``).
    """

    rates: dict[str, RateSettings] = {}
    url: str = Field(default="", pattern=r"^(https?://.+)?$")
    token_url: str = Field(default="", pattern=r"^(https?://.+)?$")
    auth: str = Field(default="", pattern=r"^[a-z_]*$")
    account: str = ""
    client_id: str = ""
    user: str = ""
    scopes: tuple[str, ...] = ()
    version: str = ""
    objects: dict[str, str] = {}
    fields: dict[str, dict[str, str]] = {}
    sender: str = ""
    senders: dict[str, str] = {}
    callback: str = Field(default="", pattern=r"^(https?://.+)?$")


class CrmSettings(_Section):
    """Where records live. ``home`` is ``local``, the built-in CRM, or a connector, which then keeps all objects that it
    knows; ``objects`` says otherwise for some of them."""

    home: str = Field(default="local", pattern=r"^[a-z][a-z0-9_]*$")
    objects: dict[str, str] = {}

    @field_validator("objects")
    @classmethod
    def _named(cls, value: dict[str, str]) -> dict[str, str]:
        for object_, home in value.items():
            if not re.fullmatch(r"[a-z][a-z0-9_]*", home):
                raise ValueError(f"{object_}: {home!r} is no name of a connector")
        return value


class Address(_Section):
    """Where the ``webhook`` connector posts to; with a ``secret`` it signs as Standard Webhooks does."""

    url: str = Field(pattern=r"^https?://")
    secret: str = ""


class TierQuota(_Section):
    """The most that a tenant may use in a day and in a month, both in UTC; None is without a bound."""

    day: int | None = Field(default=None, gt=0, le=2**53)
    month: int | None = Field(default=None, gt=0, le=2**53)


class TierBudget(_Section):
    """The most that a tenant may spend in a day and in a month, in US dollars; None is without a bound."""

    day: float | None = Field(default=None, gt=0)
    month: float | None = Field(default=None, gt=0)


class TierSettings(_Section):
    """What the tenants of a tier may use. ``upgrade`` is said to whoever is refused; ``ceilings`` are the most that one
    execution may have of each limit."""

    executions: TierQuota = TierQuota()
    api_calls: TierQuota = TierQuota()
    llm_cost: TierBudget = TierBudget()
    at_ceiling: Literal["refuse", "defer", "cheaper"] = "refuse"
    upgrade: str = ""
    ceilings: dict[str, int | float] = {}


class TenantSettings(BaseModel):
    """A tenant's tier and the home of its records (as ``[crm] home``), and beside them the vendors' accounts that are
    the tenant's, by source."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, tuple[str, ...]] = Field(init=False)

    tier: str | None = None
    crm: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9_]*$")

    @property
    def accounts(self) -> dict[str, tuple[str, ...]]:
        return dict(self.__pydantic_extra__)

    @model_serializer(mode="wrap")
    def _as_written(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a tier where none is said, as the accounts alone stand in the file."""
        return {name: each for name, each in dump(self).items() if each is not None}


class Settings(BaseSettings):
    """Everything that can be configured. Unknown names are refused."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="CIRCUIT_", env_nested_delimiter="__", populate_by_name=True
    )

    folder: Path = Path()
    app: str = Field(default="app", pattern=r"^[A-Za-z_][\w.]*$")
    objects: tuple[str, ...] = ()
    database_url: str | None = Field(default=None, validation_alias="DATABASE_URL")
    pooler: bool = False
    gateway: GatewaySettings = GatewaySettings()
    worker: WorkerSettings = WorkerSettings()
    web: WebSettings = WebSettings()
    callouts: CalloutSettings = CalloutSettings()
    budget: BudgetSettings = BudgetSettings()
    llm: LLMSettings = LLMSettings()
    ledger: LedgerSettings = LedgerSettings()
    backup: BackupSettings = BackupSettings()
    sources: SourceSettings = SourceSettings()
    mirror: dict[str, MirrorSettings] = {}
    addresses: dict[str, Address] = {}
    connectors: dict[str, ConnectorSettings] = {}
    crm: CrmSettings = CrmSettings()
    reconcile: ReconcileSettings = ReconcileSettings()
    secrets: SecretsSettings = SecretsSettings()
    enrichment: EnrichmentSettings = EnrichmentSettings()
    tenants: dict[str, TenantSettings] = {}
    tiers: dict[str, TierSettings] = {}
    limits: dict[str, int | float] = {}
    ceilings: dict[str, int | float] = {}
    governor: GovernorSettings = GovernorSettings()
    log: LogSettings = LogSettings()
    traces: TraceSettings = TraceSettings()
    sentry: SentrySettings = SentrySettings()
    alerts: AlertSettings = AlertSettings()
    guardian: GuardianSettings = GuardianSettings()
    dashboard: DashboardSettings = DashboardSettings()
    deploy: DeploySettings = DeploySettings()
    env: dict[str, EnvironmentSettings] = {}
    shadow: ShadowSettings = ShadowSettings()
    judgment: JudgmentSettings = JudgmentSettings()
    test: TestSettings = TestSettings()

    @field_validator("judgment")
    @classmethod
    def _judges_tenants_that_there_are(cls, judgment: JudgmentSettings, info: ValidationInfo) -> JudgmentSettings:
        """Whoever misspells one would be judged by another policy than is written down."""
        if (tenants := info.data.get("tenants")) is None:  # it has a fault of its own
            return judgment
        known = {*tenants, "default"}
        for name in (*judgment.tenants, *(each.tenant for each in judgment.allow)):
            if name is not None and name not in known:
                near = get_close_matches(name, sorted(known), n=1)
                meant = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(sorted(known)[:10])}."
                raise ValueError(f"there is no tenant {name!r}. {meant}")
        return judgment

    @field_validator("mirror")
    @classmethod
    def _mirrors_sources_that_there_are(cls, mirror: dict[str, MirrorSettings]) -> dict[str, MirrorSettings]:
        """Whoever misspells one would have ours act on its deliveries at once."""
        for name in mirror:
            if name not in SourceSettings.model_fields:
                near = get_close_matches(name, SourceSettings.model_fields, n=1)
                meant = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(SourceSettings.model_fields)}."
                raise ValueError(f"there is no source {name!r}. {meant}")
        return mirror

    @property
    def accounts(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """The vendors' accounts: tenant → source → accounts."""
        return {tenant: each.accounts for tenant, each in self.tenants.items()}

    @property
    def tenant_names(self) -> tuple[str, ...]:
        """Every tenant that there is."""
        return tuple(self.tenants) or ("default",)

    @property
    def state(self) -> Path:
        """The folder of everything this installation keeps beside the app."""
        return self.folder / ".circuit"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        folder = Path(init_settings().get("folder", "."))
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, folder / FILE)


def load_settings(folder: Path, **overrides: Any) -> Settings:
    """The settings of the app in ``folder``.

    Raises ConfigError, which names each wrong setting, where its value came from, and what it must be.
    """
    folder = folder.resolve()
    refuse_unknown_variables(Settings)
    try:
        return Settings(folder=folder, **overrides)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{folder / FILE}: {error}.", cure="Mend that line and start again.") from None
    except SettingsError as error:
        raise unreadable(error) from None
    except ValidationError as error:
        raise refused(error, Settings, folder, overrides) from None
    except OSError as error:
        raise ConfigError(f"{folder / FILE}: {error.strerror}.", cure="Let this user read it.") from None
