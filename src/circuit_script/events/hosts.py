"""The releases that a dispatcher starts executions of: the live one, and recorded ones while replays ask for them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from circuit_script.events.run import Runner
from circuit_script.events.taken import Taken
from circuit_script.execution.host.pool import Pool
from circuit_script.execution.outcome import HandlerSpec


class Handlers(dict[int, HandlerSpec]):
    """Handlers by id; one that the release lacks can be looked up too, so that its rows are buried."""

    def __missing__(self, _: int) -> HandlerSpec:
        return HandlerSpec(name="", routes=())


@dataclass(slots=True, eq=False)
class Host:
    """A release that can run, and what runs of it: ``rows`` so many, ``isolating`` so many batches apart. ``took`` is
    how long a batch of a handler takes, in seconds."""

    pool: Pool
    runner: Runner
    handlers: Handlers
    taken: Taken = field(default_factory=Taken)
    isolating: int = 0
    rows: int = 0
    took: dict[str, float] = field(default_factory=dict)


class Recorded(Protocol):
    """The recorded releases that a worker hosts beside the live one."""

    def find(self, release: int) -> Host | None:
        """Its host, where it is ready; asking keeps it."""

    async def prepare(self, release: int) -> None:
        """Return when more is known: it is ready, or it cannot run and its rows are off the queue, or a while has
        passed in which it got no place. Raises psycopg.Error."""


class NothingRecorded:
    """For a dispatcher of the live release alone."""

    def find(self, release: int) -> Host | None:
        return None

    async def prepare(self, release: int) -> None:
        """Its rows wait for another worker."""
        await asyncio.sleep(1.0)
