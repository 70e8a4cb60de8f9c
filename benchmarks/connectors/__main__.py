"""``python -m benchmarks.connectors``: measure, print the table, write results/connectors.json.

What is measured alone (``--only updates``) replaces its own figures there; with ``--quick`` nothing is written.
"""

from __future__ import annotations

import sys

from benchmarks.connectors import cache, conformance, leads, updates
from benchmarks.figures import Figure, said
from benchmarks.runner import Apart, main_apart


async def of_conformance(quick: bool) -> list[Figure]:
    found = await conformance.measure(quick)
    cases, failed = "conformance_cases", "conformance_failed"
    return [
        Figure(cases, found[cases], "cases", "", said({"by_connector": found["by_connector"]}, cases)),
        Figure(failed, found[failed], "cases", "= 0"),
    ]


async def of_updates(quick: bool) -> list[Figure]:
    found = await updates.measure(quick)
    name, limited = "ghl_10k_update_vs_minimum", "provoked_429"
    return [
        Figure(name, found[name], "×", "<= 1.10", said(found, name)),
        Figure(limited, found[limited], "answers", "= 0"),
        Figure("repeated_after_kill", found["repeated"], "updates", "", "at least once, each with the same content"),
    ]


async def of_unscaled(quick: bool) -> list[Figure]:
    found = await updates.measure_unscaled(quick)
    name = "ghl_update_vs_minimum_unscaled"
    return [Figure(name, found[name], "×", "<= 1.10", said(found, name))]


async def of_inserts(quick: bool) -> list[Figure]:
    found = await updates.measure_inserts(quick)
    return [Figure("doubled", found["doubled"], "contacts", "= 0", said(found, "doubled"))]


async def of_leads(_: bool) -> list[Figure]:
    found = await leads.measure()
    name = "calls_per_100_leads"
    return [Figure(name, found[name], "calls", "<= 3", said(found, name))]


async def of_cache(quick: bool) -> list[Figure]:
    hit = await cache.cache_hit_us(20_000 if quick else cache.LOOKS)
    lead = await cache.enriched_lead_us(20 if quick else cache.BATCHES)
    said = f"a whole lead of which all is known {lead:.1f} us"
    return [Figure("cache_hit_us", round(hit, 2), "us", "", said)]


GROUPS: dict[str, Apart] = {
    "conformance": of_conformance,
    "updates": of_updates,
    "unscaled": of_unscaled,
    "inserts": of_inserts,
    "leads": of_leads,
    "cache": of_cache,
}


if __name__ == "__main__":
    sys.exit(main_apart("connectors", "Connectors", GROUPS))
