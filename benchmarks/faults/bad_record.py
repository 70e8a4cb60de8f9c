"""One bad record in a batch of 200: how many executions until the 199 others have succeeded and it is dead."""

from __future__ import annotations

from benchmarks import app, contestants, postgres
from benchmarks.bench import Bench
from benchmarks.faults.taking_in import contact, take_in
from benchmarks.figures import Figure
from benchmarks.processes import free_port, until

KNOWN = """
from circuit_script import CircuitDB, trigger


@trigger("Contact", ["afterInsert"], batch_size=200)
async def handle(context):
    for contact in context.new_records:
        if contact.get("bad"):
            raise ValueError("a bad record")
    await CircuitDB.update("Contact", [{"id": contact["id"], "seen": True} for contact in context.new_records])
"""
# It looks at them all before it fails, so that nobody can tell which one it was.
UNKNOWN = KNOWN.replace(
    """        if contact.get("bad"):
            raise ValueError("a bad record")
""",
    """        pass
    if any(contact.get("bad") for contact in list(context.new_records)):
        raise ValueError("a bad record")
""",
)
ENDED = "SELECT count(*) FILTER (WHERE status = 'succeeded'), count(*) FROM circuit.outcomes"
EXECUTIONS = "SELECT count(*), max(records) FROM circuit.executions"


async def measure(bench: Bench) -> list[Figure]:
    bench.says("a bad record in a batch of 200")
    known, unknown = await _executions(bench, KNOWN), await _executions(bench, UNKNOWN)
    note = f"its handler was at it when it failed; where nobody can tell which record it was: {unknown}"
    return [Figure("bad_record_executions_200", known, "executions", "< 20", note)]


async def _executions(bench: Bench, triggers: str) -> int:
    folder, database, port = bench.place("ours"), await bench.database(), free_port()
    key = bench.vendor.public_key
    app.scaffold(folder, triggers=triggers, port=port, public_key=key)
    config = folder / "circuit.toml"
    config.write_text(config.read_text().replace("children = 2", "children = 2\nattempts = 1"))
    async with contestants.ours(folder, database, key, triggers=triggers, port=port):
        rows = [contact("default", f"c{number}", bad=number == 77) for number in range(200)]
        await take_in(database, rows)

        async def over() -> bool:
            ended = await postgres.fetch(database, ENDED)
            return tuple(ended[0]) == (199, 200)

        await until(over, seconds=60, what="the end of every record")
        ((count, most),) = await postgres.fetch(database, EXECUTIONS)
    if most != 200:
        raise RuntimeError(f"the batch had {most} records")
    return int(count)
