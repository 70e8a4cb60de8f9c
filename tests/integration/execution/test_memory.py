"""What an execution leaves in its child's memory."""

from __future__ import annotations

from circuit_script.execution.outcome import Succeeded
from tests.integration.execution.conftest import PoolOf, Recorder

APP = """
import gc

gc.disable()

def batches():
    return sum(type(each).__name__ == "Records" for each in gc.get_objects())

@trigger("Contact", ["afterInsert"])
async def waits(context):
    await asyncio.sleep(0)
    log.info(f"{batches()}")

@trigger("Contact", ["afterInsert"])
def plain(context):
    log.info(f"{batches()}")
"""


async def test_a_batch_is_freed_when_its_execution_ends_without_the_garbage_collector(pool_of: PoolOf) -> None:
    bench = await pool_of(APP)
    for handler in ("waits", "plain"):
        broker = Recorder()
        for _ in range(3):
            assert isinstance(await bench.run(handler, broker=broker), Succeeded)

        assert broker.messages == ["1", "1", "1"]
