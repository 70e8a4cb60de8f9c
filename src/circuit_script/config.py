"""Settings of one app: arguments over environment (``CIRCUIT_GATEWAY__PORT=8080``) over ``circuit.toml``."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from circuit_script.errors import ConfigError
from circuit_script.settings_faults import refuse_unknown_variables, refused, unreadable
from circuit_script.settings_origin import FILE as FILE

VENDOR_GOHIGHLEVEL_KEY = "MCowBQYDK2VwAyEAi2HR1srL4o18O8BRa7gVJY7G7bupbN3H9AwJrHCDiOg="


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GatewaySettings(_Section):
    """The HTTP door. ``max_body`` in bytes; ``max_waiting`` is the number of deliveries at which it says 'later'.

    ``cors_origins`` are the web pages (``https://…``, or ``*``) whose scripts may call endpoints.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    max_body: int = Field(default=5 * 1024 * 1024, gt=0)
    max_waiting: int = Field(default=5000, gt=0)
    cors_origins: tuple[str, ...] = ()


class WorkerSettings(_Section):
    """Dispatcher, children and courier of one host. Times in seconds.

    ``endpoint_children`` is how many calls of endpoints run at once, beside the ``children`` that run batches.
    """

    children: int = Field(default=2, ge=1, le=64)
    endpoint_children: int = Field(default=8, ge=1, le=64)
    batch_size: int = Field(default=200, ge=1, le=200)
    attempts: int = Field(default=5, ge=1, le=100)
    backoff: float = Field(default=5.0, gt=0)
    hold: float = Field(default=300.0, ge=0)
    lease: float = Field(default=10.0, ge=1)
    drain: float = Field(default=30.0, ge=0)


class WebSettings(_Section):
    """A WSGI or ASGI app of the author, as ``module:attr`` or, for a factory, ``module:attr()``.

    ``auth`` is "key" or "none", ``deadline`` is in seconds; a governed view may say otherwise.
    """

    app: str = Field(default="", pattern=r"^([A-Za-z_][\w.]*:[A-Za-z_][\w.]*(\(\))?)?$")
    auth: Literal["key", "none"] = "none"
    deadline: float = Field(default=30.0, gt=0, le=300)


class LedgerSettings(_Section):
    """Deliveries, events and executions older than ``retention_days`` are dropped, unless something still waits."""

    retention_days: int = Field(default=30, ge=1)


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

    secrets: dict[str, tuple[str, ...]] = {}

    @field_validator("secrets", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {account: (each,) if isinstance(each, str) else each for account, each in value.items()}


class SourceSettings(_Section):
    gohighlevel: GoHighLevelSettings = GoHighLevelSettings()
    standard: StandardSettings = StandardSettings()


class Address(_Section):
    """Where the ``webhook`` connector posts to; with a ``secret`` it signs as Standard Webhooks does."""

    url: str = Field(pattern=r"^https?://")
    secret: str = ""


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
    ledger: LedgerSettings = LedgerSettings()
    sources: SourceSettings = SourceSettings()
    addresses: dict[str, Address] = {}
    tenants: dict[str, dict[str, tuple[str, ...]]] = {}
    limits: dict[str, int | float] = {}

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
