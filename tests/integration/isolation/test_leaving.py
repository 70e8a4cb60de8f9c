"""What a handler changes of its process in the kernel does not meet the next execution of its tenant."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from circuit_script.execution.isolation import root
from circuit_script.execution.nursery import Hosting
from circuit_script.execution.outcome import Failed
from tests.integration.execution.conftest import PoolOf, until
from tests.integration.isolation.conftest import EVALUATES, StrictOf, code_in

pytestmark = pytest.mark.evasion

LIMIT = (
    "import resource as r; hard = r.getrlimit(r.RLIMIT_{0})[1]; "
    "r.setrlimit(r.RLIMIT_{0}, (hard - 1 if hard > 0 else 2**33, hard)); os.getpid()"
)
CHANGES = {
    **{name: LIMIT.format(name) for name in ("AS", "DATA", "STACK", "NPROC", "CPU")},
    "nice": "os.nice(1); os.getpid()",
    "processors": "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); os.getpid()",
    "scheduler": "os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0)); os.getpid()",
    **{
        timer: f"import signal; signal.setitimer(signal.ITIMER_{timer}, 1000); os.getpid()"
        for timer in ("VIRTUAL", "PROF")
    },
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_child_that_was_changed_is_replaced(pool_of: PoolOf, change: str) -> None:
    if change == "processors" and len(os.sched_getaffinity(0)) == 1:
        pytest.skip("there is one processor")
    bench = await pool_of(EVALUATES, size=1)
    usual = [await code_in(bench, "os.getpid()") for _ in range(2)]
    assert usual[0] == usual[1]
    assert await code_in(bench, CHANGES[change]) == usual[0]
    assert await code_in(bench, "os.getpid()") != usual[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="looks into the private root")
@pytest.mark.parametrize("start", ["fork", "spawn"])
async def test_a_slot_is_empty_however_deep_its_child_has_dug(strict_of: StrictOf, start: str) -> None:
    bench = await strict_of(
        """
@trigger("Contact", ["afterInsert"])
def digs(context):
    inner = os.open(os.environ["TMPDIR"], os.O_RDONLY)
    for _ in range(1000):
        os.mkdir("d" * 200, dir_fd=inner)
        outer, inner = inner, os.open("d" * 200, os.O_RDONLY, dir_fd=inner)
        os.close(outer)
    os._exit(1)
""",
        hosting=Hosting("strict", start),  # type: ignore[arg-type]
    )
    zygote = bench.pool.zygote_pid
    slots = Path(f"/proc/{zygote}/root{root.SLOTS}")
    assert isinstance(await bench.run("digs"), Failed)
    await until(lambda: not any(os.listdir(own) for slot in slots.iterdir() for own in slot.iterdir()))
    assert await code_in(bench, "1") == "1"
    assert bench.pool.zygote_pid == zygote
