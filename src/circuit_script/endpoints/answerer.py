"""Answers one request: a place, an execution, a commit, and only then the answer."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote
from uuid import UUID

import msgspec
import psycopg
import structlog

from circuit_script import problems
from circuit_script.db.pool import Pool
from circuit_script.effects.settle import Settler, is_transient
from circuit_script.effects.unit import UnitOfWork
from circuit_script.endpoints.attempt import attempt
from circuit_script.endpoints.conclude import Conclusion, changed_since, conclude, refused_by_database
from circuit_script.endpoints.idempotency import WITHOUT_EFFECT, Keys, Mismatch, Running, Stored, Taken, is_key
from circuit_script.endpoints.line import Line, LineFull, Shared
from circuit_script.endpoints.protocol import Answer, Call, Offer
from circuit_script.endpoints.reply import Caller, Reply, not_found, problem
from circuit_script.endpoints.routes import Found, Routes
from circuit_script.endpoints.run import SHORTEST, Children, LogLine, Run, Serving, hand_on, settlement_of
from circuit_script.errors import DatabaseUnavailable, Fenced, VersionConflict
from circuit_script.events.recorder import Recorder as LiveRecorder
from circuit_script.execution.broker.broker import BrokerParts
from circuit_script.execution.outcome import HandlerSpec, Work
from circuit_script.failpoints import areach
from circuit_script.governor import Usage
from circuit_script.governor.governor import CircuitGovernor
from circuit_script.telemetry.spans import INTERNAL
from circuit_script.telemetry.trace_writer import TraceWriter
from circuit_script.tenants import DEFAULT
from circuit_script.tenants.entitlement import UNLIMITED, Quotas, Refused, Ticket

log = structlog.get_logger()

COMMIT_PATIENCE = 1.0  # seconds that a commit has at least, whatever is left of the deadline
KEY_MARGIN = 5.0  # seconds after its deadline for which a key is held: verdict and commit come in them
PROBE = 1.0  # seconds in which a database that was away must answer

AWAY = "The database is away: nothing was executed."
UNKNOWN = "The database went away during the commit: the call may or may not have counted."
TAKEN_OVER = "Another request with this Idempotency-Key took over: this one did not count."
OTHER_REQUEST = "This Idempotency-Key was used for another request, or for this one with other credentials."
MOVED = "A release went live that asks for an API key here: nothing was executed."
HELD = "Another release is live, and this worker prepares it: nothing was executed."
BUSY = "Too many calls wait for a place: nothing was executed."


@dataclass(frozen=True, slots=True)
class AnswererParts:
    """What an answerer works with. ``places`` is how many endpoints run at once."""

    database: Pool
    settler: Settler
    broker: BrokerParts
    sent: Callable[[], None]
    places: int = 8
    governor: CircuitGovernor = field(default_factory=CircuitGovernor)
    quotas: Quotas = UNLIMITED
    traces: TraceWriter | None = None
    recordings: LiveRecorder | None = None


class Answerer:
    """Runs calls of endpoints in the children of the live release."""

    def __init__(self, parts: AnswererParts) -> None:
        self._parts = parts
        self._keys = Keys(parts.database)
        self._line = Line(parts.places)
        self._serving: Serving | None = None
        self._away = False
        self._holding = False

    def hold(self, holding: bool) -> None:
        """Start nothing new, or go on: another release is live, and this worker has yet to prepare it."""
        self._holding = holding

    def switch(
        self, release: int, handlers: Mapping[int, HandlerSpec], children: Children, log_line: LogLine
    ) -> Collection[asyncio.Task[Any]]:
        """Run what comes from now on in this release; the calls that still run in the one before."""
        before = self._serving
        offers = [Offer(spec.name, spec.endpoint) for spec in handlers.values() if spec.endpoint is not None]
        self._serving = Serving(
            release,
            {spec.name: id_ for id_, spec in handlers.items()},
            {offer.name: offer for offer in offers},
            {spec.name: spec for spec in handlers.values()},
            Routes(offers),
            children,
            log_line,
        )
        return list(before.running) if before is not None else []

    async def answer(self, call: Call, caller: Caller) -> None:
        """Answer one call. Never raises for what its handler does."""
        began = time.monotonic()
        if call.request.method in WITHOUT_EFFECT:
            call = msgspec.structs.replace(call, key=None)
        try:
            answer = await self._admit(call, caller, began)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("endpoint.bug", endpoint=call.endpoint)
            answer = problem(500, "Something is wrong here; the log knows what.", "platform")
        if answer is not None:
            caller.send(answer)

    async def _admit(self, call: Call, caller: Caller, began: float) -> Answer | None:
        """Check the call, wait for a place, run it. None when it was answered already."""
        serving, found = self._serving, self.find(call)
        if serving is None or found is None or found.offer is None:
            return not_found(call, found)
        offer, name = found.offer, found.offer.name
        if call.key is not None and not is_key(call.key):
            return problem(400, "An Idempotency-Key has 1 to 255 printable ASCII characters.", "idempotency-key")
        seconds = min(call.seconds or offer.spec.deadline, offer.spec.deadline)
        size = serving.specs[name].concurrency
        shared = Shared(name, size) if size > 1 else None
        try:
            await self._line.enter(call.tenant, seconds, shared)
        except LineFull:
            return problem(503, BUSY, "overloaded", retry_after=1)
        except TimeoutError:
            return problem(503, BUSY, "overloaded", retry_after=max(1, round(seconds)))
        try:
            if caller.gone:  # it left while it waited
                return None
            if self._holding:
                return problem(503, HELD, "no-worker", retry_after=1)
            serving = self._serving or serving  # another release may be live by now
            found = self.find(msgspec.structs.replace(call, endpoint=name))
            if found is None or found.offer is None:
                return not_found(call, found)
            if found.offer.spec.auth == "key" and call.auth == "none" and call.tenant == DEFAULT:
                return problem(503, MOVED, "no-worker", retry_after=1)
            spec = self._parts.governor.bound(serving.specs[name], call.tenant)
            run = Run(call, caller, serving, spec, began + seconds, began)
            return await self._tracked(run)
        finally:
            self._line.leave(call.tenant, shared)

    def find(self, call: Call) -> Found | None:
        """What the live release has for a call: by the endpoint's name, or by method and path. None: nothing."""
        serving = self._serving
        if serving is None:
            return None
        if not call.endpoint:
            return serving.routes.find(call.request.method, unquote(call.request.path))
        offer = serving.offers.get(call.endpoint)
        if offer is None:
            return None
        known = call.request.method in offer.spec.methods
        return Found(offer if known else None, offer.spec.methods, call.request.method)

    async def _tracked(self, run: Run) -> Answer | None:
        task = asyncio.current_task()
        assert task is not None
        run.serving.running.add(task)
        try:
            return await self._run(run)
        except Exception:
            await self._release(run)
            raise
        finally:
            run.serving.running.discard(task)

    async def _run(self, run: Run) -> Answer | None:
        try:
            refused = await self._claim(run)
        except (psycopg.Error, OSError) as error:
            self._away = True
            log.warning("endpoint.database", error=str(error), next="the call was refused")
            return problem(503, AWAY, "database-unavailable", retry_after=2)
        if refused is not None:
            return refused
        ticket = self._parts.quotas.admit(run.call.tenant) or await self._enter(run)
        if isinstance(ticket, Answer):
            return ticket
        reply = Reply(run.caller, str(run.execution), may_stream=run.call.key is None)
        self._record(run)
        if (live := self._parts.recordings) is not None and live.sampling:
            run.tape = live.begin(run.serving.release)
        done = await attempt(run, self._parts.broker, reply)
        work, broker = done.work, done.broker
        bounded = work.limits.wall_time if work.limits.wall_time < run.spec.limits.wall_time else None
        conclusion = conclude(
            done.outcome,
            reply,
            str(run.execution),
            deadline=bounded,
            away=broker.away,
            deferred=broker.deferred,
        )
        if conclusion.lost:
            self._parts.quotas.give_back(ticket)
            await self._release(run)
        else:
            committed = await self._traced(run, work, done.unit, conclusion, broker.usage)
            if committed is conclusion and done.outcome is not None and not (reply.hung_up or reply.unrepeatable):
                self._keep(run, done.unit, conclusion, broker.usage)
            conclusion = committed
        return _told(reply, conclusion, run.execution)

    def _keep(self, run: Run, unit: UnitOfWork, conclusion: Conclusion, usage: Usage) -> None:
        """Hand on what was recorded of a call that ended by its handler, and not by its caller or the database."""
        if (tape := run.tape) is None or self._parts.recordings is None:
            return
        if conclusion.effects:
            tape.took(unit.writes, unit.sends)
        self._parts.recordings.keep(tape, tape.ended(conclusion.status, conclusion.reason, usage.as_dict()))

    async def _claim(self, run: Run) -> Answer | None:
        """Take its Idempotency-Key, if it has one, and be sure that the database is there. Raises psycopg.Error."""
        key = run.call.key
        async with asyncio.timeout(max(SHORTEST, run.left)):
            if key is None:
                if self._away:
                    await self._probe()
                return None
            held = max(SHORTEST, run.left) + KEY_MARGIN
            found = await self._keys.claim(run.call.tenant, run.spec.name, key, run.call.request, run.execution, held)
        match found:
            case Taken():
                run.key = key
                return None
            case Stored(answer):
                return answer
            case Running(seconds):
                detail = "A request with this Idempotency-Key still runs."
                return problem(409, detail, "idempotency-running", retry_after=min(5, round(seconds)))
            case Mismatch():
                return problem(422, OTHER_REQUEST, "idempotency-mismatch")

    async def _enter(self, run: Run) -> Ticket | Answer:
        """Count it as an execution; or the answer where the tenant's quota is used up."""
        try:
            found = await self._parts.quotas.enter(run.call.tenant)
        except DatabaseUnavailable:
            self._away = True
            answer = problem(503, AWAY, "database-unavailable", retry_after=2)
        else:
            if not isinstance(found, Refused):
                return found
            words = f"{found} {found.cure} Nothing was executed.".replace("  ", " ")
            answer = problem(429, words, "quota", retry_after=math.ceil(found.retry_after))
        await self._release(run)
        return answer

    async def _probe(self) -> None:
        async with asyncio.timeout(PROBE), self._parts.database.connection() as connection:
            await connection.execute("SELECT 1")
        self._away = False

    async def _release(self, run: Run) -> None:
        """Nothing came of it, so its key is free again; if that cannot be said, it is when its time is over."""
        if run.key is None:
            return
        with contextlib.suppress(psycopg.Error, OSError, TimeoutError):
            async with asyncio.timeout(COMMIT_PATIENCE):
                await self._keys.release(run.call.tenant, run.spec.name, run.key, run.execution)

    def _record(self, run: Run) -> None:
        """From now on what it asks is recorded, if anybody wants that; until now it has waited for its place."""
        if self._parts.traces is not None:
            run.recorder = self._parts.traces.recorder(run.execution, [run.context] if run.context is not None else ())
            run.recorder.before("admission", time.monotonic() - run.began)

    async def _traced(self, run: Run, work: Work, unit: UnitOfWork, conclusion: Conclusion, usage: Usage) -> Conclusion:
        """Commit, and hand the trace on."""
        traces, recorder = self._parts.traces, run.recorder
        if traces is None or recorder is None:
            return await self._commit(run, work, unit, conclusion, usage)
        commit = recorder.begin("commit", INTERNAL, {})
        conclusion = await self._commit(run, work, unit, conclusion, usage)
        commit.end()
        hand_on(traces, run, recorder, conclusion, usage)
        return conclusion

    async def _commit(self, run: Run, work: Work, unit: UnitOfWork, conclusion: Conclusion, usage: Usage) -> Conclusion:
        """Commit what was concluded; what is then to be told. A lost connection leaves it open whether the commit
        happened; then it is tried again, and finds out."""
        settlement = settlement_of(run, work, unit, conclusion, usage)
        delay, until = 0.05, max(run.ends, time.monotonic() + COMMIT_PATIENCE)
        while True:
            try:
                async with asyncio.timeout_at(_loop_time(until)):
                    await areach("endpoint.before")
                    await self._parts.settler.settle(settlement)
                    await areach("endpoint.committed")
            except Fenced:
                log.warning("endpoint.fenced", execution=str(run.execution))
                return replace(conclusion, answer=_taken_over(run.execution), effects=False)
            except VersionConflict as conflict:
                bare = changed_since(conflict, str(run.execution))
                return await self._commit(run, work, UnitOfWork("", ()), bare, usage)
            except (psycopg.Error, OSError) as error:  # TimeoutError is an OSError
                if isinstance(error, psycopg.Error) and not is_transient(error):
                    return await self._poisoned(run, work, conclusion, usage, error)
                self._away = True
                if time.monotonic() + delay >= until:
                    if not conclusion.effects:
                        return conclusion  # there is nothing of which it is not known whether it counts
                    log.error("endpoint.unknown", execution=str(run.execution), error=repr(error))
                    return replace(conclusion, answer=_unknown(run.execution), effects=False)
                await asyncio.sleep(delay)
                delay = min(1.0, delay * 2)
            else:
                break
        if self._parts.settler.leaves(settlement):
            self._parts.sent()
        return conclusion

    async def _poisoned(
        self, run: Run, work: Work, conclusion: Conclusion, usage: Usage, error: psycopg.Error
    ) -> Conclusion:
        why = str(error.diag.message_primary or error)
        log.error("endpoint.refused", execution=str(run.execution), error=why)
        if not conclusion.effects:  # not what the handler wrote: what the caller sent
            await self._release(run)
            return replace(conclusion, answer=problem(400, "The request cannot be stored.", "unstorable"))
        bare = refused_by_database(why, str(run.execution))
        return await self._commit(run, work, UnitOfWork("", ()), bare, usage)


def _told(reply: Reply, conclusion: Conclusion, execution: UUID) -> Answer | None:
    """The answer that is still to be sent, if it was not streamed."""
    if not reply.streamed:
        return conclusion.answer
    if not reply.hung_up:
        if conclusion.effects:
            reply.close("done", msgspec.json.encode({"execution": str(execution)}), complete=True)
        else:
            reply.close("error", _told_late(conclusion), complete=False)
    return None


def _told_late(conclusion: Conclusion) -> bytes:
    """The problem in a stream's last event. A status of 4xx or 5xx that was streamed has its say in the stream."""
    if conclusion.answer.body.startswith(b"{"):
        return conclusion.answer.body
    return problems.render(conclusion.answer.status, conclusion.reason or "", "failed")


def _unknown(execution: UUID) -> Answer:
    return problem(503, UNKNOWN, "outcome-unknown", execution=str(execution), retry_after=5)


def _taken_over(execution: UUID) -> Answer:
    return problem(409, TAKEN_OVER, "idempotency-running", execution=str(execution), retry_after=1)


def _loop_time(moment: float) -> float:
    """A moment of the monotonic clock on that of the loop."""
    return asyncio.get_running_loop().time() + moment - time.monotonic()
