"""``python -m benchmarks.connectors``: measure, print the table, write results/connectors.json.

What is measured alone (``--only updates``) replaces its own figures there; with ``--quick`` nothing is written.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console

from benchmarks import figures
from benchmarks.connectors import cache, conformance, leads, updates
from benchmarks.figures import RESULTS, Figure

NAME = "connectors"


async def of_conformance(quick: bool) -> list[Figure]:
    found = await conformance.measure(quick)
    cases, failed = "conformance_cases", "conformance_failed"
    return [
        Figure(cases, found[cases], "cases", "", _said({"by_connector": found["by_connector"]}, cases)),
        Figure(failed, found[failed], "cases", "= 0"),
    ]


async def of_updates(quick: bool) -> list[Figure]:
    found = await updates.measure(quick)
    name, limited = "ghl_10k_update_vs_minimum", "provoked_429"
    return [
        Figure(name, found[name], "×", "< 1.1001", _said(found, name)),  # 1.10 at most
        Figure(limited, found[limited], "answers", "= 0"),
        Figure("repeated_after_kill", found["repeated"], "updates", "", "at least once, each with the same content"),
    ]


async def of_unscaled(quick: bool) -> list[Figure]:
    found = await updates.measure_unscaled(quick)
    name = "ghl_update_vs_minimum_unscaled"
    return [Figure(name, found[name], "×", "< 1.1001", _said(found, name))]


async def of_inserts(quick: bool) -> list[Figure]:
    found = await updates.measure_inserts(quick)
    return [Figure("doubled", found["doubled"], "contacts", "= 0", _said(found, "doubled"))]


async def of_leads(_: bool) -> list[Figure]:
    found = await leads.measure()
    name = "calls_per_100_leads"
    return [Figure(name, found[name], "calls", "< 3.01", _said(found, name))]  # three at most


async def of_cache(quick: bool) -> list[Figure]:
    hit = await cache.cache_hit_us(20_000 if quick else cache.LOOKS)
    lead = await cache.enriched_lead_us(20 if quick else cache.BATCHES)
    said = f"a whole lead of which all is known {lead:.1f} us"
    return [Figure("cache_hit_us", round(hit, 2), "us", "", said)]


GROUPS: dict[str, Callable[[bool], Coroutine[Any, Any, list[Figure]]]] = {
    "conformance": of_conformance,
    "updates": of_updates,
    "unscaled": of_unscaled,
    "inserts": of_inserts,
    "leads": of_leads,
    "cache": of_cache,
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
    parser = argparse.ArgumentParser(prog="python -m benchmarks.connectors", description="What connectors cost")
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
    console.print(figures.table("Connectors", found))
    if not options.quick and found:
        console.print(f"written to {_merged(found)}")
    missed = [figure.name for figure in found if figure.held is False]
    if missed:
        console.print(f"[red]missed:[/] {', '.join(missed)}")
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
