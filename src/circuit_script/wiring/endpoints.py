"""The worker's door for endpoints, and the answerer behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any

from circuit_script.config import Settings
from circuit_script.endpoints.address import socket_path
from circuit_script.endpoints.admission import Admission
from circuit_script.endpoints.answerer import Answerer, AnswererParts
from circuit_script.endpoints.door import Door
from circuit_script.endpoints.protocol import Offer
from circuit_script.endpoints.run import LogLine
from circuit_script.events.run import RunnerParts
from circuit_script.tenants.callers import make_ring
from circuit_script.wiring.live import Live, Releases


def make_door(settings: Settings, releases: Releases, parts: RunnerParts, log_of: Callable[[Live], LogLine]) -> Door:
    """A door that serves what is live, and follows each reload. ``parts`` are those that batches run with."""
    answerer = Answerer(
        AnswererParts(
            database=parts.database,
            settler=parts.settler,
            broker=parts.broker,
            sent=parts.sent,
            places=settings.worker.endpoint_children,
            governor=parts.governor,
            quotas=parts.quotas,
            traces=parts.traces,
            recordings=parts.recordings,
        )
    )
    door = Door(socket_path(settings.folder), Admission(answerer, make_ring(parts.database), answerer.find))

    def switch(live: Live) -> Collection[asyncio.Task[Any]]:
        handlers = live.release.handlers
        running = answerer.switch(live.release.id, handlers, live.children, log_of(live))
        offers = [Offer(each.name, each.endpoint) for each in handlers.values() if each.endpoint is not None]
        door.announce(str(live.release.id), offers, live.manifest.openapi)
        return running

    switch(releases.live)
    releases.on_switch(switch)
    releases.on_hold(answerer.hold)
    return door
