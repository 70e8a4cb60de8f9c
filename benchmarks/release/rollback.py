"""``circuit-script rollback`` under 500 events a second: from its start to the last event that the old code took.

python -m benchmarks.release --only rollback
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from benchmarks.release.ground import RATE, became, standing
from tests.acceptance.command import run
from tests.acceptance.vendor import Load

SECONDS, ROLLBACKS = 60.0, 12
QUICK = 10.0, 2
LAST = "SELECT max(started_at) FROM circuit.executions WHERE release = %s AND started_at > %s"
LIVE = "SELECT release FROM circuit.live"


def measure(quick: bool) -> Mapping[str, Any]:
    """The median of many, in ms; beside it the worst, and the same where nothing is to do."""
    seconds, rollbacks = QUICK if quick else (SECONDS, ROLLBACKS)
    with standing() as ground:
        team, door = ground.team, ground.door
        first, second = team.put("v1"), team.put("v2")
        team.warm(first)
        team.move(first, "deploy")
        team.warm(second)
        team.move(second, "deploy")
        found, idle = [], [_rolled_back(ground.team.folder, door)[1] for _ in range(3)]
        with Load(door.port, ground.streams(seconds), rate=RATE) as load:
            for turn in range(rollbacks):
                load.wait_for((turn + 1) / (rollbacks + 1), 300)
                old, asked, until_live = _timed(ground.team.folder, door)
                found.append((old, asked, until_live))
            load.wait_for(1.0, 300)
        door.wait_settled(300)
        last = []
        for place, (old, asked, _) in enumerate(found):
            # Two rollbacks lead back to the same release: what counts is what it began before the next one.
            end = found[place + 1][1] if place + 1 < len(found) else datetime.now(UTC)
            began = door.value(f"{LAST} AND started_at < %s", old, asked, end)
            last.append(0.0 if began is None else (began - asked).total_seconds() * 1000)
        return {
            "rollback_ms": round(statistics.median(last), 1),
            "worst_ms": round(max(last), 1),
            "rollbacks": len(last),
            "whole_command_ms": round(statistics.median(each for _, _, each in found)),
            "whole_command_without_load_ms": round(statistics.median(idle)),
            **became(ground, load),
        }


def _timed(folder: Any, door: Any) -> tuple[int, datetime, float]:
    """What was live, when the command began, and how many ms it took in all."""
    old, asked, began = door.value(LIVE), datetime.now(UTC), time.monotonic()
    ran = run("rollback", "--folder", str(folder), "--yes", "--json", database=door.url)
    if ran.code:
        raise RuntimeError(ran.err)
    return old, asked, (time.monotonic() - began) * 1000


def _rolled_back(folder: Any, door: Any) -> tuple[datetime, float]:
    _, asked, took = _timed(folder, door)
    return asked, took
