"""What a child says in answer to a request, on its way to whoever called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Protocol

from circuit_script import problems
from circuit_script.endpoints.protocol import Answer, Call, Chunk, End, Head
from circuit_script.endpoints.routes import Found
from circuit_script.execution.protocol import Head as ChildsHead
from circuit_script.governor import LOOPS, Limits

OURS = frozenset({"execution-id", "idempotent-replayed", "date", "server"})  # no app says them
EVENTS = "text/event-stream"


class Caller(Protocol):
    """Who waits for the answer. `send` never waits; `gone` says that nobody reads any more."""

    @property
    def gone(self) -> bool: ...

    def send(self, message: Answer | Head | Chunk | End) -> None: ...

    def on_gone(self, call: Callable[[], None]) -> None: ...


class Answering(Protocol):
    """What answers a call."""

    async def answer(self, call: Call, caller: Caller) -> None: ...


class Reply:
    """Collects an answer, or hands it on at once when it is streamed. ``stop`` ends the execution."""

    stop: Callable[[], object]

    def __init__(self, caller: Caller, execution: str, *, may_stream: bool) -> None:
        self._caller = caller
        self._execution = execution
        self._may_stream = may_stream
        self.head: Head | None = None
        self.streamed = False
        self.refused = ""  # why its answer cannot be sent
        self.unrepeatable = False  # it streams, although it was asked with an Idempotency-Key
        self.hung_up = False
        self._tail = b"\n\n"
        self._body = bytearray()
        caller.on_gone(self._on_gone)

    @property
    def events(self) -> bool:
        """Whether it is a stream of server-sent events."""
        headers = self.head.headers if self.head is not None else ()
        return any(name == "content-type" and value.startswith(EVENTS) for name, value in headers)

    def on_head(self, head: ChildsHead) -> None:
        if self.head is not None:
            return
        if not 200 <= head.status <= 599:
            self.refused = f"it answered with the status {head.status}"
        kept = [(name, value) for name, value in head.headers if name not in OURS]
        self.head = Head(head.status, [*kept, ("execution-id", self._execution)])
        if not head.streamed or self.refused:
            return
        self.unrepeatable = not self._may_stream
        self.streamed = self._may_stream
        if self.unrepeatable:
            self.stop()
        elif self._caller.gone:
            self._on_gone()
        else:
            self._caller.send(self.head)

    def on_chunk(self, body: bytes) -> None:
        if not self.streamed:
            self._body += body
        elif not self.hung_up and body:
            self._tail = (self._tail + body[-4:])[-4:]
            self._caller.send(Chunk(body))

    def begin_again(self) -> None:
        """Forget a collected answer: its execution runs once more."""
        self.head, self.refused, self._body = None, "", bytearray()

    def whole(self) -> Answer:
        """A collected answer, once; it is not kept here. `head` must be there."""
        assert self.head is not None
        body, self._body = bytes(self._body), bytearray()
        return Answer(self.head.status, self.head.headers, body)

    def close(self, event: str, data: bytes, *, complete: bool) -> None:
        """End a streamed answer: server-sent events by a last event, others by being complete or broken off."""
        if self.events and is_between_events(self._tail):
            self._caller.send(Chunk(b"event: %b\ndata: %b\n\n" % (event.encode(), data)))
            complete = True
        self._caller.send(End(complete))

    def _on_gone(self) -> None:
        """Nobody reads a streamed answer any more. A plain one is finished."""
        if self.streamed and not self.hung_up:
            self.hung_up = True
            self.stop()


def is_between_events(tail: bytes) -> bool:
    """Whether a stream of events may be added to, by its last four bytes. A line ends with CR, LF or both."""
    return tail.replace(b"\r\n", b"\n").replace(b"\r", b"\n").endswith(b"\n\n")


def problem(
    status: int, detail: str, reason: str, *, execution: str | None = None, retry_after: int | None = None
) -> Answer:
    """A problem as a whole answer."""
    headers = problems.headers_of(status)
    if retry_after is not None:
        headers["retry-after"] = str(max(1, retry_after))
    if execution is not None:
        headers["execution-id"] = execution
    body = problems.render(status, detail, reason, page=PAGES.get(reason, "endpoint-failed"), execution=execution)
    return Answer(status, list(headers.items()), body)


def not_found(call: Call, found: Found | None) -> Answer:
    """The answer where the release has no endpoint for a call."""
    if found is None:
        return problem(404, "There is no such endpoint.", "unknown-endpoint")
    if call.request.method == "OPTIONS":
        return Answer(204, [("allow", found.allow)], b"")
    refused = problem(405, found.wrong_method, "wrong-method")
    return Answer(405, [*refused.headers, ("allow", found.allow)], refused.body)


# Reasons with a page of their own.
PAGES: dict[str, str] = {
    "deadline": "deadline",
    "wall_time": "deadline",
    "no-key": "api-key",
    "wrong-key": "api-key",
    "several-keys": "api-key",
    "idempotency-key": "idempotency-conflict",
    "idempotency-mismatch": "idempotency-conflict",
    "idempotency-running": "idempotency-conflict",
    "idempotency-streamed": "idempotency-conflict",
    "overloaded": "overloaded",
    "budget": "budget-exceeded",
    "quota": "quota-exceeded",
    "database-unavailable": "overloaded",
    "vendor-unavailable": "vendor-unavailable",
    "lost": "no-worker",
    "outcome-unknown": "no-worker",
    "version": "no-worker",
    "worker-gone": "no-worker",
    "no-worker": "no-worker",
    "unknown-endpoint": "endpoint-call",
    "wrong-method": "endpoint-call",
    "unstorable": "endpoint-call",
    **dict.fromkeys(LOOPS, "loop-found"),
    "blocked_loop": "limit-exceeded",
    **{each.name: "limit-exceeded" for each in fields(Limits) if each.name != "wall_time"},
}
