"""One worker's batch in a process of its own: given DATABASE URL FOLDER COUNT it says that it is ready, reads a line,
and prints what it got."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from tests.enrichment.ground import lead, settings_of, standing


class Elsewhere:
    def __init__(self, url: str) -> None:
        self.url = url


async def main(database: str, url: str, folder: str, count: str) -> None:
    async with standing(database, Elsewhere(url), Path(folder)) as ground:
        ground.use(settings_of(url))
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        rows = await ground.enrich([lead(n) for n in range(int(count))], "census", "maps")
        print(json.dumps({"rows": rows, "callouts": ground.broker.usage.callouts}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
