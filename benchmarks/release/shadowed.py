"""A candidate with a planted mistake beside what is live, under 500 events a second, while workers are killed.

python -m benchmarks.release --only shadow
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from benchmarks.release.ground import RATE, became, standing
from circuit_script.releases import shadows
from tests.acceptance.vendor import Load
from tests.servers import until

SECONDS, KILLS = 120.0, 3
QUICK = 15.0, 1
STEP = '"step": contact["step"]'
PLANTED = f"{STEP} + (contact['step'] == 2)"
# Each release marks what it writes; that is not the mistake.
IGNORED = '[shadow]\nignore = ["Tally.word", "webhook.hooks.word"]\n'
# Executions by the candidate, and rows that say what it would have said.
DELIVERED = """
SELECT (SELECT count(*) FROM circuit.executions WHERE release = %s)
     + (SELECT count(*) FROM circuit.records WHERE object = 'Tally' AND data ->> 'word' = 'second')
"""
# Records of compared executions with the step that the candidate counts wrongly, and how many were said to differ.
FOUND = """
WITH compared AS (SELECT * FROM circuit.comparisons WHERE shadow = %s AND state NOT IN ('taken', 'incomparable')),
     planted AS (
         SELECT o.execution, count(*) AS n FROM circuit.records t
         JOIN circuit.events e ON e.id = (t.data ->> 'event')::bigint
         JOIN circuit.outcomes o ON o.delivery = e.delivery AND o.ordinal = e.ordinal AND o.status = 'succeeded'
         WHERE t.object = 'Tally' AND t.data ->> 'step' = '2' GROUP BY o.execution)
SELECT count(*), coalesce(sum(c.records), 0)::bigint, coalesce(sum(p.n), 0)::bigint,
       coalesce(sum(c.different), 0)::bigint,
       count(*) FILTER (WHERE c.different <> coalesce(p.n, 0)), round(sum(c.live_ms)), round(sum(c.shadow_ms))
FROM compared c LEFT JOIN planted p USING (execution)
"""
STATES = "SELECT state, count(*) FROM circuit.comparisons WHERE shadow = %s GROUP BY state"
SKIPPED = "SELECT skipped_sample, skipped_rate, skipped_size FROM circuit.shadows WHERE id = %s"
WAITING = """
SELECT count(*) FROM circuit.recordings r WHERE NOT EXISTS (
    SELECT FROM circuit.comparisons c WHERE c.shadow = %s AND c.execution = r.execution AND c.state <> 'taken')
"""


def measure(quick: bool) -> Mapping[str, Any]:
    """Of the live events nothing lost or doubled, of the candidate nothing delivered, of its mistakes all found."""
    seconds, kills = QUICK if quick else (SECONDS, KILLS)
    with standing(more=IGNORED) as ground:
        team, door = ground.team, ground.door
        first = team.put("v1")
        team.warm(first)
        team.move(first, "deploy")
        triggers = team.folder / "app" / "triggers.py"
        triggers.write_text(triggers.read_text().replace(STEP, PLANTED))
        candidate = team.put("second")
        shadow = team.do(lambda connection: shadows.open_shadow(connection, candidate, by="anna"))
        began = time.monotonic()
        with Load(door.port, ground.streams(seconds), rate=RATE) as load:
            for turn in range(kills):
                load.wait_for((turn + 1) / (kills + 1), 300)
                ground.kill_a_worker().wait_ready()
            load.wait_for(1.0, 300)
        took = time.monotonic() - began
        door.wait_settled(300)
        until(lambda: door.value(WAITING, shadow.id) == 0, "all recordings are compared", 600)
        executions, records, planted, different, wrong, live_ms, shadow_ms = door.rows(FOUND, shadow.id)[0]
        return {
            **became(ground, load),
            "delivered": door.value(DELIVERED, candidate.id),
            "found_pct": round(100 * different / planted, 3) if planted and not wrong else 0.0,
            "deliveries": len(load.acknowledged),
            "per_second": round(len(load.acknowledged) / took),
            "workers_killed": kills,
            "compared": {"executions": executions, "records": records, "planted": planted},
            "states": dict(door.rows(STATES, shadow.id)),
            "not_recorded": dict(zip(("sample", "rate", "size"), door.rows(SKIPPED, shadow.id)[0], strict=True)),
            "handlers_ms": {"live": live_ms, "shadow": shadow_ms},
        }
