"""The answer of an endpoint, as the parent takes it from a child. Nothing of it is believed."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from circuit_script.execution.headers import HOP_BY_HOP, is_name, is_value
from circuit_script.execution.protocol import Chunk, Head, ProtocolError
from circuit_script.governor import MB, LimitExceeded

MAX_ANSWER = 16 * MB
MAX_HEADERS, MAX_HEADER_BYTES = 100, 32 * 1024

_DROPPED = HOP_BY_HOP | {"content-length"}  # who passes the answer on knows its length better


@runtime_checkable
class Answered(Protocol):
    """What a broker has besides when its work is a request. Neither may wait."""

    def on_head(self, head: Head) -> None: ...

    def on_chunk(self, body: bytes) -> None: ...


class Answer:
    """Checks the parts of one answer and hands them on."""

    def __init__(self, answered: Answered) -> None:
        self._answered = answered
        self._size = 0
        self.status = 0

    def take(self, part: Head | Chunk) -> None:
        """Hand one part on. Raises ProtocolError when it cannot be one, LimitExceeded when the answer is too long."""
        match part:
            case Head() if not self.status:
                head = _checked(part)
                self.status = head.status
                self._answered.on_head(head)
            case Chunk(body) if self.status:
                self._size += len(body)
                if self._size > MAX_ANSWER:
                    raise LimitExceeded("answer_bytes", self._size, MAX_ANSWER)
                if body:
                    self._answered.on_chunk(body)
            case _:
                raise ProtocolError("the parts of an answer came in a wrong order")


def _checked(head: Head) -> Head:
    if not 200 <= head.status <= 599 or len(head.headers) > MAX_HEADERS:
        raise ProtocolError("the head of an answer is none")
    headers = [(name, value) for name, value in head.headers if name not in _DROPPED]
    if sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES:
        raise ProtocolError(f"the headers of an answer are longer than {MAX_HEADER_BYTES:,} bytes")
    if not all(is_name(name) and is_value(value) for name, value in headers):
        raise ProtocolError("a header of an answer is none")
    return Head(head.status, headers, head.streamed)
