"""Runs one call in a child; once more, alone, where it ended only because it shared its process with others."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from circuit_script.effects.unit import UnitOfWork
from circuit_script.endpoints.reply import Reply
from circuit_script.endpoints.run import SHORTEST, Children, Run, work_of
from circuit_script.events.taping import Tape
from circuit_script.execution.broker.broker import BrokerParts, ExecutionBroker
from circuit_script.execution.broker.outside import Journal
from circuit_script.execution.outcome import Failed, Outcome, Work
from circuit_script.execution.protocol import Head
from circuit_script.tasks import end

LATE = 1.0  # seconds after its deadline that a verdict may take, before it is taken for lost
DIRECT = frozenset({"connect", "request"})  # for what a handler does by itself: nobody can repeat its answer


class EndpointBroker(ExecutionBroker):
    """A broker that also hears the answer."""

    def __init__(self, work: Work, reply: Reply, parts: BrokerParts, *, tape: Tape | None = None, **more: Any) -> None:
        super().__init__(work, parts, tape=tape, **more)
        self._reply = reply
        self._tape = tape
        self.went_out = False

    async def request(self, verb: str, arguments: dict[str, Any]) -> Any:
        self.went_out |= verb in DIRECT
        return await super().request(verb, arguments)

    def on_head(self, head: Head) -> None:
        self._reply.on_head(head)
        if self._tape is not None:
            self._tape.on_head(head.status, head.headers)

    def on_chunk(self, body: bytes) -> None:
        self._reply.on_chunk(body)
        if self._tape is not None:
            self._tape.on_chunk(body)


class _NoJournal:
    """A call is not repeated by us, so nothing is remembered for its repetition."""

    def find(self, owner: int | None, key: bytes) -> bytes | None:
        return None

    async def keep(self, owner: int | None, key: bytes, reply: bytes) -> None:
        return None


class _Remembered:
    """Replies of one call's callouts, for a second run of it: nothing is paid twice."""

    def __init__(self) -> None:
        self._replies: dict[tuple[int | None, bytes], bytes] = {}

    def find(self, owner: int | None, key: bytes) -> bytes | None:
        return self._replies.get((owner, key))

    async def keep(self, owner: int | None, key: bytes, reply: bytes) -> None:
        self._replies[owner, key] = reply


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of it. ``outcome`` is None when it was stopped, or nothing was heard of it in time."""

    work: Work
    unit: UnitOfWork
    broker: EndpointBroker
    outcome: Outcome | None


async def attempt(run: Run, parts: BrokerParts, reply: Reply) -> Attempt:
    """Run it. It runs again only if nothing of its answer has left, and nothing went outside by a direct call."""
    journal: Journal = _NoJournal() if run.spec.concurrency == 1 else _Remembered()
    first = await _once(run, parts, reply, journal, alone=False)
    disturbed = isinstance(first.outcome, Failed) and first.outcome.disturbed
    if not disturbed or reply.streamed or first.broker.went_out or run.caller.gone or run.left < SHORTEST:
        return first
    reply.begin_again()
    return await _once(run, parts, reply, journal, alone=True)


async def _once(run: Run, parts: BrokerParts, reply: Reply, journal: Journal, *, alone: bool) -> Attempt:
    unit, work, started = UnitOfWork("", ()), work_of(run, alone=alone), time.monotonic()
    tape = run.tape
    if tape is not None:
        tape.start(work)
    broker = EndpointBroker(
        work,
        reply,
        parts,
        held=unit,
        journal=journal if tape is None else tape.journal(journal),
        log=lambda line: run.serving.log_line(work.execution, work.handler, work.tenant, {**line, "trace": run.trace}),
        remaining=lambda: started + work.limits.wall_time - time.monotonic(),
        recorder=run.recorder,
        tape=tape,
    )
    try:
        outcome = await _outcome(run.serving.children, work, broker, reply)
    finally:
        broker.close()
    return Attempt(work, unit, broker, outcome)


async def _outcome(children: Children, work: Work, broker: EndpointBroker, reply: Reply) -> Outcome | None:
    """Run it in a child. None: it was stopped, or nothing was heard of it in time."""
    task = asyncio.create_task(children.run(work, broker, express=True))
    reply.stop = task.cancel
    try:
        await asyncio.wait({task}, timeout=work.limits.wall_time + LATE)
    finally:
        if not task.done():
            await end([task])
        reply.stop = _stopped  # the task may hold whoever holds the reply
    return None if task.cancelled() else task.result()


def _stopped() -> None:
    """Nothing runs any more."""
