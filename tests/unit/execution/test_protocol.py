from __future__ import annotations

import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_script.execution import protocol
from circuit_script.execution.protocol import (
    Frames,
    Hello,
    LogLine,
    ProtocolError,
    Reply,
    Request,
    Result,
    Run,
    pack,
    packed,
)

MESSAGES = [
    Hello(1),
    Request(7, "dml", {"rows": [{"id": "1"}], "body": b"\x00"}),
    LogLine(packed({"message": "x" * 5000})),
    Result("returned", {3: "no"}, suspect=2, unclean=True),
]


@given(st.lists(st.integers(1, 700), max_size=40))
def test_messages_arrive_however_the_stream_is_cut(cuts: list[int]) -> None:
    stream = bytes(b"".join(map(pack, MESSAGES)))
    frames, found, start = Frames(), [], 0
    for cut in [*cuts, len(stream)]:
        found += [protocol.to_parent.decode(body) for body in frames.feed(stream[start : start + cut])]
        start += cut
    assert found == MESSAGES


@given(st.binary(max_size=2000))
def test_garbage_is_an_error_of_a_known_kind_or_a_message(garbage: bytes) -> None:
    frames = Frames()
    try:
        for body in frames.feed(garbage):
            protocol.to_parent.decode(body)
    except (ProtocolError, msgspec.MsgspecError, UnicodeError, RecursionError):
        return


def test_a_frame_over_the_bound_is_refused_before_it_is_read() -> None:
    with pytest.raises(ProtocolError, match="claims"):
        list(Frames().feed(struct.pack("<I", protocol.MAX_FRAME + 1)))
    with pytest.raises(ProtocolError, match="over the"):
        pack(LogLine(packed({"message": "x" * protocol.MAX_FRAME})))


def test_a_run_keeps_old_records_and_events_packed() -> None:
    run = Run("e", "h", "t", "o", "afterInsert", [{"id": "1"}], packed([None]), packed([{"a": 1}]), {"callouts": 1}, 0)
    (body,) = Frames().feed(bytes(pack(run)))
    arrived: Any = protocol.to_child.decode(body)
    assert arrived.records == [{"id": "1"}]
    assert msgspec.msgpack.decode(arrived.events) == [{"a": 1}]


def test_a_reply_carries_value_refusal_or_limit() -> None:
    for reply in (Reply(1, [1]), Reply(2, refused="no"), Reply(3, limit=("callouts", 2, 1), used={"callouts": 2})):
        (body,) = Frames().feed(bytes(pack(reply)))
        assert protocol.to_child.decode(body) == reply
