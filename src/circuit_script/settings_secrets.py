"""Where secrets lie. None stands here: tokens of the stores come from the environment."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AwsSettings(_Section):
    """AWS Secrets Manager. A secret's name there is ``prefix``, then the tenant and "/", unless it is everybody's, and
    then its own. ``region`` and credentials come from the environment where nothing is said; ``endpoint_url`` is of a
    server that is not Amazon's."""

    prefix: str = Field(default="circuit-script/", pattern=r"^[A-Za-z0-9/_+=.@-]{0,200}$")
    region: str = ""
    endpoint_url: str = Field(default="", pattern=r"^(https?://.+)?$")


class VaultSettings(_Section):
    """HashiCorp Vault, or OpenBao: the second version of its key-value engine at ``mount``, paths under ``prefix``.

    The token is VAULT_TOKEN, or is got by VAULT_ROLE_ID and VAULT_SECRET_ID at ``approle``. ``url`` is VAULT_ADDR where
    nothing is said, ``namespace`` is VAULT_NAMESPACE.
    """

    url: str = Field(default="", pattern=r"^(https?://.+)?$")
    mount: str = Field(default="secret", pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$")
    prefix: str = Field(default="circuit-script/", pattern=r"^([A-Za-z0-9_-]+/)*$")
    approle: str = Field(default="approle", pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$")
    namespace: str = Field(default="", pattern=r"^[A-Za-z0-9_/-]*$")


class SecretsSettings(_Section):
    """``store`` is where secrets lie that the environment does not have. ``key_file`` holds the key, or keys, that seal
    what lies in the table, where CIRCUIT_SECRETS_KEY does not."""

    store: Literal["table", "aws", "vault"] = "table"
    key_file: str = ""
    aws: AwsSettings = AwsSettings()
    vault: VaultSettings = VaultSettings()
