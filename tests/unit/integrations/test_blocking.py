"""The plain client of the worker's socket: what it keeps, what it repeats, and what it never repeats."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from circuit_script.endpoints import blocking
from circuit_script.endpoints.address import find_folder, socket_path
from circuit_script.endpoints.blocking import Answer, HttpRequest, ProtocolError, Stream, WorkerClient
from circuit_script.endpoints.protocol import MAX_FRAME, Call, Chunk, End, Head
from circuit_script.errors import WorkerUnavailable
from tests.servers import until
from tests.unit.integrations.scripted_door import listening


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cs-", dir="/tmp") as made:  # short: a socket's path has 108 bytes
        yield Path(made)


def call(body: bytes = b"") -> Call:
    return Call("", "", HttpRequest("POST", "/score", "", (), body))


def test_an_answer_comes_back_whole(folder: Path) -> None:
    body = os.urandom(3_000_000)
    with listening(folder):
        answer = WorkerClient(folder).call(call(body), 5)
    assert isinstance(answer, Answer)
    assert (answer.status, answer.body) == (200, body)


def test_a_connection_is_kept_for_the_next_call(folder: Path) -> None:
    with listening(folder) as door:
        client = WorkerClient(folder)
        for _ in range(5):
            client.call(call(), 5)
        assert door.connections == 1


def test_threads_share_a_client_and_each_gets_its_own_answer(folder: Path) -> None:
    with listening(folder) as door:
        client = WorkerClient(folder)

        def ask(number: int) -> bytes:
            answer = client.call(call(str(number).encode()), 5)
            assert isinstance(answer, Answer)
            return answer.body

        with ThreadPoolExecutor(10) as threads:
            assert list(threads.map(ask, range(200))) == [str(number).encode() for number in range(200)]
        assert door.connections <= 10


def test_a_forked_process_opens_a_connection_of_its_own(folder: Path) -> None:
    with listening(folder) as door:
        client = WorkerClient(folder)
        client.call(call(b"parent"), 5)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                answer = client.call(call(b"child"), 5)
                code = 0 if isinstance(answer, Answer) and answer.body == b"child" else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        answer = client.call(call(b"parent again"), 5)
        assert isinstance(answer, Answer)
        assert answer.body == b"parent again"
        assert door.connections == 2


def test_after_the_worker_was_started_again_the_next_call_succeeds(folder: Path) -> None:
    client = WorkerClient(folder)
    with listening(folder):
        client.call(call(), 5)
    with listening(folder) as door:
        client.call(call(), 5)
        assert len(door.calls) == 1


def test_a_connection_that_the_worker_has_closed_with_a_word_is_not_used_again(folder: Path) -> None:
    farewell = Answer(503, [], b"no room")
    with listening(folder, lambda asked: [Answer(200, [], asked.request.body), farewell, None]) as door:
        client = WorkerClient(folder)
        for body in (b"one", b"two"):
            answer = client.call(call(body), 5)
            assert isinstance(answer, Answer)
            assert answer.body == body
            until(lambda: not client._idle[-1].alive(), "the farewell is there")
        assert door.connections == 2


def test_connections_that_are_not_used_for_a_while_are_closed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking, "IDLE", -1.0)  # every one is unused for longer
    with listening(folder) as door:
        client = WorkerClient(folder)
        for _ in range(3):
            client.call(call(), 5)
        assert door.connections == 3
        assert door.hung_up.wait(5)


def test_a_request_that_was_taken_and_not_answered_is_not_sent_again(folder: Path) -> None:
    with listening(folder, lambda _: [None]) as door:
        client = WorkerClient(folder)
        with pytest.raises(WorkerUnavailable, match="may or may not have run"):
            client.call(call(), 5)
        assert len(door.calls) == 1


def test_a_worker_that_says_nothing_is_waited_for_no_longer_than_asked(folder: Path) -> None:
    with listening(folder, lambda _: []):
        with pytest.raises(WorkerUnavailable, match=r"no answer within 0\.05 s"):
            WorkerClient(folder).call(call(), 0.05)


def test_without_a_worker_the_error_says_how_to_start_one(folder: Path) -> None:
    with pytest.raises(WorkerUnavailable, match="serve --role worker"):
        WorkerClient(folder).call(call(), 5)


def test_a_request_over_the_bound_is_refused_before_it_is_sent(folder: Path) -> None:
    with listening(folder) as door:
        with pytest.raises(ProtocolError, match="over the"):
            WorkerClient(folder).call(call(bytes(MAX_FRAME)), 5)
        assert door.connections == 0


def test_a_streamed_answer_comes_piece_by_piece_and_its_connection_is_kept(folder: Path) -> None:
    words = [Head(200, [("content-type", "text/event-stream")]), Chunk(b"one"), Chunk(b"two"), End()]
    with listening(folder, lambda _: list(words)) as door:
        client = WorkerClient(folder)
        for _ in range(2):
            stream = client.call(call(), 5)
            assert isinstance(stream, Stream)
            assert list(stream) == [b"one", b"two"]
        assert door.connections == 1


def test_closing_a_stream_before_its_end_hangs_up(folder: Path) -> None:
    with listening(folder, lambda _: [Head(200, []), Chunk(b"one")]) as door:
        with WorkerClient(folder).call(call(), 5) as stream:  # type: ignore[union-attr]  # it is a Stream
            assert next(iter(stream)) == b"one"
        assert door.hung_up.wait(10)


@pytest.mark.parametrize("end", [None, End(complete=False)])
def test_a_stream_that_breaks_off_does_not_look_complete(folder: Path, end: End | None) -> None:
    with listening(folder, lambda _: [Head(200, []), Chunk(b"one"), end]):
        stream = WorkerClient(folder).call(call(), 5)
        assert isinstance(stream, Stream)
        with pytest.raises(WorkerUnavailable, match="ended before its end"):
            list(stream)


def test_a_stream_that_is_still_read_does_not_block_another_call(folder: Path) -> None:

    def says(asked: Call) -> list[Head | Chunk | End | Answer | None]:
        return [Head(200, []), Chunk(b"one")] if asked.request.body == b"stream" else [Answer(204, [], b"")]

    with listening(folder, says):  # type: ignore[arg-type]  # a list of fewer kinds
        client = WorkerClient(folder)
        stream = client.call(call(b"stream"), 5)
        answer = client.call(call(), 5)
        assert isinstance(answer, Answer)
        assert answer.status == 204
        stream.close()  # type: ignore[union-attr]  # it is a Stream


def test_a_socket_path_that_is_too_long_for_the_system_moves_to_tmp(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)
    assert str(socket_path(deep)).startswith("/tmp/circuit-")
    assert socket_path(deep) == socket_path(deep / "." / "")
    assert socket_path(deep) != socket_path(tmp_path / ("y" * 120))


def test_the_folder_is_the_nearest_one_upwards_with_a_circuit_toml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CIRCUIT_FOLDER", raising=False)
    inner = tmp_path / "shop" / "web"
    inner.mkdir(parents=True)
    assert find_folder(inner) is None
    (tmp_path / "shop" / "circuit.toml").touch()
    assert find_folder(inner) == tmp_path / "shop"
    monkeypatch.setenv("CIRCUIT_FOLDER", str(tmp_path))
    assert find_folder(inner) == tmp_path
