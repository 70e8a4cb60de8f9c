"""A prefix of a bucket, of Amazon or of anybody who speaks S3. Credentials come from the environment, as everywhere."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from circuit_script.errors import BackupRefused

try:
    import boto3
    from boto3.exceptions import Boto3Error
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError:
    raise BackupRefused("Buckets need a library.", cure="pip install 'circuit-script[s3]'") from None

T = TypeVar("T")
_CURES = {
    "NoSuchBucket": "Make the bucket, or mend its name.",
    "AccessDenied": "Let these credentials list, read, write and delete under that prefix.",
    "InvalidAccessKeyId": "Check AWS_ACCESS_KEY_ID.",
    "SignatureDoesNotMatch": "Check AWS_SECRET_ACCESS_KEY.",
}


class Bucket:
    """``s3://bucket/prefix``."""

    def __init__(self, bucket: str, prefix: str, endpoint_url: str | None) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        # Only the checksums that every server knows: many that speak S3 refuse the newer ones.
        config = Config(
            retries={"max_attempts": 5, "mode": "standard"},
            connect_timeout=10,
            read_timeout=60,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        self._client: Any = boto3.client("s3", endpoint_url=endpoint_url or None, config=config)

    @classmethod
    def of(cls, address: str, endpoint_url: str | None) -> Bucket:
        """Raises BackupRefused for what is no address of a bucket, or where no region is known."""
        parts = urlsplit(address)
        if not parts.netloc or parts.query or parts.fragment:
            raise BackupRefused(f"{address!r} is no place.", cure="Write s3://bucket/prefix.")
        try:
            return cls(parts.netloc, parts.path.strip("/"), endpoint_url)
        except (BotoCoreError, ValueError) as error:
            raise BackupRefused(f"{error}", cure="Set AWS_DEFAULT_REGION, or mend endpoint_url.") from None

    async def put(self, file: Path, name: str) -> str:
        key = self._prefix + name
        there = await self._ask(lambda: self._put(file, key))
        if there != (size := file.stat().st_size):
            with contextlib.suppress(BackupRefused):  # else it would count as one of the copies that are kept
                await self.remove(name)
            raise BackupRefused(
                f"s3://{self._bucket}/{key} has {there:,} bytes there, and {size:,} were sent.",
                cure="Nothing older was deleted. Try again, or keep copies elsewhere.",
            )
        return f"s3://{self._bucket}/{key}"

    def _put(self, file: Path, key: str) -> int:
        """How many bytes the bucket has of it then: its word that it took them is not enough to delete older copies."""
        self._client.upload_file(str(file), self._bucket, key)
        return int(self._client.head_object(Bucket=self._bucket, Key=key)["ContentLength"])

    async def names(self) -> list[str]:
        return await self._ask(self._names)

    def _names(self) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
        return sorted(key.removeprefix(self._prefix) for key in keys)

    async def fetch(self, name: str, to: Path) -> None:
        await self._ask(lambda: self._client.download_file(self._bucket, self._prefix + name, str(to)))

    async def remove(self, name: str) -> None:
        await self._ask(lambda: self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name))

    async def _ask(self, what: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(what)
        except (ClientError, BotoCoreError, Boto3Error) as error:
            raise BackupRefused(str(error), cure=_cure(error)) from None


def _cure(error: BaseException | None) -> str:
    """By what the server said, which a failed upload has only as its context."""
    while error is not None and not isinstance(error, ClientError):
        error = error.__context__
    code = "" if error is None else str(error.response.get("Error", {}).get("Code", ""))
    otherwise = "Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, and that the address can be reached from here."
    return _CURES.get(code, otherwise)
