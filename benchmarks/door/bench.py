"""What every group of figures is given: sizes, a place for files, the progress bar, and one PostgreSQL for all."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rich.progress import Progress, TaskID

from benchmarks import postgres
from circuit_script.cli.demo.vendor import Vendor

SEED = 20_241
LOCATION = "benchLocation0000001"


@dataclass(slots=True)
class Bench:
    """One run. ``server`` is the URL of the PostgreSQL that all groups share."""

    quick: bool
    folder: Path
    server: str
    progress: Progress
    task: TaskID
    vendor: Vendor = field(default_factory=lambda: Vendor(seed=SEED, location=LOCATION, now=datetime.now(UTC)))
    _databases: int = 0

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    def says(self, what: str) -> None:
        """Show what is being measured now."""
        self.progress.update(self.task, description=what)

    async def database(self) -> str:
        """A fresh database on the shared server."""
        self._databases += 1
        return await postgres.fresh_database(self.server, f"door_{self._databases}")

    def place(self, name: str) -> Path:
        """A new folder."""
        folder = self.folder / name
        folder.mkdir()
        return folder
