"""How much longer a quiet tenant's event takes beside a tenant of whose events 20,000 wait."""

from __future__ import annotations

from benchmarks import app, contestants, postgres
from benchmarks.bench import Bench
from benchmarks.faults.taking_in import contact, take_in
from benchmarks.figures import Figure
from benchmarks.load import open_loop, percentile
from benchmarks.processes import until
from benchmarks.road.latency import COMMITS, webhook_id

PER_SECOND = 20.0
TENANTS = {"loud": ["loudLocation00000001"], "quiet": ["quietLocation0000001"]}
WAITING = "SELECT count(*) FROM circuit.queue WHERE tenant = 'loud'"


async def measure(bench: Bench) -> list[Figure]:
    bench.says("a quiet tenant beside a loud one")
    loud, events = bench.size(20_000, 6000), bench.size(80, 20)
    async with contestants.ours(
        bench.place("ours"),
        await bench.database(),
        bench.vendor.public_key,
        triggers=app.SCORING.format(batch=200),
        tenants=TENANTS,
    ) as ours:
        await bench.road(ours, bench.contacts(300, TENANTS["quiet"] * 300))
        alone = await _latencies(bench, ours, events)
        await take_in(ours.database, [contact("loud", f"loud{number}") for number in range(loud)])
        began = int(await postgres.one(ours.database, WAITING))
        beside = await _latencies(bench, ours, events)
        left = int(await postgres.one(ours.database, WAITING))
    delay = percentile(beside, 0.95) - percentile(alone, 0.95)
    note = (
        f"p95 {percentile(beside, 0.95):.0f} ms while {began} to {left} events of another tenant waited, alone "
        f"{percentile(alone, 0.95):.0f} ms; {events} events each, {PER_SECOND:g} a second"
    )
    return [Figure("quiet_tenant_delay_ms", round(delay, 1), "ms", "", note)]


async def _latencies(bench: Bench, ours: contestants.Contestant, events: int) -> list[float]:
    """Milliseconds from when each should have left its vendor to its outcome's commit."""
    requests = bench.contacts(events, TENANTS["quiet"] * events)
    load = await open_loop(ours.port, requests, rate=PER_SECOND)
    ids = [webhook_id(each) for each in requests]
    committed: dict[str, float] = {}

    async def all_done() -> bool:
        committed.update(await postgres.fetch(ours.database, COMMITS))
        return all(each in committed for each in ids)

    await until(all_done, seconds=60, what="every outcome of the quiet tenant", every=0.2)
    return [(float(committed[id_]) - at) * 1000 for id_, at in zip(ids, load.sent_at, strict=True)]
