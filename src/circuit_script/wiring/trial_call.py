"""A call of an endpoint in a trial: a request without HTTP, and its whole answer."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote, unquote, urlencode

from circuit_script.clock import uuid7
from circuit_script.effects.unit import Send, UnitOfWork, Write
from circuit_script.endpoints.conclude import Conclusion, conclude, refused_by_database
from circuit_script.endpoints.protocol import Chunk, Head, Offer
from circuit_script.endpoints.reply import Reply
from circuit_script.endpoints.routes import Routes
from circuit_script.errors import TrialRefused
from circuit_script.execution.outcome import HandlerSpec, HttpRequest, Outcome, Succeeded, Work
from circuit_script.wiring.trial_batch import Attempt, TrialBroker
from circuit_script.wiring.trial_result import HttpAnswer, TrialBatch

MAX_EVENT = 500  # characters of method and path


class Handlers(Protocol):
    """Where endpoints are found."""

    @property
    def handlers(self) -> Sequence[HandlerSpec]: ...

    def find(self, name: str) -> HandlerSpec: ...


class _Collector:
    """A caller who takes everything, and keeps it."""

    gone = False

    def __init__(self) -> None:
        self.head: Head | None = None
        self.body = bytearray()

    def send(self, message: object) -> None:
        match message:
            case Head():
                self.head = message
            case Chunk(body):
                self.body += body

    def on_gone(self, call: Callable[[], None]) -> None:
        """It stays."""


class Collected:
    """The answer of one call, streamed or not, as its caller would have it in the end."""

    def __init__(self, execution: str) -> None:
        self._caller = _Collector()
        self._execution = execution
        self.reply = Reply(self._caller, execution, may_stream=True)
        self.reply.stop = lambda: None
        self.conclusion: Conclusion | None = None

    @property
    def lost(self) -> bool:
        return self.conclusion is not None and self.conclusion.lost

    def answer(self, batch: TrialBatch) -> HttpAnswer:
        """What the caller gets, now that it is known what became of the execution."""
        assert self.conclusion is not None
        whole = self.conclusion.answer
        if self.conclusion.effects and batch.status == "failed":
            whole = refused_by_database(batch.reason, self._execution).answer
        elif self.reply.streamed and self._caller.head is not None:
            kept = self.conclusion.effects
            word = json.dumps({"execution": self._execution}).encode() if kept else whole.body
            self.reply.close("done" if kept else "error", word, complete=kept)
            head = self._caller.head
            return HttpAnswer(head.status, dict(head.headers), bytes(self._caller.body), streamed=True)
        return HttpAnswer(whole.status, dict(whole.headers), bytes(whole.body))


def collected(broker: TrialBroker, execution: str) -> Collected:
    """Have the broker's answer collected."""
    found = Collected(execution)
    broker.answered = found.reply
    return found


@dataclass(frozen=True, slots=True)
class Calling:
    """One request, and the endpoint that it is for."""

    spec: HandlerSpec
    request: HttpRequest

    @classmethod
    def of(
        cls,
        handlers: Handlers,
        endpoint: str,
        method: str | None,
        body: bytes,
        query: Mapping[str, str],
        headers: Mapping[str, str],
    ) -> Calling:
        """Find the endpoint by path or name. Raises TrialRefused when there is none, or none for this method."""
        path, _, asked = endpoint.strip().partition("?")
        found, path, methods = _found(handlers, path, method)
        chosen = method or next(
            (each for each in methods if (each in ("POST", "PUT", "PATCH")) == bool(body)), methods[0]
        )
        if chosen.upper() not in methods:
            raise TrialRefused(f"{found.name} does not take {chosen.upper()}.", cure=f"It takes {', '.join(methods)}.")
        text = "&".join(each for each in (asked, urlencode(query)) if each)
        sent = {"host": "localhost", **{name.lower(): value for name, value in headers.items()}}
        if body:
            sent.setdefault("content-type", "application/json")
            sent["content-length"] = str(len(body))
        return cls(found, HttpRequest(chosen.upper(), path, text, tuple(sent.items()), body))

    def attempt(self, tenant: str) -> Attempt:
        """The execution that answers it."""
        assert self.spec.endpoint is not None
        limits = self.spec.limits
        work = Work(
            execution=uuid7(),
            handler=self.spec.name,
            tenant=tenant,
            object="",
            event=f"{self.request.method} {self.request.path}"[:MAX_EVENT],
            records=(),
            old=(),
            events=(),
            limits=limits.lowered(wall_time=min(limits.wall_time, self.spec.endpoint.deadline)),
            started_at=time.time(),
            share_child=self.spec.share_child,
            egress=self.spec.egress,
            budget=self.spec.budget,
            at_ceiling=self.spec.at_ceiling,
            allow_irreversible=self.spec.allow_irreversible,
            request=self.request,
        )
        return Attempt(self.spec, work, (), UnitOfWork("", ()))

    def concluded(
        self, trying: Attempt, outcome: Outcome, reply: Collected, broker: TrialBroker
    ) -> tuple[TrialBatch, Sequence[Write], Sequence[Send]]:
        """How it ended, and what may leave."""
        assert self.spec.endpoint is not None
        deadline = self.spec.endpoint.deadline
        bounds = deadline if deadline < self.spec.limits.wall_time else None
        execution = str(trying.work.execution)
        end = conclude(
            outcome,
            reply.reply,
            execution,
            deadline=bounds,
            away=broker.away,
            deferred=broker.deferred,
        )
        reply.conclusion = end
        writes = trying.unit.writes if end.effects else []
        sends = trying.unit.sends if end.effects else []
        batch = TrialBatch(
            execution=trying.work.execution,
            records=(),
            status=end.status,
            duration=time.monotonic() - trying.started,
            usage=outcome.usage.as_dict(),
            ceilings=trying.work.limits.of_batch(0),
            reason=end.reason or "",
            detail=end.detail or "",
            writes=tuple(map(trying.written, writes)),
            sends=tuple(map(trying.sent, sends)),
            discarded=trying.discarded(writes, sends),
            log=tuple(trying.lines),
            crashed=not isinstance(outcome, Succeeded),
        )
        return batch, writes, sends


def _found(handlers: Handlers, path: str, method: str | None) -> tuple[HandlerSpec, str, tuple[str, ...]]:
    """The endpoint, the whole path, and the methods that may be meant."""
    specs = {spec.name: spec for spec in handlers.handlers}
    routes = Routes([Offer(spec.name, spec.endpoint) for spec in specs.values() if spec.endpoint is not None])
    bare = quote(path.strip("/"), safe="/%~:@!$&'()*+,;=-._")
    matching = [
        (specs[offer.name], whole, way.methods)
        for whole in (f"/api/{bare}", f"/{bare}")
        for way, offer in routes.matching(unquote(whole))
    ]
    for each in matching:
        if method is None or method.upper() in each[2]:
            return each
    if matching:
        return matching[0]
    spec = handlers.find(path)
    if spec.endpoint is None:
        cure = "Give it some: --generate 3, or --records FILE; in a test circuit.insert or circuit.invoke."
        raise TrialRefused(f"{spec.name} is a trigger: it runs on records.", cure=cure)
    shown = spec.endpoint.shown
    if len(shown) > 1 or re.search(r"[{<…]", shown[0]):
        raise TrialRefused(f"{spec.name} is reached by {', '.join(shown)}.", cure="Give its path, like leads/7.")
    return spec, quote(shown[0], safe="/%~:@!$&'()*+,;=-._"), spec.endpoint.methods
