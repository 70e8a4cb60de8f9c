"""How many tricks are tried to get around limits and isolation, and how many of them fail as they must."""

from __future__ import annotations

import shutil

from benchmarks.bench import Bench
from benchmarks.figures import Figure
from circuit_script.errors import IsolationUnavailable
from tests.evasion.judge import faults, lay_out, open_bench
from tests.evasion.table import TRICKS, Mode

MODES: tuple[Mode, ...] = ("standard", "strict")


async def measure(bench: Bench) -> list[Figure]:
    """Each trick in each mode in which it must fail. A mode that this machine cannot have is left out, and said."""
    tried = stopped = 0
    notes = []
    for mode in MODES:
        folder = bench.place("evasion") / mode
        lay_out(folder)
        try:
            pool = await open_bench(folder, mode)
        except IsolationUnavailable as error:
            notes.append(f"{mode} cannot be had here: {error.detail}")
            continue
        try:
            mine = [trick for trick in TRICKS if mode in trick.modes]
            for trick in mine:
                bench.says(f"{trick.name}, {mode}")
                found = await faults(pool, trick)
                stopped += not found
                notes += [f"{trick.name}, {mode}: {fault}" for fault in found]
            tried += len(mine)
        finally:
            await pool.pool.stop()
            shutil.rmtree(folder)
    names = f"{len({trick.name for trick in TRICKS})} tricks in one or two modes"
    return [
        Figure("evasions_tried", tried, "", "", names),
        Figure("evasions_stopped", stopped, "", f"= {tried}", "; ".join(notes)),
    ]
