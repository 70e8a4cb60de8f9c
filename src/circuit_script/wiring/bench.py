"""The governed processes of one app, for whoever runs its handlers by hand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from circuit_script.config import Settings
from circuit_script.execution.host.pool import Manifest
from circuit_script.execution.host.pool import Pool as Children
from circuit_script.releases import content_hash
from circuit_script.wiring.children import make_children


@dataclass(frozen=True, slots=True)
class Bench:
    """An app, imported once. Several trials may use it, one after the other; ``digest`` is that of its files."""

    children: Children
    manifest: Manifest
    digest: str


@contextlib.asynccontextmanager
async def open_bench(
    settings: Settings, folder: Path | None = None, *, probes: int = -1, python: str = ""
) -> AsyncIterator[Bench]:
    """Import the app in ``folder`` (that of the settings, where none is given); ``probes`` is the descriptor of what
    counts its lines, ``python`` the interpreter of its own packages. Raises AppError with file and line when that
    fails."""
    children = make_children(settings, folder, probes=probes, python=python)
    digest = await asyncio.to_thread(content_hash, folder or settings.folder)
    try:
        yield Bench(children, await children.start(), digest)
    finally:
        await children.stop()
