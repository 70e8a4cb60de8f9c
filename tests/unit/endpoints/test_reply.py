"""What of a child's answer may leave."""

from __future__ import annotations

import pytest

from circuit_script.endpoints.protocol import Answer, Chunk, End, Head
from circuit_script.endpoints.reply import Reply, clean
from circuit_script.execution.protocol import Head as ChildsHead

EVENTS = [("content-type", "text/event-stream; charset=utf-8")]


class Caller:
    def __init__(self) -> None:
        self.gone = False
        self.said: list[Answer | Head | Chunk | End] = []
        self.calls: list[object] = []

    def send(self, message: Answer | Head | Chunk | End) -> None:
        self.said.append(message)

    def on_gone(self, call: object) -> None:
        self.calls.append(call)


def reply(caller: Caller, *, may_stream: bool = True) -> Reply:
    made = Reply(caller, "e1", may_stream=may_stream)
    made.stopped = 0  # type: ignore[attr-defined]  # the test counts

    def stop() -> None:
        made.stopped += 1  # type: ignore[attr-defined]

    made.stop = stop
    return made


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-split", "a\r\nset-cookie: b"),
        ("x-split\r\nset-cookie", "b"),
        ("x nul", "a"),
        ("x-nul", "a\0b"),
        ("Transfer-Encoding", "chunked"),
        ("content-length", "3"),
        ("connection", "x-mine"),
        ("x-mine", "hidden by connection"),
        ("execution-id", "forged"),
        ("idempotent-replayed", "true"),
        ("", "a"),
    ],
)
def test_a_header_that_would_smuggle_or_forge_does_not_leave(name: str, value: str) -> None:
    assert clean([("Connection", "X-Mine"), (name, value), ("X-Good", "1")]) == [("x-good", "1")]


def test_a_plain_answer_is_kept_until_it_is_whole() -> None:
    caller = Caller()
    made = reply(caller)
    made.on_head(ChildsHead(201, [("X-A", "1")]))
    made.on_chunk(b"one")
    made.on_chunk(b"two")
    assert caller.said == []
    assert made.whole() == Answer(201, [("x-a", "1"), ("execution-id", "e1")], b"onetwo")


def test_a_streamed_answer_leaves_at_once_and_ends_with_an_event() -> None:
    caller = Caller()
    made = reply(caller)
    made.on_head(ChildsHead(200, EVENTS, True))
    made.on_chunk(b"data: 1\n\n")
    made.close("done", b"{}", complete=False)
    assert [type(each) for each in caller.said] == [Head, Chunk, Chunk, End]
    assert caller.said[2] == Chunk(b"event: done\ndata: {}\n\n")
    assert caller.said[3] == End(True)


def test_a_stream_that_broke_inside_an_event_stays_incomplete() -> None:
    caller = Caller()
    made = reply(caller)
    made.on_head(ChildsHead(200, EVENTS, True))
    made.on_chunk(b"data: {")
    made.close("error", b"{}", complete=False)
    assert caller.said[2:] == [End(False)]


def test_a_caller_that_hangs_up_stops_a_stream_and_no_plain_answer() -> None:
    plain, streamed = Caller(), Caller()
    first, second = reply(plain), reply(streamed)
    first.on_head(ChildsHead(200, []))
    second.on_head(ChildsHead(200, EVENTS, True))
    for caller in (plain, streamed):
        for call in caller.calls:
            call()  # type: ignore[operator]
    assert (first.stopped, second.stopped) == (0, 1)  # type: ignore[attr-defined]
    assert (first.hung_up, second.hung_up) == (False, True)


@pytest.mark.parametrize("status", [0, 100, 101, 199, 600, 999])
def test_a_status_that_is_no_answer_is_refused(status: int) -> None:
    made = reply(Caller())
    made.on_head(ChildsHead(status, [], True))
    assert made.refused
    assert not made.streamed
