"""``python -m benchmarks.release``: measure, print the table, write results/release.json.

What is measured alone (``--only moves``) replaces its own figures there; with ``--quick`` nothing is written.
"""

from __future__ import annotations

import asyncio
import sys

from benchmarks.figures import Figure, said
from benchmarks.release import bad, deploying, mirrored, moves, rollback, shadowed
from benchmarks.runner import Apart, main_apart


async def of_moves(quick: bool) -> list[Figure]:
    found = await asyncio.to_thread(moves.measure, quick)
    note = said(found, "lost")
    return [
        Figure("lost", found["lost"], "events", "= 0", note),
        Figure("doubled", found["doubled"], "effects", "= 0"),
        Figure("wrong_release", found["wrong_release"], "executions", "= 0"),
    ]


async def of_rollback(quick: bool) -> list[Figure]:
    found = await asyncio.to_thread(rollback.measure, quick)
    return [Figure("rollback_ms", found["rollback_ms"], "ms", "< 1000", said(found, "rollback_ms"))]


async def of_deploy(quick: bool) -> list[Figure]:
    found = await asyncio.to_thread(deploying.measure, quick)
    return [Figure("deploy_s", found["deploy_s"], "s", "< 60", said(found, "deploy_s"))]


async def of_bad(quick: bool) -> list[Figure]:
    found = await asyncio.to_thread(bad.measure, quick)
    tried = found["bad_releases_tried"]
    stopped = Figure("bad_releases_stopped", found["bad_releases_stopped"], "releases", f"= {tried}", found["missed"])
    return [Figure("bad_releases_tried", tried, "releases", ">= 20", found["said"]), stopped]


async def of_shadow(quick: bool) -> list[Figure]:
    found = await asyncio.to_thread(shadowed.measure, quick)
    return [
        Figure("shadow_lost", found["lost"], "events", "= 0", said(found, "lost")),
        Figure("shadow_delivered", found["delivered"], "effects of the candidate", "= 0"),
        Figure("shadow_found_pct", found["found_pct"], "% of planted differences", "= 100"),
    ]


async def of_mirror(quick: bool) -> list[Figure]:
    found = await asyncio.to_thread(mirrored.measure, quick)
    return [Figure("mirror_parity_pct", found["mirror_parity_pct"], "%", "= 100", said(found, "mirror_parity_pct"))]


GROUPS: dict[str, Apart] = {
    "moves": of_moves,
    "rollback": of_rollback,
    "deploy": of_deploy,
    "bad": of_bad,
    "shadow": of_shadow,
    "mirror": of_mirror,
}


if __name__ == "__main__":
    sys.exit(main_apart("release", "Releases", GROUPS))
