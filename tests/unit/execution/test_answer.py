"""Nothing that a child says of its answer is believed."""

from __future__ import annotations

import pytest

from circuit_script.execution.host.answer import MAX_ANSWER, MAX_HEADER_BYTES, MAX_HEADERS, Answer
from circuit_script.execution.protocol import Chunk, Head, ProtocolError
from circuit_script.governor import LimitExceeded


class Taken:
    def __init__(self) -> None:
        self.heads: list[Head] = []
        self.size = 0

    def on_head(self, head: Head) -> None:
        self.heads.append(head)

    def on_chunk(self, body: bytes) -> None:
        self.size += len(body)


@pytest.mark.parametrize(
    "head",
    [
        Head(100, []),
        Head(99999, []),
        Head(200, [("x", "a\r\nb: c")]),
        Head(200, [("x", "a\0")]),
        Head(200, [("x y", "a")]),
        Head(200, [("X-Upper", "a")]),
        Head(200, [("", "a")]),
        Head(200, [("x", "a☃")]),
        Head(200, [("x", "a")] * (MAX_HEADERS + 1)),
        Head(200, [("x", "a" * MAX_HEADER_BYTES)]),
    ],
)
def test_a_head_that_is_none_is_refused(head: Head) -> None:
    taken = Taken()
    with pytest.raises(ProtocolError):
        Answer(taken).take(head)
    assert taken.heads == []


def test_headers_of_the_connection_do_not_pass() -> None:
    taken = Taken()
    own = [(name, "x") for name in ("content-length", "transfer-encoding", "connection", "proxy-authenticate", "te")]
    Answer(taken).take(Head(200, [*own, ("x", "é")], True))

    assert taken.heads == [Head(200, [("x", "é")], True)]


def test_parts_in_a_wrong_order_are_refused() -> None:
    with pytest.raises(ProtocolError):
        Answer(Taken()).take(Chunk(b"x"))
    answer = Answer(Taken())
    answer.take(Head(200, []))
    with pytest.raises(ProtocolError):
        answer.take(Head(200, []))


def test_an_answer_ends_at_its_bound() -> None:
    taken = Taken()
    answer = Answer(taken)
    answer.take(Head(200, []))
    answer.take(Chunk(b"x" * MAX_ANSWER))
    with pytest.raises(LimitExceeded) as caught:
        answer.take(Chunk(b"x"))

    assert (caught.value.limit, taken.size) == ("answer_bytes", MAX_ANSWER)
