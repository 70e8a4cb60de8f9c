"""``python -m benchmarks.see``: measure, print the table, write results/see.json.

What is measured alone (``--only search``) replaces its own figures there; with ``--quick`` nothing is written.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console

from benchmarks import figures
from benchmarks.figures import RESULTS, Figure
from benchmarks.processes import ROOT
from benchmarks.see import alerts, pages, road, roles, search

KEPT = ROOT / ".bench"
NAME = "see"


async def of_search(quick: bool) -> list[Figure]:
    found = await search.measure(200_000 if quick else search.FULL, KEPT / "log")
    return [
        Figure("log_search_p95_ms", found["log_search_p95_ms"], "ms", "< 300", _said(found, "log_search_p95_ms")),
        Figure("log_rows", found["log_rows"], "rows", "" if quick else ">= 10000000"),
    ]


async def of_pages(quick: bool) -> list[Figure]:
    found = await pages.measure(20_000 if quick else pages.FULL, KEPT / "pages")
    return [Figure("page_p95_ms", found["page_p95_ms"], "ms", "< 500", _said(found, "page_p95_ms"))]


async def of_road(quick: bool) -> list[Figure]:
    found = await road.measure(quick, KEPT)
    name = "road_cost_of_telemetry_pct"
    return [Figure(name, found[name], "%", "< 10", _said(found, name))]


async def of_alerts(_: bool) -> list[Figure]:
    found = await alerts.measure()
    return [Figure("alert_delay_s", found["alert_delay_s"], "s", "< 60", _said(found, "alert_delay_s"))]


async def of_roles(_: bool) -> list[Figure]:
    found = await roles.measure()
    return [
        Figure("roles_cases", found["roles_cases"], "cases"),
        Figure("roles_failed", found["roles_failed"], "cases", "= 0"),
    ]


GROUPS: dict[str, Callable[[bool], Awaitable[list[Figure]]]] = {
    "search": of_search,
    "pages": of_pages,
    "road": of_road,
    "alerts": of_alerts,
    "roles": of_roles,
}


def _said(found: dict[str, Any], figure: str) -> str:
    """What else was found, in one line."""
    rest = {name: value for name, value in found.items() if name != figure}
    return "; ".join(f"{name} {json.dumps(value)}" for name, value in rest.items())[:1000]


def _merged(found: list[Figure]) -> Path:
    path = RESULTS / f"{NAME}.json"
    before = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    content = before | {figure.name: figure.as_json() for figure in found}
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.see", description="What seeing costs")
    parser.add_argument("--quick", action="store_true", help="smaller samples; writes nothing")
    parser.add_argument("--only", nargs="*", choices=list(GROUPS), help="some groups only")
    options = parser.parse_args()
    console, found, whole = Console(), list[Figure](), True
    for name in options.only or GROUPS:
        began = time.monotonic()
        console.print(f"measuring {name} …")
        try:
            found += uvloop.run(GROUPS[name](options.quick))
        except Exception:  # the other groups are still worth measuring
            whole = False
            console.print(traceback.format_exc(), markup=False)
        console.print(f"  {name}: {time.monotonic() - began:.1f} s")
    console.print(figures.table("Seeing", found))
    if not options.quick and found:
        console.print(f"written to {_merged(found)}")
    missed = [figure.name for figure in found if figure.held is False]
    if missed:
        console.print(f"[red]missed:[/] {', '.join(missed)}")
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
