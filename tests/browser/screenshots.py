"""Pictures of every page, in both themes and as on a telephone: ``python -m tests.browser.screenshots [FOLDER]``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser

from benchmarks.processes import ROOT
from tests.browser.gallery import open_gallery
from tests.browser.studio import TELEPHONE, Studio, open_browser, settle, signed_in

LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "telephone": {"color_scheme": "light", "viewport": TELEPHONE, "is_mobile": True, "has_touch": True},
}
SHOWN = ROOT / ".bench" / "screenshots"
PARTIAL = "SELECT id FROM circuit.executions WHERE status = 'partial' AND tenant = 'acme' ORDER BY id DESC LIMIT 1"
FAILED = "SELECT execution FROM circuit.outcomes WHERE status = 'dead' AND tenant = 'acme' ORDER BY at DESC LIMIT 1"

LEAD = "SELECT max(contact) FROM circuit.records WHERE object = 'LeadScore' AND tenant = 'acme'"
LETTER = "SELECT max(id) FROM circuit.dead_letters WHERE tenant = 'acme'"


def main(folder: Path) -> None:
    """A platform with something on it, and its pages."""
    folder.mkdir(parents=True, exist_ok=True)
    with open_gallery() as studio, open_browser() as browser:
        for name, look in LOOKS.items():
            take(browser, studio, folder, name, look)


def take(browser: Browser, studio: Studio, folder: Path, name: str, look: dict[str, Any]) -> None:
    """One picture of each page."""
    page = signed_in(browser, studio, "ann@example.com", **look)
    for title, path in places(studio).items():
        page.goto(f"{path}?tenant=acme")
        settle(page)
        page.screenshot(path=folder / f"{title}-{name}.png")
        print(folder / f"{title}-{name}.png")
    page.context.close()


def places(studio: Studio) -> dict[str, str]:
    """Every page, by a name for its picture."""
    found = {
        "overview": "/",
        "execution": f"/executions/{(studio.platform.rows(PARTIAL) or studio.platform.rows(FAILED))[0][0]}",
        "record": "/records/Contact/4711",
        "lead": f"/leads/{studio.platform.value(LEAD)}",
        "dead-letter": f"/dead-letters/{studio.platform.value(LETTER)}",
        "tenant": "/tenants/usage",
    }
    names = (
        "executions",
        "records",
        "logs",
        "alerts",
        "dead-letters",
        "in-doubt",
        "judgment",
        "leads",
        "tenants",
        "vendors",
        "limits",
        "shadow",
    )
    return {**found, **{each: f"/{each}" for each in (*names, "people")}}


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else SHOWN)
