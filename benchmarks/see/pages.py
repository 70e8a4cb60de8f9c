"""How long a page of the dashboard takes in a browser, with a million executions behind it: until all that it shows
stands, and until somebody can act on it, where there is anything to press or something that goes on by itself.

python -m benchmarks.see.pages [ROWS]
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page, async_playwright

from benchmarks.processes import ROOT
from benchmarks.see.pages_ground import ground
from circuit_script import access
from circuit_script.db.pool import Connection, open_connection

FULL = 1_000_000
CACHE = ROOT / ".bench" / "pages"
ROUNDS = 8
PASSWORD = "a horse that counts its staples"
CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
PAGES = (
    "/", "/executions", "/executions?status=trouble", "/executions?handler=Leads.handler9", "/executions?q={record}",
    "/executions/{execution}", "/records", "/records?q={record}", "/records/Contact/{record}", "/logs",
    "/logs?q=level:error", "/logs?q=record:{record}", "/alerts", "/dead-letters", "/in-doubt", "/leads", "/tenants",
    "/vendors", "/limits", "/people",
)  # fmt: skip
PAINTED = "performance.getEntriesByName('first-contentful-paint')"
READY = (
    f"document.readyState === 'complete' && {PAINTED}.length > 0 "
    "&& (!document.getElementById('app') || window.did_handshake === true)"
)
# Since the click: painted, and all of the page there.
STOOD = f"Math.max({PAINTED}[0].startTime, performance.getEntriesByType('navigation')[0].domInteractive)"
SERVE = """
import asyncio, sys
from pathlib import Path
from circuit_script.config import load_settings
from circuit_script.dashboard.serve import run_dashboard
settings = load_settings(Path(sys.argv[1]), dashboard={"port": 0}, tenants={"acme": {}, "bolt": {}})
asyncio.run(run_dashboard(settings, sys.argv[2], on_ready=lambda address: print(address, flush=True)))
"""


async def measure(rows: int = FULL, kept: Path = CACHE) -> dict[str, Any]:
    """The 95th percentile over all pages, in milliseconds: from the click until the page stands."""
    async with ground(rows, kept) as url, _dashboard(url) as address, async_playwright() as playwright:
        async with await open_connection(url) as connection:
            places = await _places(connection)
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        try:
            took = await _looked(browser, address, places)
        finally:
            await browser.close()
    stands = sorted(stood for visits in took.values() for stood, _ in visits)
    acted = sorted(ready for visits in took.values() for _, ready in visits)
    return {
        "page_p95_ms": round(stands[int(len(stands) * 0.95)], 1),
        "page_p50_ms": round(stands[len(stands) // 2], 1),
        "page_ready_p95_ms": round(acted[int(len(acted) * 0.95)], 1),
        "page_executions": rows,
        "page_slowest": {path: round(max(ready for _, ready in visits)) for path, visits in took.items()},
    }


async def _places(connection: Connection) -> list[str]:
    await connection.execute("DELETE FROM circuit.people WHERE name = 'bench'")
    await access.add_person(connection, "bench", "bench", password=PASSWORD)
    await access.grant(connection, "bench", access.ALL, access.Role.owner, "bench")
    row = await (
        await connection.execute(
            "SELECT o.execution, e.record FROM circuit.outcomes o JOIN circuit.events e USING (delivery, ordinal) "
            "WHERE o.tenant = 'acme' AND o.status = 'dead' ORDER BY o.delivery DESC LIMIT 1"
        )
    ).fetchone()
    assert row is not None
    return [path.format(execution=row[0], record=row[1]) for path in PAGES]


async def _looked(browser: Browser, address: str, places: list[str]) -> dict[str, list[tuple[float, float]]]:
    page = await (await browser.new_context(base_url=address, viewport={"width": 1440, "height": 900})).new_page()
    await page.goto("/sign-in")
    await page.get_by_label("Name").fill("bench")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_selector("#page h1")
    took: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for turn in range(ROUNDS + 1):
        for place in places:
            visit = await _visit(page, place + ("&" if "?" in place else "?") + "tenant=acme")
            if turn:  # the first one fills the browser's cache and the database's
                took[place].append(visit)
    return took


async def _visit(page: Page, place: str) -> tuple[float, float]:
    """Milliseconds until all of it stands, by the browser's own clock, and until it can be acted on, by ours."""
    began = time.perf_counter()
    await page.goto(place, wait_until="commit")
    await page.wait_for_function(READY)
    ready = (time.perf_counter() - began) * 1000
    if not await page.query_selector("#page h1"):
        raise RuntimeError(f"{place} shows nothing: {await page.inner_text('main')}")
    return await page.evaluate(STOOD), ready


@asynccontextmanager
async def _dashboard(url: str) -> AsyncIterator[str]:
    with tempfile.TemporaryDirectory(prefix="cs-pages-") as folder:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SERVE, folder, url, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            yield (await asyncio.wait_for(process.stdout.readline(), 60)).decode().strip()
        finally:
            process.terminate()
            await process.wait()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else FULL)), indent=2))
