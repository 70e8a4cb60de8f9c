"""What a child says in answer to a request, on its way to whoever called."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Protocol

from circuit_script import problems
from circuit_script.endpoints.protocol import Answer, Chunk, End, Head
from circuit_script.execution.protocol import Head as ChildsHead
from circuit_script.governor import Limits

HOP_BY_HOP = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
})  # fmt: skip
OURS = frozenset({"content-length", "execution-id", "idempotent-replayed", "date", "server"})
EVENTS = "text/event-stream"

_name = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_value = re.compile(r"[\t\x20-\x7e\x80-\xff]*").fullmatch


class Caller(Protocol):
    """Who waits for the answer. `send` never waits; `gone` says that nobody reads any more."""

    @property
    def gone(self) -> bool: ...

    def send(self, message: Answer | Head | Chunk | End) -> None: ...

    def on_gone(self, call: Callable[[], None]) -> None: ...


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
        self.head = Head(head.status, [*clean(head.headers), ("execution-id", self._execution)])
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

    def whole(self) -> Answer:
        """A collected answer. `head` must be there."""
        assert self.head is not None
        return Answer(self.head.status, self.head.headers, bytes(self._body))

    def close(self, event: str, data: bytes, *, complete: bool) -> None:
        """End a streamed answer: server-sent events by a last event, others by being complete or broken off."""
        if self.events and self._tail.replace(b"\r", b"").endswith(b"\n\n"):
            self._caller.send(Chunk(b"event: %b\ndata: %b\n\n" % (event.encode(), data)))
            complete = True
        self._caller.send(End(complete))

    def _on_gone(self) -> None:
        """Nobody reads a streamed answer any more. A plain one is finished."""
        if self.streamed and not self.hung_up:
            self.hung_up = True
            self.stop()


def clean(headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Headers as they may leave: names and values that HTTP knows, nothing that is the connection's own or ours."""
    lower = [(name.lower(), value) for name, value in headers]
    named = {each.strip().lower() for name, value in lower if name == "connection" for each in value.split(",")}
    refused = HOP_BY_HOP | OURS | named
    return [(name, value) for name, value in lower if name not in refused and _name(name) and _value(value)]


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
    "database-unavailable": "overloaded",
    "lost": "no-worker",
    "outcome-unknown": "no-worker",
    "version": "no-worker",
    "worker-gone": "no-worker",
    "no-worker": "no-worker",
    "unknown-endpoint": "endpoint-call",
    "wrong-method": "endpoint-call",
    "unstorable": "endpoint-call",
    **{each.name: "limit-exceeded" for each in fields(Limits) if each.name != "wall_time"},
}
