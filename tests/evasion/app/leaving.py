"""Traces for whoever runs next."""

from __future__ import annotations

import asyncio
import builtins
import datetime
import json
import os
import sys
import tempfile
from typing import Any

from app.behaved import KEPT
from app.tricks import trick


@trick
def goes_elsewhere(context: Any) -> None:
    os.chdir("/usr")


@trick
def opens_its_mask(context: Any) -> None:
    os.umask(0)


@trick
def patches_the_library(context: Any) -> None:
    json.dumps = json.loads = lambda *_, **__: "patched"  # type: ignore[assignment]
    datetime.datetime = type("datetime", (), {"now": lambda: datetime.date(1, 1, 1)})  # type: ignore[assignment,misc]
    asyncio.sleep = lambda *_: None  # type: ignore[assignment]
    builtins.len = lambda *_: 0  # type: ignore[assignment]


@trick
def keeps_a_secret_in_a_global(context: Any) -> None:
    KEPT["secret"] = context.tenant
    os.environ["EVASION"] = context.tenant
    sys.modules["of_another_tenant"] = sys
    sys.path.insert(0, tempfile.gettempdir())


@trick
def closes_the_standard_streams(context: Any) -> None:
    sys.stdout = sys.stderr = None  # type: ignore[assignment]
    os.close(1)
