"""Secrets in AWS Secrets Manager. Credentials come from the environment, or from the machine's role, as everywhere.

Needs secretsmanager:GetSecretValue, and for the command line ListSecrets, CreateSecret, UpdateSecret, RestoreSecret and
DeleteSecret. What is deleted can be brought back there for seven days.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from circuit_script.errors import SecretsUnavailable
from circuit_script.secrets.places import Kept
from circuit_script.settings_secrets import AwsSettings

try:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError:
    raise SecretsUnavailable("AWS Secrets Manager needs a library.", cure="pip install 'circuit-script[aws]'") from None

T = TypeVar("T")
RECOVERY = 7  # days, the least that AWS offers
_MISSING = "ResourceNotFoundException"
_DELETED = "InvalidRequestException"  # is what AWS answers of a secret that waits to be deleted
_CURES = {
    "AccessDeniedException": "Let these credentials use secretsmanager: the module's documentation lists what.",
    "UnrecognizedClientException": "Check AWS_ACCESS_KEY_ID.",
    "InvalidSignatureException": "Check AWS_SECRET_ACCESS_KEY, and the clock of this machine.",
    "ExpiredTokenException": "Renew the credentials.",
}


class Aws:
    """One prefix of an account and region."""

    name = "AWS Secrets Manager"

    def __init__(self, settings: AwsSettings) -> None:
        """Raises SecretsUnavailable where no region is known."""
        self._prefix = settings.prefix
        config = Config(retries={"max_attempts": 3, "mode": "standard"}, connect_timeout=5, read_timeout=10)
        try:
            self._client: Any = boto3.client(
                "secretsmanager",
                region_name=settings.region or None,
                endpoint_url=settings.endpoint_url or None,
                config=config,
            )
        except (BotoCoreError, ValueError) as error:
            raise SecretsUnavailable(f"{error}", cure="Set [secrets.aws] region, or AWS_DEFAULT_REGION.") from None

    async def read(self, tenant: str, name: str) -> str | None:
        def got() -> str | None:
            answer = self._client.get_secret_value(SecretId=self._id(tenant, name))
            value: str | None = answer.get("SecretString")
            return value

        return await _ask(got, missing=None)

    async def write(self, tenant: str, name: str, value: str, by: str) -> None:
        id_ = self._id(tenant, name)
        said = {"SecretString": value, "Description": f"Put in with circuit-script by {by}"[:2048]}

        def put() -> None:
            try:
                self._client.update_secret(SecretId=id_, **said)
            except ClientError as error:
                match _code(error):
                    case "ResourceNotFoundException":
                        self._client.create_secret(Name=id_, **said)
                    case "InvalidRequestException":
                        self._client.restore_secret(SecretId=id_)
                        self._client.update_secret(SecretId=id_, **said)
                    case _:
                        raise

        await _ask(put)

    async def delete(self, tenant: str, name: str) -> bool:
        def gone() -> bool:
            self._client.delete_secret(SecretId=self._id(tenant, name), RecoveryWindowInDays=RECOVERY)
            return True

        return await _ask(gone, missing=False)

    async def all(self) -> list[Kept]:
        def listed() -> list[Kept]:
            pages = self._client.get_paginator("list_secrets").paginate(
                Filters=[{"Key": "name", "Values": [self._prefix]}] if self._prefix else []
            )
            return [self._kept(each) for page in pages for each in page.get("SecretList", ())]

        return sorted(await _ask(listed), key=lambda kept: (kept.tenant, kept.name))

    async def aclose(self) -> None:
        self._client.close()

    def _id(self, tenant: str, name: str) -> str:
        return f"{self._prefix}{tenant}/{name}" if tenant else f"{self._prefix}{name}"

    def _kept(self, said: dict[str, Any]) -> Kept:
        tenant, _, name = str(said["Name"]).removeprefix(self._prefix).rpartition("/")
        current = [key for key, stages in (said.get("SecretVersionsToStages") or {}).items() if "AWSCURRENT" in stages]
        return Kept(
            tenant, name, current[0][:8] if current else None, said.get("LastChangedDate") or said.get("CreatedDate"),
            None
        )  # fmt: skip


async def _ask(what: Callable[[], T], **missing: T) -> T:
    """In a thread. With ``missing`` that is the answer of a secret that is not there, or waits to be deleted."""
    try:
        return await asyncio.to_thread(what)
    except (ClientError, BotoCoreError) as error:
        code = _code(error)
        if "missing" in missing and code in (_MISSING, _DELETED):
            return missing["missing"]
        otherwise = "Check the credentials in AWS_ACCESS_KEY_ID, and that the address can be reached from here."
        raise SecretsUnavailable(f"AWS: {error}", cure=_CURES.get(code, otherwise)) from None


def _code(error: ClientError | BotoCoreError) -> str:
    answer = getattr(error, "response", None)
    return str(answer.get("Error", {}).get("Code", "")) if isinstance(answer, dict) else ""
