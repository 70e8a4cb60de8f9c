"""A whole worker, wired from circuit.toml: leads that come are scored by what the sources say of them."""

from __future__ import annotations

from pathlib import Path

from circuit_script.config import load_settings
from tests.enrichment.sources import Sources
from tests.enrichment.test_execution import APP
from tests.road import Incoming, open_road
from tests.workers import working

CONFIG = """
[callouts]
private = ["127.0.0.1"]

[enrichment.locations]
"*" = [[31.5493, -97.1467]]

[enrichment.census]
url = "{url}/geocoder"
data_url = "{url}/data"
"""


async def test_leads_are_enriched_scored_and_written_by_a_worker(
    app_folder: Path, database: str, sources: Sources
) -> None:
    (app_folder / "app.py").write_text(APP.partition('@trigger("Contact", ["afterInsert"])\nasync def other')[0])
    (app_folder / "circuit.toml").write_text(CONFIG.format(url=sources.url))
    settings = load_settings(app_folder, database_url=database)
    leads = [
        Incoming(f"c{n}", fields={"address1": f"{n} Main St", "city": "Waco", "state": "TX", "postalCode": "76701"})
        for n in range(50)
    ]
    async with open_road(database) as road, working(settings, database):
        await road.take_in(*leads, Incoming("nowhere", fields={"email": "x@example.com"}))
        await road.done()
        assert await road.rows("SELECT DISTINCT status FROM circuit.executions") == ["succeeded"]
        near, nowhere = await road.record("c1"), await road.record("nowhere")
        assert near is not None
        assert nowhere is not None
        assert near["lpr_fit"] > nowhere["lpr_fit"]
        assert len(sources.rows) == 50
        assert sources.heard["acs"] == 1
        (callouts,) = await road.rows("SELECT sum((usage ->> 'callouts')::int)::int FROM circuit.executions")
        assert callouts == sources.calls
        kept = await road.rows("SELECT source, count(*) FROM circuit.enrichments GROUP BY 1 ORDER BY 1")
        assert kept == [("census.acs", 1), ("census.geocode Public_AR_Current Current_Current", 50)]
        spans = "SELECT count(*) FROM circuit.traces t, jsonb_array_elements(t.spans) s WHERE s ->> 1 = 'enrich'"
        await road.until(spans, await road.rows("SELECT count(*) FROM circuit.executions"))
