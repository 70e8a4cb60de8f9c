"""A server that stands in for Amazon's, for the time of a block."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.acceptance.platform import free_port
from tests.servers import until

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def standing_in(service: str, ready: Callable[[Any], object]) -> Iterator[str]:
    """Its address. The environment has credentials that it takes; ``ready`` asks a client of the service for something
    until it is given."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **CREDENTIALS},
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        url = f"http://127.0.0.1:{port}"
        client: Any = boto3.client(service, endpoint_url=url)  # type: ignore[call-overload]

        def answers() -> bool:
            try:
                ready(client)
            except (BotoCoreError, ClientError):
                return False
            return True

        try:
            until(answers, "the stand-in of AWS answers", 60)
            yield url
        finally:
            client.close()
            server.terminate()
            server.wait(30)
