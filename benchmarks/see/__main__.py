"""``python -m benchmarks.see``: measure, print the table, write results/see.json.

What is measured alone (``--only search``) replaces its own figures there; with ``--quick`` nothing is written.
"""

from __future__ import annotations

import sys

from benchmarks.figures import Figure, said
from benchmarks.processes import ROOT
from benchmarks.runner import Apart, main_apart
from benchmarks.see import alerts, pages, road, roles, search

KEPT = ROOT / ".bench"


async def of_search(quick: bool) -> list[Figure]:
    found = await search.measure(200_000 if quick else search.FULL, KEPT / "log")
    return [
        Figure("log_search_p95_ms", found["log_search_p95_ms"], "ms", "< 300", said(found, "log_search_p95_ms")),
        Figure("log_rows", found["log_rows"], "rows", "" if quick else ">= 10000000"),
    ]


async def of_pages(quick: bool) -> list[Figure]:
    found = await pages.measure(20_000 if quick else pages.FULL, KEPT / "pages")
    return [Figure("page_p95_ms", found["page_p95_ms"], "ms", "< 500", said(found, "page_p95_ms"))]


async def of_road(quick: bool) -> list[Figure]:
    found = await road.measure(quick, KEPT)
    name = "road_cost_of_telemetry_pct"
    return [Figure(name, found[name], "%", "< 10", said(found, name))]


async def of_alerts(_: bool) -> list[Figure]:
    found = await alerts.measure()
    return [Figure("alert_delay_s", found["alert_delay_s"], "s", "< 60", said(found, "alert_delay_s"))]


async def of_roles(_: bool) -> list[Figure]:
    found = await roles.measure()
    return [
        Figure("roles_cases", found["roles_cases"], "cases"),
        Figure("roles_failed", found["roles_failed"], "cases", "= 0"),
    ]


GROUPS: dict[str, Apart] = {
    "search": of_search,
    "pages": of_pages,
    "road": of_road,
    "alerts": of_alerts,
    "roles": of_roles,
}


if __name__ == "__main__":
    sys.exit(main_apart("see", "Seeing", GROUPS))
