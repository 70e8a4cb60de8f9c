"""What of a child's answer may leave."""

from __future__ import annotations

import pytest

from circuit_script.endpoints.protocol import Answer, Chunk, End, Head
from circuit_script.endpoints.reply import Reply
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


@pytest.mark.parametrize("name", ["execution-id", "idempotent-replayed", "date", "server"])
def test_a_header_that_would_forge_ours_does_not_leave(name: str) -> None:
    made = reply(Caller())
    made.on_head(ChildsHead(200, [(name, "forged"), ("x-good", "1")]))
    assert made.whole().headers == [("x-good", "1"), ("execution-id", "e1")]


def test_a_plain_answer_is_kept_until_it_is_whole() -> None:
    caller = Caller()
    made = reply(caller)
    made.on_head(ChildsHead(201, [("x-a", "1")]))
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


@pytest.mark.parametrize("sent", [["data: 1\r\r"], ["data: 1\r\n\r\n"], ["data: 1\r", "\n\r"], ["data: 1\n\r\n"]])
def test_an_event_may_end_with_any_blank_line(sent: list[str]) -> None:
    caller = Caller()
    made = reply(caller)
    made.on_head(ChildsHead(200, EVENTS, True))
    for each in sent:
        made.on_chunk(each.encode())
    made.close("done", b"{}", complete=False)
    assert caller.said[-2:] == [Chunk(b"event: done\ndata: {}\n\n"), End(True)]


@pytest.mark.parametrize("sent", ["data: 1", "data: 1\r", "data: 1\n", "data: 1\r\n"])
def test_one_end_of_a_line_ends_no_event(sent: str) -> None:
    caller = Caller()
    made = reply(caller)
    made.on_head(ChildsHead(200, EVENTS, True))
    made.on_chunk(sent.encode())
    made.close("done", b"{}", complete=False)
    assert caller.said[-1] == End(False)


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
