"""Releases that go to and fro under 500 events a second for minutes, while workers are killed.

python -m benchmarks.release --only moves
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any

from benchmarks.release.ground import RATE, became, standing
from tests.acceptance.team import stale_of
from tests.acceptance.vendor import Load

SECONDS, TURNS, KILLS = 180.0, 60, 6
QUICK = 15.0, 6, 1


def measure(quick: bool) -> Mapping[str, Any]:
    """Lost, doubled, taken by the wrong release; the last start of a release after it was replaced, in ms. Each deploy
    is one of new files, which workers prepare under the load; each second one is taken back."""
    seconds, turns, kills = QUICK if quick else (SECONDS, TURNS, KILLS)
    with standing() as ground:
        team, door = ground.team, ground.door
        row = before = team.put("v0")
        team.warm(row)
        done, ready = [team.move(row, "deploy")], list[float]()
        killed = set(ground.chance.sample(range(turns), kills))
        streams, began = ground.streams(seconds), time.monotonic()
        with Load(door.port, streams, rate=RATE) as load:
            for turn in range(turns):
                load.wait_for((turn + 1) / (turns + 2), 300)
                victim = ground.kill_a_worker() if turn in killed else None
                if turn % 2:
                    done.append(team.move(before, "rollback"))
                    row = before
                else:
                    before, row = row, team.put(f"v{turn + 1}")
                    ready.append(team.warm(row, 1 if victim else 2))
                    done.append(team.move(row, "deploy"))
                if victim is not None:
                    victim.wait_ready()
            load.wait_for(1.0, 300)
        took = time.monotonic() - began
        door.wait_settled(300)
        stale = sorted(stale_of(team, done[1:]))
        return {
            **became(ground, load),
            "deliveries": len(load.acknowledged),
            "per_second": round(len(load.acknowledged) / took),
            "seconds": round(took),
            "moves": len(done),
            "workers_killed": kills,
            "last_start_of_the_old_ms": {"median": round(stale[len(stale) // 2]), "worst": round(stale[-1])},
            "ready_everywhere_s": {"median": round(statistics.median(ready), 1), "worst": round(max(ready), 1)},
        }
