"""How many requests it takes to know a hundred new leads: Census, distances, a file of people."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks import postgres
from circuit_script.db.migrate import migrate
from tests.enrichment.ground import lead, settings_of, standing
from tests.enrichment.sources import Sources

LEADS = 100
LISTED = "Email,Job Title,Company\n"


async def measure() -> dict[str, Any]:
    """``calls_per_100_leads`` of a first batch; ``calls_again``: of the same leads once more."""
    with tempfile.TemporaryDirectory(prefix="circuit-bench-") as name, Sources() as sources:
        folder = Path(name)
        folder.chmod(0o711)  # PostgreSQL's own user must be able to walk through it
        async with postgres.one_postgres(folder / "pg") as url:
            await migrate(url)
            async with standing(url, sources, folder) as ground:
                people = (f"lead{n}@example.com,Director,Little Stars {n}\n" for n in range(LEADS))
                (folder / "leads.csv").write_text(LISTED + "".join(people))
                ground.use(settings_of(sources.url, linkedin={"csv": "leads.csv"}))
                leads = [lead(n, "TX" if n % 2 else "OK") for n in range(LEADS)]
                rows = await ground.enrich(leads, "census", "maps", "linkedin")
                first = sources.calls
                await ground.enrich(leads, "census", "maps", "linkedin")
    assert all(row["census"] and row["maps"] and row["linkedin"] for row in rows)
    return {"calls_per_100_leads": first, "calls_again": sources.calls - first, "of": dict(sources.heard)}
